"""
``plan``: which shards there are and what they hold. Reads footers only.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from corpus_guard.errors import UsageError
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
from corpus_guard.steps.setup import Run
from corpus_guard.store import RunFolder


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


def plan(run: Run) -> Plan:
    """
    Find the shards, read their footers, cut them into units. Writes nothing; see ``keep_plan``.

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
            f"{first.path}: none of the {len(bad)} shards found can be read as Parquet ({first.error}); "
            "check corpus.shards."
        )
    check_reading(shards, run.setup.reading)
    units = plan_units(shards, config.executor.unit_bytes)
    return Plan(tuple(shards), tuple(bad), tuple(units), manifest_hash(shards))


def keep_plan(run: Run, found: Plan) -> None:
    """Write the manifest into the run folder; what an unfinished run made of shards that are gone since goes first."""
    if run.folder.manifest.exists():
        now = {shard.name for shard in found.shards}
        for shard in read_manifest(run.folder.manifest)[0]:
            if shard.name not in now:
                _forget(run.folder, shard.name)
    write_manifest(run.folder.manifest, found.shards, found.bad)


def _forget(folder: RunFolder, shard_name: str) -> None:
    """Delete everything a run made of one shard."""
    made = (folder.shard_accounting, folder.clean, folder.removed, folder.quarantined, folder.technical_sample)
    for place in made:
        place(shard_name).delete()
    verdicts = folder.all_verdicts / shard_name
    for name in verdicts.names(".parquet", recursive=False):
        (verdicts / name).delete()
    folder.tally(shard_name).delete()


def extent(shard_digest: str, units: Iterable[Unit]) -> str:
    """What files made of a shard rest on: its bytes, and how it was cut into units."""
    return hashlib.sha256("\n".join([shard_digest, *(unit.name for unit in units)]).encode()).hexdigest()[:16]
