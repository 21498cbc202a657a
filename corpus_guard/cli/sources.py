"""
Sources: assess them, hold a run's decisions to the limit, keep the blacklist.
"""

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from corpus_guard.cli.frame import (
    DAY,
    EXIT_GATE,
    Sets,
    Verbs,
    by_option,
    day_of,
    finish,
    gate_option,
    json_option,
    leave,
    looking,
    opened,
    options,
    reason_option,
    show,
)
from corpus_guard.errors import UsageError
from corpus_guard.progress import plain

if TYPE_CHECKING:
    from corpus_guard.sources.blacklist import Assessment, Blacklist


@click.group(cls=Verbs)
def sources() -> None:
    """Assess sources, check their decisions, keep the blacklist."""


@sources.command()
@options
@gate_option
def assess(config: Path, sets: Sets, as_json: bool, quiet: bool, log_json: bool, gate: bool) -> None:
    """
    Give every source its share and decision.

    Reads a corpus, or a pilot sample of one. Writes no clean shards.

    \b
    corpus-guard sources assess configs/sources.yaml
    corpus-guard sources assess configs/sources.yaml --set corpus.phase=pre_collection
    """
    from corpus_guard.steps import assess_sources

    with opened(config, sets, quiet, log_json, job="sources") as opened_run:
        finish(assess_sources(opened_run), as_json, gate)


@sources.command()
@looking
def check(config: Path, sets: Sets, as_json: bool) -> None:
    """
    Hold a run's decisions to policy and blacklist.

    A gate: exit 3 tells every fault.

    No source over the limit is kept, every source is decided, none on the blacklist is kept. Another policy than the
    run's may be asked for; exit 4 where the run has assessed nothing yet.

    \b
    corpus-guard sources check configs/site.yaml
    corpus-guard sources check configs/site.yaml --set policy=strict --set sources.blacklist=blacklist.jsonl
    """
    from corpus_guard.steps.verify import check_sources

    with opened(config, sets, job=None, write=False) as opened_run:
        found = check_sources(opened_run)
        show(found.summary, as_json, found.lines)
        leave(EXIT_GATE if found.faults else 0)


@sources.group(cls=Verbs)
def blacklist() -> None:
    """
    The blacklist of sources.

    A file of JSON lines that only grows. A config names it in sources.blacklist.

    \b
    corpus-guard sources blacklist list blacklist.jsonl
    """


file_argument = click.argument("file", type=click.Path(path_type=Path))
day_option = click.option("--on", type=DAY, default=None, metavar="DAY", help="The day of the entry (today).")


@blacklist.command("list")
@file_argument
@click.option("--all", "history", is_flag=True, help="Every entry, lifted ones too.")
@json_option
def blacklist_list(file: Path, history: bool, as_json: bool) -> None:
    """
    The sources on the list, since when, by whom and why.

    \b
    corpus-guard sources blacklist list blacklist.jsonl
    corpus-guard sources blacklist list blacklist.jsonl --all --json
    """
    from dataclasses import asdict

    from corpus_guard.sources.blacklist import load_blacklist

    found = load_blacklist(str(file))
    current = sorted(found.current())
    summary: dict[str, Any] = {"current": {source: found.reason(source) for source in current}, "head": found.head}
    lines = [f"{source}: {found.reason(source)}" for source in current]
    if history:
        summary["entries"] = [asdict(entry) for entry in found.entries]
        lines = [f"{e.on} {e.action:4} {e.source}: by {e.by}: {e.reason}" for e in found.entries]
    lines += [f"{len(current):,} sources on the list, {len(found.entries):,} entries, head {found.head[:12] or 'none'}"]
    show(summary, as_json, lines)


@blacklist.command("add")
@file_argument
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@by_option
@reason_option
@click.option("--run", default=None, metavar="FOLDER", help="The folder of the run whose assessment this rests on.")
@day_option
@json_option
def blacklist_add(
    file: Path, sources: tuple[str, ...], by: str, reason: str, run: str | None, on: datetime | None, as_json: bool
) -> None:
    """
    Put sources on the list.

    A named person says so, and why. Starts the file where there is none.

    \b
    corpus-guard sources blacklist add blacklist.jsonl ads.example.net --by 'Li Na' \\
        --reason 'advertisements for forged papers, looked at 40 documents' --run runs/2026-w47
    """
    day = day_of(on)
    _keep(
        file,
        sources,
        as_json,
        lambda known, source: known.added(
            source, on=day, by=by, reason=reason, assessment=_assessment(run, source) if run else None
        ),
    )


@blacklist.command("lift")
@file_argument
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@by_option
@reason_option
@click.option("--run", required=True, metavar="FOLDER", help="The folder of a run that assessed the source since.")
@day_option
@json_option
def blacklist_lift(
    file: Path, sources: tuple[str, ...], by: str, reason: str, run: str, on: datetime | None, as_json: bool
) -> None:
    """
    Take sources from the list.

    A named person says so, after a newer assessment that found them not over the limit.

    The assessment is a run without the blacklist (or over a pilot sample), later than the entry.

    \b
    corpus-guard sources blacklist lift blacklist.jsonl forum.example.cn --by 'Li Na' \\
        --reason 'moderated since October' --run runs/pilot-2026-12
    """
    day = day_of(on)
    _keep(
        file,
        sources,
        as_json,
        lambda known, source: known.lifted(
            source, on=day, by=by, reason=reason, assessment=_assessment(run, source, lift=True)
        ),
    )


def _keep(file: Path, sources: tuple[str, ...], as_json: bool, change: Any) -> None:
    """Make the list longer by *change* of each source, all of them or none."""
    from corpus_guard.places import Place
    from corpus_guard.sources.blacklist import load_blacklist, save_blacklist

    place = Place.of(str(file))
    with place.parent.lock():
        known: Blacklist = load_blacklist(place, create=True)
        before = len(known.entries)
        for source in sources:
            known = change(known, source)
        save_blacklist(known, place)
    new = known.entries[before:]
    done = {"add": "on the list", "lift": "lifted"}
    lines = [f"{entry.source}: {done[entry.action]}, by {entry.by}: {entry.reason}" for entry in new]
    show({"current": sorted(known.current()), "head": known.head, "new": len(new)}, as_json, lines)


def _assessment(run: str, source: str, lift: bool = False) -> "Assessment":
    """What the run in the folder *run* found of *source*. To *lift* it must have looked, and not found it over."""
    import pyarrow.compute as pc

    from corpus_guard.places import Place
    from corpus_guard.shards import manifest_hash, read_manifest
    from corpus_guard.sources.blacklist import Assessment
    from corpus_guard.steps.files import read_json, read_parquet
    from corpus_guard.store import RunFolder

    folder = RunFolder.of(Place.of(run))
    try:
        bound = read_json(folder.identity)
        table = read_parquet(folder.sources)
        manifest = manifest_hash(read_manifest(folder.manifest)[0])
    except (FileNotFoundError, json.JSONDecodeError):
        raise UsageError(f"{run}: is no folder of a run that assessed sources; name one.") from None
    rows = table.filter(pc.fill_null(pc.equal(table.column("source"), source), False)).to_pylist()
    name = plain(source)
    if not rows:
        raise UsageError(f"{run}: knows no source {name}; name a run over its documents.")
    [row] = rows
    if row["share"] is None:
        raise UsageError(
            f"{run}: did not look at the documents of {name}, because it was on that run's blacklist; "
            "assess it with --set sources.blacklist=null."
        )
    if lift and row["decision"] == "exclude":
        raise UsageError(
            f"{run}: still finds {name} over the limit ({row['illegal']:,} of {row['documents']:,} documents), "
            "so it stays on the blacklist."
        )
    return Assessment(bound["as_of"], manifest, bound["identity"]["policy"], row["documents"], row["illegal"])
