"""
``draw``: which documents people read (9.2 a) and which the technical check counts (9.2 b).

Both draws are without replacement, of exact size, keyed by manifest and policy, and free of shard
order, worker count and retries. Workers look at ids alone: a first pass counts ranks and gives each shard's
smallest, then the exact cut is narrowed down, then members are written shard by shard.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corpus_guard.executors.seam import Back, Item, Status
from corpus_guard.findings import FAILED
from corpus_guard.places import Place
from corpus_guard.sampling import Cut, Flags, Ranks, Window, candidates, merge, ranks
from corpus_guard.shards import Reading, Unit, read_documents, table_bytes
from corpus_guard.steps.apply import CLEAN, ShardLoad, excluded_sources, fates
from corpus_guard.steps.files import read_parquet
from corpus_guard.store import RunFolder

COLLECT = 200_000
"""So many candidates the driver takes at once; above it the window is narrowed by one more count."""

COUNTED = 20_000_000
"""Equal ids are counted exactly up to so many documents; above it, in a keyed part of the ids, and scaled."""

SAMPLE = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("shard", pa.string()),
        ("unit", pa.string()),
        ("row", pa.int64()),
        ("rank", pa.uint64()),
    ]
)
"""A sample names documents and holds no text."""


@dataclass(frozen=True)
class Population:
    """
    Whose ids are drawn from: the documents a filter run keeps (``clean``), or everything there is (``all``, spot check).
    """

    run: str
    restricted: str
    reading: Reading
    of: Literal["clean", "all"]
    slice_bytes: int

    def tables(self, load: ShardLoad) -> Iterator[tuple[Unit, pa.Table]]:
        """Per unit of a shard: ``id, source, row`` of the population."""
        folder = RunFolder(Place.of(self.run), Place.of(self.restricted))
        if self.of == "all":
            for unit in load.units:
                for batch in read_documents(unit, self.reading, self.slice_bytes, want_text=False):
                    table = pa.Table.from_batches([batch.select(["id", "source", "row", "state"])])
                    known = pc.invert(pc.equal(table.column("state"), FAILED))
                    yield unit, table.filter(known).drop_columns(["state"])
            return
        excluded = excluded_sources(folder)
        for unit in load.units:
            place = folder.verdicts(unit)
            if place.exists():
                verdicts = read_parquet(place, columns=["id", "source", "row", "status", "loss"])
                keep = fates(verdicts, excluded) == CLEAN
                yield unit, verdicts.select(["id", "source", "row"]).filter(pa.array(keep))


@dataclass(frozen=True)
class DrawJob:
    """One pass over the ids of all shards; *task* says which."""

    population: Population
    task: Literal["first", "count", "collect", "write"]
    manual_key: bytes
    technical_key: bytes
    manual_size: int
    window: Window | None = None
    cut: Cut | None = None
    id_bits: int = 0
    two_pools: bool = False
    name: str = "draw"

    def open_front(self) -> "Draw":
        return Draw(self)

    def open_back(self) -> Back:
        raise AssertionError("drawing has no back")


class Draw:
    """A worker that ranks ids."""

    def __init__(self, job: DrawJob) -> None:
        self._job = job

    def work(self, item: Item) -> Iterator[pa.RecordBatch | Status]:
        load: ShardLoad = item.payload
        work = {"first": self._first, "count": self._count, "collect": self._collect, "write": self._write}[
            self._job.task
        ]
        yield work(
            load, [self._prepared(unit, table) for unit, table in self._job.population.tables(load) if table.num_rows]
        )

    def _prepared(self, unit: Unit, table: pa.Table) -> tuple[Unit, pa.Table, Ranks]:
        return unit, table, ranks(table.column("id"), self._job.technical_key, "technical")

    def _first(self, load: ShardLoad, parts: list[tuple[Unit, pa.Table, Ranks]]) -> Status:
        """Counts by the first digit, the shard's smallest ranks for the manual sample, hashes to count equal ids."""
        assert self._job.window is not None
        drawn = []
        histogram = np.zeros(0, np.int64)
        hashes = []
        for unit, table, rank in parts:
            manual = ranks(table.column("id"), self._job.manual_key, "manual")
            drawn.append(candidates(_ordered(unit, table), manual, self._job.manual_size))
            count = self._job.window.histogram(rank, unit.shard_digest, _rows(table), unit.copy)
            histogram = count if not len(histogram) else histogram + count
            hashes.append(rank[rank >> np.uint64(64 - self._job.id_bits) == 0] if self._job.id_bits else rank)
        return {
            "rows": sum(table.num_rows for _, table, _ in parts),
            "manual": _ipc(merge(drawn, self._job.manual_size)) if drawn else b"",
            "histogram": _sparse(histogram),
            "hashes": np.concatenate(hashes).tobytes() if hashes else b"",
        }

    def _count(self, load: ShardLoad, parts: list[tuple[Unit, pa.Table, Ranks]]) -> Status:
        assert self._job.window is not None
        total = sum(
            (
                self._job.window.histogram(rank, unit.shard_digest, _rows(table), unit.copy)
                for unit, table, rank in parts
            ),
            np.zeros(1, np.int64),
        )
        return {"histogram": _sparse(total)}

    def _collect(self, load: ShardLoad, parts: list[tuple[Unit, pa.Table, Ranks]]) -> Status:
        assert self._job.window is not None
        found = []
        for unit, table, rank in parts:
            inside = self._job.window.members(rank, unit.shard_digest, _rows(table), unit.copy)
            picked = _ordered(unit, table.filter(pa.array(inside)))
            found.append(
                picked.add_column(0, "rank", pa.array(rank[inside], pa.uint64())).select(
                    ["rank", "digest", "row", "copy"]
                )
            )
        return {"members": _ipc(pa.concat_tables(found)) if found else b""}

    def _write(self, load: ShardLoad, parts: list[tuple[Unit, pa.Table, Ranks]]) -> Status:
        assert self._job.cut is not None
        found = []
        for unit, table, rank in parts:
            inside = self._job.cut.contains(rank, unit.shard_digest, _rows(table), unit.copy)
            found.append(_sample(unit, table, rank, inside))
        members = pa.concat_tables(found) if found else SAMPLE.empty_table()
        folder = RunFolder(Place.of(self._job.population.run), Place.of(self._job.population.restricted))
        folder.technical_sample(load.shard.name).put(table_bytes(members.combine_chunks()))
        return {"drawn": members.num_rows}


@dataclass
class First:
    """What the first pass over all shards adds up to, on the driver."""

    manual_size: int
    rows: int = 0
    histogram: Any = None
    manual: list[pa.Table] = field(default_factory=list)
    hashes: list[Any] = field(default_factory=list)

    def add(self, status: Status) -> None:
        self.rows += status["rows"]
        if status["rows"]:
            count = dense(status["histogram"])
            self.histogram = count if self.histogram is None else self.histogram + count
            self.manual.append(table_of(status["manual"]))
            self.hashes.append(np.frombuffer(status["hashes"], np.uint64))
            if len(self.manual) > 64:
                self.manual = [merge(self.manual, self.manual_size)]

    def sample(self) -> pa.Table:
        """The manual sample, in its order."""
        if not self.manual:
            return SAMPLE.empty_table()
        return merge(self.manual, self.manual_size).select(SAMPLE.names).cast(SAMPLE)

    def duplicates(self) -> int:
        """Documents whose id another document of the population has as well, beyond the first."""
        if not self.hashes:
            return 0
        every = np.concatenate(self.hashes)
        return len(every) - len(np.unique(every))


def _rows(table: pa.Table) -> Any:
    return np.asarray(table.column("row"))


def _ordered(unit: Unit, table: pa.Table) -> pa.Table:
    """*table* with the columns a draw is ordered by, and where each document is."""
    n = table.num_rows
    return pa.table(
        {
            "digest": pa.repeat(unit.shard_digest, n),
            "row": table.column("row"),
            "copy": pa.repeat(pa.scalar(unit.copy, pa.int32()), n),
            "id": table.column("id"),
            "source": table.column("source"),
            "shard": pa.repeat(unit.shard_name, n),
            "unit": pa.repeat(unit.name, n),
        }
    )


def _sample(unit: Unit, table: pa.Table, rank: Ranks, inside: Flags) -> pa.Table:
    picked = table.filter(pa.array(inside))
    n = picked.num_rows
    columns = [
        picked.column("id"),
        picked.column("source"),
        pa.repeat(unit.shard_name, n),
        pa.repeat(unit.name, n),
        picked.column("row"),
        pa.array(rank[inside], pa.uint64()),
    ]
    return pa.table(columns, schema=SAMPLE)


def _sparse(histogram: Any) -> dict[str, bytes | int]:
    at = np.flatnonzero(histogram)
    return {
        "size": len(histogram),
        "at": at.astype(np.int32).tobytes(),
        "count": histogram[at].astype(np.int64).tobytes(),
    }


def dense(sparse: dict[str, Any]) -> Any:
    histogram = np.zeros(max(sparse["size"], 4096), np.int64)
    histogram[np.frombuffer(sparse["at"], np.int32)] = np.frombuffer(sparse["count"], np.int64)
    return histogram


def _ipc(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue()


def table_of(data: bytes) -> pa.Table:
    return pa.ipc.open_stream(data).read_all()
