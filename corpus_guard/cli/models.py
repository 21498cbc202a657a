"""
Models: whether a folder can be used, which risks it covers on what evidence, its card; and how a screen is trained.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from corpus_guard.cli.frame import EXIT_GATE, Verbs, json_option, leave, policy_option, show
from corpus_guard.taxonomy import CODES

if TYPE_CHECKING:
    from corpus_guard.classifiers.modelfile import ModelFile


@click.group(cls=Verbs)
def model() -> None:
    """Look at classification models; train a screen."""


@model.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@policy_option
@json_option
def check(models: tuple[str, ...], policy: str, as_json: bool) -> None:
    """
    Hold models to a policy: which risks they cover.

    MODEL is a shipped name, a folder or a YAML file; what one covers, all cover. Reads descriptions and the headers
    of weights, runs nothing. Exit 3 where something binding is missed.

    \b
    corpus-guard model check ngram-screen
    corpus-guard model check ngram-screen models/risk31 --policy strict
    """
    from corpus_guard.classifiers.coverage import coverage
    from corpus_guard.classifiers.modelfile import load_model
    from corpus_guard.policy import load_policy
    from corpus_guard.report.evidence import Evidence
    from corpus_guard.report.provisions import evaluate, standing

    loaded = load_policy(policy)
    read = [load_model(name) for name in models]
    covered = coverage(read)
    asked = replace(loaded, rules=tuple(rule for rule in loaded.rules if rule.check == "classifier_cover"))
    rows = evaluate(asked, Evidence(detectors=covered)).provisions
    missed = any(standing(loaded, row) == "fail" for row in rows)
    summary = {
        "models": [_facts(one) for one in read],
        "policy": loaded.id,
        "coverage": {
            code: [
                {"model": c.model, "on": c.on, "candidate": c.candidate, "status": c.status, "positives": c.positives}
                for c in cells
            ]
            for code, cells in covered.items()
        },
        "provisions": [
            {"rule": row.rule, "clause": row.clause, "level": row.level, "result": row.result, "sentence": row.sentence}
            for row in rows
        ],
        "ok": not missed,
    }
    lines = [_line(one) for one in read]
    words = {"pass": "ok", "fail": "FAIL", "advisory": "advice", "open": "open", "not applicable": "n/a"}
    lines += [f"{words[standing(loaded, row)]:7} {row.clause} {row.level}: {row.sentence}" for row in rows]
    lines += ["", f"{'risk':6}  {'model':20}  {'decides':9}  {'evidence':8}  {'positives':>9}"]
    for code, cells in covered.items():
        lines += [f"{code:6}  none"] if not cells else []
        for c in cells:
            says = "candidate" if c.candidate else "yes" if c.on else "off"
            number = "" if c.positives is None else f"{c.positives:,}"
            lines.append(f"{code:6}  {c.model:20}  {says:9}  {c.status:8}  {number:>9}".rstrip())
    show(summary, as_json, lines)
    leave(EXIT_GATE if missed else 0)


def _facts(one: "ModelFile") -> dict[str, Any]:
    return {
        "name": one.name,
        "digest": one.digest(),
        "kind": "n-gram screen" if one.is_ngram else one.model_type,
        "licence": one.licence,
        "languages": list(one.languages),
        "windows": {"size": one.windows.size, "stride": one.windows.stride},
        "labels": [
            {
                "name": label.name,
                "risks": list(label.risks),
                "relation": label.relation,
                "upper": label.upper,
                "lower": label.lower,
                "calibration": label.calibration.way,
            }
            for label in one.labels
        ],
    }


def _line(one: "ModelFile") -> str:
    kind = "n-gram screen" if one.is_ngram else one.model_type
    languages = ", ".join(one.languages) or "languages not stated"
    return f"model   {one.name}: {kind}, {len(one.labels):,} labels, {languages}, licence {one.licence}"


@model.command()
@click.argument("model")
@json_option
def card(model: str, as_json: bool) -> None:
    """
    Print a model's card.

    What it was trained on, what it finds, what it must not be trusted with.

    \b
    corpus-guard model card ngram-screen
    """
    from corpus_guard.classifiers.modelfile import load_model

    one = load_model(model)
    written = one.folder / "CARD.md"
    summary = _facts(one) | {
        "evaluation": {
            code: {
                "status": found.status,
                "positives": found.positives,
                "ap": found.ap,
                "recall": found.recall,
                "fpr": found.fpr,
                "note": found.note,
            }
            for code, found in sorted(one.evaluation.items())
        },
        "card": str(written) if written.is_file() else None,
    }
    if written.is_file():
        show(summary, as_json, written.read_text(encoding="utf-8", errors="replace").splitlines())
        return
    lines = [_line(one), "It has no card (CARD.md); this is what its description says.", ""]
    for label in one.labels:
        risks = ", ".join(label.risks) or "ignored"
        upper = "off" if label.upper is None else f"{label.upper:g}"
        lines.append(f"label {label.name} {label.relation} {risks}, threshold {upper}")
    for code in CODES:
        found = one.evaluation.get(code)
        if found is not None:
            lines.append(
                f"{code} {found.status}, {'unknown' if found.positives is None else found.positives} positives"
            )
    show(summary, as_json, lines)


@model.command()
@click.argument("kind", type=click.Choice(["ngram-screen"]))
@click.option(
    "--rows",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path),
    help="A Parquet file of labelled or benign rows (repeatable).",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A new folder for the model.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True)
@click.option("--name", default="ngram-screen", show_default=True, help="The model's name in configs and reports.")
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
@json_option
def train(kind: str, rows: tuple[Path, ...], out: Path, seed: int, name: str, quiet: bool, as_json: bool) -> None:
    """
    Train a screen on labelled rows.

    And measure it on rows, and sources, it was not trained on.

    Columns: text, source, licence; where labelled also risk, is_risk, split, kind. The same files and seed give
    the same folder.

    \b
    corpus-guard model train ngram-screen --rows labelled.parquet --rows benign.parquet --out models/mine
    """
    from corpus_guard.classifiers.train import train_ngram
    from corpus_guard.progress import teller

    made = train_ngram(rows, out, seed, name=name, say=teller(quiet).line)
    show({"model": str(made), "kind": kind}, as_json, [str(made)])
