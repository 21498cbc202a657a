"""
The command line: one verb per step, job and tool.

Results go to stdout (one JSON object with ``--json``), everything else to stderr. Exit codes: 0 done, 1
failed, 2 usage or config, 3 a gate or check found faults, 4 evidence is missing, 5 done but more
failed than allowed, 130 interrupted. Nothing heavy is imported before a verb needs it.
"""

import io
import os
import signal
import sys
import time
from dataclasses import dataclass

import click

from corpus_guard import __version__
from corpus_guard.cli import jobs, keywords, models, policies, review, runs, sources, start
from corpus_guard.cli.frame import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, Verbs, json_line
from corpus_guard.errors import CorpusGuardError
from corpus_guard.progress import plain


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="corpus-guard")
def app() -> None:
    """
    Filter LLM pre-training corpora, decide their sources, and prove it clause by clause.

    \b
    Try it:             corpus-guard demo
    Filter a corpus:    corpus-guard run configs/site.yaml
    Assess sources:     corpus-guard sources assess configs/sources.yaml
    Spot-check:         corpus-guard spot-check configs/spot-check.yaml
    """


for verb in (
    start.demo,
    jobs.run,
    jobs.spot_check,
    sources.sources,
    runs.plan,
    *jobs.STEPS,
    runs.status,
    runs.retry,
    runs.trace,
    runs.verify,
    review.review,
    start.doctor,
    start.config,
    policies.policy,
    keywords.keywords,
    models.model,
):
    app.add_command(verb)


@dataclass
class Manner:
    """How errors are told; the verb says so once its options are read."""

    log_json: bool = False


def main() -> None:
    """Entry point: our own errors are one sentence and an exit code, all others keep their traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal of another encoding is no reason to fail
    manner = Manner()
    try:
        code = app.main(prog_name="corpus-guard", standalone_mode=False, obj=manner)
        sys.stdout.flush()
        sys.exit(code if isinstance(code, int) else 0)  # what verbs left with comes back instead of being raised
    except CorpusGuardError as error:
        _end(str(error), error.exit_code, manner)
    except click.UsageError as error:
        if error.ctx is not None:
            hint = f"Try '{error.ctx.command_path} --help'."
            _end(f"{error.format_message().rstrip('.')}. {hint}".replace("?.", "?"), EXIT_USAGE, manner)
        _end(error.format_message(), EXIT_USAGE, manner)
    except click.ClickException as error:
        _end(error.format_message(), EXIT_USAGE, manner)
    except (KeyboardInterrupt, click.Abort):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # once is enough
        _end("interrupted; the same command goes on where this one stopped.", EXIT_INTERRUPTED, manner)
    except BrokenPipeError:
        _let_go_of_stdout()
        sys.exit(EXIT_FAILED)
    except OSError as error:
        if error.filename is None:
            raise
        _end(f"{error.filename}: {error.strerror or error}.", EXIT_FAILED, manner)


def _end(sentence: str, code: int, manner: Manner) -> None:
    """Tell *sentence* on stderr and leave."""
    if manner.log_json:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        click.echo(json_line({"error": sentence, "exit": code, "time": now}), err=True)
    else:
        told = "\n".join(plain(line) for line in sentence.split("\n"))
        click.echo(f"corpus-guard: {told}", err=True)
    sys.exit(code)


def _let_go_of_stdout() -> None:
    """Whoever read our output has gone: what is still buffered goes nowhere, without a word."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
