"""
``scan``: every document is looked at by every stage, and what they saw is kept in the store.

Stages only find. CPU stages run, and commit, in the front; text for GPU stages travels to the
back in slices. A unit's findings are one file per stage, put once: where the file is, the work is done.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from corpus_guard.executors.seam import Item, Status
from corpus_guard.findings import BATCH, DOCUMENTS, FAILED, SKIPPED, STATES, Recipe, Stage
from corpus_guard.places import Place
from corpus_guard.shards import Reading, Unit, read_documents
from corpus_guard.steps.files import put_json, read_parquet
from corpus_guard.steps.plan import Plan
from corpus_guard.steps.setup import Run
from corpus_guard.steps.work import work
from corpus_guard.store import RunFolder, Store, stage_key

READING = "documents"
"""Name of the findings that say who each row is; written beside those of the stages."""

UNIT, GROUP, LOST = ".unit", ".group", ".lost"
"""
How records in ``failed/<shard>/`` end: units that were given up, row groups that are damaged, rows that were judged
but could not be read again to be written. A shard without readable footer has a record of its own beside its folder.
"""

READING_VERSION = "1"
"""Part of the digest: change it when the same bytes would be read differently."""


def keys(recipes: tuple[Recipe, ...], reading: Reading) -> dict[str, str]:
    """Store key per stage name, the reading itself first."""
    found = {READING: stage_key(READING, READING_VERSION, reading.digest)}
    found.update({recipe.name: stage_key(recipe.name, recipe.digest, reading.digest) for recipe in recipes})
    return found


@dataclass(frozen=True, slots=True)
class Load:
    """What an item asks of a worker: one unit, and which findings of it are missing (store keys)."""

    unit: Unit
    missing: frozenset[str]


@dataclass(frozen=True)
class ScanJob:
    """Reads units and runs the stages whose findings are missing."""

    store: str
    reading: Reading
    recipes: tuple[Recipe, ...]
    slice_bytes: int
    blacklisted: frozenset[str] = frozenset()
    sample: str | None = None
    """Look only at the documents of this drawn sample (a folder of samples by shard), into a store of its own."""
    name: str = "scan"

    @property
    def two_pools(self) -> bool:
        return any(recipe.device == "gpu" for recipe in self.recipes)

    def open_front(self) -> "ScanFront":
        return ScanFront(self)

    def open_back(self) -> "ScanBack":
        return ScanBack(self)


class ScanFront:
    """A CPU worker: reads, runs keywords, screens and CPU classifiers, commits their findings."""

    def __init__(self, job: ScanJob) -> None:
        self._job = job
        self._store = Store(Place.of(job.store))
        self._keys = keys(job.recipes, job.reading)
        self._cpu = _Bench([recipe for recipe in job.recipes if recipe.device == "cpu"], self._keys)
        self._gpu = [recipe for recipe in job.recipes if recipe.device == "gpu"]

    def work(self, item: Item) -> Iterator[pa.RecordBatch | Status]:
        load: Load = item.payload
        damage: list[dict[str, Any]] = []
        seen = Seen()
        documents: list[pa.RecordBatch] = []
        found: dict[str, list[pa.RecordBatch]] = {}
        chosen = self._chosen(load.unit)
        parcels = any(self._keys[recipe.name] in load.missing for recipe in self._gpu)

        def on_damage(group: int, rows: int, error: str) -> None:
            damage.append({"group": group, "rows": rows, "error": error})

        for batch in read_documents(load.unit, self._job.reading, self._job.slice_bytes, on_damage=on_damage):
            batch = skip(batch if chosen is None else only(batch, chosen), self._job.blacklisted)
            if chosen is not None and not batch.num_rows:
                continue
            seen.add(batch)
            documents.append(batch.select(DOCUMENTS.names))
            for name, stage in self._cpu.needed(load.missing):
                found.setdefault(name, []).append(look(stage, batch))
            if parcels:
                yield batch
        metadata = {"damage": json.dumps(damage, sort_keys=True)} if damage else {}
        skipped, sampled = sorted(seen.skipped), chosen is not None
        for name, batches in found.items():
            self._store.put(self._keys[name], load.unit, pa.Table.from_batches(batches), {}, skipped, sampled)
        if self._keys[READING] in load.missing:
            table = pa.Table.from_batches(documents, schema=DOCUMENTS)
            self._store.put(self._keys[READING], load.unit, table, metadata, skipped, sampled)
        yield {**seen.status(), "damage": damage, "skipped_sources": skipped}

    def _chosen(self, unit: Unit) -> pa.Array | None:
        """The rows of *unit* that were drawn; ``None`` where everything is looked at."""
        return None if self._job.sample is None else sampled_rows(self._job.sample, unit)


class ScanBack:
    """A GPU worker: classifies the slices of one unit after another and commits their findings."""

    def __init__(self, job: ScanJob) -> None:
        self._store = Store(Place.of(job.store))
        self._keys = keys(job.recipes, job.reading)
        self._gpu = _Bench([recipe for recipe in job.recipes if recipe.device == "gpu"], self._keys)
        self._found: dict[str, dict[str, list[pa.RecordBatch]]] = {}
        self._sampled = job.sample is not None

    def take(self, item: Item, parcel: pa.RecordBatch) -> None:
        found = self._found.setdefault(item.key, {})
        for name, stage in self._gpu.needed(item.payload.missing):
            found.setdefault(name, []).append(look(stage, parcel))

    def finish(self, item: Item, front: Status) -> Status:
        for name, batches in self._found.pop(item.key, {}).items():
            self._store.put(
                self._keys[name],
                item.payload.unit,
                pa.Table.from_batches(batches),
                {},
                front["skipped_sources"],
                self._sampled,
            )
        return front

    def drop(self, item: Item) -> None:
        self._found.pop(item.key, None)


class _Bench:
    """The stages of one worker, each built when it is first needed: what is done already loads no model."""

    def __init__(self, recipes: list[Recipe], keys: Mapping[str, str]) -> None:
        self._recipes, self._keys = recipes, keys
        self._built: dict[str, Stage] = {}

    def needed(self, missing: frozenset[str]) -> Iterator[tuple[str, Stage]]:
        for recipe in self._recipes:
            if self._keys[recipe.name] in missing:
                if recipe.name not in self._built:
                    self._built[recipe.name] = recipe.build()
                yield recipe.name, self._built[recipe.name]


@dataclass
class Seen:
    """Counts of what a unit held."""

    rows: int = 0
    characters: int = 0
    bytes: int = 0
    states: dict[str, int] = field(default_factory=dict)
    skipped: set[str] = field(default_factory=set)

    def add(self, batch: pa.RecordBatch) -> None:
        self.rows += batch.num_rows
        self.characters += pc.sum(batch.column("characters")).as_py() or 0
        self.bytes += pc.sum(batch.column("bytes")).as_py() or 0
        states = batch.column("state")
        for state in STATES:
            count = pc.sum(pc.equal(states, state)).as_py() or 0
            if count:
                self.states[state] = self.states.get(state, 0) + count
        if self.states.get(SKIPPED):
            self.skipped.update(
                s for s in pc.unique(batch.column("source").filter(pc.equal(states, SKIPPED))).to_pylist() if s
            )

    def status(self) -> Status:
        return {"rows": self.rows, "characters": self.characters, "bytes": self.bytes, "states": self.states}


def look(stage: Stage, batch: pa.RecordBatch) -> pa.RecordBatch:
    """Run *stage* on *batch* and hold it to its promise: one finding per document, in order."""
    found = stage.find(batch)
    if found.num_rows != batch.num_rows:
        raise RuntimeError(f"{type(stage).__name__} gave {found.num_rows} findings for {batch.num_rows} documents")
    columns = [batch.column("row"), batch.column("state"), *found.columns]
    fields = [BATCH.field("row"), BATCH.field("state"), *found.schema]
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields, found.schema.metadata))


def skip(batch: pa.RecordBatch, blacklisted: frozenset[str]) -> pa.RecordBatch:
    """Rows of blacklisted sources are read but not looked at (design section 7)."""
    if not blacklisted:
        return batch
    states = skipped_states(batch.column("state"), batch.column("source"), blacklisted)
    text = pc.if_else(pc.equal(states, SKIPPED), pa.scalar(None, pa.large_string()), batch.column("text"))
    replaced = {"state": states, "text": text}
    arrays = [replaced.get(f.name, batch.column(f.name)) for f in BATCH]
    return pa.RecordBatch.from_arrays(arrays, schema=BATCH)


def skipped_states(states: Any, sources: Any, blacklisted: frozenset[str]) -> Any:
    """*states* with ``skipped`` for rows of blacklisted sources; what could not be read stays so."""
    hit = pc.is_in(sources, pa.array(sorted(blacklisted), pa.string()), skip_nulls=True)
    return pc.if_else(pc.and_(hit, pc.not_equal(states, FAILED)), SKIPPED, states)


def only(batch: pa.RecordBatch | pa.Table, rows: pa.Array) -> Any:
    """The documents of *batch* whose row is among *rows*."""
    return batch.filter(pc.is_in(batch.column("row"), rows))


def sampled_rows(sample: str, unit: Unit) -> pa.Array:
    """The rows of *unit* in a drawn sample (a folder of samples by shard). Copies of a shard have fewer and fewer."""
    table = read_parquet(Place.of(sample) / f"{unit.shard_name}.parquet", columns=["unit", "row"])
    return table.column("row").filter(pc.equal(table.column("unit"), unit.name)).combine_chunks()


@dataclass(frozen=True)
class Todo:
    """What the store lacks for a set of stages."""

    loads: tuple[Load, ...]
    done_units: int
    missing: dict[str, int] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return sum(load.unit.rows for load in self.loads)


def todo(run: Run, units: Iterable[Unit], recipes: tuple[Recipe, ...]) -> Todo:
    """Which findings of *units* are not in the store yet. One listing per stage."""
    wanted = keys(recipes, run.setup.reading)
    blacklisted = run.setup.blacklisted
    done = {key: run.store.done_all(key, blacklisted) for key in wanted.values()}
    loads, whole = [], 0
    missing = dict.fromkeys(wanted, 0)
    planned: set[tuple[str, str]] = set()
    for unit in units:
        at = (unit.shard_digest[:12], unit.name)
        lacking = frozenset(key for key in wanted.values() if at not in done[key])
        if not lacking or at in planned:  # copies of a shard share their findings
            whole += 1
            continue
        planned.add(at)
        loads.append(Load(unit, lacking))
        for name, key in wanted.items():
            missing[name] += key in lacking
    return Todo(tuple(loads), whole, missing)


def scan(run: Run, found: Plan) -> Todo:
    """Look at everything the store has not seen yet; name in ``failed/`` what could not be looked at."""
    setup = run.setup
    rest = todo(run, found.units, setup.recipes)
    name_bad_shards(run, found)
    job = ScanJob(
        store=run.store.place.uri,
        reading=setup.reading,
        recipes=setup.recipes,
        slice_bytes=setup.config.executor.slice_bytes,
        blacklisted=setup.blacklisted,
    )
    scan_rest(run, job, rest, run.folder, "scan")
    return rest


def scan_rest(run: Run, job: ScanJob, rest: Todo, folder: RunFolder, name: str) -> None:
    forget_records(folder, UNIT)  # of an earlier try, which is made again now
    items = [
        Item(f"{load.unit.shard_name}/{load.unit.name}", load, load.unit.rows, load.unit.nbytes) for load in rest.loads
    ]
    for failure in work(run, job, items, name, rest.done_units, lambda item, status: None):
        unit = failure.item.payload.unit
        put_json(
            folder.failed(unit.shard_name, f"{unit.name}{UNIT}"),
            {
                "shard": unit.shard_path,
                "shard_name": unit.shard_name,
                "unit": unit.name,
                "row_groups": [unit.first_group, unit.last_group],
                "rows": unit.rows,
                "attempts": failure.attempts,
                "reason": failure.reason,
                "error": failure.error,
            },
        )


def name_bad_shards(run: Run, found: Plan) -> None:
    """One record in ``failed/`` for each shard whose footer cannot be read, and none for those that can be by now."""
    bad_now = {run.folder.failed(bad.name).uri for bad in found.bad}
    for place in _records(run.folder):
        if not place.name.removesuffix(".json").endswith((UNIT, GROUP, LOST)) and place.uri not in bad_now:
            place.delete()
    for bad in found.bad:
        put_json(
            run.folder.failed(bad.name),
            {
                "shard": bad.path,
                "shard_name": bad.name,
                "row_groups": "unknown",
                "rows": "unknown",
                "bytes": bad.size,
                "error": bad.error,
            },
        )


def forget_records(folder: RunFolder, kind: str) -> None:
    """Delete the records of one kind; the step that calls this names again what fails again."""
    for place in _records(folder):
        if place.name.endswith(f"{kind}.json"):
            place.delete()


def _records(folder: RunFolder) -> list[Place]:
    return [folder.all_failed / name for name in folder.all_failed.names(".json")]
