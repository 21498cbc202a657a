"""
How a long step tells that it lives: a bar on a terminal, else one plain line every 30 seconds.

Silence is a fault, and so is a log full of carriage returns. Everything goes to stderr; stdout
belongs to results.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TextIO

EVERY_SECONDS = 30.0


def plain(text: str) -> str:
    """*text* as one line without control and direction characters: names from a corpus must not drive a terminal."""
    return text if text.isprintable() else "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


class Meter(Protocol):
    """Counts one step's work."""

    def advance(self, rows: int, items: int = 1) -> None: ...


class Tell(Protocol):
    """Where steps report to a person."""

    def line(self, text: str) -> None:
        """One sentence a person should see now."""
        ...

    def step(self, name: str, items: int, rows: int, done: int = 0) -> Any:
        """A context manager giving a ``Meter`` for *items* pieces with *rows* documents; *done* were there before."""
        ...


class Quiet:
    """Says nothing. For tests, and for ``--quiet``."""

    def line(self, text: str) -> None:
        pass

    @contextmanager
    def step(self, name: str, items: int, rows: int, done: int = 0) -> Iterator[Meter]:
        yield _Silent()


class _Silent:
    def advance(self, rows: int, items: int = 1) -> None:
        pass


class Lines:
    """
    One line every 30 seconds, whether a unit was finished or not, and one at the end of each step.

    JSON lines with *as_json* (for log collectors).
    """

    def __init__(self, stream: TextIO | None = None, every: float = EVERY_SECONDS, as_json: bool = False) -> None:
        self._stream = stream or sys.stderr
        self._every = every
        self._as_json = as_json
        self._one_at_a_time = threading.Lock()

    def line(self, text: str) -> None:
        self._write({"message": text}, text)

    @contextmanager
    def step(self, name: str, items: int, rows: int, done: int = 0) -> Iterator[Meter]:
        meter = _LineMeter(name, items, rows, done)
        over = threading.Event()

        def tell_on() -> None:
            while not over.wait(self._every):
                self._write(*meter.told())

        teller = threading.Thread(target=tell_on, name="corpus-guard progress", daemon=True)
        teller.start()
        try:
            yield meter
        finally:
            over.set()
            teller.join()
        self._write(*meter.told(final=True))

    def _write(self, record: dict[str, Any], text: str) -> None:
        if self._as_json:
            text = json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **record}, sort_keys=True)
        with self._one_at_a_time:
            print(plain(text), file=self._stream, flush=True)


class _LineMeter:
    def __init__(self, name: str, items: int, rows: int, done: int) -> None:
        self._name, self._items, self._rows, self._before = name, items, rows, done
        self._done_items = self._done_rows = 0
        self._started = time.monotonic()

    def advance(self, rows: int, items: int = 1) -> None:
        self._done_items += items
        self._done_rows += rows

    def told(self, final: bool = False) -> tuple[dict[str, Any], str]:
        """How far it is, as a record and as a sentence."""
        items, rows = self._done_items, self._done_rows
        seconds = time.monotonic() - self._started
        rate = rows / seconds if seconds > 0 else 0.0
        record = {
            "step": self._name,
            "items": items,
            "of": self._items,
            "rows": rows,
            "rows_of": self._rows,
            "done_before": self._before,
            "seconds": round(seconds, 1),
            "final": final,
        }
        text = f"{self._name}: {items:,} of {self._items:,} done, {rows:,} documents"
        if rows:
            text += f", {rate:,.0f}/s"
        if self._before:
            text += f" ({self._before:,} were done before)"
        if not final and rate and self._rows > rows:
            text += f", about {_span((self._rows - rows) / rate)} left"
        return record, f"{text}, {_span(seconds)}" + ("" if final else " so far")


class Bars:
    """A live bar per step, for terminals."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True)

    def line(self, text: str) -> None:
        self._console.print(plain(text), markup=False, highlight=False, emoji=False, soft_wrap=True)

    @contextmanager
    def step(self, name: str, items: int, rows: int, done: int = 0) -> Iterator[Meter]:
        from rich.progress import BarColumn, Progress, TextColumn

        columns = (
            TextColumn("{task.description:<9}", markup=False),
            BarColumn(bar_width=24 if self._console.width >= 100 else 10),
            TextColumn("{task.completed:>6,.0f} of {task.total:<6,.0f}", markup=False),
            TextColumn("{task.fields[documents]:>28}", markup=False),
            TextColumn("{task.fields[time]}", markup=False),
        )
        with Progress(*columns, console=self._console) as progress:
            task = progress.add_task(plain(name), total=items + done, completed=done, documents="", time="")
            meter = _BarMeter(progress, task, rows)
            over = threading.Event()

            def tick() -> None:
                while not over.wait(0.5):
                    meter.tick()

            ticker = threading.Thread(target=tick, name="corpus-guard progress", daemon=True)
            ticker.start()
            try:
                yield meter
            finally:
                over.set()
                ticker.join()
            meter.tick(final=True)


class _BarMeter:
    def __init__(self, progress: Any, task: Any, of: int) -> None:
        self._progress, self._task, self._of, self._rows = progress, task, of, 0
        self._started = time.monotonic()

    def advance(self, rows: int, items: int = 1) -> None:
        self._rows += rows
        self._progress.update(self._task, advance=items)

    def tick(self, final: bool = False) -> None:
        """Show documents, their rate and the time, moving even while no unit is finished."""
        seconds = time.monotonic() - self._started
        rate = self._rows / seconds if seconds > 0 else 0.0
        documents = f"{self._rows:,} documents {rate:,.0f}/s" if self._rows else ""
        left = f", {_span((self._of - self._rows) / rate)} left" if not final and rate and self._of > self._rows else ""
        self._progress.update(self._task, documents=documents, time=f"{_span(seconds)}{left}")


def teller(quiet: bool = False, as_json: bool = False) -> Tell:
    """What fits this stderr: nothing, bars on a terminal, else lines."""
    if quiet:
        return Quiet()
    live = sys.stderr.isatty() and os.environ.get("TERM", "dumb") not in ("", "dumb", "unknown")
    return Bars() if live and not as_json else Lines(as_json=as_json)


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
