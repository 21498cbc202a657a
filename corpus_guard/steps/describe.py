"""
Looking at a run without touching it: what it would do (``plan``), how far it is (``status``).
"""

from typing import Any

from corpus_guard.errors import UsageError
from corpus_guard.steps.plan import plan
from corpus_guard.steps.scan import todo
from corpus_guard.steps.setup import Run


def describe_plan(run: Run) -> tuple[dict[str, Any], list[str]]:
    """Shards, rows, bytes, units, memory bound, and what the store already has; nothing is written."""
    found = plan(run)
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
    at_most = {"manual_at_most": policy.manual.size(found.rows), "technical_at_most": policy.technical.size(found.rows)}
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
        "samples": at_most,
    }
    units = len(found.units)
    lines = [
        f"policy     {policy.id}: {policy.title}",
        f"corpus     {len(found.shards):,} shards, {found.rows:,} rows, {_bytes(found.bytes)}, {units:,} units, "
        f"manifest {found.manifest[:12]}",
        *_some([f"           cannot be read: {bad.path} ({bad.error})" for bad in found.bad]),
        *(
            f"stage      {recipe.name} {recipe.digest[:12]}: {rest.missing[recipe.name]:,} of {units:,} units to scan"
            for recipe in run.setup.recipes
        ),
        f"samples    at most {at_most['manual_at_most']:,} documents for people, "
        f"{at_most['technical_at_most']:,} for the technical check",
        f"memory     about {_bytes(memory)} for slices in flight ({slots} at once, {_bytes(config.slice_bytes)} each "
        "at most), stages beside it",
        f"to do      {len(rest.loads):,} units with {rest.rows:,} rows; the store already has {rest.done_units:,}",
    ]
    return summary, lines


def describe_status(run: Run) -> tuple[dict[str, Any], list[str]]:
    """How far the run is, step by step, from the files there are."""
    if not run.folder.identity.exists():
        raise UsageError(f"{run.folder.run.uri}: no run was started here; corpus-guard run starts one.")
    found = plan(run)
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
    lines += _some([f"failed     {name}" for name in failed])
    return summary, lines


def _some(lines: list[str], most: int = 20) -> list[str]:
    return lines if len(lines) <= most else [*lines[:most], f"           and {len(lines) - most:,} more"]


def _bytes(n: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if n < 1024 or unit == "TiB":
            return f"{n:,.0f} {unit}" if unit == "B" else f"{n:,.1f} {unit}"
        n /= 1024
    raise AssertionError
