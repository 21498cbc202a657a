"""
``check``: the technical sample under the evaluation set-up, and a second look at what the store says.

The evaluation scans the drawn documents anew, with its own stages, into a store of its own inside the
run folder, and judges them by the same policy: ``scan`` and ``judge`` over a sample. Without an evaluation
set-up nothing is measured. The integrity check scans a few documents again with the filter's stages; what it
finds must equal the store.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corpus_guard.errors import DataError
from corpus_guard.executors.seam import Back, Item, Status
from corpus_guard.findings import FAILED, OK, Recipe
from corpus_guard.places import Place
from corpus_guard.sampling import ranks
from corpus_guard.shards import Reading, Unit, read_documents, table_bytes
from corpus_guard.steps.apply import ShardLoad
from corpus_guard.steps.files import put_json, read_json, read_parquet
from corpus_guard.steps.judge import judge, judge_job, tallies
from corpus_guard.steps.outcomes import Checked, Drawn
from corpus_guard.steps.plan import Plan
from corpus_guard.steps.scan import READING, ScanJob, keys, look, only, scan_rest, skipped_states, todo
from corpus_guard.steps.setup import Run
from corpus_guard.steps.work import stop_on, work
from corpus_guard.store import RunFolder, Store

AGAIN = 200
"""About so many documents are scanned a second time."""


@dataclass(frozen=True)
class IntegrityJob:
    """Scans documents whose rank under *key* is at most *below* again, and compares with the store."""

    store: str
    reading: Reading
    recipes: tuple[Recipe, ...]
    slice_bytes: int
    key: bytes
    below: int
    blacklisted: frozenset[str] = frozenset()
    two_pools: bool = False
    name: str = "integrity"

    def open_front(self) -> "Integrity":
        return Integrity(self)

    def open_back(self) -> Back:
        raise AssertionError("the integrity check has no back")


class Integrity:
    """A worker that looks twice. Only stages that run on CPUs: a second GPU pass may differ in the last bit."""

    def __init__(self, job: IntegrityJob) -> None:
        self._job = job
        self._store = Store(Place.of(job.store))
        self._keys = keys(job.recipes, job.reading)
        self._stages = {recipe.name: recipe.build() for recipe in job.recipes if recipe.device == "cpu"}

    def work(self, item: Item) -> Iterator[pa.RecordBatch | Status]:
        load: ShardLoad = item.payload
        looked, differ, whole = 0, list[str](), True
        for unit in load.units:
            kept: dict[str, Any] = {name: self._kept(name, unit) for name in (READING, *self._stages)}
            if any(table is None for table in kept.values()):  # given up, and named so
                whole = False
                continue
            documents = kept.pop(READING)
            rows = self._chosen(documents)
            try:
                differ += self._unit(unit, rows, kept) if len(rows) else []
                looked += len(rows)
                whole &= not pc.any(pc.equal(documents.column("state"), FAILED)).as_py()
            except DataError:  # the shard is gone since, or another one
                whole = False
        yield {"documents": looked, "differ": differ, "whole": whole}

    def _chosen(self, documents: pa.Table) -> pa.Array:
        """Rows to look at again: by the rank of their ids, of those that every run looks at."""
        states = skipped_states(documents.column("state"), documents.column("source"), self._job.blacklisted)
        chosen = ranks(documents.column("id"), self._job.key, "integrity") <= np.uint64(self._job.below)
        return documents.column("row").filter(pc.and_(pc.equal(states, OK), pa.array(chosen))).combine_chunks()

    def _unit(self, unit: Unit, rows: pa.Array, kept: dict[str, pa.Table]) -> list[str]:
        differ = []
        for batch in read_documents(unit, self._job.reading, self._job.slice_bytes):
            batch = only(batch, rows)
            if not batch.num_rows:
                continue
            for name, stage in self._stages.items():
                again = pa.Table.from_batches([look(stage, batch)])
                at = pc.is_in(kept[name].column("row"), batch.column("row"))
                before = kept[name].filter(at).cast(again.schema)
                if not before.combine_chunks().equals(again.combine_chunks()):
                    differ.append(f"{unit.shard_name} {unit.name}: {name} finds something else than the store holds")
        return differ

    def _kept(self, name: str, unit: Unit) -> pa.Table | None:
        try:
            return self._store.read(self._keys[name], unit, blacklisted=self._job.blacklisted)
        except FileNotFoundError:
            return None


def check(run: Run, found: Plan, drawn: Drawn, recipes: tuple[Recipe, ...]) -> Checked:
    """
    Scan the technical sample with *recipes*, into a store of its own inside the run folder, and judge it.

    The same ``scan`` and ``judge`` as for a corpus, over the drawn rows alone.
    """
    setup = run.setup
    made_of = [*(record.ids for record in drawn.ledger), *(recipe.digest for recipe in recipes)]
    draw_id = hashlib.sha256("".join(made_of).encode()).hexdigest()[:12]
    inside = RunFolder(run.folder.run / "check" / draw_id, run.folder.restricted / "check" / draw_id)
    sub = Run(
        replace(setup, recipes=recipes, blacklist=None),
        inside,
        Store(inside.run / "store"),
        run.as_of,
        run.tell,
        run.executor,
    )
    units = [unit for _, units in found.by_shard() for unit in units]
    chosen = _sampled_units(run, found)
    rest = todo(sub, [unit for unit in units if (unit.shard_name, unit.name) in chosen], recipes)
    sample = (run.folder.samples / "technical").uri
    job = ScanJob(
        store=sub.store.place.uri,
        reading=setup.reading,
        recipes=recipes,
        slice_bytes=setup.config.executor.slice_bytes,
        sample=sample,
    )
    scan_rest(sub, job, rest, inside, "check")
    sampled = replace(found, units=tuple(unit for unit in units if (unit.shard_name, unit.name) in chosen))
    judged = judge(sub, sampled, replace(judge_job(sub), sample=sample), "check")
    total = tallies(inside)
    run.folder.technical.put(table_bytes(total))
    return Checked(recipes, total, judged)


def _sampled_units(run: Run, found: Plan) -> set[tuple[str, str]]:
    drawn: set[tuple[str, str]] = set()
    for shard in found.shards:
        sample = read_parquet(run.folder.technical_sample(shard.name), columns=["unit"])
        drawn.update((shard.name, unit) for unit in sample.column("unit").unique().to_pylist())
    return drawn


def integrity(run: Run, found: Plan) -> dict[str, Any] | None:
    """
    Scan a few documents again; what the stages find must be what the store holds.

    Done once for a corpus and a set of stages, and kept in the store: a second run over it loads no model.
    """
    setup = run.setup
    recipes = tuple(recipe for recipe in setup.recipes if recipe.device == "cpu")
    if not recipes or not found.rows:
        return None
    made_of = [found.manifest, sorted(keys(recipes, setup.reading).values()), sorted(setup.blacklisted)]
    key = hashlib.sha256(json.dumps(made_of).encode()).digest()
    note = run.store.place / "integrity" / f"{key.hex()[:24]}.json"
    if note.exists():
        return dict(read_json(note))
    job = IntegrityJob(
        store=run.store.place.uri,
        reading=setup.reading,
        recipes=recipes,
        slice_bytes=setup.config.executor.slice_bytes,
        key=key,
        below=min(2**64 * AGAIN // found.rows, 2**64 - 1),
        blacklisted=setup.blacklisted,
    )
    result: dict[str, Any] = {"documents": 0, "differ": []}
    whole = True

    def take(item: Item, status: Status) -> None:
        nonlocal whole
        whole &= status["whole"]
        result["documents"] += status["documents"]
        result["differ"] += status["differ"]

    items = [
        Item(shard.name, ShardLoad(shard, units), shard.rows, shard.size) for shard, units in found.by_shard() if units
    ]
    stop_on(work(run, job, items, "check", 0, take), "checked")
    result["differ"].sort()
    if whole and not result["differ"]:
        put_json(note, result)  # a store with faults or gaps is looked at again every time
    return result
