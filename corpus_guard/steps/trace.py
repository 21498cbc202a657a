"""
``trace``: everything a run knows of one document, from the files it left. Never its text.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from corpus_guard.errors import UsageError
from corpus_guard.shards import Shard, Unit
from corpus_guard.steps.apply import FATES, UNREAD, excluded_sources, fates
from corpus_guard.steps.files import read_json, read_parquet
from corpus_guard.steps.judge import Judge, judge_job
from corpus_guard.steps.plan import plan
from corpus_guard.steps.scan import READING
from corpus_guard.steps.setup import Run


@dataclass(frozen=True)
class Traced:
    """``summary``: one record per row of that id (equal ids are several)."""

    summary: dict[str, Any]

    @property
    def lines(self) -> list[str]:
        lines = []
        for one in self.summary["documents"]:
            lines += [
                f"{one['id']}: row {one['row']:,} of {one['shard']}, source {one['source'] or '(null)'}, "
                f"{one['characters']:,} characters, {one['state']}"
            ]
            lines += [
                f"  stage    {name} {stage['digest'][:12]}: {'; '.join(stage['found']) or 'nothing'}"
                for name, stage in one["stages"].items()
            ]
            verdict = one["verdict"]
            risks = ", ".join(verdict["risks"]) or "no risk"
            lines += [
                f"  verdict  {verdict['status']}: {risks}"
                + (f" by {', '.join(verdict['by'])}" if verdict["by"] else "")
                + (f" ({verdict['loss']})" if verdict["loss"] else "")
            ]
            if one["source_decision"]:
                lines += [f"  source   {one['source_decision']['decision']}: {one['source_decision']['reason']}"]
            if one["fate"]:
                lines += [f"  fate     {one['fate'].replace('_', ' ')}"]
            lines += [f"  samples  {', '.join(one['samples']) or 'in none'}"]
        return lines


def trace(run: Run, id: str) -> Traced:
    """Find the documents with this id among the run's verdicts and tell what is known of them."""
    found = plan(run)
    pairs = [(shard, unit) for shard, units in found.by_shard() for unit in units]
    wanted = _named_by_row(id, pairs) or pairs
    with ThreadPoolExecutor(16) as threads:
        hits = [hit for hits in threads.map(lambda pair: _rows_of(run, pair[1], id), wanted) for hit in hits]
    if not hits:
        raise UsageError(
            f"{run.folder.run.uri}: no judged document has the id {id!r}; "
            "check the id, or run corpus-guard judge first."
        )
    judge = Judge(judge_job(run))
    return Traced({"documents": [_one(run, judge, unit, verdict) for unit, verdict in hits]})


def _named_by_row(id: str, pairs: list[tuple[Shard, Unit]]) -> list[tuple[Shard, Unit]]:
    """An id made of shard digest and row leads straight to its unit."""
    digest, mark, row = id.rpartition("#")
    if not mark or not row.isdigit():
        return []
    return [(s, u) for s, u in pairs if s.digest.startswith(digest) and u.row_lo <= int(row) < u.row_lo + u.rows]


def _rows_of(run: Run, unit: Unit, id: str) -> list[tuple[Unit, pa.Table]]:
    place = run.folder.verdicts(unit)
    if not place.exists():
        return []
    ids = read_parquet(place, columns=["id"])
    at = pc.indices_nonzero(pc.equal(ids.column("id"), id))
    return [(unit, read_parquet(place).take(pa.array([i]))) for i in at.to_pylist()]


def _one(run: Run, judge: Judge, unit: Unit, verdict: pa.Table) -> dict[str, Any]:
    setup = run.setup
    [known] = verdict.to_pylist()
    documents = judge.stored(READING, unit)
    assert documents is not None
    at = pc.index_in(pa.array([known["row"]], pa.int64()), documents.column("row").combine_chunks())
    [document] = documents.take(at).to_pylist()
    stages = {}
    for recipe in setup.recipes:
        table = judge.stored(recipe.name, unit)
        found = (
            judge.readers[recipe.name].explain(table.take(at))[0] if table is not None else ["no findings in the store"]
        )
        stages[recipe.name] = {"digest": recipe.digest, "found": found}
    return {
        "id": known["id"],
        "shard": unit.shard_path,
        "row": known["row"],
        "unit": unit.name,
        "source": known["source"],
        "language": document["language"],
        "characters": document["characters"] or 0,
        "bytes": document["bytes"] or 0,
        "state": document["state"],
        "stages": stages,
        "verdict": {key: known[key] for key in ("status", "qualified", "illegal", "risks", "by", "loss")},
        "source_decision": _decision(run, known["source"]),
        "fate": _fate(run, unit, verdict, known["row"]),
        "samples": _samples(run, unit, known["row"]),
    }


def _fate(run: Run, unit: Unit, verdict: pa.Table, row: int) -> str | None:
    """What became of the document; ``unread`` too if it was judged and could not be read again to be written."""
    if not run.folder.sources.exists():
        return None
    place = run.folder.shard_accounting(unit.shard_name)
    lost = read_json(place)["lost"] if place.exists() else []
    if any(one["unit"] == unit.name and any(a <= row < b for a, b in one["from_to"]) for one in lost):
        return FATES[UNREAD]
    return FATES[fates(verdict, excluded_sources(run.folder))[0]]


def _decision(run: Run, source: str | None) -> dict[str, Any] | None:
    if not run.folder.sources.exists():
        return None
    table = read_parquet(run.folder.sources, columns=["source", "decision", "reason"])
    mine = (
        pc.is_null(table.column("source"))
        if source is None
        else pc.fill_null(pc.equal(table.column("source"), source), False)
    )
    rows = table.filter(mine).to_pylist()
    return {"decision": rows[0]["decision"], "reason": rows[0]["reason"]} if rows else None


def _samples(run: Run, unit: Unit, row: int) -> list[str]:
    found = []
    for name, place in (
        ("manual", run.folder.manual_sample),
        ("technical", run.folder.technical_sample(unit.shard_name)),
    ):
        if place.exists():
            sample = read_parquet(place, columns=["shard", "row"])
            mine = pc.and_(pc.equal(sample.column("shard"), unit.shard_name), pc.equal(sample.column("row"), row))
            if pc.any(mine).as_py():
                found.append(name)
    return found
