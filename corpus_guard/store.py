"""
Where findings and runs lie: the store shared by runs, and the folders of one run.

A unit is done when its file exists; there is no other ledger. Knows paths and bytes, and nothing
of what findings or verdicts mean.
"""

import hashlib
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date

import pyarrow as pa
import pyarrow.parquet as pq

from corpus_guard.errors import DataError, UsageError
from corpus_guard.places import Place, one_line, safe_name
from corpus_guard.shards import Unit, table_bytes

__all__ = ["RunFolder", "Store", "safe_name", "stage_key"]

_SKIPPED = "corpus_guard.skipped_sources"
_PARTIAL = "~"
_SUFFIX = ".parquet"


def stage_key(name: str, stage_digest: str, reading_digest: str) -> str:
    """Where findings of a stage lie: ``<name>-<digest12>``, another one for another way of reading."""
    digest = hashlib.sha256(f"{stage_digest}\n{reading_digest}".encode()).hexdigest()
    return f"{safe_name(name)}-{digest[:12]}"


@dataclass(frozen=True, slots=True)
class Store:
    """
    All findings, shared by runs: ``findings/<key>/<shard digest12>/<unit>.parquet``.

    A unit of which documents of blacklisted sources were skipped is *partial*: its name ends with
    ``~`` and 12 hex of these sources, and it counts only as long as all of them are blacklisted.
    """

    place: Place

    def done(self, key: str, shard_digest: str, blacklisted: Collection[str] = frozenset()) -> set[str]:
        """Names of the units of one shard that are done."""
        folder = self._folder(key) / shard_digest[:12]
        return set(self._counting(folder, folder.names(_SUFFIX, recursive=False), blacklisted))

    def done_all(self, key: str, blacklisted: Collection[str] = frozenset()) -> set[tuple[str, str]]:
        """(first 12 digits of the shard digest, unit name) of everything done under *key*, with one listing."""
        folder = self._folder(key)
        return {
            (shard, unit)
            for path in self._counting(folder, folder.names(_SUFFIX), blacklisted)
            for shard, slash, unit in [path.partition("/")]
            if slash
        }

    def put(
        self,
        key: str,
        unit: Unit,
        table: pa.Table,
        metadata: Mapping[str, str] | None = None,
        skipped: Iterable[str] = (),
        sampled: bool = False,
    ) -> None:
        """
        Keep the findings of *unit*, one row per document; equal findings give equal bytes.

        *skipped*: the blacklisted sources whose documents were left out, if any. *sampled*: a store of a sample,
        which has only the drawn rows. Raises ``ValueError`` if the table has not the unit's rows.
        """
        if table.num_rows != unit.rows and not sampled:
            raise ValueError(f"{table.num_rows} rows of findings for {unit.rows} documents of {unit.name}")
        sources = sorted(set(skipped))
        about = dict(metadata or {})
        if sources:
            about[_SKIPPED] = json.dumps(sources, ensure_ascii=False)
        kept = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
        self._file(key, unit, sources).put(table_bytes(table, {**kept, **about}))

    def read(
        self,
        key: str,
        unit: Unit,
        columns: Collection[str] | None = None,
        blacklisted: Collection[str] | None = None,
    ) -> pa.Table:
        """
        Findings of *unit*: the full ones, else partial ones that skipped nothing outside *blacklisted* (null: any).

        Raises ``FileNotFoundError`` if the unit is not done, ``DataError`` if its file is damaged.
        """
        place, data = self._find(key, unit, blacklisted)
        try:
            names = None if columns is None else list(columns)
            # without threads: those that still hold on to Python's memory when the command ends would abort it
            file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
            return file.read(names, use_threads=False)
        except (OSError, pa.ArrowException) as fault:
            raise _damaged(place, fault) from fault

    def metadata(self, key: str, unit: Unit, blacklisted: Collection[str] | None = None) -> dict[str, str]:
        """The metadata that ``put`` was given. Faults as ``read``."""
        place, data = self._find(key, unit, blacklisted)
        return {name: value for name, value in _metadata(place, data).items() if name != _SKIPPED}

    def skipped(self, key: str, unit: Unit, blacklisted: Collection[str] | None = None) -> frozenset[str]:
        """The sources left out of what ``read`` gives."""
        return _skipped_in(*self._find(key, unit, blacklisted))

    def delete(self, key: str, unit: Unit) -> None:
        """Forget all findings of *unit*, full and partial."""
        for place in [self._file(key, unit, []), *self._partials(key, unit)]:
            place.delete()

    def _folder(self, key: str) -> Place:
        return self.place / "findings" / key

    def _file(self, key: str, unit: Unit, skipped: list[str]) -> Place:
        mark = f"{_PARTIAL}{_digest_of(skipped)}" if skipped else ""
        return self._folder(key) / unit.shard_digest[:12] / f"{unit.name}{mark}{_SUFFIX}"

    def _partials(self, key: str, unit: Unit) -> list[Place]:
        folder = self._folder(key) / unit.shard_digest[:12]
        names = sorted(folder.names(_SUFFIX, recursive=False))
        return [folder / name for name in names if name.startswith(f"{unit.name}{_PARTIAL}")]

    def _find(self, key: str, unit: Unit, blacklisted: Collection[str] | None) -> tuple[Place, bytes]:
        full = self._file(key, unit, [])
        try:
            return full, full.read_bytes()
        except FileNotFoundError:
            partials = [(place, place.read_bytes()) for place in self._partials(key, unit)]
        allowed = [
            (len(skipped), place.name, (place, data))
            for place, data in partials
            for skipped in [_skipped_in(place, data)]
            if blacklisted is None or skipped <= set(blacklisted)
        ]
        if not allowed:
            raise FileNotFoundError(f"{full.uri}: no findings of this unit")
        return min(allowed, key=lambda found: found[:2])[2]

    def _counting(self, folder: Place, paths: Iterable[str], blacklisted: Collection[str]) -> Iterator[str]:
        """The units of *paths* that count; of each set of skipped sources one file is looked into."""
        wanted = frozenset(blacklisted)
        counts: dict[str, bool] = {}
        for path in paths:
            unit, partial_mark, sources = path.removesuffix(_SUFFIX).partition(_PARTIAL)
            if not partial_mark:
                yield unit
                continue
            if sources not in counts:
                place = folder / path
                counts[sources] = _skipped_in(place, place.read_bytes()) <= wanted
            if counts[sources]:
                yield unit


def _digest_of(sources: list[str]) -> str:
    return hashlib.sha256(json.dumps(sources, ensure_ascii=False).encode()).hexdigest()[:12]


def _metadata(place: Place, data: bytes) -> dict[str, str]:
    try:
        found = pq.read_schema(pa.BufferReader(data)).metadata or {}
    except (OSError, pa.ArrowException) as fault:
        raise _damaged(place, fault) from fault
    return {name.decode(): value.decode() for name, value in found.items()}


def _skipped_in(place: Place, data: bytes) -> frozenset[str]:
    return frozenset(json.loads(_metadata(place, data).get(_SKIPPED, "[]")))


def _damaged(place: Place, fault: Exception) -> DataError:
    return DataError(f"{place.uri} is damaged ({one_line(fault)}). Delete it and scan again.")


# -- one run ----------------------------------------------------------------------------------

_PARTS = {
    "job": "another job",
    "policy": "another policy",
    "reading": "other columns",
    "stages": "other stages (library, models, levels or thresholds)",
    "evaluation": "another evaluation set-up",
    "source decisions": "other settings of sources (decide, phase or blacklist)",
    "labels": "other labels",
}


@dataclass(frozen=True, slots=True)
class RunFolder:
    """
    The paths of one run. Everything below ``restricted`` holds text that a trainer must not read.

    Shard names are those of the manifest: harmless, unique, possibly with ``/``.
    """

    run: Place
    restricted: Place

    @classmethod
    def of(cls, run: Place, restricted: Place | None = None) -> "RunFolder":
        """*restricted* defaults to ``<run>.restricted`` beside the run."""
        return cls(run, restricted or Place.of(f"{run.base}.restricted{run.query}"))

    # what a run writes, in the order of its steps

    @property
    def manifest(self) -> Place:
        return self.run / "manifest.parquet"

    @property
    def identity(self) -> Place:
        return self.run / "run.json"

    def verdicts(self, unit: Unit) -> Place:
        return self.run / f"verdicts/{unit.shard_name}/{unit.name}.parquet"

    @property
    def all_verdicts(self) -> Place:
        return self.run / "verdicts"

    def tally(self, shard_name: str) -> Place:
        return self.run / f"tallies/{shard_name}.parquet"

    @property
    def tallies(self) -> Place:
        return self.run / "tallies"

    @property
    def sources(self) -> Place:
        return self.run / "sources.parquet"

    @property
    def sources_csv(self) -> Place:
        return self.run / "sources.csv"

    def clean(self, shard_name: str) -> Place:
        return self.run / f"clean/{shard_name}.parquet"

    @property
    def all_clean(self) -> Place:
        return self.run / "clean"

    @property
    def accounting(self) -> Place:
        return self.run / "accounting.json"

    def shard_accounting(self, shard_name: str) -> Place:
        return self.run / f"accounting/{shard_name}.json"

    @property
    def samples(self) -> Place:
        return self.run / "samples"

    @property
    def manual_sample(self) -> Place:
        return self.samples / "manual.parquet"

    def technical_sample(self, shard_name: str) -> Place:
        return self.samples / f"technical/{shard_name}.parquet"

    @property
    def technical(self) -> Place:
        return self.run / "technical.parquet"

    @property
    def draws(self) -> Place:
        return self.run / "draws.jsonl"

    def failed(self, shard_name: str, part: str = "") -> Place:
        """*part*: the unit's name, or nothing for a shard that cannot be read at all."""
        return self.run / f"failed/{shard_name}{'/' if part else ''}{part}.json"

    @property
    def all_failed(self) -> Place:
        return self.run / "failed"

    @property
    def reports(self) -> Place:
        return self.run / "reports"

    def removed(self, shard_name: str) -> Place:
        return self.restricted / f"removed/{shard_name}.parquet"

    def quarantined(self, shard_name: str) -> Place:
        return self.restricted / f"quarantined/{shard_name}.parquet"

    @property
    def review(self) -> Place:
        return self.restricted / "review"

    @property
    def labels(self) -> Place:
        return self.restricted / "labels.parquet"

    def open(self) -> None:
        """
        Make both folders and see that they can be written.

        A new ``restricted`` gets mode 0700; one that is there loses what others may do with it.
        Raises ``UsageError`` if a folder cannot be written or one of the two lies inside the other.
        """
        if _inside(self.restricted, self.run):
            raise UsageError(
                f"{self.restricted} lies inside the run folder {self.run}, where a trainer reads. "
                f"Set restricted to a folder outside of it."
            )
        if _inside(self.run, self.restricted):
            raise UsageError(f"The run folder {self.run} lies inside {self.restricted}. Set another restricted folder.")
        self.run.make_folder()
        self.restricted.make_folder(0o700)
        _shut_out_others(self.restricted)
        for folder in (self.run, self.restricted):
            probe = folder / ".writable"
            probe.put(b"")
            probe.delete()

    def lock(self) -> AbstractContextManager[None]:
        """Held while one driver works on the run; a second is told who holds it (``UsageError``)."""
        return self.run.lock()

    def bind(self, identity: Mapping[str, str], as_of: date) -> date:
        """
        Bind the run to *identity* (name of a part to its digest) and give the date the run is of.

        The first time both are written to ``run.json``; later the first date stays. Raises
        ``UsageError`` naming every part that differs.
        """
        try:
            bound = json.loads(self.identity.read_bytes())
            first = {str(part): str(digest) for part, digest in bound["identity"].items()}
            since = date.fromisoformat(bound["as_of"])
        except FileNotFoundError:
            content = {"schema_version": 1, "as_of": as_of.isoformat(), "identity": dict(sorted(identity.items()))}
            self.identity.put(json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n")
            return as_of
        except (ValueError, KeyError, TypeError, AttributeError) as fault:
            raise UsageError(f"{self.identity} is not a run's identity any more; choose another run name.") from fault
        parts = first.keys() | identity.keys()
        differing = sorted(part for part in parts if first.get(part, "") != identity.get(part, ""))
        if differing:
            changes = "; ".join(
                f"{_PARTS.get(part, part)} ({_short(first.get(part))} then, {_short(identity.get(part))} now)"
                for part in differing
            )
            raise UsageError(f"{self.run} was begun with {changes}. A run never changes: choose another run name.")
        return since


def _short(digest: str | None) -> str:
    return "nothing" if not digest else digest[:12]


def _inside(inner: Place, outer: Place) -> bool:
    if inner.is_local != outer.is_local:
        return False
    if inner.is_local:
        a, b = os.path.realpath(inner.path), os.path.realpath(outer.path)
    else:
        a, b = inner.uri.partition("?")[0], outer.uri.partition("?")[0]
    return a == b or a.startswith(b.rstrip("/") + "/")


def _shut_out_others(folder: Place) -> None:
    if folder.is_local and (mode := os.stat(folder.path).st_mode) & 0o007:
        with folder.telling("protect"):
            os.chmod(folder.path, mode & 0o770)
