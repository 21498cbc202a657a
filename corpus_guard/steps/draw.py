"""
``draw``: which documents people read (9.2 a) and which the technical check counts (9.2 b).

Both draws are without replacement, of exact size, keyed by manifest and policy, and free of shard
order, worker count and retries. Workers look at ids alone: a first pass counts ranks and gives each shard's
smallest, then the exact cut is narrowed down, then members are written shard by shard.
"""

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corpus_guard.executors.seam import Back, Item, Status
from corpus_guard.findings import FAILED
from corpus_guard.places import Place
from corpus_guard.sampling import (
    Cut,
    DrawRecord,
    Fingerprint,
    Flags,
    Ranks,
    Window,
    candidates,
    draw_key,
    merge,
    next_attempt,
    ranks,
    read_draws,
)
from corpus_guard.shards import Reading, Unit, read_documents, table_bytes
from corpus_guard.steps.apply import CLEAN, ShardLoad, excluded_sources, fates
from corpus_guard.steps.files import put_json, read_json, read_parquet
from corpus_guard.steps.outcomes import Drawn
from corpus_guard.steps.plan import Plan
from corpus_guard.steps.setup import Run
from corpus_guard.steps.work import stop_on, work
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
    Whose ids are drawn from: the documents a filter run keeps (``clean``), or everything there is (``all``).
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
        applied = read_json(folder.shard_accounting(load.shard.name))
        lost = {one["unit"]: one["from_to"] for one in applied["lost"]}  # clean by verdict, but not in any clean shard
        for unit in load.units:
            place = folder.verdicts(unit)
            if place.exists():
                verdicts = read_parquet(place, columns=["id", "source", "row", "status", "loss"])
                keep = fates(verdicts, excluded) == CLEAN
                for start, end in lost.get(unit.name, ()):
                    keep[start - unit.row_lo : end - unit.row_lo] = False
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


def draw(run: Run, found: Plan, of: Literal["clean", "all"], rests_on: str, redraw: str = "") -> Drawn:
    """
    Draw both samples from what *rests_on* (a digest) leaves: the clean documents of a filter run, or all of a corpus.

    Done once: a second start finds the draw. Every draw is a line of ``draws.jsonl``; *redraw* is the reason for
    another one though nothing changed.
    """
    policy, folder = run.setup.policy, run.folder
    ledger = read_draws(folder.draws.read_bytes(), folder.draws.uri) if folder.draws.exists() else []
    mark = {"rests_on": rests_on, "manifest": found.manifest, "policy": policy.digest, "of": of}
    drawn_already = folder.samples / "draw.json"
    if drawn_already.exists():
        before = read_json(drawn_already)
        if before["mark"] == mark and not redraw:
            lines = "".join(before["draws"]).encode()
            known = read_draws(lines, drawn_already.uri)
            if known != ledger:  # stopped between the two files
                folder.draws.put(lines)
            return Drawn(
                before["population"], before["manual"], before["technical"], before["duplicate_ids"], tuple(known)
            )
    reason = redraw or ("the documents to draw from changed" if ledger else "first draw")
    attempt = 1 if not ledger else next_attempt(ledger, found.manifest, policy.digest, "manual", reason)
    keys = {purpose: draw_key(found.manifest, policy.digest, purpose, attempt) for purpose in ("manual", "technical")}
    loads = [ShardLoad(shard, units) for shard, units in found.by_shard()]
    items = [Item(load.shard.name, load, load.shard.rows, load.shard.size) for load in loads]
    first = First(policy.manual.size(found.rows))
    job = DrawJob(
        population=Population(
            folder.run.uri, folder.restricted.uri, run.setup.reading, of, run.setup.config.executor.slice_bytes
        ),
        task="first",
        manual_key=keys["manual"],
        technical_key=keys["technical"],
        manual_size=first.manual_size,
        window=Window(1),
        id_bits=max(0, (found.rows // COUNTED).bit_length()),
    )
    stop_on(work(run, job, items, "draw", 0, lambda item, status: first.add(status)), "drawn from")
    sizes = {"manual": policy.manual.size(first.rows), "technical": policy.technical.size(first.rows)}
    cut = _cut(run, job, items, first, sizes["technical"])
    drawn = 0

    def count(item: Item, status: Status) -> None:
        nonlocal drawn
        drawn += status["drawn"]

    stop_on(work(run, replace(job, task="write", cut=cut), items, "draw", 0, count), "drawn from")
    if drawn != sizes["technical"]:
        raise RuntimeError(f"the technical draw has {drawn} members where {sizes['technical']} were to be drawn")
    sample = first.sample().slice(0, sizes["manual"])
    folder.manual_sample.put(table_bytes(sample))
    fingerprints = {"manual": Fingerprint.of(sample.column("id")), "technical": _fingerprint(folder, loads)}
    for purpose in ("manual", "technical"):
        ledger.append(
            DrawRecord(
                purpose,
                first.rows,
                sizes[purpose],
                keys[purpose].hex(),
                found.manifest,
                policy.digest,
                attempt,
                reason,
                fingerprints[purpose].hex,
            )
        )
    draws = [record.line for record in ledger]
    result = Drawn(first.rows, sizes["manual"], sizes["technical"], first.duplicates() << job.id_bits, tuple(ledger))
    put_json(
        drawn_already,
        {
            "mark": mark,
            "population": result.population,
            "manual": result.manual,
            "technical": result.technical,
            "duplicate_ids": result.duplicate_ids,
            "duplicate_ids_exact": job.id_bits == 0,
            "draws": draws,
        },
    )
    folder.draws.put("".join(draws).encode())  # second: a draw that was stopped here is found, and not made again
    return result


def _cut(run: Run, job: DrawJob, items: list[Item], first: First, size: int) -> Cut:
    """The exact end of the technical sample: narrowed by counts until few documents are left, then picked."""
    if not size:
        return Cut.none()
    window: Window | Cut = Window(size).narrow(first.histogram)
    left = int(first.histogram.max())
    while isinstance(window, Window) and left > COLLECT:
        total = np.zeros(4096, np.int64)

        def add_up(item: Item, status: Status, total: Any = total) -> None:
            count = dense(status["histogram"])
            total[: len(count)] += count

        stop_on(work(run, replace(job, task="count", window=window), items, "draw", 0, add_up), "drawn from")
        left = int(total.max())
        window = window.narrow(total)
    if isinstance(window, Cut):
        return window
    members: list[pa.Table] = []

    def collect(item: Item, status: Status) -> None:
        if status["members"]:
            members.append(table_of(status["members"]))

    stop_on(work(run, replace(job, task="collect", window=window), items, "draw", 0, collect), "drawn from")
    return window.pick(pa.concat_tables(members))


def _fingerprint(folder: RunFolder, loads: Iterable[ShardLoad]) -> Fingerprint:
    total = Fingerprint()
    for load in loads:
        total = total + Fingerprint.of(
            read_parquet(folder.technical_sample(load.shard.name), columns=["id"]).column("id")
        )
    return total
