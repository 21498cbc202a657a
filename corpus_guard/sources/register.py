"""
The register of sources: what the operator knows and can show of each (5.1 c), and of itself (5.2 b, 5.3).

A YAML or CSV file that people keep: kind, owner, licence, origin of a source, and which documents exist, with their
days. Whether a document says what its name promises is for people to judge; here it exists and holds, or it does not.
"""

import csv
import hashlib
import io
import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import Any

from corpus_guard.errors import UsageError
from corpus_guard.places import Place
from corpus_guard.policy import KINDS
from corpus_guard.yamlfile import Faults, KeyPath, near, parse_yaml, shown

ORIGINS = ("domestic", "foreign")
NULL = "(null)"
"""The null source, in CSV."""

_TEXTS = ("owner", "licence")
_DAYS = ("assessed", "collected")
_ENTRY = ("source", "kind", *_TEXTS, "origin", "size", *_DAYS, "documents")
_DOCUMENT = ("date", "expires", "file")
_COLUMN = "document."
_NAME = re.compile(r"[a-z][a-z0-9_]{0,99}\Z")
_IN_A_CELL = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:/([0-9]{4}-[0-9]{2}-[0-9]{2}))?(?:\s+(\S.*))?\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Document:
    """A document that exists: its day, until when it holds (null: no end), and where it is kept."""

    dated: date
    expires: date | None = None
    file: str = ""

    def holds(self, as_of: date) -> bool:
        return self.dated <= as_of and (self.expires is None or as_of <= self.expires)


@dataclass(frozen=True, slots=True)
class Source:
    """
    What is registered of one source. ``size``: how many documents it has in all, for samples before collection.
    ``assessed``, ``collected``: the days of its assessment and of its first collection (5.1 a 1: in this order).
    """

    source: str | None
    kind: str | None = None
    owner: str | None = None
    licence: str | None = None
    origin: str | None = None
    size: int | None = None
    assessed: date | None = None
    collected: date | None = None
    documents: Mapping[str, Document] = field(default_factory=dict)

    def lacks(self, needs: Iterable[str], as_of: date) -> tuple[str, ...]:
        """Which documents of *needs* do not exist or do not hold on *as_of*."""
        return tuple(name for name in needs if name not in self.documents or not self.documents[name].holds(as_of))


@dataclass(frozen=True, slots=True)
class Register:
    """All registered sources by name, and the documents of the operator itself."""

    sources: Mapping[str | None, Source] = field(default_factory=dict)
    operator: Mapping[str, Document] = field(default_factory=dict)

    def size(self, source: str | None) -> int | None:
        """How many documents *source* has in all, where that is known."""
        known = self.sources.get(source)
        return known.size if known else None

    def unregistered(self, sources: Iterable[str | None]) -> list[str | None]:
        """Those of *sources* that the register does not know, in their order."""
        return [source for source in sources if source not in self.sources]

    def of_kinds(self, kinds: Collection[str], among: Collection[str | None] | None = None) -> list[Source]:
        """Registered sources of *kinds* (none given: of any kind), restricted to *among*."""
        return [
            source
            for name, source in self.sources.items()
            if (not kinds or source.kind in kinds) and (among is None or name in among)
        ]

    @property
    def digest(self) -> str:
        """64 hex over everything registered, in whatever order it was written."""
        listed = sorted(
            (asdict(source) for source in self.sources.values()), key=lambda s: (s["source"] is None, s["source"])
        )
        content = {"sources": listed, "operator": {name: asdict(document) for name, document in self.operator.items()}}
        return hashlib.sha256(json.dumps(content, default=str, sort_keys=True).encode()).hexdigest()


def load_register(path: str | Place) -> Register:
    """The register in the YAML or CSV (``.csv``) file *path*; ``UsageError`` names every fault with its line."""
    place = Place.of(path)
    try:
        content = place.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"{place}: there is no such register of sources.") from None
    return read_register(content, str(place))


def read_register(content: bytes, name: str) -> Register:
    """As ``load_register``, for content in hand; the ending of *name* tells CSV from YAML."""
    return _of_csv(content, name) if name.lower().endswith(".csv") else _of_yaml(content, name)


def _of_yaml(content: bytes, name: str) -> Register:
    data, lines = parse_yaml(content, name)
    faults = Faults(name, lines)
    if not isinstance(data, dict):
        raise UsageError(f"{name}: a register is a mapping with the key sources (and operator).")
    faults.unknown_keys((), data, ("sources", "operator"))
    sources: dict[str | None, Source] = {}
    entries = data.get("sources") or []
    if not isinstance(entries, list):
        faults.add(("sources",), "sources must be a list of mappings, each with the key source.")
        entries = []
    for i, entry in enumerate(entries):
        at: KeyPath = ("sources", i)
        if not isinstance(entry, dict) or "source" not in entry:
            faults.add(at, "must be a mapping with the key source (null for documents without a source).")
            continue
        faults.unknown_keys(at, entry, _ENTRY)
        _register(sources, _source(entry, faults, at), faults, at)
    operator = _documents(data.get("operator"), faults, ("operator",))
    faults.stop()
    return Register(sources, operator)


def _of_csv(content: bytes, name: str) -> Register:
    faults = Faults(name)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{name}:{line}: is not UTF-8 (byte {error.start}); save it as UTF-8.") from None
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    sources: dict[str | None, Source] = {}
    try:
        header = [cell.strip() for cell in next(rows, [])]
        if "source" not in header:
            raise UsageError(f"{name}:1: no column source; the first line names the columns.")
        for column in dict.fromkeys(column for column in header if header.count(column) > 1):
            faults.add_line(1, f"column {shown(column)} stands twice; keep one.")
        for column in header:
            if column not in _ENTRY[:-1] and not column.startswith(_COLUMN):
                faults.add_line(1, f"unknown column '{shown(column)}'{near(column, _ENTRY[:-1])}")
        for row in rows:
            if not any(cell.strip() for cell in row):
                continue
            lines = Faults(name, {(): rows.line_num})
            if len(row) != len(header):
                faults.add_line(rows.line_num, f"has {len(row)} cells; the first line names {len(header)} columns.")
                continue
            cells = {column: cell.strip() for column, cell in zip(header, row, strict=True) if cell.strip()}
            entry: dict[str, Any] = {column: cell for column, cell in cells.items() if column in _ENTRY[:-1]}
            entry["documents"] = {c.removeprefix(_COLUMN): cell for c, cell in cells.items() if c.startswith(_COLUMN)}
            if "source" not in cells:
                lines.add((), f"has no source; write {NULL} for documents without one.")
            else:
                entry["source"] = None if cells["source"] == NULL else cells["source"]
                if entry.get("size", "").isdecimal():
                    entry["size"] = int(entry["size"])
                _register(sources, _source(entry, lines, ()), lines, ())
            faults.found += lines.found
    except csv.Error as error:
        faults.add_line(rows.line_num, f"is no CSV ({error}).")
    faults.stop()
    return Register(sources)


def _register(sources: dict[str | None, Source], source: Source, faults: Faults, at: KeyPath) -> None:
    if source.source in sources:
        faults.add(at, f"source {shown(source.source or NULL)} is registered twice; keep one.")
    sources.setdefault(source.source, source)


def _source(entry: Mapping[str, Any], faults: Faults, at: KeyPath) -> Source:
    name = entry["source"]
    if name is not None and (not isinstance(name, str) or not name):
        faults.add((*at, "source"), f"source must be text; put '{shown(name)}' in quotes.")
        name = str(name)
    texts = {key: entry.get(key) for key in _TEXTS}
    for key, value in texts.items():
        if value is not None and not isinstance(value, str):
            faults.add((*at, key), f"{key} must be text; put '{shown(value)}' in quotes.")
    size = entry.get("size")
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
        faults.add((*at, "size"), f"size must be a number of documents over 0, not '{shown(size)}'.")
        size = None
    return Source(
        source=name,
        kind=_one_of(entry, "kind", KINDS, faults, at),
        owner=texts["owner"],
        licence=texts["licence"],
        origin=_one_of(entry, "origin", ORIGINS, faults, at),
        size=size,
        assessed=_day(entry.get("assessed"), faults, (*at, "assessed")),
        collected=_day(entry.get("collected"), faults, (*at, "collected")),
        documents=_documents(entry.get("documents"), faults, (*at, "documents")),
    )


def _one_of(entry: Mapping[str, Any], key: str, known: tuple[str, ...], faults: Faults, at: KeyPath) -> str | None:
    value = entry.get(key)
    if value is None or value in known:
        return value
    guess = near(str(value), known) or f"; it is one of {', '.join(known)}."
    faults.add((*at, key), f"{key} '{shown(value)}' is not known{guess}")
    return None


def _documents(data: Any, faults: Faults, at: KeyPath) -> dict[str, Document]:
    found = {}
    if data is not None and not isinstance(data, dict):
        faults.add(at, "documents are a mapping: what a document shows, and its day.")
    for name, value in data.items() if isinstance(data, dict) else ():
        if not _NAME.match(name):
            faults.add((*at, name), f"document name '{shown(name)}' must be lower-case letters, digits and _.")
            continue
        document = _document(value, faults, (*at, name), name)
        if document:
            found[name] = document
    return found


def _document(value: Any, faults: Faults, at: KeyPath, name: str) -> Document | None:
    """``2026-01-31 contracts/a.pdf``, ``2026-01-31/2027-01-30 contracts/a.pdf``, or a mapping."""
    if isinstance(value, str) and (match := _IN_A_CELL.match(value.strip())):
        value = dict(zip(_DOCUMENT, match.groups(), strict=True))
    if not isinstance(value, dict) or not value.get("date"):
        faults.add(at, f"document {name} must begin with its day, as in '2026-01-31 contracts/a.pdf'.")
        return None
    faults.unknown_keys(at, value, _DOCUMENT)
    file = value.get("file")
    if file is not None and not isinstance(file, str):
        faults.add(at, f"document {name}: file must be text; put '{shown(file)}' in quotes.")
    day, expires = _day(value["date"], faults, at), _day(value.get("expires"), faults, at)
    if day and expires and expires < day:
        faults.add(at, f"document {name} expires ({expires}) before its day ({day}).")
    return Document(day, expires, str(file or "")) if day else None


def _day(value: Any, faults: Faults, at: KeyPath) -> date | None:
    if value is None:
        return None
    try:
        if isinstance(value, str) and len(value) == 10:
            return date.fromisoformat(value)
    except ValueError:
        pass
    faults.add(at, f"'{shown(value)}' is no day; write it as YYYY-MM-DD.")
    return None
