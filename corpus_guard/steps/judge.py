"""
``judge``: what the policy makes of the findings, document by document. No text, no model.

One item is one shard: its units' findings are zipped (same rows, same order), judged, and written
as verdicts; their counts become the shard's tally, written last. Where the tally is, the shard is judged.
"""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from typing import Any

import pyarrow as pa

from corpus_guard.executors.seam import Back, Item, Status
from corpus_guard.findings import Opinion, Recipe
from corpus_guard.places import Place
from corpus_guard.shards import Reading, Unit, table_bytes
from corpus_guard.sources.tally import add, tally
from corpus_guard.steps.files import put_json, read_note, read_parquet
from corpus_guard.steps.outcomes import Judged
from corpus_guard.steps.plan import Plan, extent
from corpus_guard.steps.scan import GROUP, READING, forget_records, keys, only, sampled_rows, skipped_states
from corpus_guard.steps.setup import Run
from corpus_guard.steps.work import stop_on, work
from corpus_guard.store import RunFolder, Store
from corpus_guard.verdicts import JudgingRules, load_labels
from corpus_guard.verdicts import judge as judge_documents


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
    sample: str | None = None
    """Judge only the documents of this drawn sample: copies of a shard share findings, and not what was drawn."""
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
        self._labels = load_labels(job.labels, lambda uri: Place.of(uri).read_bytes()) if job.labels else None

    def work(self, item: Item) -> Iterator[pa.RecordBatch | Status]:
        units: tuple[Unit, ...] = item.payload
        self._folder.shard_accounting(units[0].shard_name).delete()  # written under older verdicts, if at all
        self._forget_others(units)
        counts, unread, incomplete = [], [], []
        rows = 0
        damage: list[dict[str, Any]] = []
        for unit in units:
            judged = self.unit(unit)
            if judged is None:
                unread.append({"unit": unit.name, "rows": unit.rows})
                self._folder.verdicts(unit).delete()
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
            "extent": extent(units[0].shard_digest, units),
            "rows": rows,
            "unread": unread,
            "incomplete": incomplete,
            "damage": damage,
        }
        table = add(counts)
        self._folder.tally(units[0].shard_name).put(table_bytes(table, {"judged": json.dumps(status, sort_keys=True)}))
        yield status

    def _forget_others(self, units: tuple[Unit, ...]) -> None:
        """Verdicts of the shard as it was, or was cut, before."""
        folder = self._folder.all_verdicts / units[0].shard_name
        for name in {*folder.names(".parquet", recursive=False)} - {f"{unit.name}.parquet" for unit in units}:
            (folder / name).delete()

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
            table = self._store.read(self._keys[name], unit, blacklisted=self._job.blacklisted)
        except FileNotFoundError:
            return None
        return table if self._job.sample is None else only(table, sampled_rows(self._job.sample, unit))

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
        return judge_documents(documents, opinions, self._job.rules, self._labels, states)


def judge_job(run: Run) -> JudgeJob:
    """How this run judges: picklable, and the same for every worker."""
    setup = run.setup
    return JudgeJob(
        store=run.store.place.uri,
        run=run.folder.run.uri,
        restricted=run.folder.restricted.uri,
        reading=setup.reading,
        recipes=setup.recipes,
        rules=setup.rules,
        thresholds=dict(setup.policy.thresholds),
        as_of=run.as_of,
        labels=tuple(Place.of(path).uri for path in setup.config.labels),
        blacklisted=setup.blacklisted,
    )


def judge(run: Run, found: Plan, job: JudgeJob | None = None, name: str = "judge") -> Judged:
    """Verdicts and tallies of every shard that has none yet, or whose findings were incomplete before."""
    job = job or judge_job(run)
    folder = RunFolder(Place.of(job.run), Place.of(job.restricted))
    there = {name.removesuffix(".parquet") for name in (folder.run / "tallies").names(".parquet")}
    kept: list[Status] = []
    shards = [(shard, units) for shard, units in found.by_shard() if units]
    rests_on = {shard.name: extent(shard.digest, units) for shard, units in shards}
    with ThreadPoolExecutor(16) as threads:
        names = [name for name in rests_on if name in there]
        for note in threads.map(lambda name: read_note(folder.tally(name), "judged"), names):
            status = json.loads(note or "{}")
            whole = note and not status["unread"] and not status["incomplete"]
            if whole and status.get("extent") == rests_on[status["shard"]]:
                kept.append(status)
    done = {status["shard"] for status in kept}
    items = [Item(shard.name, units, shard.rows) for shard, units in shards if shard.name not in done]
    failures = work(run, job, items, name, len(kept), lambda item, status: kept.append(status))
    stop_on(failures, "judged")
    forget_records(folder, GROUP)
    for status in kept:
        for one in status["damage"]:
            record = {"shard_name": status["shard"], "row_groups": [one["group"], one["group"] + 1], **one}
            put_json(folder.failed(status["shard"], f"{one['group']:06d}{GROUP}"), record)
    ordered = sorted(kept, key=lambda status: str(status["shard"]))

    def each(key: str) -> tuple[dict[str, Any], ...]:
        return tuple({"shard": status["shard"], **one} for status in ordered for one in status[key])

    return Judged(sum(status["rows"] for status in ordered), each("damage"), each("unread"), each("incomplete"))


def tallies(folder: RunFolder) -> pa.Table:
    """All counts of a run: the sum of its shards' tallies."""
    root = folder.run / "tallies"
    total = add([])
    names = sorted(root.names(".parquet"))
    for start in range(0, len(names), 256):
        total = add([total, *(read_parquet(root / name) for name in names[start : start + 256])])
    return total
