"""
``review``: the manual sample goes to people as a sheet, and their settled verdicts come back (9.2 a).

Two roles, as 5.3 asks of annotation: whoever judged a document is not who approved it. Text and
verdicts stay in the restricted folder. A verdict on a sampled document is evidence about the rest; it
never changes the run the sample was drawn from.
"""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corpus_guard.errors import DataError, UsageError
from corpus_guard.shards import Unit, fetch_documents, table_bytes
from corpus_guard.steps.files import read_parquet
from corpus_guard.steps.plan import plan
from corpus_guard.steps.setup import Run
from corpus_guard.taxonomy import BIT
from corpus_guard.yamlfile import Faults, near

LABELS = pa.schema(
    [
        ("id", pa.string()),
        ("shard", pa.string()),
        ("row", pa.int64()),
        ("verdict", pa.string()),
        ("risks", pa.list_(pa.string())),
        ("annotator", pa.string()),
        ("reviewer", pa.string()),
        ("note", pa.string()),
    ]
)
"""Settled verdicts: one row per document, ``verdict`` is ``qualified`` or ``unqualified``. No text."""

VERDICTS = ("qualified", "unqualified")


@dataclass(frozen=True)
class Sheet:
    """Where the sheet is, and how much of it."""

    path: str
    documents: int


def export(run: Run) -> Sheet:
    """
    Write the manual sample with its texts to ``review/sheet.jsonl`` in the restricted folder, one document a line.

    People fill in ``verdict``, ``risks``, ``annotator`` and ``reviewer``; ``settle`` reads them back. Nothing of
    what the filter found stands in it: the check is blind.
    """
    if not run.folder.manual_sample.exists():
        raise UsageError(f"{run.folder.run.uri}: no sample was drawn yet; run corpus-guard draw first.")
    sample = read_parquet(run.folder.manual_sample)
    found = plan(run)
    units = {(unit.shard_name, unit.name): unit for unit in found.units}
    lines: list[dict[str, Any]] = []
    wanted = list(_by_unit(sample))
    gone = sorted({shard for (shard, name), _ in wanted if (shard, name) not in units})
    if gone:
        raise UsageError(
            f"shard {gone[0]}: is not cut into units as it was when the sample was drawn, or is gone; "
            "put back the shards and executor.unit_bytes of the run."
        )
    with run.tell.step("export", len(wanted), sample.num_rows) as meter:
        for (shard, name), rows in wanted:
            for row, text, language in _texts(run, units[(shard, name)], rows):
                lines.append(
                    {
                        "id": None,
                        "shard": shard,
                        "row": row,
                        "language": language,
                        "text": text,
                        "verdict": "",
                        "risks": [],
                        "annotator": "",
                        "reviewer": "",
                        "note": "",
                    }
                )
            meter.advance(len(rows))
    ids = {
        (shard, row): id
        for shard, row, id in zip(*(sample.column(c).to_pylist() for c in ("shard", "row", "id")), strict=True)
    }
    order = {key: i for i, key in enumerate(ids)}
    lines.sort(key=lambda line: order[(line["shard"], line["row"])])
    for line in lines:
        line["id"] = ids[(line["shard"], line["row"])]
    place = run.folder.review / "sheet.jsonl"
    place.put("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode())
    return Sheet(place.uri, len(lines))


def _by_unit(sample: pa.Table) -> Iterator[tuple[tuple[str, str], pa.Array]]:
    groups = sample.group_by(["shard", "unit"]).aggregate([("row", "list")]).to_pylist()
    for group in sorted(groups, key=lambda g: (g["shard"], g["unit"])):
        yield (group["shard"], group["unit"]), pa.array(group["row_list"], pa.int64())


def _texts(run: Run, unit: Unit, rows: pa.Array) -> Iterator[tuple[int, str | None, str | None]]:
    chosen = fetch_documents(unit, run.setup.reading, np.sort(np.asarray(rows)))
    yield from zip(*(chosen.column(name).to_pylist() for name in ("row", "text", "language")), strict=True)


def settle(run: Run, path: Path) -> dict[str, int]:
    """
    Read a filled sheet (``.jsonl`` or ``.csv``) and keep its settled verdicts in ``labels.parquet``.

    A line without verdict is not settled yet. All faults at once: unknown verdicts and risks, documents that were not
    drawn, an unqualified document without a risk, missing people, one person in both roles.
    """
    sample = read_parquet(run.folder.manual_sample, columns=["id", "shard", "row"])
    drawn = {
        (shard, row): id
        for id, shard, row in zip(*(sample.column(c).to_pylist() for c in ("id", "shard", "row")), strict=True)
    }
    faults = Faults(str(path))
    settled: dict[tuple[str, int], dict[str, Any]] = {}
    for number, line in _lines(path, faults):
        verdict = str(line.get("verdict") or "").strip()
        if not verdict:
            continue
        row = str(line.get("row", ""))
        key = (str(line.get("shard")), int(row) if row.isdigit() else -1)
        problems = list(_problems(line, verdict, key, drawn))
        if key in settled:
            problems.append("the document stands twice in the sheet; keep one line")
        for problem in problems:
            faults.add_line(number, problem + ".")
        if not problems:
            settled[key] = {
                "id": drawn[key],
                "shard": key[0],
                "row": key[1],
                "verdict": verdict,
                "risks": sorted(line.get("risks") or [], key=BIT.__getitem__),
                "annotator": line["annotator"].strip(),
                "reviewer": line["reviewer"].strip(),
                "note": str(line.get("note") or ""),
            }
    faults.stop()
    table = pa.Table.from_pylist([settled[key] for key in sorted(settled)], schema=LABELS)
    run.folder.labels.put(table_bytes(table))
    unqualified = pc.sum(pc.equal(table.column("verdict"), "unqualified")).as_py() or 0
    return {
        "drawn": sample.num_rows,
        "settled": table.num_rows,
        "unqualified": unqualified,
        "open": sample.num_rows - table.num_rows,
    }


def _problems(
    line: dict[str, Any], verdict: str, key: tuple[str, int], drawn: dict[tuple[str, int], str]
) -> Iterator[str]:
    if verdict not in VERDICTS:
        known = f"{' or '.join(VERDICTS)}{near(verdict, VERDICTS)}"
        yield f"verdict {verdict!r} must be {known}; leave it empty while unsure"
    if key not in drawn:
        yield f"row {key[1]} of shard {key[0]!r} was not drawn; a sample is not changed by hand"
    risks = line.get("risks") or []
    unknown = [risk for risk in risks if risk not in BIT] if isinstance(risks, list) else [risks]
    if unknown:
        yield f"risks {unknown} are no codes of Appendix A"
    if verdict == "unqualified" and not risks:
        yield "an unqualified document needs at least one risk"
    if verdict == "qualified" and risks:
        yield "a qualified document has no risk"
    people = [str(line.get(role) or "").strip() for role in ("annotator", "reviewer")]
    if not all(people):
        yield "annotator and reviewer are both needed (5.3: annotation and review are two functions)"
    elif people[0] == people[1]:
        yield f"{people[0]!r} cannot be annotator and reviewer of one document (5.3)"


def _lines(path: Path, faults: Faults) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as UTF-8 text ({error}); give the filled sheet.") from error
    if path.suffix == ".csv":
        for number, row in enumerate(csv.DictReader(io.StringIO(text)), 2):
            yield (
                number,
                {**row, "risks": [risk for risk in (row.get("risks") or "").replace(",", " ").split() if risk]},
            )
        return
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError:
            faults.add_line(number, "is no JSON; every line is one document.")
            continue
        if isinstance(record, dict):
            yield number, record
        else:
            faults.add_line(number, "is no JSON object; every line is one document.")


def labels_of(run: Run) -> pa.Table | None:
    """The settled verdicts on this run's manual sample, if people gave any; those on an earlier draw do not count."""
    if not run.folder.labels.exists() or not run.folder.manual_sample.exists():
        return None
    try:
        labels = read_parquet(run.folder.labels).cast(LABELS)
    except (pa.ArrowInvalid, ValueError) as error:
        raise DataError(
            f"{run.folder.labels.uri}: is no table of settled verdicts ({error}); import the sheet again."
        ) from error
    sample = read_parquet(run.folder.manual_sample, columns=["shard", "row"])
    drawn = set(zip(*(sample.column(name).to_pylist() for name in ("shard", "row")), strict=True))
    mine = zip(*(labels.column(name).to_pylist() for name in ("shard", "row")), strict=True)
    return labels.filter(pa.array([one in drawn for one in mine], pa.bool_()))
