"""
The blacklist: sources that are not collected again and whose documents no corpus keeps.

A file of JSON lines that only grows. A source comes on it when its share is over the limit beyond the detectors'
measured errors and the chance of the draw, or when a named person says so; it leaves by a newer assessment and a named
person.

Every line carries the hash of the one before, so a changed or missing line shows. (A cut end does not: keep the last
line's hash, ``head``, elsewhere; reports print it.) The null source names nobody and cannot be listed.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from datetime import date
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corpus_guard.errors import UsageError
from corpus_guard.places import Place
from corpus_guard.statistics import rogan_gladen
from corpus_guard.yamlfile import Faults, near, shown

Action = Literal["add", "lift"]

BY_ITSELF = "corpus-guard"
"""Stands in ``by`` where the counts alone put a source on the list."""


@dataclass(frozen=True, slots=True)
class Assessment:
    """What an entry rests on: the counts of one assessment, and which corpus and policy it was of."""

    on: str
    manifest: str
    policy: str
    documents: int
    illegal: int
    corrected_lower: float | None = None
    """Lower bound of the share, corrected for the detectors' measured errors; null where those are not known."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line: *source* came on the list, or left it, on a day, by whom and why."""

    action: Action
    source: str
    on: str
    by: str
    reason: str
    assessment: Assessment | None = None
    previous: str = ""

    @property
    def line(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False, sort_keys=True) + "\n"

    @property
    def hash(self) -> str:
        return hashlib.sha256(self.line.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class Blacklist:
    """All entries, oldest first. Never changed in place: ``added`` and ``lifted`` give a longer one."""

    entries: tuple[Entry, ...] = ()

    def current(self) -> frozenset[str]:
        """The sources on the list now."""
        return frozenset(self._last())

    def reason(self, source: str) -> str:
        """Since when, by whom and why *source* is on the list."""
        entry = self._last()[source]
        return f"since {entry.on}, by {entry.by}: {entry.reason}"

    @property
    def head(self) -> str:
        """Hash of the last line, and through it of all; empty for an empty list."""
        return self.entries[-1].hash if self.entries else ""

    def added(
        self, source: str | None, *, on: date, by: str, reason: str, assessment: Assessment | None = None
    ) -> "Blacklist":
        """With *source* on the list. ``UsageError`` if it is already, or if nobody and nothing stands behind it."""
        if not source:
            raise UsageError("The null source names nobody and cannot be blacklisted; it is decided anew in every run.")
        if source in self.current():
            raise UsageError(f"Source {shown(source)} is on the blacklist already, {shown(self.reason(source), 200)}.")
        if by == BY_ITSELF and (assessment is None or assessment.corrected_lower is None):
            raise UsageError(
                f"Source {shown(source)} has no corrected lower bound; only a named person can blacklist it."
            )
        return self._with("add", source, on, by, reason, assessment)

    def lifted(self, source: str, *, on: date, by: str, reason: str, assessment: Assessment) -> "Blacklist":
        """Without *source*. ``UsageError`` unless a named person and an assessment newer than the entry say so."""
        entry = self._last().get(source)
        if entry is None:
            raise UsageError(f"Source {shown(source)} is not on the blacklist{near(source, self.current())}.")
        if by == BY_ITSELF:
            raise UsageError(f"Source {shown(source)} leaves the blacklist only by a named person.")
        newest = max(entry.on, entry.assessment.on if entry.assessment else "")
        if assessment.on <= newest:
            raise UsageError(
                f"Source {shown(source)} was blacklisted by what was known on {newest}; lifting it needs a newer "
                f"assessment than that of {assessment.on}."
            )
        return self._with("lift", source, on, by, reason, assessment)

    def _last(self) -> dict[str, Entry]:
        listed: dict[str, Entry] = {}
        for entry in self.entries:
            if entry.action == "add":
                listed[entry.source] = entry
            else:
                listed.pop(entry.source, None)
        return listed

    def _with(
        self, action: Action, source: str, on: date, by: str, reason: str, assessment: Assessment | None
    ) -> "Blacklist":
        if not by.strip() or not reason.strip():
            raise UsageError(f"Source {shown(source)}: an entry of the blacklist names a person and a reason.")
        entry = Entry(action, source, on.isoformat(), by.strip(), reason.strip(), assessment, self.head)
        return Blacklist((*self.entries, entry))

    def content(self) -> bytes:
        return "".join(entry.line for entry in self.entries).encode("utf-8", "surrogatepass")


def due(
    sources: pa.Table,
    limit: Fraction,
    sensitivity: float | None,
    specificity: float | None,
    blacklist: Blacklist,
    *,
    on: date,
    manifest: str,
    policy: str,
) -> list[tuple[str, Assessment]]:
    """
    Excluded sources that belong on the list by their counts alone: over *limit* by the lower bound of the share,
    corrected for the detectors' errors. Where those are not measured, none: a named person decides.
    """
    if sensitivity is None or specificity is None:
        return []
    excluded = sources.filter(pc.equal(sources.column("decision"), "exclude"))
    corrected = rogan_gladen(np.asarray(excluded.column("lower").fill_null(0)), sensitivity, specificity)
    found = []
    names, documents, illegal = (excluded.column(name).to_pylist() for name in ("source", "documents", "illegal"))
    for i in np.flatnonzero(corrected > float(limit)).tolist():
        if names[i] and names[i] not in blacklist.current():
            assessment = Assessment(on.isoformat(), manifest, policy, documents[i], illegal[i], float(corrected[i]))
            found.append((names[i], assessment))
    return found


def load_blacklist(path: str | Place, *, create: bool = False) -> Blacklist:
    """The list in the file *path*; with *create*, an empty one where there is no file yet."""
    place = Place.of(path)
    try:
        content = place.read_bytes()
    except FileNotFoundError:
        if create:
            return Blacklist()
        raise UsageError(f"{place}: there is no such blacklist; `corpus-guard sources blacklist` starts one.") from None
    return read_blacklist(content, str(place))


def save_blacklist(blacklist: Blacklist, path: str | Place) -> None:
    """
    Put the longer list in place of the shorter. ``UsageError`` if the file has grown or changed since it was read:
    nothing is written over, read it again. Hold ``place.lock()`` around reading and saving where several write.
    """
    place = Place.of(path)
    content = blacklist.content()
    if place.exists() and not content.startswith(place.read_bytes()):
        raise UsageError(f"{place}: was changed by somebody else in the meantime; nothing was written, try again.")
    place.put(content)


def read_blacklist(content: bytes, name: str) -> Blacklist:
    """The list that *content* holds; ``UsageError`` names every faulty line. *name* stands in messages."""
    faults = Faults(name)
    entries: list[Entry] = []
    if content and not content.endswith(b"\n"):
        faults.add_line(content.count(b"\n") + 1, "has no end: the line was cut off; restore it.")
    previous = ""
    for number, raw in enumerate(content.split(b"\n")[:-1], 1):
        try:
            entry = _entry(json.loads(raw.decode("utf-8", "surrogatepass")))
        except (ValueError, TypeError) as error:
            told = "is no JSON" if isinstance(error, json.JSONDecodeError | UnicodeDecodeError) else str(error)
            faults.add_line(number, f"{told}; the blacklist is only appended to: restore the line.")
            previous = ""
            continue
        if entry.previous != previous and (previous or not entries):
            faults.add_line(
                number, "does not follow from the line before it: a line was changed or removed; restore it."
            )
        entries.append(entry)
        previous = hashlib.sha256(raw + b"\n").hexdigest()
    faults.stop()
    return Blacklist(tuple(entries))


def _entry(data: Any) -> Entry:
    if not isinstance(data, dict):
        raise ValueError("is no entry")
    _known(data, (field.name for field in fields(Entry)))
    for key in ("action", "source", "on", "by", "reason", "previous"):
        if not isinstance(data.get(key), str) or not (data[key] or key == "previous"):
            raise ValueError(f"has no {key}")
    if data["action"] not in ("add", "lift"):
        raise ValueError(f"action '{shown(data['action'])}' is neither add nor lift")
    _day(data["on"])
    assessment = data.get("assessment")
    if assessment is not None:
        if not isinstance(assessment, dict):
            raise ValueError("assessment is no mapping")
        _known(assessment, (field.name for field in fields(Assessment)))
        assessment = Assessment(**assessment)
        _day(assessment.on)
    return Entry(**{**data, "assessment": assessment})


def _known(data: dict[str, Any], names: Iterable[str]) -> None:
    known = list(names)
    for key in data:
        if key not in known:
            raise ValueError(f"unknown key '{shown(key)}'{near(key, known)}")


def _day(text: Any) -> None:
    try:
        date.fromisoformat(text)
    except (ValueError, TypeError):
        raise ValueError(f"'{shown(text)}' is no day (YYYY-MM-DD)") from None
