"""
How often a library speaks on harmless text: ``python -m corpus_guard.keywords.measure LIBRARY FILE...``

Long texts are cut into pieces, so that books and posts can be compared. Prints a table per source and the
entries that spoke most, by id; never corpus text. What is called harmless is the caller's choice.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from pathlib import Path

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from corpus_guard.findings import Reader
from corpus_guard.keywords.library import load_library
from corpus_guard.keywords.rules import KeywordReader
from corpus_guard.keywords.stage import KeywordRecipe, KeywordStage


def pieces(text: str, size: int) -> Iterator[str]:
    """*text* in pieces of *size* characters; the last may be shorter."""
    return (text[at : at + size] for at in range(0, len(text), size))


def measure(
    library: str, files: Sequence[Path], size: int, as_of: date
) -> tuple[dict[str, Counter[str]], Counter[str]]:
    """Per source: pieces, characters, pieces with any entry, with a ``block`` entry; and how often each entry spoke."""
    recipe = KeywordRecipe(library)
    stage, reader = recipe.build(), KeywordReader(load_library(library), as_of)
    sources: dict[str, Counter[str]] = {}
    spoke: Counter[str] = Counter()
    for file in files:
        for batch in pq.ParquetFile(file).iter_batches(4096, columns=["source", "text"]):
            _add(batch, stage, reader, size, sources, spoke)
    return sources, spoke


def _add(
    batch: pa.RecordBatch,
    stage: KeywordStage,
    reader: Reader,
    size: int,
    sources: dict[str, Counter[str]],
    spoke: Counter[str],
) -> None:
    cut = [
        (source or "(null)", piece)
        for source, text in zip(batch["source"].to_pylist(), batch["text"].to_pylist(), strict=True)
        for piece in pieces(text or "", size)
    ]
    texts = pa.record_batch({"text": pa.array([piece for _, piece in cut], pa.large_string())})
    findings = pa.Table.from_batches([stage.find(texts)])
    opinion = reader.opinion(findings)
    sure = opinion.sure != 0
    heard = sure | (opinion.needs != 0) | (opinion.weak != 0)
    for i, (source, piece) in enumerate(cut):
        sources.setdefault(source, Counter()).update(
            pieces=1, characters=len(piece), any=int(heard[i]), block=int(sure[i])
        )
    for reasons in reader.explain(findings.take(pa.array(np.flatnonzero(heard)))):
        spoke.update({" ".join(reason.split()[1:4]) for reason in reasons})


@click.command()
@click.argument("library")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--piece", default=2000, show_default=True, help="Characters per piece.")
@click.option("--top", default=20, show_default=True, help="How many of the loudest entries to list.")
@click.option("--as-of", default=None, help="The day entries are read for (today).")
def main(library: str, files: tuple[Path, ...], piece: int, top: int, as_of: str | None) -> None:
    """How often LIBRARY speaks on the Parquet FILES (columns text and source)."""
    day = date.fromisoformat(as_of) if as_of else datetime.now(UTC).date()
    sources, spoke = measure(library, files, piece, day)
    click.echo("| source | pieces | characters | any entry | `block` |\n|---|---:|---:|---:|---:|")
    for source, counts in sorted(sources.items()):
        n = counts["pieces"]
        shares = " | ".join(f"{counts[key]} ({counts[key] / n:.2%})" for key in ("any", "block"))
        click.echo(f"| {source} | {n} | {counts['characters']} | {shares} |")
    for entry, times in spoke.most_common(top):
        click.echo(f"{times:8} {entry}")


if __name__ == "__main__":
    main()
