"""
What all verbs share: their options, how results are printed, how a config becomes a run.

Results go to stdout, everything else to stderr. What came from a corpus reaches a terminal
without control or direction characters.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from corpus_guard.errors import UsageError
from corpus_guard.progress import plain

if TYPE_CHECKING:
    from corpus_guard.steps.outcomes import Result
    from corpus_guard.steps.setup import Run, Setup

EXIT_FAILED, EXIT_USAGE, EXIT_GATE, EXIT_INTERRUPTED = 1, 2, 3, 130

Verb = Callable[..., Any]
Sets = tuple[str, ...]


class Verbs(click.Group):
    """Lists verbs in the order they are written: the way of the data first."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


# Options

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
config_argument = click.argument("config", type=click.Path(path_type=Path))
sets_option = click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a config key, e.g. --set executor.workers=8 (repeatable).",
)
gate_option = click.option(
    "--gate", is_flag=True, help="Exit 3 if a provision that counts does not conform, 4 if it lacks evidence."
)
policy_option = click.option("--policy", default="tc260-003", show_default=True, help="A shipped name or a file.")
by_option = click.option("--by", required=True, metavar="NAME", help="The person who says so.")
reason_option = click.option("--reason", required=True, help="Why, in a sentence.")


def looking(verb: Verb) -> Verb:
    """What verbs take that look at a run and are done in a moment: the config, ``--set`` and ``--json``."""
    return config_argument(sets_option(json_option(verb)))


def options(verb: Verb) -> Verb:
    """What every verb on a config takes that works for a while."""

    @config_argument
    @sets_option
    @json_option
    @click.option("--quiet", "-q", is_flag=True, help="No progress.")
    @click.option("--log-json", is_flag=True, help="Progress and errors as JSON lines on stderr, for log collectors.")
    @wraps(verb)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        click.get_current_context().find_root().obj.log_json = kwargs["log_json"]
        return verb(*args, **kwargs)

    return wrapped


DAY = click.DateTime(formats=["%Y-%m-%d"])


def day_of(given: datetime | None) -> date:
    """The day an option names, else today (UTC, as runs count days)."""
    return (given or datetime.now(UTC)).date()


# Results


def show(result: Mapping[str, Any], as_json: bool, lines: Iterable[str]) -> None:
    """*result* as one JSON object, or *lines* for people."""
    if as_json:
        click.echo(json_line(result))
    else:
        for line in lines:
            click.echo(plain(line))


def json_line(value: Any) -> str:
    """*value* as JSON in one line; characters that could drive a terminal are written as escapes."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if text.isprintable() else "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def finish(result: "Result", as_json: bool, gate: bool = False) -> None:
    """Print what a job came to, and leave with its exit code."""
    show(result.summary, as_json, result.lines)
    leave(result.exit_code(gate))


def leave(code: int) -> None:
    if code:
        raise click.exceptions.Exit(code)


# Configs and runs


def overrides(sets: Sets) -> dict[str, str]:
    """What ``--set`` asks for, key by key."""
    found = {}
    for pair in sets:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"--set {pair}: write KEY=VALUE, for example --set executor.workers=8.")
        found[key.strip()] = value.strip()
    return found


def read_setup(config: Path, sets: Sets, job: str | None = "filter") -> "Setup":
    """Config file, environment and flags become a setup; all faults of the file at once. *job* null: the run's own."""
    from corpus_guard.config import load_config
    from corpus_guard.steps.setup import Setup

    read = load_config(config, overrides=overrides(sets), env=os.environ)
    return Setup.of(read, job=_job_of(read.run) if job is None else job)


def _job_of(run: str) -> str:
    """Which job the run folder was begun with; a run that was not begun yet is taken for the main one."""
    from corpus_guard.places import Place

    try:
        return str(json.loads((Place.of(run) / "run.json").read_bytes())["identity"]["job"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return "filter"


@contextmanager
def opened(
    config: Path,
    sets: Sets,
    quiet: bool = True,
    log_json: bool = False,
    job: str | None = "filter",
    write: bool = True,
) -> "Iterator[Run]":
    """The run a config describes, locked while we write."""
    from corpus_guard.progress import teller
    from corpus_guard.steps.setup import open_run

    with open_run(read_setup(config, sets, job), tell=teller(quiet, log_json), write=write) as run:
        yield run
