"""
The tables of a report as CSV that a spreadsheet opens as it is: UTF-8 with a byte-order mark, and no cell a formula.

Values are those of ``report.json``; what is not known is an empty cell. All sources are in ``sources.parquet``.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from corpus_guard.report.render import shown

# A spreadsheet takes a cell that starts so for a formula (CWE-1236); some fold the full-width forms first.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\0", "＝", "＋", "－", "＠")

Row = Sequence[Any]


def guarded(value: Any) -> Any:
    """*value* as a cell: text that a spreadsheet would run gets a ``'`` before it; numbers stay numbers."""
    if isinstance(value, str) and value.lstrip(" ").startswith(_FORMULA):
        return "'" + value
    return value


def csv_bytes(header: Sequence[str], rows: Iterable[Row]) -> bytes:
    """One table."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(header)
    writer.writerows([["" if cell is None else guarded(cell) for cell in row] for row in rows])
    return b"\xef\xbb\xbf" + out.getvalue().encode("utf-8", "backslashreplace")


def tables(report: dict[str, Any]) -> dict[str, bytes]:
    """File name to content, for every section that is there. *report*: what ``report.json`` holds."""
    report = shown(report)
    made = {"provisions.csv": _provisions(report["provisions"])}
    rows: list[Row]
    keys: tuple[str, ...]
    if report["corpus"]["failed"]:
        rows = [(row["shard"], row["rows"], row["error"]) for row in report["corpus"]["failed"]]
        made["failed.csv"] = csv_bytes(("shard", "rows", "error"), rows)
    if report["sources"]:
        made["worst_sources.csv"] = _sources(report["sources"]["worst"])
    if report["risks"] is not None:
        keys = ("risk", "en", "zh", "documents", "sources")
        made["risks.csv"] = csv_bytes(keys, [[row[key] for key in keys] for row in report["risks"]])
    if report["retention"] is not None:
        rows = [(row["step"], *_rate(row["documents"])) for row in report["retention"]]
        made["retention.csv"] = csv_bytes(("step", "documents", "of", "percent", "clause"), rows)
    if report["library"]:
        keys = ("risk", "terms", "effective", "required")
        made["library.csv"] = csv_bytes(keys, [[row[key] for key in keys] for row in report["library"]["risks"]])
    if report["classifier"]:
        cells = [(row["risk"], cell) for row in report["classifier"]["coverage"] for cell in row["models"] or [{}]]
        keys = ("model", "positives", "status")
        rows = [(risk, *(cell.get(key) for key in keys)) for risk, cell in cells]
        made["coverage.csv"] = csv_bytes(("risk", *keys), rows)
    return made


def _provisions(provisions: list[dict[str, Any]]) -> bytes:
    rows = []
    for row in provisions:
        numbers = [f"{rate['numerator']} of {rate['denominator']}" for rate in row["rates"]]
        numbers += [f"{name}={value}" for name, value in row["numbers"].items()]
        rows.append((row["clause"], row["rule"], row["level"], row["result"], row["sentence"], "; ".join(numbers)))
    return csv_bytes(("clause", "rule", "level", "result", "sentence", "numbers"), rows)


def _sources(sources: list[dict[str, Any]]) -> bytes:
    keys = ("documents", "illegal", "lower", "upper", "corrected", "unjudged", "decision", "thin", "reason")
    rows = []
    for row in sources:
        name = "(null)" if row["source"] is None else row["source"]
        rows.append((name, row["share"]["percent"], *(row[key] for key in keys), " ".join(row["top_risks"])))
    return csv_bytes(("source", "share", *keys, "top_risks"), rows)


def _rate(rate: dict[str, Any]) -> Row:
    return rate["numerator"], rate["denominator"], rate["percent"], rate["clause"]
