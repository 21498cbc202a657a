"""
Keyword libraries as folders that people keep: read whole, checked whole, held as columns.

``library.yaml`` (id, version, licence, normaliser), ``risks/<code>.csv``, ``exceptions.csv``, ``combinations.yaml``
and ``CHANGELOG.csv``; or just ``<code>.txt`` files with one term a line. What the columns mean when text is
judged stands in ``rules.py``; what a standard demands of a library, in the policy (8.1 of TC260-003).
"""

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from corpus_guard.errors import UsageError
from corpus_guard.shipped import names, shipped
from corpus_guard.taxonomy import BIT, CODES
from corpus_guard.text.normalise import NORMALISER_VERSION, is_word, normalise
from corpus_guard.yamlfile import Faults, KeyPath, near, read_yaml, shown

LEVELS = ("weak", "review", "block")
"""Ascending: ``weak`` only adds, ``review`` needs support or a person, ``block`` is evidence alone."""
MATCHES = ("word", "substring", "prefix")
FOLDS = ("base",)
STATUSES = ("active", "retired")
OPERATIONS = ("add", "retire", "edit", "review")

COLUMNS = ("id", "term", "lang", "level", "match", "fold", "added", "author", "source", "expires", "status", "note")
EXCEPTION_COLUMNS = ("term", "scope", "reason")
CHANGE_COLUMNS = ("date", "version", "op", "entry", "reason", "author", "evidence")

MAX_BYTES = 256 * 1024 * 1024
NEVER = np.datetime64("NaT")
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Days = npt.NDArray[np.datetime64]


@dataclass(frozen=True, slots=True)
class ExceptionTerm:
    """A longer literal inside which hits do not count; ``scope`` is empty (all entries), a risk code or an entry id."""

    literal: int
    scope: str
    reason: str


@dataclass(frozen=True, slots=True)
class Combination:
    """
    An entry made of several terms: one of each group of ``all`` near each other, and none of ``none`` near them.

    Terms are indexes of literals. ``window``: within how many code points of raw text, ``None`` for the whole document.
    """

    id: str
    risk: str
    level: str
    all: tuple[tuple[int, ...], ...]
    none: tuple[int, ...]
    window: int | None
    expires: date | None
    active: bool


@dataclass(frozen=True, slots=True)
class Change:
    """A line of ``CHANGELOG.csv``; ``review`` says that somebody looked and nothing had to change."""

    date: date
    version: str
    op: str
    entry: str
    reason: str
    author: str
    evidence: str


@dataclass(frozen=True, slots=True, eq=False)
class Library:
    """
    A library, entry *i* being position *i* of every column; read-only.

    ``literal`` indexes ``literals``, the sorted distinct normalised texts of terms, exceptions and operands.
    ``left`` and ``right``: whether that side of a hit must be a word border. ``risk`` indexes ``taxonomy.RISKS``,
    ``level`` ``LEVELS``. ``expires`` is the last day an entry counts, ``NaT`` where it has none.
    """

    path: str
    id: str
    version: str
    licence: str
    ids: tuple[str, ...]
    terms: tuple[str, ...]
    languages: tuple[str, ...]
    authors: tuple[str, ...]
    sources: tuple[str, ...]
    notes: tuple[str, ...]
    places: tuple[str, ...]
    risk: Ints
    level: Ints
    left: Flags
    right: Flags
    active: Flags
    added: Days
    expires: Days
    literal: Ints
    literals: tuple[str, ...]
    literal_left: Flags
    literal_right: Flags
    exceptions: tuple[ExceptionTerm, ...]
    combinations: tuple[Combination, ...]
    changes: tuple[Change, ...]
    digest: str
    rules_digest: str

    def __len__(self) -> int:
        return len(self.ids)

    def in_force(self, as_of: date) -> Flags:
        """Which entries count on *as_of*: active, and not past their last day."""
        return self.active & ~(self.expires < np.datetime64(as_of))


def find_library(name: str) -> Path:
    """The folder of a shipped library or at a path; ``UsageError`` where there is none."""
    folder = shipped("keyword_libs", name)
    if folder is None and Path(name).is_dir():
        folder = Path(name)
    if folder is None:
        known = ", ".join(names("keyword_libs")) or "none"
        raise UsageError(f"keyword library '{shown(name)}' is neither a folder nor a shipped name (shipped: {known}).")
    return folder


def load_library(name: str | Path) -> Library:
    """
    Read the library called *name* (a path, or the name of a shipped one).

    ``UsageError`` with one line per fault (file, line, column, what to do), all files together.
    """
    folder = find_library(str(name))
    return _Draft(folder).library()


@dataclass(slots=True)
class _Entry:
    place: str
    at: tuple[Path, int]
    id: str
    named: bool
    risk: str
    term: str
    text: str
    lang: str = ""
    level: str = "review"
    match: str = ""
    added: date | None = None
    author: str = ""
    source: str = ""
    expires: date | None = None
    status: str = "active"
    note: str = ""


@dataclass(slots=True)
class _Combination:
    at: int
    id: str
    risk: str
    level: str
    all: list[list[str]]
    none: list[str]
    window: int | None
    expires: date | None
    status: str


@dataclass(slots=True)
class _Draft:
    """A library while it is read; faults are collected per file and told together."""

    folder: Path
    faults: dict[Path, Faults] = field(default_factory=dict)
    entries: list[_Entry] = field(default_factory=list)

    def library(self) -> Library:
        about = self._about()
        self._read_entries()
        exceptions = self._exceptions(self.folder / "exceptions.csv")
        combinations = self._combinations(self.folder / "combinations.yaml")
        changes = self._changes(self.folder / "CHANGELOG.csv")
        self._check_ids(combinations)
        self._check_duplicates()
        self._check_exceptions(exceptions)
        if not self.entries and not combinations and not self._any_fault():
            raise UsageError(f"{self.folder}: has no keyword; add risks/<risk code>.csv or <risk code>.txt files.")
        self._stop()
        return _columns(self.folder, about, self.entries, exceptions, combinations, changes)

    # -- faults

    def _of(self, path: Path) -> Faults:
        return self.faults.setdefault(path, Faults(str(path)))

    def _any_fault(self) -> bool:
        return any(faults.found for faults in self.faults.values())

    def _stop(self) -> None:
        told = []
        for path in sorted(self.faults):
            try:
                self.faults[path].stop()
            except UsageError as error:
                told.append(str(error))
        if told:
            raise UsageError("\n".join(told))

    # -- files

    def _about(self) -> dict[str, str]:
        path = self.folder / "library.yaml"
        about = {"id": self.folder.name, "version": "", "licence": ""}
        if not path.exists():
            return about
        data, faults = self._yaml(path)
        if not isinstance(data, dict):
            faults.add_line(1, "is not a mapping; write id, version and licence.")
            return about
        faults.unknown_keys((), data, [*about, "title", "normaliser"])
        about |= {key: str(data[key]) for key in about if data.get(key) is not None}
        stated = str(data.get("normaliser", NORMALISER_VERSION))
        if stated != NORMALISER_VERSION:
            faults.add(
                ("normaliser",),
                f"the library was checked with normaliser {shown(stated)}, this is {NORMALISER_VERSION}; "
                "check the terms again and state the new number.",
            )
        return about

    def _yaml(self, path: Path) -> tuple[Any, Faults]:
        faults = self._of(path)
        try:
            data, lines = read_yaml(path)
        except UsageError as error:
            for told in str(error).splitlines():
                faults.add_line(0, told.removeprefix(f"{path}:").strip())
            return {}, faults
        faults.lines = lines
        return data, faults

    def _rows(
        self, path: Path, columns: tuple[str, ...], needed: tuple[str, ...]
    ) -> Iterator[tuple[int, dict[str, str]]]:
        """Rows of a CSV file with the line they end in; empty cells are left out, blank lines skipped."""
        faults = self._of(path)
        reader = csv.reader(io.StringIO(self._text(path), newline=""), strict=True)
        try:
            header = [cell.strip() for cell in next(reader, [])]
            for cell in header:
                if cell not in columns:
                    guess = near(cell, columns) or f"; known are {', '.join(columns)}."
                    faults.add_line(1, f"unknown column '{shown(cell)}'{guess}")
            for cell in {cell for cell in header if header.count(cell) > 1}:
                faults.add_line(1, f"column '{shown(cell)}' stands twice; keep one.")
            missing = [column for column in needed if column not in header]
            if missing:
                faults.add_line(1, f"no column {', '.join(missing)}; the first line names the columns.")
                return
            for row in reader:
                if not any(cell.strip() for cell in row):
                    continue
                if len(row) > len(header):
                    faults.add_line(
                        reader.line_num, f"{len(row)} cells, but {len(header)} columns; quote cells with commas."
                    )
                    continue
                yield reader.line_num, {key: cell for key, cell in zip(header, row, strict=False) if cell.strip()}
        except csv.Error as error:
            faults.add_line(reader.line_num, f"is not CSV ({error}); quote cells that hold quotes or line breaks.")

    def _text(self, path: Path) -> str:
        try:
            if path.stat().st_size > MAX_BYTES:
                self._of(path).add_line(0, f"is larger than {MAX_BYTES // 2**20} MiB; split the library.")
                return ""
            raw = path.read_bytes()
        except OSError as error:
            self._of(path).add_line(0, f"cannot be read ({error.strerror or error}).")
            return ""
        try:
            return raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = raw.count(b"\n", 0, error.start) + 1
            self._of(path).add_line(line, f"is not UTF-8 (byte {error.start}); save it as UTF-8.")
            return ""

    def _read_entries(self) -> None:
        risks = self.folder / "risks"
        where, suffix = (risks, ".csv") if risks.is_dir() else (self.folder, ".txt")
        for path in sorted(where.glob(f"*{suffix}")):
            if path.stem not in BIT:
                self._of(path).add_line(0, f"'{shown(path.stem)}' is not a risk code{near(path.stem, CODES) or '.'}")
            elif suffix == ".csv":
                self._csv_entries(path)
            else:
                self._plain_entries(path)

    def _plain_entries(self, path: Path) -> None:
        for line, term in enumerate(self._text(path).splitlines(), 1):
            if term.strip() and not term.startswith("#"):
                self._entry(path, line, {"term": term})

    def _csv_entries(self, path: Path) -> None:
        for line, row in self._rows(path, COLUMNS, ("term",)):
            if "term" in row:
                self._entry(path, line, row)
            else:
                self._of(path).add_line(line, "column 'term' is empty; write the term or delete the line.")

    def _entry(self, path: Path, line: int, row: Mapping[str, str]) -> None:
        text = self._term(path, line, "term", row["term"])
        if text is None:
            return
        one = self._one_of
        one(path, line, row, "fold", FOLDS, "base", "is not supported yet; only 'base' is")
        self.entries.append(
            _Entry(
                place=f"{path.name}:{line}",
                at=(path, line),
                id=row.get("id", "").strip() or f"{path.stem}-{hashlib.sha256(text.encode()).hexdigest()[:8]}",
                named="id" in row,
                risk=path.stem,
                term=row["term"].strip(),
                text=text,
                lang=row.get("lang", "").strip(),
                level=one(path, line, row, "level", LEVELS, "review"),
                match=one(path, line, row, "match", MATCHES, "word"),
                added=self._date(path, line, row, "added"),
                author=row.get("author", ""),
                source=row.get("source", ""),
                expires=self._date(path, line, row, "expires"),
                status=one(path, line, row, "status", STATUSES, "active"),
                note=row.get("note", ""),
            )
        )

    def _term(self, path: Path, line: int, column: str, term: str) -> str | None:
        try:
            text = normalise(term).strip()
        except UnicodeEncodeError:
            text = ""
        if not text:
            self._of(path).add_line(
                line, f"column '{column}': nothing is left of the term after normalisation; delete the line."
            )
            return None
        return text

    def _one_of(
        self,
        path: Path,
        line: int,
        row: Mapping[str, str],
        column: str,
        known: tuple[str, ...],
        default: str,
        what: str = "",
    ) -> str:
        value = row.get(column, default).strip()
        if value in known:
            return value
        what = what or f"is none of {', '.join(known)}"
        self._of(path).add_line(line, f"column '{column}': '{shown(value)}' {what}{near(value, known) or '.'}")
        return default

    def _date(self, path: Path, line: int, row: Mapping[str, str], column: str) -> date | None:
        value = row.get(column, "").strip()
        if not value:
            return None
        try:
            return date.fromisoformat(value)
        except ValueError:
            self._of(path).add_line(line, f"column '{column}': '{shown(value)}' is not a date; write it as 2025-01-31.")
            return None

    def _exceptions(self, path: Path) -> list[tuple[int, str, str, str]]:
        """Line, normalised term, scope, reason."""
        found = []
        if path.exists():
            for line, row in self._rows(path, EXCEPTION_COLUMNS, ("term",)):
                text = self._term(path, line, "term", row.get("term", ""))
                if text is not None:
                    scope = row.get("scope", "").strip()
                    found.append((line, text, "" if scope == "global" else scope, row.get("reason", "")))
        return found

    def _changes(self, path: Path) -> list[Change]:
        changes = []
        if path.exists():
            for line, row in self._rows(path, CHANGE_COLUMNS, ("date", "op")):
                when = self._date(path, line, row, "date")
                op = self._one_of(path, line, row, "op", OPERATIONS, "edit")
                if when is None:
                    if not row.get("date"):
                        self._of(path).add_line(line, "column 'date' is empty; write the day of the change.")
                    continue
                rest = {key: row.get(key, "").strip() for key in ("version", "entry", "reason", "author", "evidence")}
                changes.append(Change(date=when, op=op, **rest))
        return changes

    def _combinations(self, path: Path) -> list[_Combination]:
        if not path.exists():
            return []
        data, faults = self._yaml(path)
        at: KeyPath
        if isinstance(data, dict):
            faults.unknown_keys((), data, ["combinations"])
            listed, at = data.get("combinations"), ("combinations",)
        else:
            listed, at = data, ()
        if not isinstance(listed or [], list):
            faults.add(at, "is not a list; write '- id: ...' for each combination.")
            return []
        read = (self._combination(faults, (*at, i), item) for i, item in enumerate(listed or []))
        return [combination for combination in read if combination is not None]

    def _combination(self, faults: Faults, at: KeyPath, item: Any) -> _Combination | None:
        known = ("id", "risk", "level", "all", "any", "none", "window", "expires", "status", "note")
        if not isinstance(item, dict):
            faults.add(at, "is not a mapping; write id, risk, all and window.")
            return None
        before = len(faults.found)
        faults.unknown_keys(at, item, known)
        for key in ("id", "risk"):
            if not item.get(key):
                faults.add(at, f"no '{key}'; every combination has an id and a risk.")
        if item.get("risk") and item["risk"] not in BIT:
            faults.add(
                (*at, "risk"), f"'{shown(item['risk'])}' is not a risk code{near(str(item['risk']), CODES) or '.'}"
            )
        for key, values in (("level", LEVELS), ("status", STATUSES)):
            if item.get(key) is not None and item[key] not in values:
                faults.add(
                    (*at, key),
                    f"'{shown(item[key])}' is none of {', '.join(values)}{near(str(item[key]), values) or '.'}",
                )
        groups = [self._operands(faults, (*at, "all", i), group) for i, group in enumerate(_listed(item.get("all")))]
        if item.get("any") is not None:
            groups.append(self._operands(faults, (*at, "any"), item["any"]))
        none = self._operands(faults, (*at, "none"), item["none"]) if item.get("none") is not None else []
        if len(groups) < 2:
            faults.add(at, "has fewer than two things to combine in 'all' and 'any'; write a plain entry instead.")
        window = item.get("window")
        if window is not None and (not isinstance(window, int) or isinstance(window, bool) or window < 1):
            faults.add(
                (*at, "window"), f"'{shown(window)}' is not a number of characters; write a whole number from 1."
            )
        expires = None
        if item.get("expires") is not None:
            try:
                expires = date.fromisoformat(str(item["expires"]))
            except ValueError:
                faults.add((*at, "expires"), f"'{shown(item['expires'])}' is not a date; write it as 2025-01-31.")
        if len(faults.found) > before:
            return None
        return _Combination(
            at=faults.line(at),
            id=str(item["id"]),
            risk=item["risk"],
            level=item.get("level") or "review",
            all=groups,
            none=none,
            window=window,
            expires=expires,
            status=item.get("status") or "active",
        )

    def _operands(self, faults: Faults, at: KeyPath, terms: Any) -> list[str]:
        texts = []
        for term in _listed(terms):
            text = normalise(str(term)).strip() if isinstance(term, (str, int, float)) else ""
            if text:
                texts.append(text)
            else:
                faults.add(at, f"'{shown(term)}' is not a term; write text, or a list of texts of which one is enough.")
        if not texts:
            faults.add(at, "names no term.")
        return texts

    # -- what must hold across lines

    def _check_ids(self, combinations: list[_Combination]) -> None:
        seen: dict[str, str] = {}
        path = self.folder / "combinations.yaml"
        named = [(entry.at, entry.id, entry.place) for entry in self.entries if entry.named]
        named += [((path, c.at), c.id, f"{path.name}:{c.at}") for c in combinations]
        for (file, line), id, place in named:
            if id in seen:
                self._of(file).add_line(line, f"id '{shown(id)}' is taken by {seen[id]}; ids are never used twice.")
            seen.setdefault(id, place)

    def _check_duplicates(self) -> None:
        seen: dict[tuple[str, str], _Entry] = {}
        for entry in self.entries:
            if entry.status != "active":
                continue
            first = seen.setdefault((entry.risk, entry.text), entry)
            if first is not entry:
                self._of(entry.at[0]).add_line(
                    entry.at[1],
                    f"'{shown(entry.term)}' is the same term as {first.place} after normalisation; keep one.",
                )

    def _check_exceptions(self, exceptions: list[tuple[int, str, str, str]]) -> None:
        path = self.folder / "exceptions.csv"
        ids = {entry.id for entry in self.entries}
        active = {
            (entry.text, scope)
            for entry in self.entries
            if entry.status == "active"
            for scope in ("", entry.risk, entry.id)
        }
        for line, text, scope, _ in exceptions:
            if scope and scope not in BIT and scope not in ids:
                self._of(path).add_line(
                    line,
                    f"column 'scope': '{shown(scope)}' is neither a risk code nor the id of an entry; "
                    "leave it empty for all entries.",
                )
            if (text, scope) in active:
                self._of(path).add_line(
                    line, f"'{shown(text)}' is an entry itself and would silence it; retire the entry instead."
                )


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _columns(
    folder: Path,
    about: Mapping[str, str],
    entries: list[_Entry],
    exceptions: list[tuple[int, str, str, str]],
    combinations: list[_Combination],
    changes: list[Change],
) -> Library:
    entries = sorted(entries, key=lambda entry: (CODES.index(entry.risk), entry.id, entry.place))
    texts = {entry.text for entry in entries} | {text for _, text, _, _ in exceptions}
    texts |= {text for c in combinations for group in [*c.all, c.none] for text in group}
    literals = tuple(sorted(texts))
    index = {text: i for i, text in enumerate(literals)}
    first = is_word(np.array([ord(text[0]) for text in literals], np.uint32))
    last = is_word(np.array([ord(text[-1]) for text in literals], np.uint32))
    literal = np.array([index[entry.text] for entry in entries], np.int64)
    match = np.array([MATCHES.index(entry.match or "word") for entry in entries], np.int64)
    rules = {
        "entries": [[e.id, e.risk, e.text, e.level, e.match, _iso(e.expires), e.status] for e in entries],
        "exceptions": sorted([text, scope] for _, text, scope, _ in exceptions),
        "combinations": [
            [c.id, c.risk, c.level, c.all, c.none, c.window, _iso(c.expires), c.status] for c in combinations
        ],
    }
    digest = _digest({"literals": literals, "folds": list(FOLDS), "normaliser": NORMALISER_VERSION})
    return Library(
        path=str(folder),
        id=about["id"],
        version=about["version"],
        licence=about["licence"],
        ids=tuple(entry.id for entry in entries),
        terms=tuple(entry.term for entry in entries),
        languages=tuple(entry.lang for entry in entries),
        authors=tuple(entry.author for entry in entries),
        sources=tuple(entry.source for entry in entries),
        notes=tuple(entry.note for entry in entries),
        places=tuple(entry.place for entry in entries),
        risk=_still(np.array([BIT[entry.risk] for entry in entries], np.int64)),
        level=_still(np.array([LEVELS.index(entry.level) for entry in entries], np.int64)),
        left=_still(first[literal] & (match != MATCHES.index("substring"))),
        right=_still(last[literal] & (match == MATCHES.index("word"))),
        active=_still(np.array([entry.status == "active" for entry in entries], np.bool_)),
        added=_still(_days(entry.added for entry in entries)),
        expires=_still(_days(entry.expires for entry in entries)),
        literal=_still(literal),
        literals=literals,
        literal_left=_still(first),
        literal_right=_still(last),
        exceptions=tuple(ExceptionTerm(index[text], scope, reason) for _, text, scope, reason in exceptions),
        combinations=tuple(
            Combination(
                id=c.id,
                risk=c.risk,
                level=c.level,
                all=tuple(tuple(index[text] for text in group) for group in c.all),
                none=tuple(index[text] for text in c.none),
                window=c.window,
                expires=c.expires,
                active=c.status == "active",
            )
            for c in combinations
        ),
        changes=tuple(changes),
        digest=digest,
        rules_digest=_digest(rules | {"stage": digest}),
    )


def _still(column: npt.NDArray[Any]) -> npt.NDArray[Any]:
    column.setflags(write=False)
    return column


def _days(dates: Iterable[date | None]) -> Days:
    return np.array([NEVER if day is None else np.datetime64(day) for day in dates], "datetime64[D]")


def _iso(day: date | None) -> str:
    return day.isoformat() if day else ""


def _digest(what: Any) -> str:
    return hashlib.sha256(json.dumps(what, ensure_ascii=True, sort_keys=True).encode()).hexdigest()
