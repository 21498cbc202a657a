"""
Which item is worked on next, and which one is given up: the counting that all executors share.

An item is *charged* an attempt when it raised, ran over its deadline or was being worked on when its
worker died; from then on it is worked on *alone*, so that it cannot take a neighbour with it. An
item is *postponed* for what is not its fault (storage, a lost node); *put back* costs it nothing.
Knows nothing of processes, actors or clocks other than the one it is given.
"""

import heapq
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from corpus_guard.errors import DataError, TransientError
from corpus_guard.executors.seam import Failure, Item, Outcome

LONGEST_ERROR = 1000
"""Characters kept of an error's text: enough for a message, too few for a document."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How often an item may fail before it is given up, and how long it waits after weather."""

    attempts: int = 3
    infrastructure_budget: int = 20
    first_delay: float = 1.0
    longest_delay: float = 60.0

    def delay(self, times: int) -> float:
        """Seconds to wait after the *times*-th failure of storage or cluster: 1, 2, 4, … 60."""
        return min(self.longest_delay, self.first_delay * 2.0 ** min(times - 1, 30))


@dataclass(slots=True, eq=False)
class Try:
    """An item on its way, and what it has cost so far."""

    item: Item
    attempts: int = 0
    infrastructure: int = 0
    alone: bool = False


class Attempts:
    """All items of one run that are not in flight. Takes fresh ones from *items* one by one."""

    def __init__(
        self,
        items: Iterable[Item],
        limits: Limits,
        outcome: Outcome,
        on_failure: Callable[[Failure], None] | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fresh: Iterator[Item] | None = iter(items)
        self._next_fresh: Try | None = None
        self.limits = limits
        self._outcome = outcome
        self._on_failure = on_failure
        self._clock = clock
        self._again: deque[Try] = deque()
        self._alone: deque[Try] = deque()
        self._postponed: list[tuple[float, int, Try]] = []
        self._count = 0

    @property
    def exhausted(self) -> bool:
        """Nothing is left to hand out, now or later (items in flight may still come back)."""
        return not (self._again or self._alone or self._postponed or self._peek_fresh())

    @property
    def someone_waits_alone(self) -> bool:
        """An item needs a worker of its own: no worker that has something is given more."""
        self._admit_due()
        return bool(self._alone)

    def seconds_to_wait(self) -> float | None:
        """Until the first postponed item is due; None if there is none."""
        return max(0.0, self._postponed[0][0] - self._clock()) if self._postponed else None

    def take_alone(self) -> Try | None:
        """The next item that must have its worker to itself."""
        self._admit_due()
        return self._alone.popleft() if self._alone else None

    def take(self, most_postponed: int) -> Try | None:
        """
        The next item that may share a worker.

        While *most_postponed* items wait for storage or the cluster to recover, no fresh one is begun:
        an outage then holds a handful of items, not the whole corpus.
        """
        self._admit_due()
        if self._again:
            return self._again.popleft()
        if len(self._postponed) >= most_postponed or not self._peek_fresh():
            return None
        fresh, self._next_fresh = self._next_fresh, None
        return fresh

    def charge(self, tried: Try, reason: str, error: str) -> None:
        """It was this item's doing: one attempt gone, and the next one alone, or given up."""
        tried.attempts += 1
        if tried.attempts >= self.limits.attempts:
            self._fail(tried, reason, error)
        else:
            tried.alone = True
            self._alone.append(tried)

    def give_up(self, tried: Try, error: str) -> None:
        """Trying again would give the same (``DataError``)."""
        tried.attempts += 1
        self._fail(tried, "error", error)

    def postpone(self, tried: Try, error: str) -> None:
        """Storage or the cluster failed: no attempt gone, but not for ever."""
        tried.infrastructure += 1
        if tried.infrastructure > self.limits.infrastructure_budget:
            self._fail(tried, "error", f"Storage or the cluster failed {tried.infrastructure} times; last: {error}")
            return
        self._count += 1
        due = self._clock() + self.limits.delay(tried.infrastructure)
        heapq.heappush(self._postponed, (due, self._count, tried))

    def put_back(self, tried: Try, suspect: bool = False) -> None:
        """Its work was lost and it costs nothing. A *suspect* (on a worker that died) goes on alone."""
        tried.alone = tried.alone or suspect
        (self._alone if tried.alone else self._again).append(tried)

    def failed(self, tried: Try, kind: str, error: str) -> None:
        """It raised: *kind* as ``kind_of`` says."""
        if kind == "data":
            self.give_up(tried, error)
        elif kind == "transient":
            self.postpone(tried, error)
        else:
            self.charge(tried, "error", error)

    def _peek_fresh(self) -> bool:
        if self._next_fresh is None and self._fresh is not None:
            item = next(self._fresh, None)
            if item is None:
                self._fresh = None
            else:
                self._next_fresh = Try(item)
        return self._next_fresh is not None

    def _admit_due(self) -> None:
        now = self._clock()
        while self._postponed and self._postponed[0][0] <= now:
            self.put_back(heapq.heappop(self._postponed)[2])

    def _fail(self, tried: Try, reason: str, error: str) -> None:
        failure = Failure(tried.item, tried.attempts, reason, shortened(error))
        self._outcome.failures.append(failure)
        if self._on_failure is not None:
            self._on_failure(failure)


def kind_of(error: BaseException) -> str:
    """``data``: give up at once; ``transient``: not the item's fault; ``error``: costs an attempt."""
    if isinstance(error, DataError):
        return "data"
    if isinstance(error, TransientError):
        return "transient"
    return "error"


def told(error: BaseException) -> str:
    """Class, message and place of *error*, bounded in length and on one line."""
    frame, trace = None, error.__traceback__
    while trace is not None:
        frame, trace = (trace.tb_frame.f_globals.get("__name__", "?"), trace.tb_lineno), trace.tb_next
    try:
        message = str(error)
    except Exception:  # a broken __str__ must not hide which item it was
        message = "(its message cannot be shown)"
    place = f" [{frame[0]}:{frame[1]}]" if frame else ""
    return shortened(f"{type(error).__name__}: {message}", LONGEST_ERROR - len(place)) + place


def shortened(text: str, longest: int = LONGEST_ERROR) -> str:
    """*text* on one line, its middle left out where it is longer than *longest* characters."""
    if len(text) > 4 * longest:  # do not split megabytes to show a line of them
        text = text[: 2 * longest] + " … " + text[-2 * longest :]
    line = " ".join(text.split())
    if len(line) <= longest:
        return line
    half = (longest - 3) // 2
    return f"{line[:half]} … {line[-half:]}"
