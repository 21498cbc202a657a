"""
Work on this machine: in the calling process, or in a pool of processes of our own.

The pool is not ``concurrent.futures``: there the death of one worker breaks the pool and does not say
whose item it was. Here a dead worker is replaced and its item charged.
"""

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

import pyarrow as pa

from corpus_guard.errors import CorpusGuardError, UsageError
from corpus_guard.executors.attempts import Attempts, Limits, Try, kind_of, told
from corpus_guard.executors.seam import Back, Failure, Front, Item, Job, Outcome, Status

THREAD_SETTINGS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
"""What keeps the libraries below NumPy and torch from starting one thread per core in every worker."""


class LocalExecutor:
    """
    One worker in this process, or *workers* processes.

    With one worker there is neither a deadline nor protection from an item that kills its process
    (an item that raises is still isolated): ask for two workers where that matters.
    """

    def __init__(
        self,
        workers: int = 1,
        unit_timeout: float | None = None,
        attempts: int = 3,
        limits: Limits | None = None,
        most_deaths: int = 50,
    ) -> None:
        """
        *unit_timeout*: seconds an item may be worked on. *most_deaths*: so many workers may die one
        after the other, with no item finished between them, before the run stops.
        """
        if workers < 1:
            raise UsageError(f"A local executor needs at least one worker, not {workers}.")
        if unit_timeout is not None and unit_timeout <= 0:
            raise UsageError(f"unit_timeout is a number of seconds over 0, not {unit_timeout:g}.")
        self._workers = workers
        self._unit_timeout = unit_timeout
        self._limits = limits or Limits(attempts=attempts)
        self._most_deaths = most_deaths

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
            pool = _Pool(job, self._workers, self._unit_timeout, self._most_deaths, attempts, outcome, on_status)
            try:
                pool.run()
            finally:
                pool.close()
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


class _Worker:
    """
    The driver's end of one worker process, and the item it works on.

    None is sent ahead: it would wait behind a slow item while others are idle, and a worker that
    waits for the pipe (0.1 ms) loses nothing against items of seconds.
    """

    def __init__(self, job: bytes, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, its_end = context.Pipe()
        self.process: SpawnProcess = context.Process(target=_serve, args=(its_end, job), daemon=True)
        with _threads_of_children(threads), _without_interrupts():
            self.process.start()
        its_end.close()  # else its death would not end the pipe
        self.ready = False
        self.has: Try | None = None
        self.since = 0.0

    def send(self, tried: Try) -> None:
        self.has, self.since = tried, time.monotonic()
        with contextlib.suppress(OSError):  # it died; its end of the pipe will tell
            self.pipe.send_bytes(pickle.dumps(tried.item))

    def answered(self) -> Try:
        tried, self.has = self.has, None
        if tried is None:
            raise RuntimeError("A worker answered that was asked nothing.")
        return tried

    def messages(self) -> Iterator[tuple[str, Any]]:
        """What it has said so far; EOFError or OSError once it is dead and all is read."""
        while self.pipe.poll():
            yield pickle.loads(self.pipe.recv_bytes())

    def end(self) -> str:
        """Make sure that it is dead, and say how it died."""
        with contextlib.suppress(OSError):
            self.pipe.close()
        self.process.join(0.2)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        code = self.process.exitcode or 0
        self.process.close()
        if code >= 0:
            return f"exit code {code}"
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"


class _Pool:
    """The processes of one run, each with one item at a time."""

    def __init__(
        self,
        job: Job,
        workers: int,
        unit_timeout: float | None,
        most_deaths: int,
        attempts: Attempts,
        outcome: Outcome,
        on_status: Callable[[Item, Status], None],
    ) -> None:
        self._job = pickle.dumps(job)
        self._name = job.name
        self._replace_after_error = job.two_pools  # a back may hold a GPU, and a CUDA error is for the process's life
        self._size = workers
        self._threads = max(1, (os.cpu_count() or 1) // workers)
        self._unit_timeout = unit_timeout
        self._most_deaths = most_deaths
        self._attempts = attempts
        self._outcome = outcome
        self._on_status = on_status
        self._workers: list[_Worker] = []
        self._deaths_in_a_row = 0
        self._ever_ready = False

    def run(self) -> None:
        if self._attempts.exhausted:
            return
        self._start_workers()
        while True:
            self._hand_out()
            if self._attempts.exhausted and not any(worker.has for worker in self._workers):
                return
            self._listen()
            self._stop_late_ones()
            self._start_workers()

    def close(self) -> None:
        """Kill what is left; after a run that went through, idle workers that have nothing to lose."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.end()
        self._workers.clear()

    def _start_workers(self) -> None:
        while len(self._workers) < self._size:
            self._workers.append(_Worker(self._job, self._threads))

    def _hand_out(self) -> None:
        for worker in self._workers:
            if worker.ready and worker.has is None:
                tried = self._attempts.take_alone() or self._attempts.take(most_postponed=2 * self._size)
                if tried is None:
                    return
                worker.send(tried)

    def _listen(self) -> None:
        """Wait until a worker speaks or dies, an item is due again or a deadline passes."""
        until = [seconds for seconds in [self._attempts.seconds_to_wait()] if seconds is not None]
        if self._unit_timeout is not None:
            now = time.monotonic()
            until += [max(0.0, worker.since + self._unit_timeout - now) for worker in self._workers if worker.has]
        watched: dict[Any, _Worker] = {}
        for worker in self._workers:
            watched[worker.pipe] = watched[worker.process.sentinel] = worker
        spoke = {id(watched[one]): watched[one] for one in wait(list(watched), min(until, default=None))}
        for worker in spoke.values():
            alive = worker.process.is_alive()  # asked before reading: what it said last is still heard
            try:
                for message in worker.messages():
                    self._hear(worker, *message)
            except (EOFError, OSError):
                alive = False
            if worker in self._workers and not alive:
                self._bury(worker)

    def _hear(self, worker: _Worker, kind: str, content: Any) -> None:
        if kind == "ready":
            worker.ready = self._ever_ready = True
        elif kind == "cannot start":
            self._remove(worker)
            if not self._ever_ready:
                raise UsageError(f"No worker can be started for {self._name}: {content}")
            self._count_death(content)
        elif kind == "done":
            tried = worker.answered()
            self._deaths_in_a_row = 0
            self._outcome.done += 1
            self._on_status(tried.item, content)
        else:
            self._attempts.failed(worker.answered(), kind, content)
            if kind == "error" and self._replace_after_error:
                self._remove(worker)

    def _stop_late_ones(self) -> None:
        if self._unit_timeout is None:
            return
        for worker in list(self._workers):
            if worker.has and time.monotonic() - worker.since >= self._unit_timeout and not worker.pipe.poll():
                error = f"It was not done after {self._unit_timeout:g} seconds, and its worker was killed."
                self._attempts.charge(worker.answered(), "timeout", error)
                worker.process.kill()
                self._remove(worker)

    def _bury(self, worker: _Worker) -> None:
        was_ready = worker.ready
        how = self._remove(worker)
        if not was_ready and not self._ever_ready:
            raise UsageError(
                f"No worker can be started for {self._name}: the first one died at its start ({how}). "
                "Look at its messages above; a script that starts workers needs an `if __name__ == '__main__'`."
            )
        if worker.has:
            self._attempts.charge(worker.answered(), "killed", f"Its worker process died ({how}).")
        self._count_death(how)

    def _count_death(self, how: str) -> None:
        self._outcome.worker_deaths += 1
        self._deaths_in_a_row += 1
        if self._deaths_in_a_row >= self._most_deaths:
            raise CorpusGuardError(
                f"{self._deaths_in_a_row} workers of {self._name} died one after the other (last: {how}) and no item "
                "was finished between them: the run stops here, and can be started again once the cause is gone."
            )

    def _remove(self, worker: _Worker) -> str:
        self._workers.remove(worker)
        return worker.end()


@contextlib.contextmanager
def _threads_of_children(threads: int) -> Iterator[None]:
    """Children read these before their first import; what the user has set stays."""
    ours = [name for name in THREAD_SETTINGS if name not in os.environ]
    os.environ.update({name: str(threads) for name in ours})
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Ctrl-C reaches the whole terminal: a child that is still importing would tell of it with a traceback."""
    resource_tracker.ensure_running()  # starting it would let interrupts through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # children inherit it; ours waits
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(pipe: Connection, job_bytes: bytes) -> None:
    """A worker: opens the job once, then answers items in the order in which they come."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver, which ends us
    threading.Thread(target=_follow_the_driver, daemon=True).start()
    try:
        job: Job = pickle.loads(job_bytes)
        front, back = job.open_front(), job.open_back() if job.two_pools else None
    except BaseException as error:
        pipe.send_bytes(pickle.dumps(("cannot start", told(error))))
        return
    pipe.send_bytes(pickle.dumps(("ready", None)))
    while True:
        try:
            item: Item = pickle.loads(pipe.recv_bytes())
        except (EOFError, OSError):
            return
        try:
            answer = pickle.dumps(("done", worked(front, back, item)))
        except BaseException as error:  # sys.exit() or a panic of a native library too
            answer = pickle.dumps((kind_of(error), told(error)))
        try:
            pipe.send_bytes(answer)
        except OSError:
            return


def _follow_the_driver() -> None:
    """End with the driver, even in the middle of an item that never ends."""
    driver = multiprocessing.parent_process()
    if driver is not None:
        wait([driver.sentinel])
        os._exit(1)


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
