"""
``plan``: which shards there are, what they hold, and what of it is still to do. Reads footers only.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from corpus_guard.errors import UsageError
from corpus_guard.findings import Recipe
from corpus_guard.shards import (
    BadShard,
    Shard,
    Unit,
    check_reading,
    find_shards,
    manifest_hash,
    plan_units,
    read_footers,
    read_manifest,
    write_manifest,
)
from corpus_guard.steps.scan import Load, keys
from corpus_guard.steps.setup import Run


@dataclass(frozen=True)
class Plan:
    """The corpus as found, cut into units."""

    shards: tuple[Shard, ...]
    bad: tuple[BadShard, ...]
    units: tuple[Unit, ...]
    manifest: str

    @property
    def rows(self) -> int:
        return sum(shard.rows for shard in self.shards)

    @property
    def bytes(self) -> int:
        return sum(shard.size for shard in self.shards)

    def by_shard(self) -> list[tuple[Shard, tuple[Unit, ...]]]:
        """Every shard with its units, in the order of the manifest."""
        units: dict[str, list[Unit]] = {shard.name: [] for shard in self.shards}
        for unit in self.units:
            units[unit.shard_name].append(unit)
        return [(shard, tuple(units[shard.name])) for shard in self.shards]


@dataclass(frozen=True)
class Todo:
    """What the store lacks for a set of stages."""

    loads: tuple[Load, ...]
    done_units: int
    missing: dict[str, int] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return sum(load.unit.rows for load in self.loads)


def plan(run: Run, write: bool = True) -> Plan:
    """
    Find the shards, read their footers, cut them into units; with *write*, keep the manifest in the run folder.

    Footers of an earlier plan are taken from its manifest where path, size and etag are unchanged.
    """
    config = run.setup.config
    place = run.folder.manifest
    known = read_manifest(place)[0] if place.exists() else []
    files = find_shards(config.corpus.shards, config.base)
    shards, bad = read_footers(files, cache=known)
    if bad and not shards:
        first = bad[0]
        raise UsageError(
            f"{first.path}: none of the {len(bad)} shards found can be read as Parquet ({first.error}); check corpus.shards"
        )
    check_reading(shards, run.setup.reading)
    units = plan_units(shards, config.executor.unit_bytes)
    found = Plan(tuple(shards), tuple(bad), tuple(units), manifest_hash(shards))
    if write:
        write_manifest(place, shards, bad)
    return found


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
