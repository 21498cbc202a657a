"""
Reads YAML that people write: strictly, with the line of every key, and with all faults told at once.

A small YAML: mappings with text keys, lists, text, ``true``/``false``, ``null``, decimal numbers. Duplicate keys,
aliases, merge keys and tags are refused; ``no``, ``012``, ``12:30`` and dates stay the text they are. What the keys
mean is checked by who asked for the file, with ``Faults``.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from corpus_guard.errors import UsageError

KeyPath = tuple[str | int, ...]
"""Where a value stands: keys of mappings and places in lists, from the top."""

Lines = dict[KeyPath, int]
"""The line (from 1) of every key and list item; ``()`` is the first line of the content."""

MAX_BYTES = 32 * 1024 * 1024
MAX_DEPTH = 40

_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)\Z")
_FLOAT = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?\Z")
_PLAIN: dict[str, bool | None] = {"": None, "~": None, "null": None, "true": True, "false": False}


def shown(value: object, limit: int = 80) -> str:
    """*value* as it may stand in a message: one line, no control characters, not endless."""
    text = "".join(c if c.isprintable() else "�" for c in str(value))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def near(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` for the nearest of *known*, or nothing."""
    match = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.6)
    return f"; did you mean '{match[0]}'?" if match else ""


@dataclass(slots=True)
class Faults:
    """All that is wrong with one file, in the order of its lines, raised as one ``UsageError``."""

    file: str
    lines: Mapping[KeyPath, int] = field(default_factory=dict)
    found: list[tuple[int, str]] = field(default_factory=list)

    def line(self, at: KeyPath) -> int:
        """The line of *at*, or of the nearest thing around it that has one; 0 where nothing has."""
        for end in range(len(at), -1, -1):
            if at[:end] in self.lines:
                return self.lines[at[:end]]
        return 0

    def add(self, at: KeyPath, sentence: str) -> None:
        self.add_line(self.line(at), sentence)

    def add_line(self, line: int, sentence: str) -> None:
        self.found.append((line, sentence))

    def unknown_keys(self, at: KeyPath, given: Iterable[str], known: Iterable[str]) -> None:
        """One fault for each key of *given* that is not *known*, with the nearest one."""
        known = list(known)
        for key in given:
            if key not in known:
                guess = near(key, known) or f"; known are {', '.join(known)}."
                self.add((*at, key), f"unknown key '{shown(key)}'{guess}")

    def stop(self) -> None:
        """Raises ``UsageError`` with one line per fault, if there is any."""
        if self.found:
            told = dict.fromkeys(sorted(self.found, key=lambda fault: fault[0]))
            places = ((f"{self.file}:{line}" if line else self.file, what) for line, what in told)
            raise UsageError("\n".join(f"{place}: {what}" for place, what in places))


def read_yaml(path: str | Path) -> tuple[Any, Lines]:
    """The content of the file at *path* and the line of each of its keys; ``UsageError`` names every fault."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such file.") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error}).") from None
    if len(raw) > MAX_BYTES:
        raise UsageError(f"{path}: is larger than {MAX_BYTES // 2**20} MiB; it is hardly meant to be YAML.")
    return parse_yaml(raw, str(path))


def parse_yaml(raw: bytes | str, name: str) -> tuple[Any, Lines]:
    """As ``read_yaml``, for content in hand; *name* stands in messages."""
    if isinstance(raw, bytes):
        try:
            raw = raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            raise UsageError(f"{name}:{line}: is not UTF-8 (byte {error.start}); save it as UTF-8.") from None
    faults = Faults(name)
    try:
        data, lines = _Builder(raw, faults).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = error.problem or error.context or "unreadable"
        faults.add_line(mark.line + 1 if mark else 0, f"is not YAML: {shown(problem)}.")
        data, lines = None, {}
    except yaml.YAMLError as error:
        faults.add_line(0, f"is not YAML: {shown(str(error).splitlines()[0])}.")
        data, lines = None, {}
    faults.stop()
    return data, lines


class _TooDeep(Exception):
    pass


class _Builder:
    """Builds plain values out of YAML events, noting faults instead of stopping at the first."""

    def __init__(self, text: str, faults: Faults) -> None:
        # The C parser gives the same events about ten times as fast; registers of sources can be long.
        self._events: Iterator[Any] = yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        self._faults = faults
        self._lines: Lines = {}

    def document(self) -> tuple[Any, Lines]:
        data: Any = None
        documents = 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self._fault(event, "a second document starts here; one file holds one document.")
                    break
                try:
                    data = self._value((), next(self._events))
                except _TooDeep:
                    break
        return data, self._lines

    def _fault(self, event: Any, sentence: str) -> None:
        self._faults.add_line(event.start_mark.line + 1, sentence)

    def _value(self, at: KeyPath, event: Any) -> Any:
        self._lines.setdefault(at, event.start_mark.line + 1)
        if len(at) > MAX_DEPTH:
            self._fault(event, f"nested deeper than {MAX_DEPTH} levels.")
            raise _TooDeep
        if isinstance(event, yaml.AliasEvent):
            self._fault(event, f"alias '*{shown(event.anchor)}' is not allowed; write the value out.")
            return None
        if event.anchor is not None:
            self._fault(event, f"anchor '&{shown(event.anchor)}' is not allowed; write values out.")
        if event.tag is not None:
            self._fault(event, f"tag '{shown(event.tag)}' is not allowed; write a plain value.")
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(at)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(at)
        return _scalar(event.value) if event.implicit[0] else event.value

    def _mapping(self, at: KeyPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for event in self._events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            key = self._key(at, event)
            place = (*at, key)
            if key in result:
                self._fault(event, f"key '{shown(key)}' stands twice, first in line {self._lines[place]}; keep one.")
                self._value((*at, f"{key} (again)"), next(self._events))
                continue
            self._lines[place] = event.start_mark.line + 1
            result[key] = self._value(place, next(self._events))
        return result

    def _key(self, at: KeyPath, event: Any) -> str:
        if not isinstance(event, yaml.ScalarEvent):
            self._fault(event, "a key must be plain text, not a list, mapping or alias.")
            if not isinstance(event, yaml.AliasEvent):
                self._value((*at, "?"), event)
            return "?"
        if event.tag is not None:
            self._fault(event, f"tag '{shown(event.tag)}' is not allowed; write a plain key.")
        if event.value == "<<" and event.implicit[0]:
            self._fault(event, "merge key '<<' is not allowed; write the keys out.")
        if not event.value:
            self._fault(event, "a key is empty; give it a name.")
        return str(event.value)

    def _sequence(self, at: KeyPath) -> list[Any]:
        result: list[Any] = []
        for event in self._events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            result.append(self._value((*at, len(result)), event))
        return result


def _scalar(text: str) -> Any:
    if text in _PLAIN:
        return _PLAIN[text]
    if len(text) <= 30 and _INT.match(text):
        return int(text)
    if len(text) <= 30 and _FLOAT.match(text):
        return float(text)
    return text
