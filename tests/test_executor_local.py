"""Work on this machine: in one process and in a pool of our own."""

from pathlib import Path

import pytest

from corpus_guard.errors import UsageError
from corpus_guard.executors.attempts import LONGEST_ERROR, Limits
from corpus_guard.executors.local import LocalExecutor
from corpus_guard.executors.seam import Executor, Failure, Item, Job, Outcome, Status
from tests.sample_jobs import PlainJob, TwoPoolJob, deeds

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
