"""
The card of a trained screen: what it was trained on, what it finds, and what it must not be trusted with.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpus_guard.classifiers.modelfile import Evidence
from corpus_guard.taxonomy import RISKS


@dataclass(frozen=True, slots=True)
class Source:
    """
    Ranking of one risk's positives on a source that no weight was trained on.

    ``own_negatives``: the other documents are of the same source; else they are benign rows of other sources.
    """

    name: str
    positives: int
    documents: int
    ap: float
    own_negatives: bool
    synthetic: bool


@dataclass(frozen=True, slots=True)
class Measured:
    """All that is known of one risk. ``share`` of the tested documents have it: the average precision of chance."""

    evidence: Evidence
    share: float = 0.0
    sources: tuple[Source, ...] = ()
    upper: float | None = None
    hidden_recall: float | None = None


@dataclass(frozen=True, slots=True)
class FalsePositives:
    """Held-out benign documents of one source, and how many of them are called unqualified."""

    source: str
    documents: int
    unqualified: int
    median_characters: int


def write_card(
    path: Path,
    name: str,
    measured: dict[str, Measured],
    false_positives: Sequence[FalsePositives],
    manifest: dict[str, Any],
) -> None:
    """Write the card; every number in it was measured by the training command."""
    on = [code for code, m in measured.items() if m.upper is not None]
    usable = [code for code in on if measured[code].evidence.status == "usable"]
    text = _CARD.format(
        name=name,
        on=len(on),
        decided=_list(on),
        usable=_list(usable),
        silent=_list([code for code in measured if code not in on]),
        risks="\n".join(_row(code, m) for code, m in measured.items()),
        sources="\n".join(_source(code, source) for code, m in measured.items() for source in m.sources),
        benign="\n".join(_benign(row) for row in false_positives),
        rows=f"{manifest['training_rows']:,}",
        seed=manifest["seed"],
    )
    path.write_text(text, encoding="utf-8")


_CARD = """\
# {name}

A linear model over hashed runs of one to four characters. It is a screen, not a judge: it knows spellings, no
meaning, and what it was shown is short social media posts and questions to a chatbot, not web documents. Put a
fine-tuned encoder beside it before relying on any number below.

Window size, the languages risks are learned in and the rule for what counts as measured elsewhere were settled after
looking at results on the held-out part: its figures are somewhat better than those on new text will be. A.1.g and
A.2.a are on by a rule that was chosen that way; a careful reader switches them off (`thresholds` in a policy).

Of the 31 risks it decides {on}: {decided}. The evidence calls usable: {usable}. The others are weak.

It says nothing of {silent}.

## Per risk

Trained: rows of natural text / prompts, templates and model answers. Tested: held-out positives. AP: average precision
on held-out rows of the same sources, beside the share of positives, which is the AP of chance. AP elsewhere: on sources
with benign rows of their own that no weight was trained on, weighted by positives. Recall at the threshold: of
positives alone / hidden in a benign document of 500 to 8,000 characters.

| risk | status | trained | tested | AP (chance) | AP elsewhere (n) | threshold | recall alone / hidden | remark |
|---|---|---|---|---|---|---|---|---|
{risks}

## On sources not trained on

The model was trained again without the source, or its licence keeps it out of training. Only where other sources have
positives of the same language to learn from. Where a source has no benign rows, the others are benign rows of sources
that were trained on: such a number is flattering or harsh by accident, and decides nothing.

| risk | source, language | positives / documents | AP (chance) | other documents | text |
|---|---|---|---|---|---|
{sources}

## Benign documents called unqualified

Held-out documents, all risks together, at the thresholds above. Statutes set thresholds, no weights. Rows of labelled
data sets are those that the data set calls benign: they speak of the same things. "(pieces)" are pieces of books.

| source | documents | median characters | unqualified | per 10,000 |
|---|---|---|---|---|
{benign}

## Training data

{rows} rows, seed {seed}; only rows under MIT, Apache-2.0, CC0-1.0 or CC-BY-4.0, and books in the public domain.
`training_data.json` lists files by hash, and counts by source, licence and part. Labels are the data sets' own, mapped
to the risks mechanically; nobody has read them row by row.
"""


def _list(codes: list[str]) -> str:
    return ", ".join(codes) if codes else "none"


def _row(code: str, m: Measured) -> str:
    e = m.evidence
    name = next(risk.en for risk in RISKS if risk.code == code)
    if e.status == "no data":
        return f"| {code} {name} | no data | | | | | | | {e.note or ''} |"
    elsewhere = "" if e.ap_other_sources is None else f"{e.ap_other_sources:.2f} ({e.positives_other_sources})"
    upper, recall = "off", ""
    if m.upper is not None:
        hidden = "" if m.hidden_recall is None else f"{m.hidden_recall:.2f}"
        upper, recall = f"{m.upper:.4f}", f"{e.recall:.2f} / {hidden}"
    return (
        f"| {code} {name} | {e.status} | {e.trained_natural} / {e.trained_synthetic} | {e.positives} "
        f"| {e.ap:.2f} ({m.share:.3f}) | {elsewhere} | {upper} | {recall} | {e.note or ''} |"
    )


def _source(code: str, source: Source) -> str:
    others = "same source" if source.own_negatives else "benign rows of other sources"
    return (
        f"| {code} | {source.name} | {source.positives} / {source.documents} | {source.ap:.2f} "
        f"({source.positives / source.documents:.2f}) | {others} | {'synthetic' if source.synthetic else 'natural'} |"
    )


def _benign(row: FalsePositives) -> str:
    rate = row.unqualified / row.documents * 10_000
    return f"| {row.source} | {row.documents:,} | {row.median_characters:,} | {row.unqualified} | {rate:.0f} |"
