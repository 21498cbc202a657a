"""
How far the shipped detectors move each source of a labelled corpus from its true share.

    python -m benchmarks.mixed_truth ../shared/data/mixed

Runs the main job with the starter library and the n-gram screen and prints, source by source, the share by
labels and the share by detectors, both decisions, and documents flagged in one, the other and both. The folder holds
shards, ``truth.csv`` and ``truth_documents.csv.gz``. Truth is by dataset label, and parts of it were trained on: good
numbers here prove nothing, bad ones do.
"""

import argparse
import csv
import gzip
import json
import tempfile
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq

from corpus_guard.config import Config
from corpus_guard.steps import assess_sources
from corpus_guard.steps.setup import Setup, open_run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", type=Path, help="also write the table here")
    args = parser.parse_args()
    with gzip.open(args.folder / "truth_documents.csv.gz", "rt", encoding="utf-8") as file:
        risky = {row["id"] for row in csv.DictReader(file) if row["is_risk"] == "True"}
    with (args.folder / "truth.csv").open(encoding="utf-8") as file:
        truth = {row["source"]: row for row in csv.DictReader(file)}
    with tempfile.TemporaryDirectory() as scratch:
        data = {
            "corpus": {
                "shards": str(args.folder.resolve() / "*.parquet"),
                "columns": {"id": "id", "text": "text", "source": "source", "language": "language"},
            },
            "run": f"{scratch}/run",
        }
        with open_run(Setup.of(Config.of(data), job="sources")) as run:
            assess_sources(run)
            decisions = {
                row["source"] or "(null)": row["decision"] for row in pq.read_table(run.folder.sources.path).to_pylist()
            }
            found = Counter[tuple[str, bool, bool]]()
            for path in Path(run.folder.all_verdicts.path).rglob("*.parquet"):
                columns = (pq.read_table(path).column(name).to_pylist() for name in ("id", "source", "illegal"))
                found.update(
                    (source or "(null)", id in risky, bool(illegal))
                    for id, source, illegal in zip(*columns, strict=True)
                )
    rows = []
    print(
        f"{'source':18} {'documents':>9} {'labelled':>9} {'found':>9} {'both':>6}  {'by labels':9} {'by detectors':12}"
    )
    for source, row in truth.items():
        n, labelled = int(row["documents"]), int(row["risky_documents"])
        both = found[(source, True, True)]
        detected = both + found[(source, False, True)]
        one = {
            "source": source, "documents": n, "labelled": labelled, "found": detected, "both": both,
            "by_labels": "exclude" if row["over_5_percent"] == "true" else "keep", "by_detectors": decisions[source],
        }  # fmt: skip
        rows.append(one)
        told = f"{one['by_labels']:9} {one['by_detectors']:12}"
        differs = "" if one["by_labels"] == one["by_detectors"] else "  differs"
        print(f"{source:18} {n:9,} {labelled / n:9.2%} {detected / n:9.2%} {both:6,}  {told}{differs}")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
