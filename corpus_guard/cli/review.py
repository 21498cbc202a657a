"""
The manual sample goes to people as a sheet, and their verdicts come back.
"""

from pathlib import Path

import click

from corpus_guard.cli.frame import Sets, Verbs, opened, options, show
from corpus_guard.errors import UsageError


@click.group(cls=Verbs)
def review() -> None:
    """Give the manual sample to people, take verdicts back."""


@review.command("export")
@options
@click.option("--again", is_flag=True, help="Write a new sheet over one that is there, with whatever stands in it.")
def review_export(config: Path, sets: Sets, as_json: bool, quiet: bool, log_json: bool, again: bool) -> None:
    """
    Write the sampled texts as a sheet for people.

    JSON lines in the restricted folder; prints where. People fill in verdict, risks, annotator and reviewer. A sheet
    that is there already is not written over.

    \b
    corpus-guard review export configs/site.yaml
    """
    from corpus_guard.steps.review import export

    with opened(config, sets, quiet, log_json, job=None, write=False) as opened_run:
        there = opened_run.folder.review / "sheet.jsonl"
        if there.exists() and not again:
            raise UsageError(
                f"{there.uri}: is there already, perhaps with verdicts of people in it; move it away, or say --again."
            )
        sheet = export(opened_run)
        opened_run.tell.line(f"{sheet.documents:,} documents for people; the sheet holds text: keep it restricted.")
        show({"sheet": sheet.path, "documents": sheet.documents}, as_json, [sheet.path])


@review.command("import")
@options
@click.argument("sheet", type=click.Path(path_type=Path))
def review_import(config: Path, sets: Sets, as_json: bool, quiet: bool, log_json: bool, sheet: Path) -> None:
    """
    Read a filled sheet.

    Every settled verdict needs an annotator and another person as reviewer.

    \b
    corpus-guard review import configs/site.yaml sheet.jsonl && corpus-guard report configs/site.yaml
    """
    from corpus_guard.steps.review import settle

    with opened(config, sets, quiet, log_json, job=None, write=False) as opened_run:
        if not opened_run.folder.manual_sample.exists():
            raise UsageError(f"{opened_run.folder.run.uri}: no sample was drawn yet; run corpus-guard draw first.")
        found = settle(opened_run, sheet)
        lines = [
            f"{found['settled']:,} of {found['drawn']:,} documents settled, {found['unqualified']:,} unqualified, "
            f"{found['open']:,} open",
        ]
        show({"labels": opened_run.folder.labels.uri, **found}, as_json, [*lines, opened_run.folder.labels.uri])
