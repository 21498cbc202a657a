"""
Looking at a run without touching it: what it would do (``plan``), how far it is (``status``).
"""

import os
import socket
import time
from contextlib import suppress
from typing import Any

from corpus_guard.errors import UsageError
from corpus_guard.places import Place
from corpus_guard.shards import SLICE_BYTES
from corpus_guard.steps.files import read_json
from corpus_guard.steps.plan import plan
from corpus_guard.steps.scan import todo
from corpus_guard.steps.setup import Run

EXPIRES_SECONDS = 300.0
"""A lock object on an object store is void when its holder has not been heard of for so long; see ``Place.lock``."""


def describe_plan(run: Run) -> tuple[dict[str, Any], list[str]]:
    """Shards, rows, bytes, units, memory bound, and what the store already has; nothing is written."""
    found = plan(run)
    rest = todo(run, found.units, run.setup.recipes)
    config = run.setup.config.executor
    largest = max((max((size for _, size in shard.groups), default=0) for shard in found.shards), default=0)
    policy = run.setup.policy
    workers = config.workers if config.kind == "local" else config.cpu.workers or 1
    slots = workers if config.kind == "local" else workers * config.in_flight + 2 * (config.gpu.workers or 0)
    shard = max((sum(size for _, size in shard.groups) for shard in found.shards), default=0)
    # a slice is held up to four times (as read, as text, as normalised, on its way out); a worker that writes
    # shards gathers a row group for each of clean, removed and quarantined, and encodes it
    memory = slots * min(config.slice_bytes, largest) * 4 + workers * 3 * 2 * min(2 * SLICE_BYTES, shard)
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
        f"memory     at most about {_bytes(memory)} for slices and row groups in flight ({slots} at once, "
        f"{_bytes(config.slice_bytes)} each at most), the stages themselves beside it",
        f"to do      {len(rest.loads):,} units with {rest.rows:,} rows; the store already has {rest.done_units:,}",
    ]
    return summary, lines


def describe_status(run: Run) -> tuple[dict[str, Any], list[str]]:
    """How far the run is, step by step, from the files there are; who works on it; what failed."""
    place = run.folder.run
    if not run.folder.identity.exists():
        raise UsageError(f"{place.uri}: no run was started here; corpus-guard run starts one.")
    bound = read_json(run.folder.identity)["identity"]
    done = _steps(run, bound["job"])
    failed = sorted((place / "failed").names(".json"))
    holder = _holder(place)
    finished = (run.folder.reports / "report.json").exists()
    now = run.setup.identity()
    differs = sorted(part for part in bound.keys() | now.keys() if bound.get(part) != now.get(part))
    summary = {
        "run": place.uri,
        "job": bound["job"],
        "as_of": run.as_of.isoformat(),
        "finished": finished,
        "worked_on_by": holder,
        "differs": differs,
        "steps": {step: {"done": a, "of": b} for step, (a, b) in done.items()},
        "failed": failed,
    }
    wide = max(len(f"{b:,}") for _, b in done.values())
    lines = [
        f"run        {place.uri}, {bound['job']}, as of {run.as_of}",
        f"state      {_state(finished, holder)}",
    ]
    lines += [f"{step:10} {a:>{wide},} of {b:>{wide},}" + ("" if a < b else "  done") for step, (a, b) in done.items()]
    if differs:
        lines.append(f"note       the config now says otherwise: {', '.join(differs)}; going on needs another run name")
    lines.append(f"failed     {len(failed):,}" + (", corpus-guard retry tries again" if failed else ""))
    lines += _some([f"           failed/{name}" for name in failed])
    return summary, lines


def _steps(run: Run, job: str) -> dict[str, tuple[int, int]]:
    """Pieces done, and pieces there are, of every step of *job*."""
    folder, place = run.folder, run.folder.run
    found = plan(run)
    report = {"report": (int((folder.reports / "report.json").exists()), 1)}
    draw = {"draw": (int((folder.samples / "draw.json").exists()), 1)}
    if job == "spot-check":
        return draw | {"check": (int(folder.technical.exists()), 1)} | report
    rest = todo(run, found.units, run.setup.recipes)
    with_rows = [shard for shard in found.shards if shard.rows]
    done = {
        "scan": (rest.done_units, len(found.units)),
        "judge": (len(folder.tallies.names(".parquet")), len(with_rows)),
        "assess": (int(folder.sources.exists()), 1),
    }
    if job == "filter":
        done |= {"apply": (len((place / "accounting").names(".json")), len(found.shards))} | draw
    return done | report


def _state(finished: bool, holder: dict[str, Any] | None) -> str:
    state = "finished" if finished else "not finished"
    if holder is None:
        return f"{state}; nobody works on it" + ("" if finished else ", and the same command goes on with it")
    by = f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    return f"{state}; worked on by {by}" if holder["seen"] else f"{state}; last held by {by}, out of sight from here"


def _holder(place: Place) -> dict[str, Any] | None:
    """
    Host, process and start of the driver that holds the run folder, without touching its lock; ``None`` if nobody does.

    ``seen`` is false for a process of another machine: the file names whoever held it last, and only that machine
    knows whether it still runs.
    """
    keys = ("host", "pid", "since")
    if not place.is_local:
        for name in (place / ".lock").names(".json"):
            with suppress(FileNotFoundError, ValueError, KeyError, TypeError):
                held = read_json(place / ".lock" / name)
                if time.time() - held["beat"] < EXPIRES_SECONDS:
                    return {key: held[key] for key in keys} | {"seen": True}
        return None
    try:
        held = read_json(place / ".lock")
        here = held["host"] == socket.gethostname()
        if here and not _alive(held["pid"], os.stat((place / ".lock").path).st_ino):
            return None
        return {key: held[key] for key in keys} | {"seen": here}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _alive(pid: int, inode: int) -> bool:
    """Whether *pid* runs and, where the kernel tells, somebody holds the lock on the file with this number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's process: it is there
    try:
        with open("/proc/locks", encoding="ascii") as locks:
            return any("FLOCK" in line and f":{inode} " in line for line in locks)
    except OSError:
        return True


def _some(lines: list[str], most: int = 20) -> list[str]:
    return lines if len(lines) <= most else [*lines[:most], f"           and {len(lines) - most:,} more"]


def _bytes(n: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if n < 1024 or unit == "TiB":
            return f"{n:,.0f} {unit}" if unit == "B" else f"{n:,.1f} {unit}"
        n /= 1024
    raise AssertionError
