"""
Work on a Ray cluster: a pool of front actors on CPUs and, for jobs with two parts, a pool of back actors.

The driver asks a front for the next parcels of an item (``pull``) and hands the reference to one back
(``take``): the bytes cross the object store once and never pass the driver, which sees small notes. A
front is asked for more only after its last parcels have a place at a back, so at most ``in_flight``
bundles per actor exist. Actors never restart and calls are never retried by Ray; the driver replaces
dead actors and owns all attempts.

Leaves out autoscaling (the cluster must hold the actors when the run starts) and Ray Data.
"""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from corpus_guard.errors import CorpusGuardError, UsageError
from corpus_guard.executors.attempts import Attempts, Limits, kind_of, told
from corpus_guard.executors.dispatch import Dispatch, Note, Patience, Pool, amount
from corpus_guard.executors.seam import Back, Failure, Front, Item, Job, Outcome, Status

BUNDLE_BYTES = 1 << 20
"""Parcels of an item are gathered up to this size, so that an item of a few documents needs two calls, not four."""


class RayExecutor:
    """
    Actor pools on the cluster at *address* (None: what ``ray.init`` finds, else one started here).

    ``cpu_workers`` fronts with ``cpu_num_cpus`` each; ``gpu_workers`` backs with ``gpu_num_cpus`` and
    ``gpu_num_gpus`` each (0 puts the backs on CPUs). At most *in_flight* items are open at a front and as
    many calls wait at a back. *unit_timeout*: seconds of work on one item, for the front and for the back
    each; waiting behind others does not count. *env* is set in every actor before its first
    import. Workers that are None: as many as the cluster has room for.
    """

    def __init__(
        self,
        address: str | None = None,
        namespace: str | None = None,
        cpu_workers: int | None = 1,
        cpu_num_cpus: float = 1,
        gpu_workers: int | None = 1,
        gpu_num_gpus: float = 1,
        gpu_num_cpus: float = 1,
        in_flight: int = 2,
        attempts: int = 3,
        unit_timeout: float | None = None,
        infrastructure_budget: int = 20,
        env: Mapping[str, str] | None = None,
        limits: Limits | None = None,
        patience: Patience | None = None,
    ) -> None:
        faults = [
            f"{name} must be {what}, not {value:g}"
            for name, value, what, fine in (
                ("cpu_workers", cpu_workers or 1, "at least 1", cpu_workers is None or cpu_workers >= 1),
                ("gpu_workers", gpu_workers or 1, "at least 1", gpu_workers is None or gpu_workers >= 1),
                ("cpu_num_cpus", cpu_num_cpus, "over 0", cpu_num_cpus > 0),
                ("gpu_num_cpus", gpu_num_cpus, "0 or more", gpu_num_cpus >= 0),
                ("gpu_num_gpus", gpu_num_gpus, "a fraction of 1 or a whole number", _shares_a_gpu(gpu_num_gpus)),
                ("in_flight", in_flight, "at least 1", in_flight >= 1),
                ("unit_timeout", unit_timeout or 1, "over 0", unit_timeout is None or unit_timeout > 0),
            )
            if not fine
        ]
        if faults:
            raise UsageError(f"The Ray executor cannot be set up: {'; '.join(faults)}.")
        self._ray, self._ours = _connected(address, namespace)
        self._pools = (cpu_workers, cpu_num_cpus), (gpu_workers, gpu_num_cpus, gpu_num_gpus)
        self._in_flight = in_flight
        self._unit_timeout = unit_timeout
        self._limits = limits or Limits(attempts=attempts, infrastructure_budget=infrastructure_budget)
        self._patience = patience or Patience()
        self._env = dict(env or {})

    def run(
        self,
        job: Job,
        items: Sequence[Item] | Iterable[Item],
        on_status: Callable[[Item, Status], None],
        on_failure: Callable[[Failure], None] | None = None,
    ) -> Outcome:
        """
        Work off all *items*; see ``seam.Executor.run``.

        Raises UsageError if the cluster cannot hold the actors or none can open the job, and
        CorpusGuardError if the cluster is lost or actors die one after the other. What is done stays done.
        """
        outcome = Outcome()
        attempts = Attempts(items, self._limits, outcome, on_failure)
        if attempts.exhausted:
            return outcome
        front, back = _fitted(self._ray, *self._pools, job.two_pools)
        _check_room(self._ray, front, back)
        driver = Dispatch(
            self._ray,
            (self._ray.remote(_FrontActor), self._ray.remote(_BackActor)),
            job,
            front,
            back,
            self._in_flight,
            self._unit_timeout,
            self._patience,
            self._env,
            attempts,
            outcome,
            on_status,
        )
        try:
            driver.run()
        except self._ray.exceptions.RayError as error:
            raise CorpusGuardError(
                f"The connection to the Ray cluster was lost: {told(error)}. What is done is kept; start again to do "
                "the rest."
            ) from error
        finally:
            driver.close()
        return outcome

    def close(self) -> None:
        """Leave the cluster, and end it if it was started here. Actors are gone since ``run`` ended."""
        if self._ours and self._ray.is_initialized():
            self._ray.shutdown()
        self._ours = False


def _shares_a_gpu(share: float) -> bool:
    return share == int(share) if share >= 1 else share >= 0


def _connected(address: str | None, namespace: str | None) -> tuple[Any, bool]:
    """The ``ray`` module, connected, and whether we did that. Authentication is left to RAY_AUTH_MODE."""
    try:
        import ray
    except ImportError as error:
        raise UsageError(
            "The Ray executor needs Ray, which is not installed: install `corpus-guard[ray]`, "
            "or use `executor: {kind: local}`."
        ) from error
    if ray.is_initialized():
        return ray, False
    local = {} if address and address.startswith("ray://") else {"include_dashboard": False}
    try:
        ray.init(address=address, namespace=namespace, logging_level="warning", **local)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        where = f"at {address}" if address else "here"
        raise UsageError(
            f"No Ray cluster can be used {where}: {told(error)}. Check executor.address and, where the cluster asks "
            "for a token, RAY_AUTH_MODE and RAY_AUTH_TOKEN_PATH."
        ) from error
    return ray, True


def _fitted(
    ray: Any, front: tuple[int | None, float], back: tuple[int | None, float, float], two_pools: bool
) -> tuple[Pool, Pool | None]:
    """Both pools; one without a number of workers takes what the cluster has, the front what the back leaves."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    second = None
    if two_pools:
        asked = Pool(back[0] or 1, *back[1:])
        places = sum(_places(node, asked) for node in nodes) if asked.num_gpus else 1
        second = Pool(back[0] or max(1, places), *back[1:])
    taken = second.workers * second.num_cpus if second else 0.0
    left = sum(node.get("CPU", 0.0) for node in nodes) - taken
    return Pool(front[0] or max(1, math.floor(left / front[1] + 1e-6)), front[1]), second


def _check_room(ray: Any, front: Pool, back: Pool | None) -> None:
    """
    Refuse at once what can never be placed; Ray would wait for ever without a word.

    Only conditions that are necessary whatever else runs on the cluster: the sums, and for each pool
    the places that the nodes have when empty.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    pools = [("cpu", front)] + ([("gpu", back)] if back else [])
    cpus = sum(pool.workers * pool.num_cpus for _, pool in pools)
    gpus = sum(pool.workers * pool.num_gpus for _, pool in pools)
    has_cpus, has_gpus = (sum(node.get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU"))
    short = [] if cpus <= has_cpus + 1e-6 else ["CPUs"]
    short += [] if gpus <= has_gpus + 1e-6 else ["GPUs"]
    for name, pool in pools:
        places = sum(_places(node, pool) for node in nodes)
        if not short and places < pool.workers:
            short.append(f"nodes with a place for a {name} worker: {places}")
    if not short:
        return
    asked = [f"{pool.workers} {name} workers x {amount(pool.num_cpus, pool.num_gpus)}" for name, pool in pools]
    change = "lower executor.cpu_workers or cpu_num_cpus"
    if back:
        change += ", or gpu_workers, gpu_num_gpus or gpu_num_cpus"
    raise UsageError(
        f"The Ray cluster cannot hold the actors (too few {', '.join(short)}): asked are {' and '.join(asked)}, "
        f"together {amount(cpus, gpus)}; the cluster has {amount(has_cpus, has_gpus)} on {len(nodes)} node(s). "
        f"To change that, {change}, or add nodes."
    )


def _places(node: Mapping[str, float], pool: Pool) -> int:
    """Actors of *pool* that an empty *node* has room for; a fraction of a GPU never spans two."""
    by_cpu = math.floor(node.get("CPU", 0.0) / pool.num_cpus + 1e-6) if pool.num_cpus else pool.workers
    if not pool.num_gpus:
        return by_cpu
    gpus = node.get("GPU", 0.0)
    on_one = math.floor(1 / pool.num_gpus + 1e-6)
    return min(by_cpu, int(gpus) * on_one if pool.num_gpus < 1 else int(gpus // pool.num_gpus))


class _Actor:
    """What every actor can do. Lives on a worker."""

    def hello(self) -> str:
        """The node on which the cluster has put us."""
        import ray

        return str(ray.get_runtime_context().get_node_id())


class _FrontActor(_Actor):
    """The front of the job on a worker, and the items it has begun."""

    def __init__(self) -> None:
        self._front: Front | None = None
        self._begun: dict[int, Iterator[pa.RecordBatch | Status]] = {}

    def open(self, job: Job) -> Note:
        with _noted() as note:
            self._front = job.open_front()
        return note

    def pull(self, flight: int, item: Item | None) -> tuple[Note, list[pa.Buffer]]:
        """
        The next parcels of an item, and its status if that was all of it. *item* is given once.

        A parcel travels as an Arrow IPC stream: a slice takes its own bytes along, not its whole
        parent's, and the back reads it in place in shared memory.
        """
        parcels: list[pa.Buffer] = []
        with _noted() as note:
            if item is not None:
                assert self._front is not None
                self._begun[flight] = iter(self._front.work(item))
            size = 0
            while size < BUNDLE_BYTES:
                piece = next(self._begun[flight], None)
                if piece is None:
                    raise RuntimeError("The front gave no status.")
                if isinstance(piece, dict):
                    if next(self._begun[flight], None) is not None:
                        raise RuntimeError("The front gave something after its status.")
                    note["status"] = piece
                    self.forget(flight)
                    break
                parcels.append(_packed(piece))
                size += parcels[-1].size
        if "failed" in note:
            parcels = []
            self.forget(flight)
        note["parcels"] = len(parcels)
        return note, parcels

    def forget(self, flight: int) -> None:
        """The item is done here, or its attempt has ended elsewhere."""
        close = getattr(self._begun.pop(flight, None), "close", None)
        if close is not None:
            with contextlib.suppress(Exception):
                close()


class _BackActor(_Actor):
    """The back of the job on a worker."""

    def __init__(self) -> None:
        self._back: Back | None = None
        self._failed: set[int] = set()

    def open(self, job: Job) -> Note:
        with _noted() as note:
            self._back = job.open_back()
        return note

    def take(self, flight: int, item: Item, parcels: list[pa.Buffer], front: Status | None) -> Note:
        """Work on *parcels*; with the *front*'s status, finish the item."""
        back = self._back
        assert back is not None
        if flight in self._failed:  # its earlier parcels failed; the driver knows, or is about to
            return {"stale": True}
        with _noted() as note:
            for parcel in parcels:
                back.take(item, _unpacked(parcel))
            if front is not None:
                note["status"] = back.finish(item, front)
        if "failed" in note:
            self._failed.add(flight)
            with contextlib.suppress(Exception):
                back.drop(item)
        return note

    def drop(self, flight: int, item: Item) -> None:
        """The attempt has ended elsewhere."""
        if self._back is not None and flight not in self._failed:
            self._failed.add(flight)
            with contextlib.suppress(Exception):
                self._back.drop(item)


@contextlib.contextmanager
def _noted() -> Iterator[Note]:
    """What is raised becomes part of the note: a pickled exception could be huge, or unreadable here."""
    note: Note = {}
    try:
        yield note
    except BaseException as error:  # sys.exit() or a panic of a native library too
        note.clear()
        note.update(failed=kind_of(error), error=told(error))


def _packed(parcel: pa.RecordBatch) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, parcel.schema) as stream:
        stream.write_batch(parcel)
    return sink.getvalue()


def _unpacked(parcel: pa.Buffer) -> pa.RecordBatch:
    """A view of shared memory, without a copy: the store cannot free it while the back keeps any column of it."""
    with pa.ipc.open_stream(parcel) as stream:
        return stream.read_next_batch()
