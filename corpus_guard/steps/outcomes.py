"""
What steps come to, as values that the next step and the report read.
"""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from corpus_guard.findings import Recipe
from corpus_guard.sampling import DrawRecord
from corpus_guard.steps.plan import Plan
from corpus_guard.steps.scan import Todo


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


@dataclass(frozen=True)
class Drawn:
    """What was drawn from how many, and the ledger of all draws."""

    population: int
    manual: int
    technical: int
    duplicate_ids: int | None
    ledger: tuple[DrawRecord, ...]


@dataclass(frozen=True)
class Checked:
    """The technical sample under a set-up: counts over the drawn documents. ``tally`` is by source."""

    stages: tuple[Recipe, ...]
    tally: pa.Table
    judged: Judged


@dataclass(frozen=True)
class Result:
    """What a job came to: a summary for programs, lines for people, and what decides the exit code."""

    summary: dict[str, Any]
    lines: list[str]
    lost: bool = False
    conforms: bool | None = None

    def exit_code(self, gate: bool) -> int:
        """5 if more failed than allowed; with *gate* 3 if something does not conform, 4 if evidence is missing."""
        if self.lost:
            return 5
        if gate and self.conforms is not True:
            return 3 if self.conforms is False else 4
        return 0


@dataclass
class Facts:
    """What the steps of one job found out; ``None`` where a step did not run."""

    plan: Plan
    todo: Todo | None = None
    judged: Judged | None = None
    total: pa.Table | None = None
    sources: pa.Table | None = None
    accounting: dict[str, Any] | None = None
    drawn: Drawn | None = None
    integrity: dict[str, Any] | None = None
    own: Checked | None = None
    evaluated: Checked | None = None

    @property
    def lost(self) -> tuple[dict[str, Any], ...]:
        """Parts that were judged and could not be read again to be written."""
        return tuple(self.accounting["lost"]) if self.accounting else ()

    @property
    def lost_rows(self) -> int:
        return sum(int(one["rows"]) for one in self.lost)

    @property
    def failed_rows(self) -> int | None:
        """All rows that something failed on, where that is known yet."""
        return None if self.judged is None else self.judged.failed_rows + self.lost_rows
