"""
The way of the data, top to bottom: one function per step, and the three jobs made of them.

Every step can be interrupted anywhere and is done where its file is; the next start lists and does the
rest. Steps run on the driver and hand work to the run's executor; they see small records only.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from corpus_guard.errors import UsageError
from corpus_guard.executors.seam import Failure, Item, Job, Status
from corpus_guard.findings import Recipe
from corpus_guard.places import Place
from corpus_guard.sampling import Cut, DrawRecord, Fingerprint, Window, draw_key, next_attempt, read_draws
from corpus_guard.shards import table_bytes
from corpus_guard.sources.assess import AssessingRules, write_csv
from corpus_guard.sources.assess import assess as decide_sources
from corpus_guard.sources.tally import add, by
from corpus_guard.steps.apply import FATES, ApplyJob, ShardLoad
from corpus_guard.steps.check import AGAIN, IntegrityJob
from corpus_guard.steps.draw import COLLECT, COUNTED, DrawJob, First, Population, dense, table_of
from corpus_guard.steps.files import put_json, read_json, read_note, read_parquet
from corpus_guard.steps.judge import JudgeJob
from corpus_guard.steps.plan import Plan, Todo, plan, todo
from corpus_guard.steps.scan import ScanJob, keys
from corpus_guard.steps.setup import Run
from corpus_guard.store import RunFolder, Store

WAY = ("plan", "scan", "judge", "assess", "apply", "draw", "check", "report")


@dataclass(frozen=True)
class Judged:
    """What judging left open: rows nobody could read, rows a stage failed on, shards without footer."""

    rows: int
    damage: tuple[dict[str, Any], ...] = ()
    unread: tuple[dict[str, Any], ...] = ()
    incomplete: tuple[dict[str, Any], ...] = ()

    @property
    def unread_rows(self) -> int:
        return sum(int(one["rows"]) for one in (*self.damage, *self.unread))

    @property
    def failed_rows(self) -> int:
        return self.unread_rows + sum(int(one["rows"]) for one in self.incomplete)


def work(
    run: Run, job: Job, items: list[Item], name: str, done: int, take: Callable[[Item, Status], None]
) -> list[Failure]:
    """Have the executor work off *items*, with progress; what it gave up comes back."""
    if not items:
        return []
    failures: list[Failure] = []
    with run.tell.step(name, len(items), sum(item.rows for item in items), done) as meter:

        def on_status(item: Item, status: Status) -> None:
            take(item, status)
            meter.advance(item.rows)

        def on_failure(failure: Failure) -> None:
            failures.append(failure)
            meter.advance(failure.item.rows)
            run.tell.line(
                f"{name}: {failure.item.key} was given up after {failure.attempts} attempts ({failure.reason}): {failure.error}"
            )

        run.executor.run(job, items, on_status, on_failure)
    return failures


# scan


def scan(run: Run, found: Plan) -> Todo:
    """Look at everything the store has not seen yet; name in ``failed/`` what could not be looked at."""
    setup = run.setup
    rest = todo(run, found.units, setup.recipes)
    _name_bad_shards(run, found)
    job = ScanJob(
        store=run.store.place.uri,
        reading=setup.reading,
        recipes=setup.recipes,
        slice_bytes=setup.config.executor.slice_bytes,
        blacklisted=setup.blacklisted,
    )
    _scan(run, job, rest, run.folder, "scan")
    return rest


def _scan(run: Run, job: ScanJob, rest: Todo, folder: RunFolder, name: str) -> None:
    for place in _failed_units(folder):  # an earlier try; it is made again now, and named again if it fails again
        place.delete()
    items = [
        Item(f"{load.unit.shard_name}/{load.unit.name}", load, load.unit.rows, load.unit.nbytes) for load in rest.loads
    ]
    for failure in work(run, job, items, name, rest.done_units, lambda item, status: None):
        unit = failure.item.payload.unit
        put_json(
            folder.failed(unit.shard_name, f"{unit.name}.unit"),
            {
                "shard": unit.shard_path,
                "unit": unit.name,
                "row_groups": [unit.first_group, unit.last_group],
                "rows": unit.rows,
                "attempts": failure.attempts,
                "reason": failure.reason,
                "error": failure.error,
            },
        )


def _name_bad_shards(run: Run, found: Plan) -> None:
    for bad in found.bad:
        put_json(
            run.folder.failed(bad.name),
            {"shard": bad.path, "row_groups": "unknown", "rows": "unknown", "bytes": bad.size, "error": bad.error},
        )


def _failed_units(folder: RunFolder) -> list[Place]:
    root = folder.run / "failed"
    return [root / name for name in root.names(".json") if name.endswith(".unit.json")]


# judge


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
    judged_before = [shard.name for shard, _ in shards if shard.name in there]
    with ThreadPoolExecutor(16) as threads:
        for shard, note in zip(
            judged_before, threads.map(lambda name: read_note(folder.tally(name), "judged"), judged_before), strict=True
        ):
            status = json.loads(note or "{}")
            if not note or status["unread"] or status["incomplete"]:
                there.discard(shard)
            else:
                kept.append(status)
    items = [Item(shard.name, units, shard.rows) for shard, units in shards if shard.name not in there]
    failures = work(run, job, items, name, len(kept), lambda item, status: kept.append(status))
    _stop_on(failures, "judged")
    for status in kept:
        for one in status["damage"]:
            record = {"shard": status["shard"], "row_groups": [one["group"], one["group"] + 1], **one}
            put_json(folder.failed(status["shard"], f"group-{one['group']:06d}"), record)
    ordered = sorted(kept, key=lambda status: str(status["shard"]))

    def each(key: str) -> tuple[dict[str, Any], ...]:
        return tuple({"shard": status["shard"], **one} for status in ordered for one in status[key])

    return Judged(sum(status["rows"] for status in ordered), each("damage"), each("unread"), each("incomplete"))


def _stop_on(failures: list[Failure], what: str) -> None:
    """Cheap steps have no business failing: nothing after them would be right."""
    if failures:
        first = failures[0]
        raise UsageError(
            f"{len(failures)} shards could not be {what}; the first is {first.item.key}: {first.error}. Mend the cause and run the same command again."
        )


# assess


def tallies(folder: RunFolder) -> pa.Table:
    """All counts of a run: the sum of its shards' tallies."""
    root = folder.run / "tallies"
    total = add([])
    names = sorted(root.names(".parquet"))
    for start in range(0, len(names), 256):
        total = add([total, *(read_parquet(root / name) for name in names[start : start + 256])])
    return total


def assess(run: Run, judged: Judged, total: pa.Table) -> pa.Table:
    """Every source's share and decision, from the counts of the documents as collected."""
    setup = run.setup
    asked = setup.policy.source_rule(setup.config.corpus.phase)
    if asked is None:
        raise UsageError(f"policy {setup.policy.id}: has no source_ratio rule, so sources cannot be decided; add one.")
    rule = AssessingRules(asked.limit, phase=setup.config.corpus.phase, decide=setup.config.sources.decide)
    unknown: dict[str, int] = {}
    for one in (*judged.damage, *judged.unread):
        unknown[one["shard"]] = unknown.get(one["shard"], 0) + one["rows"]
    sources = decide_sources(by(total, "source"), rule, setup.register, setup.blacklist, unknown)
    run.folder.sources.put(table_bytes(sources))
    run.folder.sources_csv.put(write_csv(sources))
    return sources


# apply


def apply(run: Run, found: Plan, sources: pa.Table) -> dict[str, Any]:
    """Write clean, removed and quarantined shards; check that every row is accounted for."""
    decisions = hashlib.sha256(table_bytes(sources.select(["source", "decision"]))).hexdigest()
    job = ApplyJob(judging=judge_job(run), decisions=decisions, slice_bytes=run.setup.config.executor.slice_bytes)
    root = run.folder.run / "accounting"
    done: dict[str, Status] = {}
    with ThreadPoolExecutor(16) as threads:
        for status in threads.map(lambda name: read_json(root / name), root.names(".json")):
            if status["decisions"] == decisions:
                done[status["shard"]] = status
    loads = [ShardLoad(shard, units) for shard, units in found.by_shard()]
    items = [
        Item(load.shard.name, load, load.shard.rows, load.shard.size) for load in loads if load.shard.name not in done
    ]
    _stop_on(
        work(run, job, items, "apply", len(done), lambda item, status: done.update({status["shard"]: status})),
        "written",
    )
    accounting = account(found, [done[shard.name] for shard in found.shards])
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
        "unbalanced": unbalanced,
        "balanced": not unbalanced and found.rows - unread == sum(counts.values()),
    }


# draw


@dataclass(frozen=True)
class Drawn:
    """What was drawn from how many, and the ledger of all draws."""

    population: int
    manual: int
    technical: int
    duplicate_ids: int | None
    ledger: tuple[DrawRecord, ...]


def draw(run: Run, found: Plan, of: Literal["clean", "all"], rests_on: str) -> Drawn:
    """
    Draw both samples from what *rests_on* (a digest) leaves: the clean documents of a filter run, or all of a corpus.

    Done once: a second start finds the draw. Every draw is a line of ``draws.jsonl``.
    """
    policy, folder = run.setup.policy, run.folder
    ledger = read_draws(folder.draws.read_bytes(), folder.draws.uri) if folder.draws.exists() else []
    mark = {"rests_on": rests_on, "manifest": found.manifest, "policy": policy.digest, "of": of}
    drawn_already = folder.samples / "draw.json"
    if drawn_already.exists():
        before = read_json(drawn_already)
        if before["mark"] == mark:
            return Drawn(
                before["population"], before["manual"], before["technical"], before["duplicate_ids"], tuple(ledger)
            )
    reason = "first draw" if not ledger else "the documents to draw from changed"
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
    _stop_on(work(run, job, items, "draw", 0, lambda item, status: first.add(status)), "drawn from")
    sizes = {"manual": policy.manual.size(first.rows), "technical": policy.technical.size(first.rows)}
    cut = _cut(run, job, items, first, sizes["technical"])
    drawn = 0

    def count(item: Item, status: Status) -> None:
        nonlocal drawn
        drawn += status["drawn"]

    _stop_on(work(run, replace(job, task="write", cut=cut), items, "draw", 0, count), "drawn from")
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
    folder.draws.put("".join(record.line for record in ledger).encode())
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
        },
    )
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

        _stop_on(work(run, replace(job, task="count", window=window), items, "draw", 0, add_up), "drawn from")
        left = int(total.max())
        window = window.narrow(total)
    if isinstance(window, Cut):
        return window
    members: list[pa.Table] = []

    def collect(item: Item, status: Status) -> None:
        if status["members"]:
            members.append(table_of(status["members"]))

    _stop_on(work(run, replace(job, task="collect", window=window), items, "draw", 0, collect), "drawn from")
    return window.pick(pa.concat_tables(members))


def _fingerprint(folder: RunFolder, loads: Iterable[ShardLoad]) -> Fingerprint:
    total = Fingerprint()
    for load in loads:
        total = total + Fingerprint.of(
            read_parquet(folder.technical_sample(load.shard.name), columns=["id"]).column("id")
        )
    return total


# check


@dataclass(frozen=True)
class Checked:
    """The technical sample under a set-up: counts over the drawn documents. ``tally`` is by source."""

    stages: tuple[Recipe, ...]
    tally: pa.Table
    judged: Judged


def check(run: Run, found: Plan, drawn: Drawn, recipes: tuple[Recipe, ...]) -> Checked:
    """
    Scan the technical sample with *recipes*, into a store of its own inside the run folder, and judge it.

    The same ``scan`` and ``judge`` as for a corpus, over the drawn rows alone.
    """
    setup = run.setup
    draw_id = hashlib.sha256("".join(record.ids for record in drawn.ledger).encode()).hexdigest()[:12]
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
    job = ScanJob(
        store=sub.store.place.uri,
        reading=setup.reading,
        recipes=recipes,
        slice_bytes=setup.config.executor.slice_bytes,
        sample=(run.folder.run / "samples" / "technical").uri,
    )
    _scan(sub, job, rest, inside, "check")
    sampled = replace(found, units=tuple(unit for unit in units if (unit.shard_name, unit.name) in chosen))
    judged = judge(sub, sampled, judge_job(sub), "check")
    total = tallies(inside)
    run.folder.technical.put(table_bytes(total))
    return Checked(recipes, total, judged)


def _sampled_units(run: Run, found: Plan) -> set[tuple[str, str]]:
    drawn: set[tuple[str, str]] = set()
    for shard in found.shards:
        sample = read_parquet(run.folder.technical_sample(shard.name), columns=["unit"])
        drawn.update((shard.name, unit) for unit in sample.column("unit").unique().to_pylist())
    return drawn


def integrity(run: Run, found: Plan, drawn: Drawn) -> dict[str, Any] | None:
    """Scan a few drawn documents again; what the stages find must be what the store holds."""
    setup = run.setup
    recipes = tuple(recipe for recipe in setup.recipes if recipe.device == "cpu")
    if not recipes or not drawn.technical:
        return None
    note = run.folder.run / "integrity.json"
    mark = [found.manifest, drawn.technical, [recipe.digest for recipe in recipes]]
    if note.exists() and (before := read_json(note))["mark"] == mark:
        return dict(before)
    share = min(1.0, AGAIN / drawn.population) if drawn.population else 0.0
    job = IntegrityJob(
        store=run.store.place.uri,
        sample=(run.folder.run / "samples" / "technical").uri,
        reading=setup.reading,
        recipes=recipes,
        slice_bytes=setup.config.executor.slice_bytes,
        below=min(int(share * 2**64), 2**64 - 1),
    )
    result: dict[str, Any] = {"documents": 0, "differ": [], "mark": mark}

    def take(item: Item, status: Status) -> None:
        result["documents"] += status["documents"]
        result["differ"] += status["differ"]

    items = [
        Item(shard.name, ShardLoad(shard, units), shard.rows, shard.size) for shard, units in found.by_shard() if units
    ]
    _stop_on(work(run, job, items, "check", 0, take), "checked")
    result["differ"].sort()
    put_json(note, result)
    return result


# The jobs


@dataclass(frozen=True)
class Result:
    """What a job came to: a summary for programs, lines for people, and what decides the exit code."""

    summary: dict[str, Any]
    lines: list[str]
    lost: bool = False
    conforms: bool | None = None

    def exit_code(self, gate: bool) -> int:
        """5 where more failed than allowed; with *gate* 3 where something does not conform and 4 where evidence is missing."""
        if self.lost:
            return 5
        if gate and self.conforms is not True:
            return 3 if self.conforms is False else 4
        return 0


def filter_corpus(run: Run, until: str = "report", again: bool = False) -> Result:
    """
    The main job: plan, scan, judge, assess, apply, draw, check, report; up to *until*.

    A finished run is not touched: the same command tells again what came of it, unless *again*.
    """
    return _run(run, until, again, applies=True)


def assess_sources(run: Run) -> Result:
    """Plan, scan, judge, assess, report. Writes no shard."""
    return _run(run, "report", False, applies=False)


def up_to(run: Run, step: str) -> Result:
    """The way of the data as far as *step*; what it rests on is made where it is missing."""
    return _run(run, step, False, applies=True)


def _run(run: Run, until: str, again: bool, applies: bool) -> Result:
    from corpus_guard.steps.report import Facts, failures_of, finished, told, write_report

    end = WAY.index(until)
    facts = Facts(plan(run, write=False))
    before = finished(run)
    if before is not None and not again:
        if before["manifest"] != facts.plan.manifest:
            raise UsageError(
                f"{run.folder.run.uri}: this run is finished, and the shards it was made of have changed since; choose another run name (run: ...), the store keeps what was scanned."
            )
        return told(run, before)
    facts = Facts(plan(run))
    if end >= WAY.index("scan"):
        facts.todo = scan(run, facts.plan)
    if end >= WAY.index("judge"):
        facts.judged = judge(run, facts.plan)
        if end >= WAY.index("assess"):
            facts.total = tallies(run.folder)
            facts.sources = assess(run, facts.judged, facts.total)
            if applies and end >= WAY.index("apply"):
                facts.accounting = apply(run, facts.plan, facts.sources)
                if end >= WAY.index("draw"):
                    facts.drawn = draw(run, facts.plan, "clean", _digest(facts.accounting, facts.plan.manifest))
                    if end >= WAY.index("check"):
                        facts.integrity = integrity(run, facts.plan, facts.drawn)
                        if run.setup.evaluation:
                            facts.evaluated = check(run, facts.plan, facts.drawn, run.setup.evaluation)
    if end < WAY.index("report"):
        return failures_of(run, facts, until)
    return told(run, write_report(run, facts))


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def spot_check(run: Run) -> Result:
    """
    Draw both samples from everything there is, scan only what was drawn, report. For any finished Parquet corpus.
    """
    from corpus_guard.steps.report import Facts, finished, told, write_report

    asked = run.setup.config.spot_check
    if asked is not None:
        run.setup = replace(run.setup, policy=run.setup.policy.raised(asked.manual, asked.technical))
    facts = Facts(plan(run, write=False))
    before = finished(run)
    if before is not None:
        if before["manifest"] != facts.plan.manifest:
            raise UsageError(
                f"{run.folder.run.uri}: this spot check is finished, and the corpus has changed since; choose another run name (run: ...)."
            )
        return told(run, before)
    facts = Facts(plan(run))
    _name_bad_shards(run, facts.plan)
    facts.drawn = draw(run, facts.plan, "all", facts.plan.manifest)
    facts.own = check(run, facts.plan, facts.drawn, run.setup.recipes)
    facts.judged = facts.own.judged
    if run.setup.evaluation:
        facts.evaluated = check(run, facts.plan, facts.drawn, run.setup.evaluation)
    return told(run, write_report(run, facts))


def forget_failures(run: Run) -> int:
    """
    Make ready to try again what failed: records in ``failed/`` go, and findings of units with damaged row groups.

    Shards concerned are judged and written again; all others stay as they are.
    """
    found = plan(run, write=False)
    root = run.folder.run / "failed"
    records = [(root / name, read_json(root / name)) for name in root.names(".json")]
    units = {(unit.shard_name, unit.name): unit for unit in found.units}
    wanted = keys(run.setup.recipes, run.setup.reading)
    again: set[str] = set()
    for place, record in records:
        place.delete()
        unit = units.get((record.get("shard_name", record["shard"]), record.get("unit", "")))
        if unit is not None:
            again.add(unit.shard_name)
            if "group" in record:  # damaged: its findings say so, and are made again
                for key in wanted.values():
                    run.store.delete(key, unit)
    for shard in again:
        run.folder.tally(shard).delete()
        run.folder.shard_accounting(shard).delete()
    return len(records)


# Looking at a run


def describe_plan(run: Run) -> tuple[dict[str, Any], list[str]]:
    """Shards, rows, bytes, units, memory bound, and what the store already has; nothing is written."""
    found = plan(run, write=False)
    rest = todo(run, found.units, run.setup.recipes)
    config = run.setup.config.executor
    largest = max((max((size for _, size in shard.groups), default=0) for shard in found.shards), default=0)
    policy = run.setup.policy
    slots = (
        config.workers
        if config.kind == "local"
        else (config.cpu.workers or 1) * config.in_flight + 2 * (config.gpu.workers or 0)
    )
    memory = slots * min(config.slice_bytes, max(largest, 1)) * 4
    summary = {
        "policy": policy.id,
        "manifest": found.manifest,
        "shards": len(found.shards),
        "bad_shards": [{"path": bad.path, "error": bad.error} for bad in found.bad],
        "rows": found.rows,
        "bytes": found.bytes,
        "units": len(found.units),
        "memory_bound_bytes": memory,
        "stages": {recipe.name: recipe.digest for recipe in run.setup.recipes},
        "todo": {"units": len(rest.loads), "rows": rest.rows, "missing": rest.missing},
        "done_units": rest.done_units,
        "samples": {
            "manual_at_most": policy.manual.size(found.rows),
            "technical_at_most": policy.technical.size(found.rows),
        },
    }
    lines = [
        f"policy     {policy.id}: {policy.title}",
        f"corpus     {len(found.shards):,} shards, {found.rows:,} rows, {_bytes(found.bytes)}, {len(found.units):,} units, manifest {found.manifest[:12]}",
        *(f"           cannot be read: {bad.path} ({bad.error})" for bad in found.bad[:20]),
        *([f"           and {len(found.bad) - 20} more that cannot be read"] if len(found.bad) > 20 else []),
        *(
            f"stage      {recipe.name} {recipe.digest[:12]}: {rest.missing[recipe.name]:,} of {len(found.units):,} units to scan"
            for recipe in run.setup.recipes
        ),
        f"samples    at most {policy.manual.size(found.rows):,} documents for people, {policy.technical.size(found.rows):,} for the technical check",
        f"memory     about {_bytes(memory)} for slices in flight ({slots} at once, {_bytes(config.slice_bytes)} each at most), stages beside it",
        f"to do      {len(rest.loads):,} units with {rest.rows:,} rows; the store already has {rest.done_units:,}",
    ]
    return summary, lines


def _bytes(n: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if n < 1024 or unit == "TiB":
            return f"{n:,.0f} {unit}" if unit == "B" else f"{n:,.1f} {unit}"
        n /= 1024
    raise AssertionError


def describe_status(run: Run) -> tuple[dict[str, Any], list[str]]:
    """How far the run is, step by step, from the files there are."""
    if not run.folder.identity.exists():
        raise UsageError(f"{run.folder.run.uri}: no run was started here; corpus-guard run starts one.")
    found = plan(run, write=False)
    rest = todo(run, found.units, run.setup.recipes)
    with_rows = [shard for shard in found.shards if shard.rows]
    place = run.folder.run
    done = {
        "scan": (rest.done_units, len(found.units)),
        "judge": (len((place / "tallies").names(".parquet")), len(with_rows)),
        "assess": (int(run.folder.sources.exists()), 1),
        "apply": (len((place / "accounting").names(".json")), len(found.shards)),
        "draw": (int((run.folder.samples / "draw.json").exists()), 1),
        "report": (int((place / "reports" / "report.json").exists()), 1),
    }
    failed = sorted((place / "failed").names(".json"))
    summary = {
        "run": place.uri,
        "as_of": run.as_of.isoformat(),
        "steps": {k: {"done": a, "of": b} for k, (a, b) in done.items()},
        "failed": failed,
    }
    lines = [f"run        {place.uri} (as of {run.as_of})"]
    lines += [f"{step:10} {a:,} of {b:,}" + ("" if a < b else "  done") for step, (a, b) in done.items()]
    lines += [f"failed     {name}" for name in failed[:20]] + (
        [f"failed     and {len(failed) - 20} more"] if len(failed) > 20 else []
    )
    return summary, lines
