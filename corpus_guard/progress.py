"""
How a long step tells that it lives: a bar on a terminal, else one plain line every 30 seconds.

Silence is a fault, and so is a log full of carriage returns. Everything goes to stderr; stdout
belongs to results.
"""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TextIO

EVERY_SECONDS = 30.0


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
    """One line every 30 seconds and one at the end of each step; JSON lines with *as_json* (for log collectors)."""

    def __init__(self, stream: TextIO | None = None, every: float = EVERY_SECONDS, as_json: bool = False) -> None:
        self._stream = stream or sys.stderr
        self._every = every
        self._as_json = as_json

    def line(self, text: str) -> None:
        self._write({"message": text}, text)

    @contextmanager
    def step(self, name: str, items: int, rows: int, done: int = 0) -> Iterator[Meter]:
        meter = _LineMeter(self, name, items, rows, done)
        yield meter
        meter.say(final=True)

    def _write(self, record: dict[str, Any], text: str) -> None:
        if self._as_json:
            text = json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **record}, sort_keys=True)
        print(text, file=self._stream, flush=True)


class _LineMeter:
    def __init__(self, lines: Lines, name: str, items: int, rows: int, done: int) -> None:
        self._lines, self._name, self._items, self._rows, self._before = lines, name, items, rows, done
        self._done_items = self._done_rows = 0
        self._started = self._said = time.monotonic()

    def advance(self, rows: int, items: int = 1) -> None:
        self._done_items += items
        self._done_rows += rows
        if time.monotonic() - self._said >= self._lines._every:
            self.say()

    def say(self, final: bool = False) -> None:
        now = self._said = time.monotonic()
        seconds = now - self._started
        rate = self._done_rows / seconds if seconds > 0 else 0.0
        record = {
            "step": self._name,
            "items": self._done_items,
            "of": self._items,
            "rows": self._done_rows,
            "rows_of": self._rows,
            "done_before": self._before,
            "seconds": round(seconds, 1),
            "final": final,
        }
        text = (
            f"{self._name}: {self._done_items:,} of {self._items:,} done, {self._done_rows:,} documents, {rate:,.0f}/s"
        )
        if self._before:
            text += f" ({self._before:,} were done before)"
        if not final and rate and self._rows > self._done_rows:
            text += f", about {_span((self._rows - self._done_rows) / rate)} left"
        if final:
            text += f", {_span(seconds)}"
        self._lines._write(record, text)


class Bars:
    """A live bar per step, for terminals."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True)

    def line(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False)

    @contextmanager
    def step(self, name: str, items: int, rows: int, done: int = 0) -> Iterator[Meter]:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("{task.description:<8}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[documents]:,} documents", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._console) as progress:
            task = progress.add_task(name, total=items + done, completed=done, documents=0)
            yield _BarMeter(progress, task)


class _BarMeter:
    def __init__(self, progress: Any, task: Any) -> None:
        self._progress, self._task, self._rows = progress, task, 0

    def advance(self, rows: int, items: int = 1) -> None:
        self._rows += rows
        self._progress.update(self._task, advance=items, documents=self._rows)


def teller(quiet: bool = False, as_json: bool = False) -> Tell:
    """What fits this stderr: nothing, bars on a terminal, else lines."""
    if quiet:
        return Quiet()
    return Bars() if sys.stderr.isatty() and not as_json else Lines(as_json=as_json)


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
