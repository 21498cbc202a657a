"""Units of work: runs of row groups, cut so that any plan of the same shards cuts them alike."""

from collections.abc import Iterable
from dataclasses import dataclass

from corpus_guard.shards.columns import SLICE_BYTES
from corpus_guard.shards.corpus import Shard


@dataclass(frozen=True, slots=True)
class Unit:
    """
    A run of row groups of one shard, done or not done as a whole. ``last_group`` is not part of it.

    ``copy`` counts shards of equal digest in the order of their names.
    """

    shard_path: str
    shard_name: str
    shard_digest: str
    copy: int
    first_group: int
    last_group: int
    row_lo: int
    rows: int
    nbytes: int

    @property
    def name(self) -> str:
        return f"{self.row_lo:012d}-{self.row_lo + self.rows:012d}"


def plan_units(shards: Iterable[Shard], unit_bytes: int = SLICE_BYTES) -> list[Unit]:
    """
    All rows of *shards* in units of whole row groups, at most *unit_bytes* decoded where groups allow it.

    How a shard is cut depends on the shard and *unit_bytes* alone. A shard without rows has no unit.
    """
    units: list[Unit] = []
    copies: dict[str, int] = {}
    for shard in sorted(shards, key=lambda shard: shard.name):
        copy = copies[shard.digest] = copies.get(shard.digest, -1) + 1
        first = row_lo = rows = nbytes = 0
        for index, (group_rows, group_bytes) in enumerate(shard.groups):
            if rows and group_rows and nbytes + group_bytes > unit_bytes:
                units.append(Unit(shard.path, shard.name, shard.digest, copy, first, index, row_lo, rows, nbytes))
                first, row_lo, rows, nbytes = index, row_lo + rows, 0, 0
            rows += group_rows
            nbytes += group_bytes
        if rows:
            last = len(shard.groups)
            units.append(Unit(shard.path, shard.name, shard.digest, copy, first, last, row_lo, rows, nbytes))
    return units
