"""
What one does first: try the demo, look the machine over, write a config.
"""

import os
from pathlib import Path

import click

from corpus_guard.cli.frame import (
    EXIT_GATE,
    Sets,
    Verbs,
    config_argument,
    finish,
    json_option,
    leave,
    overrides,
    sets_option,
    show,
)
from corpus_guard.errors import UsageError

STARTER = """\
# corpus-guard run {name}
# Every key with its default: docs/config.md, or corpus-guard config show {name}
# Paths are relative to this file; unknown keys are errors.

policy: tc260-003 # corpus-guard policy list

corpus:
  shards: "data/*.parquet" # a glob, a folder, a list of them, or s3://bucket/prefix/*.parquet
  columns:
    text: text # several are joined: [title, body]; or a path: messages[*].content
    id: id # remove this line if there is none: rows are then named by shard and number
    source: source # or give url: the registered domain is then the source
    # language: language
    # url: url
  phase: post_collection # pre_collection for a pilot sample of what might be collected

run: runs/first # one decision over one corpus; a finished run never changes, another decision is another run
store: store # what stages saw, shared by runs: what was looked at once is not looked at again
# restricted: runs/first.restricted # removed text and samples, for few eyes; never inside the run folder

keywords: {{library: starter}} # a shipped name or a folder; corpus-guard keywords check starter
classifiers: [{{model: ngram-screen}}] # a shipped name or a folder; corpus-guard model check ngram-screen

# sources: {{register: sources.csv, blacklist: blacklist.jsonl, decide: point}}
# evaluation: {{library: other-library, classifiers: [{{model: other-model}}]}} # for the technical check (9.2 b)

executor: {{kind: local, workers: {workers}}} # kind: ray runs on a cluster; see docs/config.md
max_failed_share: 0 # exit 5 if a larger share cannot be read
"""


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default=Path("demo-corpus-guard"))
@json_option
def demo(folder: Path, as_json: bool) -> None:
    """
    Make a small corpus, filter it, and say where the report is.

    \b
    corpus-guard demo
    corpus-guard demo /tmp/try
    """
    from corpus_guard.config import load_config
    from corpus_guard.demo import make_demo_corpus
    from corpus_guard.progress import teller
    from corpus_guard.steps import filter_corpus
    from corpus_guard.steps.setup import Setup, open_run

    made = make_demo_corpus(folder)
    with open_run(Setup.of(load_config(made)), tell=teller()) as opened_run:
        finish(filter_corpus(opened_run), as_json)


@click.command()
@click.argument("config", type=click.Path(path_type=Path), required=False)
@json_option
def doctor(config: Path | None, as_json: bool) -> None:
    """
    Look for what would stop a run.

    Versions, extras, GPU; with CONFIG its shards, folders, models and library. Exit 3 if something is wrong.

    \b
    corpus-guard doctor
    corpus-guard doctor configs/site.yaml
    """
    from corpus_guard.doctor import examine

    found = examine(config)
    bad = any(check.bad for check in found)
    show({"checks": [check.record for check in found], "ok": not bad}, as_json, [check.line for check in found])
    leave(EXIT_GATE if bad else 0)


@click.group(cls=Verbs)
def config() -> None:
    """Write and look at configuration."""


@config.command()
@click.argument("path", type=click.Path(path_type=Path), default=Path("corpus-guard.yaml"))
def init(path: Path) -> None:
    """
    Write a commented config to start from. Never writes over a file.

    \b
    corpus-guard config init
    corpus-guard config init configs/site.yaml
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    text = STARTER.format(name=path.name, workers=max(1, (os.cpu_count() or 2) // 2))
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{path}: is there already and was not touched; name another file.") from None
    click.echo(str(path))


@config.command("show")
@config_argument
@sets_option
@click.option("--origin", is_flag=True, help="Name where each value comes from: flag, environment, file or default.")
@json_option
def config_show(config: Path, sets: Sets, origin: bool, as_json: bool) -> None:
    """
    Print every key with the value a run would use.

    \b
    corpus-guard config show --origin configs/site.yaml
    """
    from corpus_guard.config import load_config

    rows = load_config(config, overrides=overrides(sets), env=os.environ).rows()
    summary = {key: {"value": value, "origin": where} for key, value, where in rows}
    show(summary, as_json, [f"{key}: {value}" + (f"    # {where}" if origin else "") for key, value, where in rows])
