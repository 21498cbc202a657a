"""
How a step hands work to the executor: progress, and what is done with items that were given up.
"""

from collections.abc import Callable

from corpus_guard.errors import UsageError
from corpus_guard.executors.seam import Failure, Item, Job, Status
from corpus_guard.steps.setup import Run


def work(
    run: Run, job: Job, items: list[Item], name: str, done: int, take: Callable[[Item, Status], None]
) -> list[Failure]:
    """Have the executor work off *items*, with progress; what it gave up comes back."""
    if not items:
        return []
    failures: list[Failure] = []
    with run.tell.step(name, len(items), sum(item.rows for item in items), done) as meter:

        def on_status(item: Item, status: Status) -> None:
            take(item, status)
            meter.advance(item.rows)

        def on_failure(failure: Failure) -> None:
            failures.append(failure)
            meter.advance(failure.item.rows)
            run.tell.line(
                f"{name}: {failure.item.key} was given up after {failure.attempts} attempts "
                f"({failure.reason}): {failure.error}"
            )

        run.executor.run(job, items, on_status, on_failure)
    return failures


def stop_on(failures: list[Failure], what: str) -> None:
    """Cheap steps have no business failing: nothing after them would be right."""
    if failures:
        first = failures[0]
        raise UsageError(
            f"{len(failures)} shards could not be {what}; the first is {first.item.key}: {first.error}. "
            "Mend the cause and run the same command again."
        )
