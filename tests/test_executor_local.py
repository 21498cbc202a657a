"""Work on this machine: in one process and in a pool of our own."""

import multiprocessing
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from corpus_guard.errors import CorpusGuardError, UsageError
from corpus_guard.executors.attempts import LONGEST_ERROR, Attempts, Limits, shortened, told
from corpus_guard.executors.local import LocalExecutor
from corpus_guard.executors.seam import Executor, Failure, Item, Job, Outcome, Status
from tests.sample_jobs import CannotOpenJob, DiesAtStartJob, PlainJob, TwoPoolJob, deeds

QUICK = Limits(first_delay=0.01, longest_delay=0.05, infrastructure_budget=4)


def run(executor: Executor, job: Job, items: object) -> tuple[dict[str, Status], dict[str, Failure], Outcome]:
    statuses: dict[str, Status] = {}
    failures: dict[str, Failure] = {}

    def on_status(item: Item, status: Status) -> None:
        assert item.key not in statuses
        statuses[item.key] = status

    def on_failure(failure: Failure) -> None:
        assert failure.item.key not in failures
        failures[failure.item.key] = failure

    outcome = executor.run(job, items, on_status, on_failure)  # type: ignore[arg-type]
    assert outcome.done == len(statuses)
    assert {failure.item.key: failure for failure in outcome.failures} == failures
    return statuses, failures, outcome


class TestInOneProcess:
    def test_parcels_arrive_in_order_and_every_item_has_one_status(self, tmp_path: Path) -> None:
        items = [Item(f"u{n}", None, rows=n) for n in range(10)]
        statuses, failures, _ = run(LocalExecutor(), TwoPoolJob(str(tmp_path)), items)
        assert {key: status["numbers"] for key, status in statuses.items()} == {
            f"u{n}": list(range(n)) for n in range(10)
        }
        assert not failures

    def test_an_item_that_raises_is_named_after_three_attempts_and_the_rest_goes_on(self, tmp_path: Path) -> None:
        items = [Item("a", None, 2), Item("bad", {"front": "raise"}, 2), Item("c", None, 2)]
        statuses, failures, _ = run(LocalExecutor(), PlainJob(str(tmp_path)), items)
        assert set(statuses) == {"a", "c"}
        assert (failures["bad"].attempts, failures["bad"].reason) == (3, "error")
        assert failures["bad"].error.startswith("ValueError: bad is unlucky.")
        assert len(failures["bad"].error) <= LONGEST_ERROR

    def test_bad_bytes_are_given_up_at_once(self, tmp_path: Path) -> None:
        statuses, failures, _ = run(
            LocalExecutor(), PlainJob(str(tmp_path)), [Item("bad", {"front": "data"}), Item("b", None)]
        )
        assert failures["bad"].attempts == 1 and deeds(tmp_path) == ["bad"]
        assert "DataError: bad cannot be read." in failures["bad"].error
        assert set(statuses) == {"b"}

    def test_weather_costs_no_attempt_but_ends(self, tmp_path: Path) -> None:
        items = [Item("bad", {"front": "transient"}), Item("ok", {"front": "transient once"})]
        statuses, failures, _ = run(LocalExecutor(limits=QUICK), PlainJob(str(tmp_path)), items)
        assert set(statuses) == {"ok"}
        assert (failures["bad"].attempts, failures["bad"].reason) == (0, "error")
        assert "503" in failures["bad"].error
        assert deeds(tmp_path).count("bad") == QUICK.infrastructure_budget + 1

    def test_what_a_failed_attempt_left_in_the_back_is_dropped(self, tmp_path: Path) -> None:
        items = [Item("a", {"back at the end": "raise once"}, 7)]
        statuses, _, _ = run(LocalExecutor(), TwoPoolJob(str(tmp_path)), items)
        assert statuses["a"]["numbers"] == list(range(7))

    def test_an_item_that_calls_exit_does_not_end_the_run(self, tmp_path: Path) -> None:
        statuses, failures, _ = run(
            LocalExecutor(), PlainJob(str(tmp_path)), [Item("a", {"front": "exit"}), Item("b", None)]
        )
        assert set(statuses) == {"b"} and failures["a"].error.startswith("SystemExit: 3")

    def test_items_are_taken_from_a_generator_as_they_are_needed(self, tmp_path: Path) -> None:
        seen: list[str] = []

        def on_status(item: Item, status: Status) -> None:
            seen.append(item.key)

        def items() -> object:
            for n in range(1000):
                assert n - len(seen) <= 2
                yield Item(str(n), None, n)

        LocalExecutor().run(PlainJob(str(tmp_path)), items(), on_status)  # type: ignore[arg-type]
        assert len(seen) == 1000

    def test_no_worker_at_all_is_refused(self) -> None:
        with pytest.raises(UsageError, match="at least one worker"):
            LocalExecutor(workers=0)


class TestInAPoolOfProcesses:
    def test_it_gives_what_one_process_gives(self, tmp_path: Path) -> None:
        items = [Item(f"u{n}", {"front": "raise" if n == 4 else None}, rows=n) for n in range(9)]
        alone = run(LocalExecutor(), TwoPoolJob(str(tmp_path)), items)
        pool = run(LocalExecutor(workers=2), TwoPoolJob(str(tmp_path)), iter(items))
        assert pool[0] == alone[0]
        assert pool[1] == alone[1] and set(pool[1]) == {"u4"}

    def test_a_worker_killed_once_loses_nothing(self, tmp_path: Path) -> None:
        items = [Item(f"u{n}", {"front": "kill once" if n in (0, 5) else None}, rows=n) for n in range(12)]
        statuses, failures, outcome = run(LocalExecutor(workers=2), PlainJob(str(tmp_path)), items)
        assert statuses == {f"u{n}": {"square": n * n} for n in range(12)}
        assert not failures and outcome.worker_deaths == 2

    def test_an_item_that_always_kills_is_named_and_its_neighbours_are_innocent(self, tmp_path: Path) -> None:
        items = [Item(f"u{n}", {"front": "kill" if n in (1, 2) else None}, rows=n) for n in range(8)]
        statuses, failures, outcome = run(LocalExecutor(workers=2), PlainJob(str(tmp_path)), items)
        assert set(failures) == {"u1", "u2"} and len(statuses) == 6
        assert {(one.attempts, one.reason) for one in failures.values()} == {(3, "killed")}
        assert "SIGKILL" in failures["u1"].error
        assert outcome.worker_deaths == 6

    def test_an_item_that_hangs_runs_over_its_deadline(self, tmp_path: Path) -> None:
        items = [Item("a", None, 1), Item("bad", {"front": "hang"}), *(Item(f"b{n}", None, n) for n in range(5))]
        executor = LocalExecutor(workers=2, unit_timeout=0.5, attempts=2)
        statuses, failures, _ = run(executor, PlainJob(str(tmp_path)), items)
        assert len(statuses) == 6
        assert (failures["bad"].attempts, failures["bad"].reason) == (2, "timeout")
        assert "0.5 seconds" in failures["bad"].error

    def test_waiting_behind_a_slow_item_is_not_being_late(self, tmp_path: Path) -> None:
        items = [Item(f"u{n}", {"front": "sleep"}, n) for n in range(6)]
        statuses, failures, _ = run(LocalExecutor(workers=2, unit_timeout=0.9), PlainJob(str(tmp_path)), items)
        assert len(statuses) == 6 and not failures

    def test_an_error_in_the_back_gets_a_fresh_worker(self, tmp_path: Path) -> None:
        items = [Item("bad", {"back": "raise"}, 3), *(Item(f"u{n}", None, 4) for n in range(4))]
        statuses, failures, outcome = run(LocalExecutor(workers=2), TwoPoolJob(str(tmp_path)), items)
        pids = [line.split()[2] for line in (tmp_path / "deeds.txt").read_text().splitlines()]
        assert len(set(pids)) == len(pids) == failures["bad"].attempts == 3
        assert len(statuses) == 4 and outcome.worker_deaths == 0

    def test_bad_bytes_and_weather_are_told_apart(self, tmp_path: Path) -> None:
        deed = {"d": "data", "t": "transient", "o": "transient once"}
        items = [Item(key, {"front": what}) for key, what in deed.items()]
        statuses, failures, _ = run(LocalExecutor(workers=2, limits=QUICK), PlainJob(str(tmp_path)), items)
        assert set(statuses) == {"o"}
        assert (failures["d"].attempts, failures["t"].attempts) == (1, 0)

    def test_five_thousand_items_are_taken_as_they_are_needed(self, tmp_path: Path) -> None:
        done: list[str] = []
        given = 0

        def items() -> Iterator[Item]:
            nonlocal given
            for given in range(1, 5001):
                assert given - len(done) <= 2 + 1
                yield Item(str(given), None, given)

        executor = LocalExecutor(workers=2)
        outcome = executor.run(PlainJob(str(tmp_path)), items(), lambda item, status: done.append(item.key))
        assert outcome.done == 5000 and len(set(done)) == 5000

    def test_large_payloads_do_not_block_the_driver(self, tmp_path: Path) -> None:
        items = [Item(f"u{n}", {"front": "kill once", "load": "x" * 1_000_000}, n) for n in range(4)]
        statuses, _, _ = run(LocalExecutor(workers=2), PlainJob(str(tmp_path)), items)
        assert len(statuses) == 4

    @pytest.mark.parametrize(
        ("job", "text"), [(CannotOpenJob(), "weights.safetensors is cut short"), (DiesAtStartJob(), "exit code 7")]
    )
    def test_a_worker_that_cannot_start_is_a_sentence(self, job: Job, text: str) -> None:
        with pytest.raises(UsageError, match=text):
            run(LocalExecutor(workers=2), job, [Item("a", None)])

    def test_when_every_item_kills_the_run_stops(self, tmp_path: Path) -> None:
        items = (Item(f"u{n}", {"front": "kill"}) for n in range(1000))
        with pytest.raises(CorpusGuardError, match="5 workers of plain died one after the other"):
            run(LocalExecutor(workers=2, most_deaths=5), PlainJob(str(tmp_path)), items)

    def test_no_process_is_left_behind(self, tmp_path: Path) -> None:
        run(LocalExecutor(workers=2), PlainJob(str(tmp_path)), [Item("a", None)])
        assert not multiprocessing.active_children()

    def test_workers_end_with_a_driver_that_was_killed(self, tmp_path: Path) -> None:
        driver = subprocess.Popen([sys.executable, "-c", HANGING_DRIVER, str(tmp_path)])
        deadline = time.monotonic() + 60
        while len(deeds(tmp_path)) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        driver.kill()
        driver.wait()
        pids = [int(line.split()[2]) for line in (tmp_path / "deeds.txt").read_text().splitlines()]
        assert len(pids) == 2
        while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


HANGING_DRIVER = """
import sys
from corpus_guard.executors.local import LocalExecutor
from corpus_guard.executors.seam import Item
from tests.sample_jobs import PlainJob
items = [Item(str(n), {"front": "hang"}) for n in range(2)]
LocalExecutor(workers=2).run(PlainJob(sys.argv[1]), items, print)
"""


class TestAttempts:
    def test_an_outage_holds_a_handful_of_items_not_the_corpus(self) -> None:
        now, taken = [0.0], []
        attempts = Attempts((Item(str(n), None) for n in range(100)), Limits(), Outcome(), None, clock=lambda: now[0])
        while (tried := attempts.take(most_postponed=4)) is not None:
            taken.append(tried)
            attempts.postpone(tried, "503")
        assert len(taken) == 4 and attempts.seconds_to_wait() == 1.0 and not attempts.exhausted
        now[0] = 1.0
        again = attempts.take(most_postponed=4)
        assert again is taken[0]

    def test_delays_double_up_to_a_minute(self) -> None:
        assert [Limits().delay(times) for times in (1, 2, 3, 6, 7, 50)] == [1, 2, 4, 32, 60, 60]

    def test_a_long_error_keeps_its_start_and_its_end(self) -> None:
        text = shortened("start " + "x" * 10_000_000 + " end")
        assert len(text) <= LONGEST_ERROR and text.startswith("start") and text.endswith("end")

    def test_an_error_that_cannot_be_shown_is_still_named(self) -> None:
        class Odd(Exception):
            def __str__(self) -> str:
                raise RuntimeError

        assert told(Odd()).startswith("Odd: (its message cannot be shown)")
