"""
The command line: one verb per step, job and tool.

Results go to stdout (one JSON object with ``--json``), everything else to stderr. Exit codes: 0 done, 1
failed, 2 usage or config, 3 a gate or check found faults, 4 evidence is missing, 5 done but more
failed than allowed, 130 interrupted. Nothing heavy is imported before a verb needs it.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from corpus_guard import __version__
from corpus_guard.errors import CorpusGuardError, UsageError

if TYPE_CHECKING:
    from corpus_guard.steps.setup import Run, Setup

EXIT_FAILED, EXIT_USAGE, EXIT_GATE, EXIT_EVIDENCE, EXIT_LOSSES, EXIT_INTERRUPTED = 1, 2, 3, 4, 5, 130


class Verbs(click.Group):
    """Lists verbs in the order they are written: the way of the data first."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="corpus-guard")
def app() -> None:
    """
    Filter LLM pre-training corpora, decide their sources, and prove it clause by clause.

    \b
    Try it:             corpus-guard demo
    Filter a corpus:    corpus-guard run configs/site.yaml
    Assess sources:     corpus-guard sources assess configs/site.yaml
    Spot-check:         corpus-guard spot-check configs/site.yaml
    """


def main() -> None:
    """Entry point: our own errors are one sentence and an exit code, all others keep their traceback."""
    try:
        code = app.main(standalone_mode=False)  # what verbs left with comes back instead of being raised
        sys.exit(code if isinstance(code, int) else 0)
    except CorpusGuardError as error:
        click.echo(f"corpus-guard: {plain(str(error))}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(EXIT_USAGE)
    except (KeyboardInterrupt, click.Abort):
        click.echo("corpus-guard: interrupted; the same command goes on where this one stopped.", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_FAILED)


def plain(text: str) -> str:
    """*text* without control characters: names from a corpus must not drive a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text)


def options(verb: Callable[..., Any]) -> Callable[..., Any]:
    """What every verb on a config takes."""

    @click.argument("config", type=click.Path(path_type=Path))
    @click.option(
        "--set",
        "sets",
        multiple=True,
        metavar="KEY=VALUE",
        help="Override a config key, e.g. --set executor.workers=8 (repeatable).",
    )
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
    @click.option("--quiet", "-q", is_flag=True, help="No progress.")
    @click.option("--log-json", is_flag=True, help="Progress as JSON lines on stderr, for log collectors.")
    @wraps(verb)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return verb(*args, **kwargs)

    return wrapped


def show(result: dict[str, Any], as_json: bool, lines: list[str] | None = None) -> None:
    """*result* as JSON, or *lines* for people."""
    if as_json:
        click.echo(json.dumps(result, ensure_ascii=False, sort_keys=True))
    else:
        for line in lines if lines is not None else [f"{key}: {value}" for key, value in result.items()]:
            click.echo(plain(line))


def read_setup(config: Path, sets: tuple[str, ...], job: str = "filter") -> "Setup":
    """Config file, environment and flags become a setup; all faults of the file at once."""
    from corpus_guard.config import load_config
    from corpus_guard.steps.setup import Setup

    overrides = {}
    for pair in sets:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"--set {pair}: write KEY=VALUE, for example --set executor.workers=8.")
        overrides[key.strip()] = value.strip()
    return Setup.of(load_config(config, overrides=overrides, env=os.environ), job=job)


@contextmanager
def opened(
    config: Path, sets: tuple[str, ...], quiet: bool, log_json: bool, job: str = "filter", write: bool = True
) -> "Iterator[Run]":
    """The run a config describes, locked while we write."""
    from corpus_guard.progress import teller
    from corpus_guard.steps.setup import open_run

    setup = read_setup(config, sets, job)
    tell = teller(quiet, log_json)
    with open_run(setup, tell=tell, write=write) as run:
        yield run


# The jobs


@app.command()
@options
@click.option(
    "--gate", is_flag=True, help="Exit 3 if a provision that counts does not conform, 4 if it lacks evidence."
)
def run(config: Path, sets: tuple[str, ...], as_json: bool, quiet: bool, log_json: bool, gate: bool) -> None:
    """
    Filter a corpus: plan, scan, judge, assess, apply, draw, check, report.

    Stop it whenever you like; the same command goes on. What the store has is not scanned again.

    \b
    corpus-guard run configs/site.yaml
    corpus-guard run configs/site.yaml --set run=runs/2026-w48 --set policy=strict
    corpus-guard run configs/site.yaml --set executor.kind=ray --set executor.cpu.workers=32
    """
    from corpus_guard.steps import filter_corpus

    with opened(config, sets, quiet, log_json) as opened_run:
        finish(filter_corpus(opened_run), as_json, gate)


@app.command("spot-check")
@options
@click.option(
    "--gate", is_flag=True, help="Exit 3 if a provision that counts does not conform, 4 if it lacks evidence."
)
def spot_check_verb(
    config: Path, sets: tuple[str, ...], as_json: bool, quiet: bool, log_json: bool, gate: bool
) -> None:
    """
    Spot-check a finished Parquet corpus: draw both samples, scan only what was drawn, report.

    For any folder of Parquet, ours or not, after deduplication and mixing.

    \b
    corpus-guard spot-check configs/spot-check.yaml
    corpus-guard spot-check configs/spot-check.yaml --set corpus.shards='s3://bucket/final/*.parquet'
    """
    from corpus_guard.steps import spot_check

    with opened(config, sets, quiet, log_json, job="spot-check") as opened_run:
        finish(spot_check(opened_run), as_json, gate)


def finish(result: Any, as_json: bool, gate: bool) -> None:
    """Print what a job came to, and leave with its exit code."""
    show(result.summary, as_json, result.lines)
    code = result.exit_code(gate)
    if code:
        raise click.exceptions.Exit(code)


@app.group("sources", cls=Verbs)
def sources_group() -> None:
    """Assess sources and keep the blacklist."""


@sources_group.command("assess")
@options
@click.option("--gate", is_flag=True, help="Exit 3 if a source is over the limit.")
def sources_assess(config: Path, sets: tuple[str, ...], as_json: bool, quiet: bool, log_json: bool, gate: bool) -> None:
    """
    Read a corpus (or a pilot sample of one), give every source its share and decision. Writes no clean shards.

    \b
    corpus-guard sources assess configs/sources.yaml
    corpus-guard sources assess configs/sources.yaml --set corpus.phase=pre_collection
    """
    from corpus_guard.steps import assess_sources

    with opened(config, sets, quiet, log_json, job="sources") as opened_run:
        finish(assess_sources(opened_run), as_json, gate)


# The steps, one by one


def step(name: str, text: str) -> None:
    """A verb for one step of the way of the data; what it rests on is made first where it is missing."""

    @app.command(name, help=text)
    @options
    def verb(config: Path, sets: tuple[str, ...], as_json: bool, quiet: bool, log_json: bool) -> None:
        from corpus_guard.steps import filter_corpus

        with opened(config, sets, quiet, log_json) as opened_run:
            finish(filter_corpus(opened_run, until=name), as_json, gate=False)


@app.command()
@options
def plan(config: Path, sets: tuple[str, ...], as_json: bool, quiet: bool, log_json: bool) -> None:
    """
    Say what a run would do: shards, rows, bytes, units, memory, and what the store already has. Writes nothing.

    \b
    corpus-guard plan configs/site.yaml
    corpus-guard plan configs/site.yaml --json | jq .todo
    """
    from corpus_guard.steps.describe import describe_plan

    with opened(config, sets, quiet, log_json, write=False) as opened_run:
        summary, lines = describe_plan(opened_run)
        show(summary, as_json, lines)


step("scan", "Look at every document with every stage; findings go to the store.")
step("judge", "Make verdicts of the findings under the policy.")
step("assess", "Give every source its share and decision.")
step("apply", "Write clean, removed and quarantined shards.")
step("draw", "Draw the manual and the technical sample.")
step("check", "Check the technical sample.")
step("report", "Write the report: report.json, report.html, report.md and tables.")


@app.command()
@options
def status(config: Path, sets: tuple[str, ...], as_json: bool, quiet: bool, log_json: bool) -> None:
    """Say how far a run has come, what failed, and whether somebody is working on it."""
    from corpus_guard.steps.describe import describe_status

    with opened(config, sets, True, log_json, write=False) as opened_run:
        summary, lines = describe_status(opened_run)
        show(summary, as_json, lines)


@app.command()
@options
def retry(config: Path, sets: tuple[str, ...], as_json: bool, quiet: bool, log_json: bool) -> None:
    """Try again only what failed, then bring the rest of the run up to date."""
    from corpus_guard.steps import filter_corpus
    from corpus_guard.steps.retry import forget_failures

    with opened(config, sets, quiet, log_json) as opened_run:
        forgotten = forget_failures(opened_run)
        opened_run.tell.line(
            f"{forgotten:,} failed units and shards will be tried again" if forgotten else "nothing had failed"
        )
        finish(filter_corpus(opened_run, again=bool(forgotten)), as_json, gate=False)


@app.command()
@options
@click.argument("id")
def trace(config: Path, sets: tuple[str, ...], as_json: bool, quiet: bool, log_json: bool, id: str) -> None:
    """
    Everything known of one document: findings, verdict, source decision, samples. Never its text.

    \b
    corpus-guard trace configs/site.yaml mx-000123
    """
    from corpus_guard.steps.trace import trace as trace_document

    with opened(config, sets, True, log_json, write=False) as opened_run:
        found = trace_document(opened_run, id)
        show(found.summary, as_json, found.lines)


@app.command()
@click.argument("config", type=click.Path(path_type=Path), required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def doctor(config: Path | None, as_json: bool) -> None:
    """Look for what would stop a run: versions, extras, GPU, folders, models, library. Exit 3 if something is wrong."""
    from corpus_guard.doctor import examine

    found = examine(config)
    show({"checks": [check.record for check in found]}, as_json, [check.line for check in found])
    if any(check.bad for check in found):
        raise click.exceptions.Exit(EXIT_GATE)


@app.command()
@click.argument("folder", type=click.Path(path_type=Path), default=Path("demo-corpus-guard"))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def demo(folder: Path, as_json: bool) -> None:
    """
    Make a small multi-source corpus, filter it, and show the report.

    \b
    corpus-guard demo
    corpus-guard demo /tmp/try
    """
    from corpus_guard.demo import make_demo_corpus
    from corpus_guard.progress import teller
    from corpus_guard.steps import filter_corpus
    from corpus_guard.steps.setup import Setup, open_run

    config = make_demo_corpus(folder)
    from corpus_guard.config import load_config

    with open_run(Setup.of(load_config(config)), tell=teller()) as opened_run:
        finish(filter_corpus(opened_run), as_json, gate=False)


# Tools


@app.group("config", cls=Verbs)
def config_group() -> None:
    """Look at configuration."""


@config_group.command("show")
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Override a config key.")
@click.option("--origin", is_flag=True, help="Name where each value comes from: flag, environment, file or default.")
def config_show(config: Path, sets: tuple[str, ...], origin: bool) -> None:
    """Print every key with the value a run would use."""
    from corpus_guard.config import load_config

    overrides = dict(pair.partition("=")[::2] for pair in sets)
    loaded = load_config(config, overrides=overrides, env=os.environ)
    for key, value, where in loaded.rows():
        click.echo(plain(f"{key}: {value}" + (f"    # {where}" if origin else "")))


@app.group("policy", cls=Verbs)
def policy_group() -> None:
    """Look at the policies."""


@policy_group.command("list")
def policy_list() -> None:
    """The shipped policies."""
    from corpus_guard.policy import load_policy
    from corpus_guard.shipped import names

    for name in names("policies"):
        click.echo(f"{name:24} {load_policy(name).title}")


@policy_group.command("show")
@click.argument("policy")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def policy_show(policy: str, as_json: bool) -> None:
    """Every rule of a policy, with clause and level, after everything it extends is resolved."""
    from corpus_guard.policy import load_policy

    loaded = load_policy(policy)
    lines = [loaded.title, f"digest {loaded.digest}", *loaded.notices]
    lines += [f"  {rule.id:16} {rule.clause:24} {rule.level:10} {rule.check}" for rule in loaded.rules]
    show(loaded.resolved, as_json, lines)


@app.group("review", cls=Verbs)
def review_group() -> None:
    """Give the manual sample to people, and take their verdicts back."""


@review_group.command("export")
@options
def review_export(config: Path, sets: tuple[str, ...], as_json: bool, quiet: bool, log_json: bool) -> None:
    """Write the sampled texts as a sheet (JSON lines) into the restricted folder."""
    from corpus_guard.steps.review import export

    with opened(config, sets, quiet, log_json, job="any", write=False) as opened_run:
        sheet = export(opened_run)
        show({"sheet": sheet.path, "documents": sheet.documents}, as_json)


@review_group.command("import")
@options
@click.argument("sheet", type=click.Path(path_type=Path))
def review_import(config: Path, sets: tuple[str, ...], as_json: bool, quiet: bool, log_json: bool, sheet: Path) -> None:
    """
    Read a filled sheet; every settled verdict needs an annotator and another person as reviewer.

    \b
    corpus-guard review import configs/site.yaml sheet.jsonl && corpus-guard report configs/site.yaml
    """
    from corpus_guard.steps.review import settle

    with opened(config, sets, quiet, log_json, job="any", write=False) as opened_run:
        show(settle(opened_run, sheet), as_json)
