"""Runs with a blacklist: its sources are read, not scanned and never clean, and the store stays right for everybody."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpus_guard.errors import UsageError
from corpus_guard.sources.blacklist import Blacklist, save_blacklist
from corpus_guard.steps import filter_corpus
from corpus_guard.steps.setup import Run
from tests.corpora import config, digests, documents, run_job, write_shards, write_truth
from tests.oracle import OracleRecipe


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Two shards with both sources, one with the good source alone; five units in all."""
    data = write_shards(tmp_path / "data", documents("good", 40) + documents("bad", 40), shards=2, group=20)
    pq.write_table(pa.Table.from_pylist(documents("good", 10, start=100)), data / "alone.parquet")
    return data


@pytest.fixture
def oracle(tmp_path: Path) -> OracleRecipe:
    risky = {"good-000003": "A.1.h", **{f"bad-{i:06d}": "A.1.h" for i in range(30)}}
    return OracleRecipe(str(write_truth(tmp_path / "truth.csv", risky)))


@pytest.fixture
def listed(tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "blacklist.jsonl"
    save_blacklist(Blacklist().added("bad", on=date(2026, 1, 2), by="Li Na", reason="a mirror"), path)
    return {"blacklist": str(path)}


def job(folder: Path, corpus: Path, oracle: OracleRecipe, store: Path, sources: dict[str, Any] | None = None) -> Run:
    keys = {"sources": sources} if sources else {}
    asked = config(folder, corpus, store=str(store), executor={"unit_bytes": 600}, **keys)
    return run_job(asked, oracle)[1]


def accounting(run: Run) -> dict[str, int]:
    found = json.loads(run.folder.accounting.read_bytes())
    assert found["balanced"]
    return found["documents"]


def states(store: Path) -> dict[str, dict[str, int]]:
    """Per kind of findings, rows by state."""
    counts: dict[str, dict[str, int]] = {}
    for path in (store / "findings").rglob("*.parquet"):
        stage = path.relative_to(store / "findings").parts[0].rpartition("-")[0]
        for state in pq.read_table(path).column("state").to_pylist():
            counts.setdefault(stage, {}).setdefault(state, 0)
            counts[stage][state] += 1
    return counts


def findings(store: Path) -> dict[str, str]:
    return digests(store / "findings")


def same(left: Path, right: Path) -> None:
    for name in ("run", "run.restricted"):
        assert digests(left / name) == digests(right / name)


def test_a_blacklisted_source_is_read_and_not_scanned(
    tmp_path: Path, corpus: Path, oracle: OracleRecipe, listed: dict[str, Any]
) -> None:
    run = job(tmp_path / "one", corpus, oracle, tmp_path / "store", listed)

    assert states(tmp_path / "store") == {stage: {"ok": 50, "skipped": 40} for stage in ("documents", "oracle")}
    assert accounting(run) == {
        "read": 90,
        "clean": 49,
        "removed_document": 1,
        "removed_source": 0,
        "removed_blocked": 40,
        "quarantined": 0,
    }
    removed = pa.concat_tables(
        [pq.read_table(p) for p in Path(run.folder.restricted.path, "removed").rglob("*.parquet")]
    )
    assert {row["id"] for row in removed.to_pylist() if row["removal"] == "blocked"} == {
        f"bad-{i:06d}" for i in range(40)
    }
    sources = {row["source"]: row for row in pq.read_table(run.folder.sources.path).to_pylist()}
    assert sources["bad"]["decision"] == "exclude" and "Li Na" in sources["bad"]["reason"]
    assert sources["bad"]["documents"] == 40 and sources["bad"]["share"] is None


def test_without_the_blacklist_exactly_the_units_concerned_are_scanned_again(
    tmp_path: Path, corpus: Path, oracle: OracleRecipe, listed: dict[str, Any]
) -> None:
    job(tmp_path / "one", corpus, oracle, tmp_path / "store", listed)
    partial = {path.name for path in (tmp_path / "store").rglob("*~*.parquet")}
    before = set((tmp_path / "store").rglob("*.parquet"))

    job(tmp_path / "shared", corpus, oracle, tmp_path / "store")

    added = set((tmp_path / "store").rglob("*.parquet")) - before
    assert {path.name for path in added} == {f"{name.partition('~')[0]}.parquet" for name in partial}
    assert len(added) == 2 * 2  # two units hold the bad source, and there are two kinds of findings
    job(tmp_path / "fresh", corpus, oracle, tmp_path / "empty")
    same(tmp_path / "shared", tmp_path / "fresh")
    full = {name: hash for name, hash in findings(tmp_path / "store").items() if "~" not in name}
    assert full == findings(tmp_path / "empty")


def test_full_findings_in_the_store_change_nothing_for_a_run_with_a_blacklist(
    tmp_path: Path, corpus: Path, oracle: OracleRecipe, listed: dict[str, Any]
) -> None:
    job(tmp_path / "open", corpus, oracle, tmp_path / "store")
    before = findings(tmp_path / "store")

    job(tmp_path / "shared", corpus, oracle, tmp_path / "store", listed)

    assert findings(tmp_path / "store") == before
    job(tmp_path / "fresh", corpus, oracle, tmp_path / "empty", listed)
    same(tmp_path / "shared", tmp_path / "fresh")


def test_a_longer_blacklist_scans_nothing_again_and_a_shorter_one_what_it_lacks(
    tmp_path: Path, corpus: Path, oracle: OracleRecipe, listed: dict[str, Any]
) -> None:
    both = Blacklist().added("bad", on=date(2026, 1, 2), by="Li Na", reason="a mirror")
    both = both.added("good", on=date(2026, 1, 3), by="Li Na", reason="another")
    save_blacklist(both, tmp_path / "both.jsonl")
    job(tmp_path / "one", corpus, oracle, tmp_path / "store", listed)
    before = findings(tmp_path / "store")

    run = job(tmp_path / "two", corpus, oracle, tmp_path / "store", {"blacklist": str(tmp_path / "both.jsonl")})

    assert findings(tmp_path / "store") == before
    assert accounting(run)["removed_blocked"] == 90
    job(tmp_path / "two fresh", corpus, oracle, tmp_path / "all skipped", {"blacklist": str(tmp_path / "both.jsonl")})
    same(tmp_path / "two", tmp_path / "two fresh")
    job(tmp_path / "back", corpus, oracle, tmp_path / "all skipped", listed)
    same(tmp_path / "back", tmp_path / "one")


def test_a_run_is_bound_to_its_blacklist(
    tmp_path: Path, corpus: Path, oracle: OracleRecipe, listed: dict[str, Any]
) -> None:
    asked = config(tmp_path, corpus, sources=listed)
    run_job(asked, oracle, job=lambda run: filter_corpus(run, "judge"))

    with pytest.raises(UsageError, match="blacklist"):
        run_job(config(tmp_path, corpus), oracle)
