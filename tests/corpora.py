"""
Small corpora made for tests, and the way to run a job over them.
"""

import csv
import hashlib
import os
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpus_guard.config import Config
from corpus_guard.findings import Recipe
from corpus_guard.steps import Result, filter_corpus
from corpus_guard.steps.setup import Run, Setup, open_run

DATA = Path(os.environ.get("CORPUS_GUARD_DATA") or Path(__file__).parents[1] / ".." / "shared" / "data").resolve()
DAY = date(2026, 11, 21)

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the labelled data is not beside this checkout")


def write_shards(folder: Path, rows: Sequence[dict[str, Any]], shards: int = 3, group: int = 100) -> Path:
    """*rows* dealt out over Parquet shards with small row groups."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(list(rows))
    for shard in range(shards):
        part = table.take(pa.array(range(shard, table.num_rows, shards), pa.int64()))
        pq.write_table(part, folder / f"part-{shard:03d}.parquet", row_group_size=group)
    return folder


def documents(source: str | None, n: int, start: int = 0) -> list[dict[str, Any]]:
    return [
        {"id": f"{source}-{i:06d}", "text": f"document {i} of {source}: 今天天气很好", "source": source}
        for i in range(start, start + n)
    ]


def write_truth(path: Path, risky: dict[str, str]) -> Path:
    """Labels for the oracle: id to risks joined by ``|``."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "risk"])
        writer.writerows(sorted(risky.items()))
    return path


def config(folder: Path, shards: Path | str, **keys: Any) -> Config:
    """A config over *shards*; keyword arguments win, dots in keys as ``__``."""
    data: dict[str, Any] = {
        "corpus": {"shards": str(shards), "columns": {"id": "id", "text": "text", "source": "source"}},
        "run": str(folder / "run"),
        "store": str(folder / "store"),
        "keywords": None,
        "classifiers": [],
    }
    return Config.of(data | keys, base=folder)


def run_job(
    asked: Config, *stages: Recipe, job: Any = filter_corpus, name: str = "filter", executor: Any = None
) -> tuple[Result, Run]:
    """Run *job* with *stages* in place of the config's; the run comes back to be looked at."""
    setup = Setup.of(asked, job=name, stages=stages or None)
    with open_run(setup, executor=executor, today=DAY) as run:
        return job(run), run


def digests(folder: Path, *, without: Sequence[str] = ()) -> dict[str, str]:
    """Every file below *folder* with the hash of its bytes; the lock names who held it last and is left out."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock" and not any(part in str(path) for part in without)
    }
