"""
``judge``: what the policy makes of the findings, document by document. No text, no model.

One item is one shard: its units' findings are zipped (same rows, same order), judged, and written
as verdicts; their counts become the shard's tally, written last. Where the tally is, the shard is judged.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import pyarrow as pa

from corpus_guard.executors.seam import Back, Item, Status
from corpus_guard.findings import Opinion, Recipe
from corpus_guard.places import Place
from corpus_guard.shards import Reading, Unit, table_bytes
from corpus_guard.sources.tally import add, tally
from corpus_guard.steps.scan import READING, keys, skipped_states
from corpus_guard.store import RunFolder, Store
from corpus_guard.verdicts import JudgingRules, judge, load_labels


@dataclass(frozen=True)
class JudgeJob:
    """Judges shards from the findings of *recipes* in *store*; see ``steps.judge``."""

    store: str
    run: str
    restricted: str
    reading: Reading
    recipes: tuple[Recipe, ...]
    rules: JudgingRules
    thresholds: dict[str, tuple[float, float]]
    as_of: date
    labels: tuple[str, ...] = ()
    blacklisted: frozenset[str] = frozenset()
    two_pools: bool = False
    name: str = "judge"

    def open_front(self) -> "Judge":
        return Judge(self)

    def open_back(self) -> Back:
        raise AssertionError("judging has no back")


class Judge:
    """A worker that judges; also used alone, by ``trace`` and ``check``, for a few rows."""

    def __init__(self, job: JudgeJob) -> None:
        self._job = job
        self._store = Store(Place.of(job.store))
        self._folder = RunFolder(Place.of(job.run), Place.of(job.restricted))
        self._keys = keys(job.recipes, job.reading)
        self.readers = {r.name: r.reader(as_of=job.as_of, thresholds=job.thresholds) for r in job.recipes}
        self._kinds = {r.name: r.kind for r in job.recipes}
        self._labels = load_labels(job.labels) if job.labels else None

    def work(self, item: Item) -> Iterator[pa.RecordBatch | Status]:
        units: tuple[Unit, ...] = item.payload
        self._folder.shard_accounting(units[0].shard_name).delete()  # written under older verdicts, if at all
        counts, unread, incomplete = [], [], []
        rows = 0
        damage: list[dict[str, Any]] = []
        for unit in units:
            judged = self.unit(unit)
            if judged is None:
                unread.append({"unit": unit.name, "rows": unit.rows})
                continue
            documents, verdicts, missing = judged
            if missing:
                incomplete.append({"unit": unit.name, "rows": unit.rows, "stages": missing})
            note = self._store.metadata(self._keys[READING], unit).get("damage")
            if note:
                damage.extend({"unit": unit.name, **one} for one in json.loads(note))
            self._folder.verdicts(unit).put(table_bytes(verdicts))
            counts.append(tally(documents, verdicts, self._kinds))
            rows += unit.rows
        status = {
            "shard": units[0].shard_name,
            "rows": rows,
            "unread": unread,
            "incomplete": incomplete,
            "damage": damage,
        }
        table = add(counts)
        self._folder.tally(units[0].shard_name).put(table_bytes(table, {"judged": json.dumps(status, sort_keys=True)}))
        yield status

    def unit(self, unit: Unit) -> tuple[pa.Table, pa.Table, list[str]] | None:
        """Documents, verdicts and the names of missing stages of one unit; ``None`` if it was never read."""
        documents = self.stored(READING, unit)
        if documents is None:
            return None
        if self._job.blacklisted:  # whatever the store knows of them from other runs
            at = documents.schema.get_field_index("state")
            states = skipped_states(documents.column("state"), documents.column("source"), self._job.blacklisted)
            documents = documents.set_column(at, "state", states)
        found = {recipe.name: self.stored(recipe.name, unit) for recipe in self._job.recipes}
        missing = [name for name, table in found.items() if table is None]
        return documents, self.verdicts(documents, found), missing

    def stored(self, name: str, unit: Unit) -> pa.Table | None:
        """Findings of a stage on *unit*, ``None`` where there are none."""
        try:
            return self._store.read(self._keys[name], unit, blacklisted=self._job.blacklisted)
        except FileNotFoundError:
            return None

    def verdicts(self, documents: pa.Table, found: dict[str, pa.Table | None]) -> pa.Table:
        """Zip the findings of every stage with *documents* and judge them."""
        opinions: dict[str, Opinion | None] = {}
        states: dict[str, pa.ChunkedArray] = {}
        for name, table in found.items():
            if table is None:
                opinions[name] = None
                continue
            if not table.column("row").equals(documents.column("row")):
                raise RuntimeError(f"findings of {name} do not line up with the documents they belong to")
            opinions[name] = self.readers[name].opinion(table)
            states[name] = table.column("state")
        return judge(documents, opinions, self._job.rules, self._labels, states)
