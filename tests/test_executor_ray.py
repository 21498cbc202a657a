"""Work on a Ray cluster: one small cluster for all, backs on CPUs."""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from corpus_guard.errors import CorpusGuardError, UsageError
from corpus_guard.executors.attempts import LONGEST_ERROR, Limits
from corpus_guard.executors.dispatch import Patience, Pool, how_it_died
from corpus_guard.executors.local import LocalExecutor
from corpus_guard.executors.ray import RayExecutor, _check_room
from corpus_guard.executors.seam import Item, Job
from tests.sample_jobs import CannotOpenJob, DiesAtStartJob, PlainJob, TwoPoolJob
from tests.test_executor_local import run

QUICK = Limits(attempts=2, first_delay=0.01, longest_delay=0.05, infrastructure_budget=4)
ROOT = Path(__file__).resolve().parent.parent


def len_of(key: str) -> int:
    return int(key[1:])


def executor(**changes: Any) -> RayExecutor:
    return RayExecutor(**{"cpu_workers": 2, "gpu_workers": 1, "gpu_num_gpus": 0, **changes})


@pytest.mark.usefixtures("ray_cluster")
class TestTwoPools:
    def test_it_gives_what_the_local_executor_gives(self, tmp_path: Path) -> None:
        items = [Item(f"u{n}", {"front": "data"} if n == 4 else None, rows=n) for n in range(12)]
        local = run(LocalExecutor(), TwoPoolJob(str(tmp_path)), items)
        ray = run(executor(gpu_workers=2), TwoPoolJob(str(tmp_path)), iter(items))
        assert ray[0] == local[0] and len(ray[0]) == 11
        assert ray[1] == local[1] and set(ray[1]) == {"u4"}

    def test_large_parcels_arrive_in_order_and_never_at_the_driver(self, tmp_path: Path) -> None:
        items = [Item(f"u{n}", None, rows=24) for n in range(6)]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        # 6 items x 8 parcels x 3 rows x 1.5 MB = 216 MB go through a store of 200 MB
        statuses, _, _ = run(executor(), TwoPoolJob(str(tmp_path), parcel=3, padding=1_500_000), items)
        assert all(status["numbers"] == list(range(24)) for status in statuses.values()) and len(statuses) == 6
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000  # KiB

    def test_workers_killed_once_lose_nothing(self, tmp_path: Path) -> None:
        deed = {2: {"front": "kill once"}, 5: {"back": "kill once"}, 7: {"back at the end": "kill once"}}
        items = [Item(f"u{n}", deed.get(n), rows=4) for n in range(10)]
        statuses, failures, outcome = run(executor(), TwoPoolJob(str(tmp_path)), items)
        assert {key: status["numbers"] for key, status in statuses.items()} == {
            f"u{n}": [0, 1, 2, 3] for n in range(10)
        }
        assert not failures and outcome.worker_deaths == 3

    def test_items_that_always_kill_are_named_and_their_neighbours_are_innocent(self, tmp_path: Path) -> None:
        deed = {1: {"front later": "kill"}, 2: {"back": "kill"}}
        items = [Item(f"u{n}", deed.get(n), rows=4) for n in range(10)]
        statuses, failures, outcome = run(executor(attempts=2), TwoPoolJob(str(tmp_path)), items)
        assert set(failures) == {"u1", "u2"} and len(statuses) == 8
        assert {(one.attempts, one.reason) for one in failures.values()} == {(2, "killed")}
        assert failures["u1"].error.startswith("Its worker died.") and "pid" not in failures["u1"].error
        assert outcome.worker_deaths == 4 and outcome.nodes_lost == 0

    def test_two_backs_share_a_gpu_and_one_call_at_a_time_is_enough(self, tmp_path: Path) -> None:
        shared = executor(cpu_workers=1, gpu_workers=2, gpu_num_gpus=0.5, in_flight=1)
        statuses, failures, _ = run(shared, TwoPoolJob(str(tmp_path)), [Item(f"u{n}", None, n) for n in range(20)])
        assert [status["numbers"] for status in statuses.values()] == [list(range(n)) for n in map(len_of, statuses)]
        assert len(statuses) == 20 and not failures

    def test_hanging_fronts_and_backs_run_over_their_deadline(self, tmp_path: Path) -> None:
        deed = {1: {"front": "hang"}, 2: {"back": "hang once"}}
        items = [Item(f"u{n}", deed.get(n), rows=4) for n in range(8)]
        statuses, failures, outcome = run(executor(unit_timeout=1, attempts=2), TwoPoolJob(str(tmp_path)), items)
        assert set(failures) == {"u1"} and len(statuses) == 7
        assert (failures["u1"].attempts, failures["u1"].reason) == (2, "timeout")
        assert outcome.worker_deaths == 0

    def test_errors_bad_bytes_and_weather_are_told_apart_on_both_sides(self, tmp_path: Path) -> None:
        deeds_of = {
            "front": ("data", "raise", "raise once", "transient", "transient once", "exit"),
            "back": ("data", "raise", "transient"),
            "back at the end": ("raise once", "transient once"),
        }
        items = [Item(f"{where} {what}", {where: what}, 4) for where, whats in deeds_of.items() for what in whats]
        statuses, failures, outcome = run(executor(limits=QUICK), TwoPoolJob(str(tmp_path)), items)
        assert set(statuses) == {key for key in (item.key for item in items) if key.endswith("once")}
        assert {key: failure.attempts for key, failure in failures.items()} == {
            item.key: {"data": 1, "raise": 2, "exit": 2, "transient": 0}[item.key.split()[-1]]
            for item in items
            if not item.key.endswith("once")
        }
        assert {failure.reason for failure in failures.values()} == {"error"}
        assert all(len(failure.error) <= LONGEST_ERROR + 100 for failure in failures.values())
        assert "ValueError: back raise is unlucky." in failures["back raise"].error
        assert all(status["numbers"] == [0, 1, 2, 3] for status in statuses.values())
        assert outcome.worker_deaths == 0


@pytest.mark.usefixtures("ray_cluster")
class TestOnePool:
    def test_five_thousand_items_are_taken_as_they_are_needed(self, tmp_path: Path) -> None:
        done: list[str] = []

        def items() -> Iterator[Item]:
            for given in range(5000):
                assert given - len(done) <= 2 * 2 + 1
                yield Item(str(given), None, given)

        began = time.monotonic()
        outcome = executor().run(PlainJob(str(tmp_path)), items(), lambda item, status: done.append(item.key))
        assert outcome.done == 5000 and len(set(done)) == 5000
        assert time.monotonic() - began < 120

    def test_a_job_of_nothing_starts_nothing(self, tmp_path: Path) -> None:
        assert executor(cpu_workers=1000).run(PlainJob(str(tmp_path)), [], print).done == 0

    def test_libraries_below_numpy_start_no_more_threads_than_the_actor_has_cpus(self, tmp_path: Path) -> None:
        items = [Item("a", {"front": "tell", "name": "OMP_NUM_THREADS"}), Item("b", {"front": "tell", "name": "MINE"})]
        statuses, _, _ = run(executor(env={"MINE": "yes"}), PlainJob(str(tmp_path)), items)
        assert {key: status["told"] for key, status in statuses.items()} == {"a": "1", "b": "yes"}

    def test_when_every_item_kills_the_run_stops(self, tmp_path: Path) -> None:
        items = (Item(f"u{n}", {"front": "kill"}) for n in range(1000))
        with pytest.raises(CorpusGuardError, match="2 cpu workers of plain died one after the other"):
            run(executor(patience=Patience(deaths_in_a_row=2)), PlainJob(str(tmp_path)), items)

    @pytest.mark.parametrize(
        ("job", "text"),
        [(CannotOpenJob(), "weights.safetensors is cut short"), (DiesAtStartJob(), "2 cpu workers .* failed to start")],
    )
    def test_a_worker_that_cannot_start_is_a_sentence(self, job: Job, text: str) -> None:
        with pytest.raises(UsageError, match=text):
            run(executor(patience=Patience(failed_starts=2)), job, [Item("a", None)])

    def test_an_error_of_the_callback_ends_the_run_and_frees_the_cluster(
        self, tmp_path: Path, ray_cluster: Any
    ) -> None:
        def full(item: Item, status: object) -> None:
            raise OSError("disk full")

        with pytest.raises(OSError, match="disk full"):
            executor().run(PlainJob(str(tmp_path)), [Item("a", None), Item("b", None)], full)
        until = time.monotonic() + 20
        while ray_cluster.available_resources().get("CPU") != 4 and time.monotonic() < until:
            time.sleep(0.1)
        assert ray_cluster.available_resources()["CPU"] == 4


class TestWhatTheClusterHolds:
    def test_too_many_actors_are_refused_at_once(self, ray_cluster: Any, tmp_path: Path) -> None:
        began = time.monotonic()
        with pytest.raises(UsageError) as told:
            run(executor(cpu_workers=4, gpu_num_gpus=2), TwoPoolJob(str(tmp_path)), [Item("a", None)])
        assert time.monotonic() - began < 5
        assert str(told.value) == (
            "The Ray cluster cannot hold the actors (too few CPUs, GPUs): asked are 4 cpu workers x 1 CPU and "
            "1 gpu workers x 1 CPU + 2 GPU, together 5 CPU + 2 GPU; the cluster has 4 CPU + 1 GPU on 1 node(s). "
            "To change that, lower executor.cpu_workers or cpu_num_cpus, or gpu_workers, gpu_num_gpus or "
            "gpu_num_cpus, or add nodes."
        )

    def test_what_others_hold_is_a_sentence_after_a_while(self, ray_cluster: Any, tmp_path: Path) -> None:
        holder = ray_cluster.remote(num_cpus=3)(type("Holder", (), {"ping": lambda self: True})).remote()
        assert ray_cluster.get(holder.ping.remote())
        try:
            with pytest.raises(UsageError, match="found no place for any of 1 cpu workers .2 CPU each. in 1 seconds"):
                small = executor(cpu_workers=1, cpu_num_cpus=2, patience=Patience(placing=1))
                run(small, PlainJob(str(tmp_path)), [Item("a", None)])
        finally:
            ray_cluster.kill(holder)

    @pytest.mark.parametrize(
        ("nodes", "front", "back", "fits"),
        [
            ([{"CPU": 4}], Pool(4, 1), None, True),
            ([{"CPU": 4}], Pool(5, 1), None, False),
            ([{"CPU": 2}, {"CPU": 2}], Pool(2, 2), None, True),
            ([{"CPU": 3}, {"CPU": 3}], Pool(3, 2), None, False),  # 6 CPUs, but two places
            ([{"CPU": 8, "GPU": 1}], Pool(6, 1), Pool(2, 1, 0.5), True),
            ([{"CPU": 8, "GPU": 2}], Pool(2, 1), Pool(3, 1, 0.6), False),  # 0.6 fits once on each GPU
            ([{"CPU": 8, "GPU": 2}], Pool(2, 1), Pool(3, 0, 0.5), True),
            ([{"CPU": 64}, {"CPU": 1, "GPU": 8}], Pool(2, 1), Pool(8, 1, 1), False),  # one CPU beside eight GPUs
            ([{"CPU": 10}], Pool(3, 0.1), Pool(7, 0.1), True),
        ],
    )
    def test_only_what_can_never_fit_is_refused(
        self, nodes: list[dict[str, float]], front: Pool, back: Pool | None, fits: bool
    ) -> None:
        class Cluster:
            @staticmethod
            def nodes() -> list[dict[str, Any]]:
                return [{"Resources": node, "Alive": True} for node in nodes] + [
                    {"Resources": {"CPU": 99, "GPU": 99}, "Alive": False}
                ]

        if fits:
            _check_room(Cluster, front, back)
        else:
            with pytest.raises(UsageError, match="cannot hold the actors"):
                _check_room(Cluster, front, back)

    def test_all_faults_of_the_settings_are_told_at_once(self) -> None:
        with pytest.raises(UsageError, match="cpu_workers must be .* gpu_num_gpus must be .*, not 1.5; in_flight"):
            RayExecutor(cpu_workers=0, gpu_num_gpus=1.5, in_flight=0)


class TestReachingTheCluster:
    @pytest.mark.drill  # three clusters; the one that the other tests share asks for tokens
    @pytest.mark.parametrize("mode", ["token", "disabled", None])
    def test_a_cluster_of_its_own_with_and_without_tokens(self, tmp_path: Path, mode: str | None) -> None:
        env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        env |= {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT), **({"RAY_AUTH_MODE": mode} if mode else {})}
        told = subprocess.run(
            [sys.executable, "-c", OWN_CLUSTER, str(tmp_path)], env=env, capture_output=True, text=True, timeout=200
        )
        assert told.returncode == 0, told.stderr
        assert told.stdout.splitlines()[-1] == "3 False"

    def test_no_cluster_at_the_address_is_a_sentence(self, tmp_path: Path) -> None:
        code = (
            "from corpus_guard.errors import UsageError\n"
            "from corpus_guard.executors.ray import RayExecutor\n"
            "try: RayExecutor(address='127.0.0.1:1')\n"
            "except UsageError as error: print(error)"
        )
        env = os.environ | {"HOME": str(tmp_path), "RAY_gcs_rpc_server_reconnect_timeout_s": "1"}
        told = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=200)
        assert "No Ray cluster can be used at 127.0.0.1:1" in told.stdout, told.stderr

    def test_without_ray_the_extra_is_named(self) -> None:
        code = (
            "import sys; sys.modules['ray'] = None\nfrom corpus_guard.executors.ray import RayExecutor\nRayExecutor()"
        )
        told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
        assert "UsageError: The Ray executor needs Ray" in told.stderr and "corpus-guard[ray]" in told.stderr

    def test_close_leaves_a_cluster_that_was_there_before(self, ray_cluster: Any) -> None:
        executor().close()
        assert ray_cluster.is_initialized()

    def test_a_death_reads_the_same_again(self) -> None:
        text = "The actor died.\n\tpid: 17\n\tip: 192.0.2.1\nIts process has died. Some common causes: 1"
        assert how_it_died(RuntimeError(text)) == "Its worker died. The actor died. Its process has died."


@pytest.mark.drill
class TestLosingANode:
    @pytest.mark.parametrize("how", ["graceful", "sudden"])
    def test_it_costs_no_attempt_and_makes_no_suspects(self, tmp_path: Path, how: str) -> None:
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        told = subprocess.run(
            [sys.executable, "-c", LOSES_A_NODE, str(tmp_path), how],
            env=env,
            capture_output=True,
            text=True,
            timeout=280,
        )
        assert told.returncode == 0, told.stderr
        assert told.stdout.splitlines()[-1] == "24 done, 0 failed, 0 deaths, 1 nodes lost"


LOSES_A_NODE = """
import sys
from ray.cluster_utils import Cluster
from corpus_guard.executors.attempts import Limits
from corpus_guard.executors.ray import RayExecutor
from corpus_guard.executors.seam import Item
from tests.sample_jobs import TwoPoolJob

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 100_000_000})
worker_node = {"num_cpus": 3, "num_gpus": 1, "object_store_memory": 100_000_000}
first = cluster.add_node(**worker_node)
cluster.wait_for_nodes()
executor = RayExecutor(address=cluster.address, cpu_workers=2, gpu_num_gpus=0.5, limits=Limits(first_delay=0.5))
done = []

def on_status(item, status):
    assert status["numbers"] == list(range(6))
    done.append(item.key)
    if len(done) == 5:
        cluster.remove_node(first, allow_graceful=sys.argv[2] == "graceful")
        cluster.add_node(**worker_node)

items = [Item(f"u{n}", {"front": "sleep"}, rows=6) for n in range(24)]
outcome = executor.run(TwoPoolJob(sys.argv[1], parcel=2), items, on_status)
executor.close()
cluster.shutdown()
deaths, lost = outcome.worker_deaths, outcome.nodes_lost
print(f"{len(set(done))} done, {len(outcome.failures)} failed, {deaths} deaths, {lost} nodes lost")
"""

OWN_CLUSTER = """
import sys
from corpus_guard.executors.ray import RayExecutor
from corpus_guard.executors.seam import Item
from tests.sample_jobs import TwoPoolJob
executor = RayExecutor(address="local", cpu_workers=1, gpu_workers=1, gpu_num_gpus=0, gpu_num_cpus=0.5)
done = []
executor.run(TwoPoolJob(sys.argv[1]), [Item(str(n), None, n) for n in range(3)], lambda item, status: done.append(item))
executor.close()
import ray
print(len(done), ray.is_initialized())
"""
