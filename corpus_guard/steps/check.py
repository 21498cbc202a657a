"""
``check``: the technical sample under the evaluation set-up, and a second look at what the store says.

The evaluation scans the drawn documents anew, with its own stages, into a store of its own inside the
run folder, and judges them by the same policy: ``scan`` and ``judge`` over a sample. Without an evaluation
set-up nothing is measured. The integrity check scans a few documents again with the filter's stages; what it
finds must equal the store.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corpus_guard.executors.seam import Back, Item, Status
from corpus_guard.findings import Recipe
from corpus_guard.places import Place
from corpus_guard.shards import Reading, Unit, read_documents
from corpus_guard.steps.apply import ShardLoad
from corpus_guard.steps.files import read_parquet
from corpus_guard.steps.scan import keys, look, only
from corpus_guard.store import Store

AGAIN = 200
"""About so many documents of the technical sample are scanned a second time."""


@dataclass(frozen=True)
class IntegrityJob:
    """Scans documents of the sample with rank under *below* again, and compares with the store."""

    store: str
    sample: str
    reading: Reading
    recipes: tuple[Recipe, ...]
    slice_bytes: int
    below: int
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
        sample = read_parquet(
            Place.of(self._job.sample) / f"{load.shard.name}.parquet", columns=["unit", "row", "rank"]
        )
        sample = sample.filter(pa.array(np.asarray(sample.column("rank")) <= np.uint64(self._job.below)))
        looked = 0
        differ: list[str] = []
        for unit in load.units:
            rows = sample.column("row").filter(pc.equal(sample.column("unit"), unit.name)).combine_chunks()
            if len(rows):
                looked += len(rows)
                differ += self._unit(unit, rows)
        yield {"documents": looked, "differ": differ}

    def _unit(self, unit: Unit, rows: pa.Array) -> list[str]:
        kept = {name: self._kept(name, unit) for name in self._stages}
        differ = []
        for batch in read_documents(unit, self._job.reading, self._job.slice_bytes):
            batch = only(batch, rows)
            if not batch.num_rows:
                continue
            for name, stage in self._stages.items():
                table = kept[name]
                again = pa.Table.from_batches([look(stage, batch)])
                if table is None:
                    differ.append(f"{unit.shard_name} {unit.name}: {name} has no findings in the store")
                    continue
                before = table.filter(pc.is_in(table.column("row"), batch.column("row"))).cast(again.schema)
                if not before.combine_chunks().equals(again.combine_chunks()):
                    differ.append(f"{unit.shard_name} {unit.name}: {name} finds something else than the store holds")
        return differ

    def _kept(self, name: str, unit: Unit) -> pa.Table | None:
        try:
            return self._store.read(self._keys[name], unit)
        except FileNotFoundError:
            return None
