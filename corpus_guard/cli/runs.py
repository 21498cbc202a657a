"""
Looking at runs: what one would do, how far it is, what is known of a document, whether its files hold together.
"""

from pathlib import Path

import click

from corpus_guard.cli.frame import EXIT_GATE, Sets, finish, leave, looking, opened, options, show


@click.command()
@looking
def plan(config: Path, sets: Sets, as_json: bool) -> None:
    """
    Say what a run would do, and what is done already.

    Shards, rows, bytes, units, memory, and what the store already has. Writes nothing.

    \b
    corpus-guard plan configs/site.yaml
    corpus-guard plan configs/site.yaml --json | jq .todo
    """
    from corpus_guard.steps.describe import describe_plan

    with opened(config, sets, write=False) as opened_run:
        summary, lines = describe_plan(opened_run)
        show(summary, as_json, lines)


@click.command()
@looking
def status(config: Path, sets: Sets, as_json: bool) -> None:
    """
    Say how far a run has come and what failed.

    And whether somebody is working on it.

    \b
    corpus-guard status configs/site.yaml
    corpus-guard status configs/site.yaml --set run=runs/2026-w47 --json
    """
    from corpus_guard.steps.describe import describe_status

    with opened(config, sets, job=None, write=False) as opened_run:
        summary, lines = describe_status(opened_run)
        show(summary, as_json, lines)


@click.command()
@options
def retry(config: Path, sets: Sets, as_json: bool, quiet: bool, log_json: bool) -> None:
    """
    Try again what failed, and only that.

    Then bring the rest of the run up to date.

    \b
    corpus-guard retry configs/site.yaml
    """
    from corpus_guard.steps import go_on
    from corpus_guard.steps.retry import forget_failures

    with opened(config, sets, quiet, log_json, job=None) as opened_run:
        forgotten = forget_failures(opened_run)
        what = "failed unit or shard" if forgotten == 1 else "failed units and shards"
        opened_run.tell.line(f"{forgotten:,} {what} will be tried again" if forgotten else "nothing had failed")
        finish(go_on(opened_run, again=bool(forgotten)), as_json)


@click.command()
@looking
@click.argument("id")
def trace(config: Path, sets: Sets, as_json: bool, id: str) -> None:
    """
    Tell everything known of one document.

    Findings, verdict, source decision, samples. Never its text.

    ID is that of the id column, or <first 12 digits of the shard's digest>#<row>.

    \b
    corpus-guard trace configs/site.yaml mx-000123
    corpus-guard trace configs/site.yaml '3fa2b1c09d7e#41'
    """
    from corpus_guard.steps.trace import trace as trace_document

    with opened(config, sets, job=None, write=False) as opened_run:
        found = trace_document(opened_run, id)
        show(found.summary, as_json, found.lines)


@click.command()
@looking
def verify(config: Path, sets: Sets, as_json: bool) -> None:
    """
    Check that a finished run's files hold together.

    A gate: exit 3 tells every fault in a sentence.

    Every row accounted for, shard by shard; every clean, removed and quarantined shard there with as many rows as
    accounted; nothing in clean/ that the run did not write; decisions, samples, ledger and report fit each other.

    \b
    corpus-guard verify configs/site.yaml && rsync -a runs/2026-w47/clean/ trainer:/corpus/
    """
    from corpus_guard.steps.verify import verify as verify_run

    with opened(config, sets, job=None, write=False) as opened_run:
        found = verify_run(opened_run)
        show(found.summary, as_json, found.lines)
        leave(EXIT_GATE if found.faults else 0)
