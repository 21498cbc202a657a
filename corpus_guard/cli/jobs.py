"""
The three jobs, and the steps of the main one as verbs of their own.
"""

from pathlib import Path

import click

from corpus_guard.cli.frame import Sets, finish, gate_option, opened, options


@click.command()
@options
@gate_option
def run(config: Path, sets: Sets, as_json: bool, quiet: bool, log_json: bool, gate: bool) -> None:
    """
    Filter a corpus: all steps, from plan to report.

    plan, scan, judge, assess, apply, draw, check, report.

    Stop it whenever you like; the same command goes on. What the store has is not scanned again.

    \b
    corpus-guard run configs/site.yaml
    corpus-guard run configs/site.yaml --set run=runs/2026-w48 --set policy=strict
    corpus-guard run configs/site.yaml --set executor.kind=ray --set executor.cpu.workers=32
    """
    from corpus_guard.steps import filter_corpus

    with opened(config, sets, quiet, log_json) as opened_run:
        finish(filter_corpus(opened_run), as_json, gate)


@click.command("spot-check")
@options
@gate_option
def spot_check(config: Path, sets: Sets, as_json: bool, quiet: bool, log_json: bool, gate: bool) -> None:
    """
    Spot-check a finished Parquet corpus.

    Draw both samples, scan only what was drawn, report. For any folder of Parquet, ours or not, after
    deduplication and mixing.

    \b
    corpus-guard spot-check configs/spot-check.yaml
    corpus-guard spot-check configs/spot-check.yaml --set corpus.shards='s3://bucket/final/*.parquet'
    """
    from corpus_guard.steps import spot_check as check_spots

    with opened(config, sets, quiet, log_json, job="spot-check") as opened_run:
        finish(check_spots(opened_run), as_json, gate)


def _step(name: str, text: str) -> click.Command:
    """A verb for one step of the way of the data; what it rests on is made first where it is missing."""

    @click.command(name, help=f"{text}\n\n\b\ncorpus-guard {name} configs/site.yaml")
    @options
    def verb(config: Path, sets: Sets, as_json: bool, quiet: bool, log_json: bool) -> None:
        from corpus_guard.steps import filter_corpus

        with opened(config, sets, quiet, log_json) as opened_run:
            finish(filter_corpus(opened_run, until=name), as_json)

    return verb


@click.command()
@options
@click.option("--again", metavar="REASON", default="", help="Draw once more though nothing changed; the reason stays.")
def draw(config: Path, sets: Sets, as_json: bool, quiet: bool, log_json: bool, again: str) -> None:
    """
    Draw the manual and the technical sample.

    Drawing again makes a pass more likely by itself, so it needs a reason; every draw is in the ledger and the report.

    \b
    corpus-guard draw configs/site.yaml
    corpus-guard draw configs/site.yaml --again "two reviewers were not qualified, their verdicts are void"
    """
    from corpus_guard.steps import filter_corpus

    with opened(config, sets, quiet, log_json) as opened_run:
        # with a reason the report, which speaks of the draw, is made anew as well
        finish(filter_corpus(opened_run, until="report" if again else "draw", redraw=again), as_json)


@click.command()
@options
def report(config: Path, sets: Sets, as_json: bool, quiet: bool, log_json: bool) -> None:
    """
    Write the report.

    report.json, report.html, report.md and tables/*.csv, in reports/ of the run folder; of any of the three jobs. On a
    finished run it is made anew where people have settled more of the sample since.

    \b
    corpus-guard report configs/site.yaml
    """
    from corpus_guard.steps import go_on

    with opened(config, sets, quiet, log_json, job=None) as opened_run:
        finish(go_on(opened_run), as_json)


STEPS = (
    _step("scan", "Look at every document with every stage.\n\nFindings go to the store."),
    _step("judge", "Make verdicts of the findings under the policy."),
    _step("assess", "Give every source its share and decision."),
    _step("apply", "Write clean, removed and quarantined shards."),
    draw,
    _step("check", "Check the technical sample."),
    report,
)
"""The way of the data, each verb as far as its step."""
