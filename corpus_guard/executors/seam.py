"""
The seam between *what* is done and *where*.

A ``Job`` is picklable and small. Each worker opens it once and then works items off. A job may
have two parts: the front runs on CPU workers and commits what it can; what only a GPU worker can
do travels as *parcels* (Arrow record batches) to the back, which commits the rest. Executors know nothing
of shards, stages or policies; they place work, move parcels, count attempts and tell what failed.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

Status = dict[str, Any]
"""A small record about one finished item (counts, no text): all the driver ever sees of it."""


@dataclass(frozen=True, slots=True)
class Item:
    """One piece of work. ``key`` is unique in the job; ``payload`` is small and picklable."""

    key: str
    payload: Any
    rows: int = 0
    nbytes: int = 0


@dataclass(frozen=True, slots=True)
class Failure:
    """An item that was given up: after how many attempts, and why (``error``, ``killed``, ``timeout``)."""

    item: Item
    attempts: int
    reason: str
    error: str


class Front(Protocol):
    def work(self, item: Item) -> Iterator[pa.RecordBatch | Status]:
        """
        Work *item* off: any number of parcels for the back, then exactly one status, last.

        A job without a back yields its status alone. Everything the front itself owes is committed
        before the status is given.
        """
        ...


class Back(Protocol):
    def take(self, item: Item, parcel: pa.RecordBatch) -> None:
        """Work on one parcel; parcels of an item arrive in order, at one worker."""
        ...

    def finish(self, item: Item, front: Status) -> Status:
        """All parcels have arrived: commit, and give the item's final status."""
        ...

    def drop(self, item: Item) -> None:
        """The item will be tried again or was given up: forget what was taken of it."""
        ...


class Job(Protocol):
    """``two_pools``: whether parcels go to a back. ``name`` is shown in progress and errors."""

    @property
    def name(self) -> str: ...

    @property
    def two_pools(self) -> bool: ...

    def open_front(self) -> Front: ...

    def open_back(self) -> Back: ...


@dataclass(slots=True)
class Outcome:
    """What became of all items. ``statuses`` is empty if an ``on_status`` took them."""

    done: int = 0
    failures: list[Failure] = field(default_factory=list)
    worker_deaths: int = 0
    nodes_lost: int = 0


class Executor(Protocol):
    def run(
        self,
        job: Job,
        items: Sequence[Item] | Iterable[Item],
        on_status: Callable[[Item, Status], None],
        on_failure: Callable[[Failure], None] | None = None,
    ) -> Outcome:
        """
        Work off all *items*, in any order; call *on_status* once for each finished one, on the driver.

        An item that raises ``errors.DataError`` is given up at once; any other error, a death of its worker or
        a passed deadline costs it an attempt (three), later attempts alone on a worker;
        ``errors.TransientError`` and lost nodes cost none but have a budget with back-off.
        A given-up item becomes a ``Failure``; the rest goes on.
        Never raises for an item. Raises ``UsageError`` when workers cannot be started at all.
        """
        ...

    def close(self) -> None: ...
