"""
The driver's side of a run on Ray: which calls are out, what each answer means, who pays for a death.

Is handed the ``ray`` module and the two kinds of actors (see ``ray``), so it loads nothing. An *actor*
is the process on the cluster, a *worker* the driver's view of it, a *flight* one attempt of an item. An
actor answers its calls in order: the first call without an answer is the one it works on.
"""

import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from corpus_guard.errors import CorpusGuardError, UsageError
from corpus_guard.executors.attempts import Attempts, Try, shortened, told
from corpus_guard.executors.seam import Item, Job, Outcome, Status

THREAD_SETTINGS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
"""Set for every actor to the CPUs it asked for."""

Note = dict[str, Any]
"""A small answer of an actor; what failed inside it comes as a note too, never as an exception."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the driver waits, in seconds, and how many deaths in a row it takes."""

    placing: float = 300.0
    """Until the cluster has found a place for at least one actor of a pool."""
    opening: float = 1800.0
    """Until an actor has opened its part of the job (weights are loaded)."""
    all_placed: float = 30.0
    """Until all backs have a place; then fronts start with those that have one."""
    doubt: float = 60.0
    """Until an actor that could not be reached has proved to be dead or alive."""
    deaths_in_a_row: int = 50
    """So many actors of a pool may die with no item finished between them."""
    failed_starts: int = 10
    """So many actors of a pool may fail to start one after the other, with growing pauses."""


@dataclass(frozen=True, slots=True)
class Pool:
    """What is asked of the cluster: so many actors, each with so many CPUs and (a fraction of) GPUs."""

    workers: int
    num_cpus: float
    num_gpus: float = 0.0


@dataclass(slots=True, eq=False)
class _Flight:
    """One attempt of an item: where it is and what has been spent on it."""

    number: int
    tried: Try
    front: "_Worker | None"
    back: "_Worker | None" = None
    begun: bool = False
    bundle: Any = None
    """Reference to parcels that no back has been given yet."""
    status: Status | None = None
    """What the front said last; given to the back together with the last bundle."""
    front_seconds: float = 0.0
    back_seconds: float = 0.0
    over: bool = False


@dataclass(slots=True, eq=False)
class _Call:
    what: str
    worker: "_Worker"
    flight: _Flight | None = None
    bundle: Any = None


@dataclass(slots=True, eq=False)
class _Worker:
    """The driver's view of one actor. It answers its calls in order, so the first of them is the one it works on."""

    actor: Any
    is_front: bool
    born: float
    state: str = "placing"  # placing -> opening -> ready, or in doubt
    node: str = ""
    since: float = 0.0
    ask_at: float = math.inf
    calls: deque[_Call] = field(default_factory=deque)
    flights: dict[int, _Flight] = field(default_factory=dict)

    @property
    def ready(self) -> bool:
        return self.state == "ready"

    @property
    def idle(self) -> bool:
        return self.ready and not self.flights and not self.calls

    @property
    def has_one_alone(self) -> bool:
        return any(flight.tried.alone for flight in self.flights.values())


class _Side:
    """One of the two pools: its workers, and how it has fared."""

    def __init__(self, pool: Pool, is_front: bool) -> None:
        self.pool = pool
        self.is_front = is_front
        self.workers: list[_Worker] = []
        self.deaths_in_a_row = 0
        self.failed_starts = 0
        self.ever_ready = False
        self.start_after = 0.0

    @property
    def name(self) -> str:
        return "cpu" if self.is_front else "gpu"


class Dispatch:
    """One run: which calls are out, and what each answer means."""

    def __init__(
        self,
        ray: Any,
        kinds: tuple[Any, Any],
        job: Job,
        front: Pool,
        back: Pool | None,
        in_flight: int,
        unit_timeout: float | None,
        patience: Patience,
        env: Mapping[str, str],
        attempts: Attempts,
        outcome: Outcome,
        on_status: Callable[[Item, Status], None],
    ) -> None:
        self._ray = ray
        self._kinds = kinds
        self._job = job
        self._fronts = _Side(front, True)
        self._backs = _Side(back, False) if back else None
        self._in_flight = in_flight
        self._unit_timeout = unit_timeout
        self._patience = patience
        self._env = env
        self._attempts = attempts
        self._outcome = outcome
        self._on_status = on_status
        self._calls: dict[Any, _Call] = {}
        self._flights: dict[int, _Flight] = {}
        self._count = 0
        self._lost_nodes: set[str] = set()

    def run(self) -> None:
        """Until every item is done or given up."""
        while True:
            self._start_workers()
            self._begin_items()
            self._move_parcels()
            if not self._flights and self._attempts.exhausted:
                return
            for ref in self._answered():
                self._hear(ref)
            self._look_at_the_clock()

    def close(self) -> None:
        for side in self._sides:
            for worker in side.workers:
                self._end(worker)
            side.workers.clear()

    @property
    def _sides(self) -> list[_Side]:
        return [self._fronts] + ([self._backs] if self._backs else [])

    # -- giving work ------------------------------------------------------------------------------

    def _start_workers(self) -> None:
        """Backs first: a front with a preference for the GPU's node must not take the CPUs its back needs."""
        now = time.monotonic()
        for side in reversed(self._sides):
            while len(side.workers) < side.pool.workers and now >= side.start_after:
                side.workers.append(self._started(side))
            waiting = [worker.born for worker in side.workers if worker.state == "placing"]
            if waiting and (len(waiting) == len(side.workers) or now - min(waiting) < self._patience.all_placed):
                return

    def _started(self, side: _Side) -> _Worker:
        threads = str(max(1, int(side.pool.num_cpus)))
        env = {**dict.fromkeys(THREAD_SETTINGS, threads), **self._env}
        options: dict[str, Any] = {
            "num_cpus": side.pool.num_cpus,
            "num_gpus": side.pool.num_gpus,
            "max_restarts": 0,
            "max_task_retries": 0,
            "max_concurrency": 1,
            "runtime_env": {"env_vars": env},
        }
        if side.is_front and (node := self._preferred_node()):
            options["scheduling_strategy"] = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
                node, soft=True, _spill_on_unavailable=True
            )
        kind = self._kinds[0 if side.is_front else 1]
        worker = _Worker(kind.options(**options).remote(), side.is_front, time.monotonic())
        self._call("hello", worker, worker.actor.hello.remote())
        return worker

    def _preferred_node(self) -> str:
        """The node of the GPU worker with the fewest CPU workers beside it: parcels then need no network."""
        if self._backs is None or not self._backs.pool.num_gpus:
            return ""
        nodes = [worker.node for worker in self._backs.workers if worker.node]
        beside = [worker.node for worker in self._fronts.workers]
        return min(nodes, key=lambda node: beside.count(node) / nodes.count(node), default="")

    def _begin_items(self) -> None:
        fronts = [worker for worker in self._fronts.workers if worker.ready]
        for worker in fronts:
            if worker.idle and (tried := self._attempts.take_alone()):
                self._begin(tried, worker)
        if self._attempts.someone_waits_alone:
            return  # the first front to fall idle is its
        # A second item for one only when all have their first: else it waits behind a slow one beside idle fronts.
        deep = self._in_flight if len(fronts) == self._fronts.pool.workers else 1
        most_postponed = 2 * self._in_flight * self._fronts.pool.workers
        for open_items in range(deep):
            for worker in fronts:
                if len(worker.flights) == open_items and not worker.has_one_alone:
                    tried = self._attempts.take(most_postponed)
                    if tried is None:
                        return
                    self._begin(tried, worker)

    def _begin(self, tried: Try, front: _Worker) -> None:
        self._count += 1
        flight = _Flight(self._count, tried, front)
        self._flights[flight.number] = front.flights[flight.number] = flight
        self._pull(flight, front)

    def _pull(self, flight: _Flight, front: _Worker) -> None:
        item = None if flight.begun else flight.tried.item
        flight.begun = True
        note, bundle = front.actor.pull.options(num_returns=2).remote(flight.number, item)
        self._call("pull", front, note, flight, bundle)

    def _move_parcels(self) -> None:
        """Bundles that wait go to backs with a free place, the oldest item first; then their fronts go on."""
        if self._backs is None:
            return
        waiting = [flight for flight in self._flights.values() if flight.bundle is not None]
        waiting.sort(key=lambda flight: (not flight.tried.alone, flight.number))
        someone_waits_alone = False
        for flight in waiting:
            if flight.back is None:
                flight.back = self._free_back(flight, someone_waits_alone)
                if flight.back is None:
                    someone_waits_alone = someone_waits_alone or flight.tried.alone
                    continue
                flight.back.flights[flight.number] = flight
            back, front = flight.back, flight.front
            if not back.ready or len(back.calls) >= self._in_flight:
                continue
            bundle, flight.bundle = flight.bundle, None
            note = back.actor.take.remote(flight.number, flight.tried.item, bundle, flight.status)
            self._call("take", back, note, flight)
            if front is not None and flight.status is None:
                self._pull(flight, front)
            elif front is not None:
                front.flights.pop(flight.number, None)
                flight.front = None

    def _free_back(self, flight: _Flight, someone_waits_alone: bool) -> _Worker | None:
        """The least busy back; one without any item for an item that is alone, and for all while such a one waits."""
        assert self._backs is not None
        backs = [worker for worker in self._backs.workers if worker.ready and not worker.has_one_alone]
        if flight.tried.alone or someone_waits_alone:
            backs = [worker for worker in backs if worker.idle]
        backs = [worker for worker in backs if len(worker.calls) < self._in_flight]
        return min(backs, key=lambda worker: (len(worker.calls), len(worker.flights)), default=None)

    def _call(self, what: str, worker: _Worker, ref: Any, flight: _Flight | None = None, bundle: Any = None) -> None:
        if not worker.calls:
            worker.since = time.monotonic()
        call = _Call(what, worker, flight, bundle)
        worker.calls.append(call)
        self._calls[ref] = call

    # -- hearing answers --------------------------------------------------------------------------

    def _answered(self) -> list[Any]:
        """References of answers that are there, after waiting for the first. Never fetches a parcel."""
        now, until = time.monotonic(), [min(5.0, self._patience.placing)]
        if (seconds := self._attempts.seconds_to_wait()) is not None:
            until.append(seconds)
        for worker in (worker for side in self._sides for worker in side.workers):
            until.append(worker.ask_at - now)
            if (limit := self._limit(worker)) is not None:
                until.append(worker.since + limit - now)
        refs = list(self._calls)
        if not refs:
            time.sleep(max(0.0, min(until)))
            return []
        ready, rest = self._ray.wait(refs, num_returns=1, timeout=max(0.0, min(until)), fetch_local=False)
        if ready and rest:
            ready += self._ray.wait(rest, num_returns=len(rest), timeout=0, fetch_local=False)[0]
        return list(ready)

    def _hear(self, ref: Any) -> None:
        call = self._calls.pop(ref, None)
        if call is None:  # its worker was ended while we went through the answers
            return
        worker, flight, now = call.worker, call.flight, time.monotonic()
        try:
            answer = self._ray.get(ref)
        except self._ray.exceptions.RayActorError as error:
            self._calls[ref] = call  # what it was working on is still to be told
            self._could_not_be_reached(worker, error)
            return
        except self._ray.exceptions.RayError as error:
            answer = self._note_of(error)
        if flight is not None:
            self._spent(call, flight, now)
        if call.what != "in doubt":
            worker.calls.remove(call)
            worker.since = now
        if flight is None:
            self._hear_start(call, answer)
        elif flight.over:
            pass
        elif "failed" in answer:
            self._failed(flight, worker, answer)
        elif call.what == "pull":
            self._pulled(flight, answer, call.bundle)
        elif answer.get("status") is not None:
            self._finished(flight, answer["status"])

    def _note_of(self, error: BaseException) -> Note:
        """An answer that Ray could not give: lost objects and nodes are weather, the rest is not."""
        known = self._ray.exceptions
        weather = (
            known.ObjectLostError,
            known.NodeDiedError,
            known.ObjectStoreFullError,
            known.OutOfDiskError,
            known.RpcError,
        )
        if isinstance(error, known.LocalRayletDiedError):
            raise error
        cause = getattr(error, "cause", None)
        kind = "transient" if isinstance(error, weather) or isinstance(cause, weather) else "error"
        return {"failed": kind, "error": told(error)}

    def _spent(self, call: _Call, flight: _Flight, now: float) -> None:
        if call.worker.calls and call.worker.calls[0] is call:
            seconds = now - call.worker.since
            if call.worker.is_front:
                flight.front_seconds += seconds
            else:
                flight.back_seconds += seconds

    def _hear_start(self, call: _Call, answer: Any) -> None:
        worker, side = call.worker, self._side(call.worker)
        if call.what == "in doubt":  # it lives: the network failed, and what it has in hand may be half done
            self._replace(worker, "Its worker could not be reached for a while.", weather=True)
        elif isinstance(answer, dict) and "failed" in answer:
            self._remove(worker)
            self._could_not_start(side, str(answer["error"]), final=answer["failed"] != "transient")
        elif call.what == "hello":
            worker.node, worker.state = answer, "opening"
            self._call("open", worker, worker.actor.open.remote(self._job))
        else:
            worker.state = "ready"
            side.ever_ready = True
            side.failed_starts = 0

    def _pulled(self, flight: _Flight, note: Note, bundle: Any) -> None:
        flight.status = note.get("status")
        if self._backs is not None:
            flight.bundle = bundle
        elif note["parcels"]:
            error = "RuntimeError: The front of a job with one pool gave a parcel, which nobody takes."
            self._failed(flight, flight.front, {"failed": "error", "error": error})
        elif flight.status is not None:
            self._finished(flight, flight.status)

    def _finished(self, flight: _Flight, status: Status) -> None:
        self._land(flight)
        for side in self._sides:
            side.deaths_in_a_row = 0
        self._outcome.done += 1
        self._on_status(flight.tried.item, status)

    def _failed(self, flight: _Flight, worker: _Worker | None, note: Note) -> None:
        front, back = self._land(flight)
        if front is not None and front is not worker:
            front.actor.forget.remote(flight.number)
        if back is not None and back is not worker:
            back.actor.drop.remote(flight.number, flight.tried.item)
        self._attempts.failed(flight.tried, note["failed"], note["error"])
        if note["failed"] == "error" and worker is not None and not worker.is_front:
            # A CUDA error is for the process's life: its next items would pay for this one.
            self._replace(worker, note["error"], charge=False)

    def _land(self, flight: _Flight) -> tuple[_Worker | None, _Worker | None]:
        """The attempt is over. Gives the front and the back that may still hold something for it."""
        flight.over, flight.bundle = True, None
        self._flights.pop(flight.number, None)
        for worker in (flight.front, flight.back):
            if worker is not None:
                worker.flights.pop(flight.number, None)
        return flight.front, flight.back

    # -- deaths and deadlines ---------------------------------------------------------------------

    def _could_not_be_reached(self, worker: _Worker, error: Any) -> None:
        if not isinstance(error, self._ray.exceptions.ActorUnavailableError):
            weather = bool(getattr(error, "preempted", False)) or self._node_is_lost(worker, str(error))
            self._replace(worker, how_it_died(error), weather=weather)
        else:
            # The news of a death, or of a lost node, comes later than the broken connection: ask until it is there.
            self._forget_calls(worker)
            if worker.state != "in doubt":
                worker.state, worker.since = "in doubt", time.monotonic()
            worker.ask_at = time.monotonic() + 1.0

    def _node_is_lost(self, worker: _Worker, text: str) -> bool:
        if "its node has died" not in text:
            alive = {node["NodeID"] for node in self._ray.nodes() if node["Alive"]}
            if not worker.node or worker.node in alive:
                return False
        if worker.node:
            self._lost_nodes.add(worker.node)
            self._outcome.nodes_lost = len(self._lost_nodes)
        return True

    def _replace(
        self, worker: _Worker, error: str, weather: bool = False, charge: bool = True, reason: str = "killed"
    ) -> None:
        """
        *worker* is gone, or must go, and another one takes its place.

        *weather*: nobody's fault. Else, with *charge*, the item it worked on pays, and those whose calls
        waited behind it are suspects: had its last answer been lost, it would be one of them.
        """
        side, starting = self._side(worker), worker.state in ("placing", "opening")
        paying = worker.calls[0].flight if worker.calls else None
        suspects = {call.flight.number for call in worker.calls if call.flight is not None}
        self._remove(worker)
        if starting:
            self._could_not_start(side, error, final=False, weather=weather)
            return
        for flight in list(worker.flights.values()):
            if worker is flight.front and flight.status is not None and not weather:
                worker.flights.pop(flight.number)  # all it made lies in the object store
                flight.front = None
                continue
            front, back = self._land(flight)
            if front is not None and front is not worker:
                front.actor.forget.remote(flight.number)
            if back is not None and back is not worker:
                back.actor.drop.remote(flight.number, flight.tried.item)
            if weather:
                self._attempts.postpone(flight.tried, error)
            elif charge and flight is paying:
                self._attempts.charge(flight.tried, reason, error)
            else:
                self._attempts.put_back(flight.tried, suspect=charge and flight.number in suspects)
        if charge and not weather and reason == "killed":
            self._count_death(side, error)

    def _count_death(self, side: _Side, error: str) -> None:
        self._outcome.worker_deaths += 1
        side.deaths_in_a_row += 1
        if side.deaths_in_a_row >= self._patience.deaths_in_a_row:
            raise CorpusGuardError(
                f"{side.deaths_in_a_row} {side.name} workers of {self._job.name} died one after the other and no item "
                "was finished between them: the run stops here, and can be started again once the cause is gone. "
                f"Last: {error}"
            )

    def _could_not_start(self, side: _Side, error: str, final: bool, weather: bool = False) -> None:
        """*final*: another try would give the same, unless such workers have started before."""
        self._outcome.worker_deaths += not weather
        side.failed_starts += 1
        side.start_after = time.monotonic() + self._attempts.limits.delay(side.failed_starts)
        if final and not side.ever_ready:
            raise UsageError(f"No {side.name} worker can be started for {self._job.name}: {error}")
        if side.failed_starts >= self._patience.failed_starts:
            kind = CorpusGuardError if side.ever_ready else UsageError
            raise kind(
                f"{side.failed_starts} {side.name} workers of {self._job.name} failed to start one after the other. "
                f"Last: {error}"
            )

    def _limit(self, worker: _Worker) -> float | None:
        """Seconds after ``worker.since`` at which its time is up."""
        if worker.state == "opening":
            return self._patience.opening
        if worker.state == "in doubt":
            return self._patience.doubt
        if worker.state == "ready" and worker.calls and self._unit_timeout is not None:
            flight = worker.calls[0].flight
            if flight is None or flight.over:
                return self._unit_timeout
            return max(0.0, self._unit_timeout - (flight.front_seconds if worker.is_front else flight.back_seconds))
        return None

    def _look_at_the_clock(self) -> None:
        now = time.monotonic()
        for side in self._sides:
            for worker in list(side.workers):
                if worker.ask_at <= now:
                    worker.ask_at = math.inf
                    self._calls[worker.actor.hello.remote()] = _Call("in doubt", worker)
                limit = self._limit(worker)
                if limit is None or now - worker.since < limit or self._has_answered(worker):
                    continue
                if worker.state == "opening":
                    self._replace(worker, f"It was not open after {limit:g} seconds.")
                elif worker.state == "in doubt":
                    self._replace(worker, f"It could not be reached for {limit:g} seconds.", weather=True)
                else:
                    error = f"It was not done after {self._unit_timeout:g} seconds of work, and its worker was killed."
                    self._replace(worker, error, reason="timeout")
            self._refuse_to_wait_for_ever(side, now)

    def _has_answered(self, worker: _Worker) -> bool:
        """An answer is there that the driver, busy elsewhere, has not heard yet."""
        refs = [ref for ref, call in self._calls.items() if call.worker is worker]
        return bool(refs and self._ray.wait(refs, num_returns=1, timeout=0, fetch_local=False)[0])

    def _refuse_to_wait_for_ever(self, side: _Side, now: float) -> None:
        placing = [worker for worker in side.workers if worker.state == "placing"]
        if not placing or len(placing) < len(side.workers):
            return
        if now - max(worker.born for worker in placing) < self._patience.placing:
            return
        free = self._ray.available_resources()
        kind = CorpusGuardError if side.ever_ready else UsageError
        raise kind(
            f"The Ray cluster found no place for any of {side.pool.workers} {side.name} workers "
            f"({amount(side.pool.num_cpus, side.pool.num_gpus)} each) in {self._patience.placing:g} seconds; free are "
            f"{amount(free.get('CPU', 0.0), free.get('GPU', 0.0))}. Others may hold the rest: wait for them, or ask "
            "for less."
        )

    def _side(self, worker: _Worker) -> _Side:
        return self._fronts if worker.is_front or self._backs is None else self._backs

    def _forget_calls(self, worker: _Worker) -> None:
        for ref in [ref for ref, call in self._calls.items() if call.worker is worker]:
            del self._calls[ref]

    def _remove(self, worker: _Worker) -> None:
        self._side(worker).workers.remove(worker)
        self._forget_calls(worker)
        self._end(worker)

    def _end(self, worker: _Worker) -> None:
        with contextlib.suppress(Exception):  # it may be dead, and so may the cluster
            self._ray.kill(worker.actor, no_restart=True)


def how_it_died(error: BaseException) -> str:
    """Ray's reason without its advice, actor ids and addresses: the same death reads the same again."""
    reason = " ".join(line for line in str(error).splitlines() if not line.startswith("\t"))
    return shortened(f"Its worker died. {reason.partition('Some common causes')[0]}")


def amount(cpus: float, gpus: float) -> str:
    return f"{cpus:g} CPU" + (f" + {gpus:g} GPU" if gpus else "")
