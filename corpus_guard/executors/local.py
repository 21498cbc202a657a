"""
Work on this machine: in the calling process, or in a pool of processes of our own.

The pool is not ``concurrent.futures``: there the death of one worker breaks the pool and does not say
whose item it was. Here a dead worker is replaced and its item charged.
"""

import time
from collections.abc import Callable, Iterable, Sequence

import pyarrow as pa

from corpus_guard.errors import UsageError
from corpus_guard.executors.attempts import Attempts, Limits, kind_of, told
from corpus_guard.executors.seam import Back, Failure, Front, Item, Job, Outcome, Status


class LocalExecutor:
    """
    One worker in this process, or *workers* processes.

    With one worker there is neither a deadline nor protection from an item that kills its process
    (an item that raises is still isolated): ask for two workers where that matters.
    """

    def __init__(
        self, workers: int = 1, unit_timeout: float | None = None, attempts: int = 3, limits: Limits | None = None
    ) -> None:
        if workers < 1:
            raise UsageError(f"A local executor needs at least one worker, not {workers}.")
        self._workers = workers
        self._unit_timeout = unit_timeout
        self._limits = limits or Limits(attempts=attempts)

    def run(
        self,
        job: Job,
        items: Sequence[Item] | Iterable[Item],
        on_status: Callable[[Item, Status], None],
        on_failure: Callable[[Failure], None] | None = None,
    ) -> Outcome:
        """Work off all *items*; see ``seam.Executor.run``."""
        outcome = Outcome()
        attempts = Attempts(items, self._limits, outcome, on_failure)
        if self._workers == 1:
            _work_in_this_process(job, attempts, outcome, on_status)
        else:
            raise UsageError("Only one local worker is possible yet.")
        return outcome

    def close(self) -> None:
        """Nothing outlives ``run``."""


def _work_in_this_process(
    job: Job, attempts: Attempts, outcome: Outcome, on_status: Callable[[Item, Status], None]
) -> None:
    if attempts.exhausted:
        return
    front, back = job.open_front(), job.open_back() if job.two_pools else None
    while True:
        tried = attempts.take_alone() or attempts.take(most_postponed=1)
        if tried is None:
            seconds = attempts.seconds_to_wait()
            if seconds is None:
                return
            time.sleep(seconds)
            continue
        try:
            status = worked(front, back, tried.item)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # sys.exit() or a panic of a native library is the item's fault too
            attempts.failed(tried, kind_of(error), told(error))
        else:
            outcome.done += 1
            on_status(tried.item, status)


def worked(front: Front, back: Back | None, item: Item) -> Status:
    """*item* worked off by *front* and, in the same process, by *back*. Raises what they raise."""
    status: Status | None = None
    pieces = front.work(item)
    try:
        for piece in pieces:
            if status is not None:
                raise RuntimeError("The front gave something after its status.")
            if isinstance(piece, dict):
                status = piece
            elif back is None or not isinstance(piece, pa.RecordBatch):
                raise RuntimeError(f"The front gave a {type(piece).__name__}, which nobody takes.")
            else:
                back.take(item, piece)
        if status is None:
            raise RuntimeError("The front gave no status.")
        return status if back is None else back.finish(item, status)
    except BaseException:
        if back is not None:
            back.drop(item)
        raise
    finally:
        closed = getattr(pieces, "close", None)
        if closed is not None:
            closed()
