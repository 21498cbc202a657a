"""
``apply``: documents, verdicts and source decisions become clean, removed and quarantined shards.

read = clean + removed + quarantined, shard by shard. A clean shard has the input's own schema and
name and appears only when it is whole; the shard's ``accounting/<shard>.json`` is written last
and names the decisions it rests on: where it is and fits, the shard is done.
"""

import hashlib
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpus_guard.errors import DataError
from corpus_guard.executors.seam import Back, Item, Status
from corpus_guard.findings import SKIPPED
from corpus_guard.places import Place
from corpus_guard.shards import Reading, Shard, ShardWriter, Unit, locate, read_schema, read_table, table_bytes
from corpus_guard.steps.files import put_json, read_json, read_parquet
from corpus_guard.steps.judge import Judge, JudgeJob, judge_job
from corpus_guard.steps.plan import Plan, extent
from corpus_guard.steps.scan import LOST, forget_records
from corpus_guard.steps.setup import Run
from corpus_guard.steps.work import stop_on, work
from corpus_guard.store import RunFolder
from corpus_guard.verdicts import QUARANTINED as QUARANTINED_STATUS
from corpus_guard.verdicts import UNQUALIFIED
from corpus_guard.verdicts import UNREAD as UNREAD_LOSS

FATES = ("clean", "removed_document", "removed_source", "removed_blocked", "quarantined", "unread")
CLEAN, DOCUMENT, SOURCE, BLOCKED, QUARANTINED, UNREAD = range(len(FATES))

Fates = npt.NDArray[np.uint8]
Counts = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


def fates(verdicts: pa.Table, excluded: pa.Array) -> Fates:
    """
    What becomes of each document: one of ``FATES``, by index.

    In this order: what could not be read at all, what could not be judged, what is itself unqualified, what belongs
    to a source in *excluded* (a null in it means the null source). Rows of blacklisted sources are
    ``removed_blocked``, unseen. Nothing unjudged is ever clean.
    """
    status, loss = verdicts.column("status"), verdicts.column("loss")
    fate = np.full(verdicts.num_rows, CLEAN, np.uint8)
    fate[_true(pc.is_in(verdicts.column("source"), excluded))] = SOURCE
    fate[_true(pc.equal(status, UNQUALIFIED))] = DOCUMENT
    fate[_true(pc.equal(status, QUARANTINED_STATUS))] = QUARANTINED
    fate[_true(pc.equal(loss, SKIPPED))] = BLOCKED
    fate[_true(pc.equal(loss, UNREAD_LOSS))] = UNREAD
    return fate


def excluded_sources(folder: RunFolder) -> pa.Array:
    """Sources whose documents are not used: decided ``exclude``, or on ``hold``."""
    sources = read_parquet(folder.sources, columns=["source", "decision"])
    out = pc.invert(pc.equal(sources.column("decision"), "keep"))
    return sources.column("source").filter(out).combine_chunks()


def _true(mask: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    return np.asarray(pc.fill_null(mask, False), dtype=np.bool_)


@dataclass(frozen=True, slots=True)
class ShardLoad:
    """One shard and the units it was planned in."""

    shard: Shard
    units: tuple[Unit, ...]


@dataclass(frozen=True)
class ApplyJob:
    """Writes the outputs of shards under the source decisions whose digest is *decisions*."""

    judging: JudgeJob
    decisions: str
    slice_bytes: int
    two_pools: bool = False
    name: str = "apply"

    def open_front(self) -> "Apply":
        return Apply(self)

    def open_back(self) -> Back:
        raise AssertionError("applying has no back")


class Apply:
    """A worker that writes output shards."""

    def __init__(self, job: ApplyJob) -> None:
        self._job = job
        self._judge = Judge(job.judging)
        self._folder = RunFolder(Place.of(job.judging.run), Place.of(job.judging.restricted))
        self._excluded = excluded_sources(self._folder)
        self._open: tuple[Unit, dict[str, pa.Table | None]] | None = None

    def work(self, item: Item) -> Iterator[pa.RecordBatch | Status]:
        load: ShardLoad = item.payload
        counts = np.zeros(len(FATES), np.int64)
        lost: list[dict[str, Any]] = []
        try:
            schema = read_schema(load.shard)
        except DataError as error:  # gone, or not the file any more that was planned
            self._forget(load.shard)
            for unit in load.units:
                self._lose(unit, self._fates(unit)[1], np.zeros(unit.rows, np.bool_), str(error), counts, lost)
        else:
            self._write(load, schema, counts, lost)
        status: Status = {
            "shard": load.shard.name,
            "decisions": self._job.decisions,
            "extent": extent(load.shard.digest, load.units),
            "lost": lost,
        }
        status.update({fate_name: int(count) for fate_name, count in zip(FATES, counts, strict=True)})
        put_json(self._folder.shard_accounting(load.shard.name), status)
        yield status

    def _write(self, load: ShardLoad, schema: pa.Schema, counts: Counts, lost: list[dict[str, Any]]) -> None:
        name = load.shard.name
        with ExitStack() as stack:
            clean = stack.enter_context(ShardWriter(self._folder.clean(name), schema))
            removed = stack.enter_context(ShardWriter(self._folder.removed(name), removed_schema(schema)))
            quarantined = stack.enter_context(ShardWriter(self._folder.quarantined(name), quarantined_schema(schema)))
            for unit in load.units:
                verdicts, fate = self._fates(unit)
                written = np.zeros(unit.rows, np.bool_)
                errors: list[str] = []
                if verdicts is not None:
                    for row_lo, table in self._tables(unit, errors):
                        here = slice(row_lo - unit.row_lo, row_lo - unit.row_lo + table.num_rows)
                        written[here] = True
                        found = verdicts.slice(here.start, table.num_rows)
                        clean.write(_rows(table, fate[here] == CLEAN))
                        removed.write(self._removed(unit, table, found, fate[here], removed.schema))
                        out = fate[here] == QUARANTINED
                        losses = found.column("loss").filter(pa.array(out))
                        quarantined.write(_beside(_rows(table, out), [losses], quarantined.schema))
                self._lose(unit, fate, written, "; ".join(errors), counts, lost)

    def _fates(self, unit: Unit) -> tuple[pa.Table | None, Fates]:
        """Verdicts of *unit*, ``None`` if it was never read, and what becomes of its rows."""
        place = self._folder.verdicts(unit)
        if not place.exists():
            return None, np.full(unit.rows, UNREAD, np.uint8)
        verdicts = read_parquet(place)
        return verdicts, fates(verdicts, self._excluded)

    def _tables(self, unit: Unit, errors: list[str]) -> Iterator[tuple[int, pa.Table]]:
        """What can be read of *unit*; why the rest cannot goes to *errors*."""
        try:
            yield from read_table(unit, self._job.slice_bytes, lambda group, rows, error: errors.append(error))
        except DataError as error:
            errors.append(str(error))

    def _lose(
        self, unit: Unit, fate: Fates, written: Flags, error: str, counts: Counts, lost: list[dict[str, Any]]
    ) -> None:
        """Count *unit*; rows that were judged and could not be read again (in another column, or later) are lost."""
        gone = ~written & (fate != UNREAD)
        if gone.any():
            edges = np.flatnonzero(np.diff(np.concatenate([[False], gone, [False]]).astype(np.int8)))
            lost.append(
                {
                    "unit": unit.name,
                    "rows": int(gone.sum()),
                    "from_to": (edges.reshape(-1, 2) + unit.row_lo).tolist(),
                    "error": error,
                }
            )
        counts += np.bincount(np.where(written, fate, UNREAD), minlength=len(FATES))

    def _forget(self, shard: Shard) -> None:
        for place in (self._folder.clean, self._folder.removed, self._folder.quarantined):
            place(shard.name).delete()

    def _removed(self, unit: Unit, table: pa.Table, verdicts: pa.Table, fate: Fates, schema: pa.Schema) -> pa.Table:
        """Removed rows with why they were: the reasons of every stage, and the field they lie in."""
        out = (fate == DOCUMENT) | (fate == SOURCE) | (fate == BLOCKED)
        table, verdicts = _rows(table, out), verdicts.filter(pa.array(out))
        reasons = pa.array(_REMOVALS).take(pa.array(fate[out]))
        evidence = self._evidence(unit, verdicts.column("row"), table)
        return _beside(table, [reasons, verdicts.column("risks"), pa.array(evidence, pa.list_(pa.string()))], schema)

    def _evidence(self, unit: Unit, rows: pa.ChunkedArray, table: pa.Table) -> list[list[str]]:
        """Reasons of every stage for *rows* of *unit*; *table* holds the same rows as the input has them."""
        reasons: list[list[str]] = [[] for _ in range(table.num_rows)]
        if not reasons:
            return reasons
        for name, reader in self._judge.readers.items():
            found = self._findings(name, unit)
            if found is not None:
                at = pc.index_in(rows, found.column("row").combine_chunks())
                for mine, theirs in zip(reasons, reader.explain(found.take(at)), strict=True):
                    mine.extend(theirs)
        return [_with_fields(mine, table.slice(i, 1), self._job.judging.reading) for i, mine in enumerate(reasons)]

    def _findings(self, name: str, unit: Unit) -> pa.Table | None:
        """Findings of the unit at hand: read once for all its slices."""
        if self._open is None or self._open[0] != unit:
            self._open = (unit, {})
        tables = self._open[1]
        if name not in tables:
            tables[name] = self._judge.stored(name, unit)
        return tables[name]


_REMOVALS = ("", "document", "source", "blocked", "", "")
_ADDED = [
    pa.field("removal", pa.string()),
    pa.field("risks", pa.list_(pa.string())),
    pa.field("evidence", pa.list_(pa.string())),
]


def removed_schema(schema: pa.Schema) -> pa.Schema:
    """The input's columns (``input_removal`` for one that is called so) and why the row was removed."""
    return _schema_with(schema, _ADDED)


def quarantined_schema(schema: pa.Schema) -> pa.Schema:
    """The input's columns and why the row could not be judged."""
    return _schema_with(schema, [pa.field("loss", pa.string())])


def _schema_with(schema: pa.Schema, added: list[pa.Field]) -> pa.Schema:
    ours = {field.name for field in added}
    taken = {*schema.names, *ours}
    fields = []
    for field in schema:
        if field.name in ours:
            name = f"input_{field.name}"
            while name in taken:
                name = f"input_{name}"
            taken.add(name)
            field = field.with_name(name)
        fields.append(field)
    return pa.schema([*fields, *added], schema.metadata)


def _rows(table: pa.Table, wanted: Flags) -> pa.Table:
    """The *wanted* rows of *table*."""
    if not any("view" in str(field.type) for field in table.schema):
        return table.filter(pa.array(wanted))
    # Arrow does not filter views; slices it can
    edges = np.flatnonzero(np.diff(np.concatenate([[False], wanted, [False]]).astype(np.int8))).reshape(-1, 2)
    return pa.concat_tables([table.slice(0, 0), *(table.slice(lo, hi - lo) for lo, hi in edges.tolist())])


def _beside(table: pa.Table, added: list[pa.Array | pa.ChunkedArray], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_arrays([*table.columns, *added], schema=schema)


_SPAN = re.compile(r"(?<= )([0-9]+)-([0-9]+)(?= |$)")


def _with_fields(reasons: list[str], row: pa.Table, reading: Reading) -> list[str]:
    """Where text came from several fields, say in which field a span lies and where in it it starts."""
    if len(reading.text) == 1 and reading.text[0] in row.schema.names:
        return reasons
    named = []
    for reason in reasons:
        span = _SPAN.search(reason)
        try:
            field, start = locate(row, reading, int(span[1])) if span else ("", 0)
        except IndexError:
            field = ""
        named.append(f"{reason} in {field} at {start}" if field else reason)
    return named


def apply(run: Run, found: Plan, sources: pa.Table) -> dict[str, Any]:
    """Write clean, removed and quarantined shards; check that every row is accounted for."""
    decisions = hashlib.sha256(table_bytes(sources.select(["source", "decision"]))).hexdigest()
    job = ApplyJob(judging=judge_job(run), decisions=decisions, slice_bytes=run.setup.config.executor.slice_bytes)
    root = run.folder.run / "accounting"
    loads = [ShardLoad(shard, units) for shard, units in found.by_shard()]
    rests_on = {load.shard.name: (decisions, extent(load.shard.digest, load.units)) for load in loads}
    done: dict[str, Status] = {}
    with ThreadPoolExecutor(16) as threads:
        for status in threads.map(lambda name: read_json(root / name), root.names(".json")):
            if rests_on.get(status["shard"]) == (status["decisions"], status.get("extent")) and not status["lost"]:
                done[status["shard"]] = status
    items = [
        Item(load.shard.name, load, load.shard.rows, load.shard.size) for load in loads if load.shard.name not in done
    ]
    stop_on(
        work(run, job, items, "apply", len(done), lambda item, status: done.update({status["shard"]: status})),
        "written",
    )
    forget_records(run.folder, LOST)
    statuses = [done[shard.name] for shard in found.shards]
    for status in statuses:
        for one in status["lost"]:
            record = {"shard_name": status["shard"], **one}
            put_json(run.folder.failed(status["shard"], f"{one['unit']}{LOST}"), record)
    accounting = account(found, statuses)
    put_json(run.folder.accounting, accounting)
    return accounting


def account(found: Plan, statuses: list[Status]) -> dict[str, Any]:
    """read = clean + removed + quarantined, in documents, over all shards and in each."""
    counts = {fate: sum(status[fate] for status in statuses) for fate in FATES}
    unread = counts.pop("unread")
    unbalanced = [
        status["shard"]
        for status, shard in zip(statuses, found.shards, strict=True)
        if sum(status[fate] for fate in FATES) != shard.rows
    ]
    return {
        "documents": {"read": found.rows - unread, **counts},
        "shards": {
            "found": len(found.shards) + len(found.bad),
            "written": len(statuses),
            "failed": len(found.bad),
            "empty": sum(not shard.rows for shard in found.shards),
            "failed_rows": unread,
            "failed_bytes": sum(bad.size for bad in found.bad),
        },
        "lost": [{"shard": status["shard"], **one} for status in statuses for one in status["lost"]],
        "unbalanced": unbalanced,
        "balanced": not unbalanced and found.rows - unread == sum(counts.values()),
    }
