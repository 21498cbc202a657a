"""The main job end to end: counting, deciding, accounting, sampling, on small corpora with known truth."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpus_guard.errors import UsageError
from corpus_guard.steps import filter_corpus
from tests.corpora import DATA, config, digests, documents, needs_data, run_job, write_shards, write_truth
from tests.oracle import OracleRecipe


def sources_of(run: Any) -> dict[str | None, dict[str, Any]]:
    return {row["source"]: row for row in pq.read_table(run.folder.sources.path).to_pylist()}


def accounting_of(run: Any) -> dict[str, Any]:
    return json.loads(run.folder.accounting.read_bytes())


def clean_of(run: Any) -> pa.Table:
    return pa.concat_tables(
        [pq.read_table(path) for path in sorted(Path(run.folder.all_clean.path).rglob("*.parquet"))]
    )


@pytest.mark.parametrize(
    ("illegal", "of", "decision"),
    [
        (49, 1000, "keep"),
        (50, 1000, "keep"),
        (51, 1000, "exclude"),
        (0, 7, "keep"),
        (1, 20, "keep"),
        (2, 20, "exclude"),
    ],
)
def test_a_source_is_excluded_only_over_five_percent(tmp_path: Path, illegal: int, of: int, decision: str) -> None:
    corpus = write_shards(tmp_path / "data", documents("forum", of))
    truth = write_truth(tmp_path / "truth.csv", {f"forum-{i:06d}": "A.1.h" for i in range(illegal)})

    _, run = run_job(config(tmp_path, corpus), OracleRecipe(str(truth)))

    source = sources_of(run)["forum"]
    assert (source["illegal"], source["documents"], source["decision"]) == (illegal, of, decision)
    clean = accounting_of(run)["documents"]["clean"]
    assert clean == (of - illegal if decision == "keep" else 0)


def test_a_document_with_only_a5_is_removed_and_never_moves_the_source_share(tmp_path: Path) -> None:
    corpus = write_shards(tmp_path / "data", documents("qa", 100))
    truth = write_truth(tmp_path / "truth.csv", {f"qa-{i:06d}": "A.5.b" for i in range(20)})

    _, run = run_job(config(tmp_path, corpus), OracleRecipe(str(truth)))

    source = sources_of(run)["qa"]
    assert (source["illegal"], source["decision"]) == (0, "keep")
    assert accounting_of(run)["documents"]["removed_document"] == 20
    report = json.loads((run.folder.reports / "report.json").read_bytes())
    assert report["technical"]["before"]["numerator"] == 80


@pytest.mark.parametrize(("n", "technical"), [(9, 1), (10, 1), (11, 2), (36_003, 3_601)])
def test_the_technical_sample_is_exactly_a_tenth_rounded_up(tmp_path: Path, n: int, technical: int) -> None:
    corpus = write_shards(tmp_path / "data", documents("a", n), shards=4, group=5_000)
    truth = write_truth(tmp_path / "truth.csv", {})

    _, run = run_job(config(tmp_path, corpus), OracleRecipe(str(truth)))

    drawn = sum(pq.read_metadata(p).num_rows for p in Path(run.folder.samples.path, "technical").rglob("*.parquet"))
    manual = pq.read_table(run.folder.manual_sample.path)
    assert (drawn, manual.num_rows) == (technical, min(n, 4000))
    ledger = [json.loads(line) for line in run.folder.draws.read_bytes().splitlines()]
    assert [(line["purpose"], line["size"], line["population"]) for line in ledger] == [
        ("manual", min(n, 4000), n),
        ("technical", technical, n),
    ]


def test_every_row_is_clean_removed_or_quarantined_and_keeps_its_columns(tmp_path: Path) -> None:
    rows = [
        row | {"extra": i} for i, row in enumerate(documents("good", 50) + documents("bad", 10) + documents(None, 5))
    ]
    rows[0]["text"], rows[1]["text"] = None, " \u3000\n"
    corpus = write_shards(tmp_path / "data", rows)
    truth = write_truth(tmp_path / "truth.csv", {"bad-000000": "A.1.f", "good-000007": "A.2.e"})

    _, run = run_job(config(tmp_path, corpus), OracleRecipe(str(truth)))

    accounting = accounting_of(run)
    assert accounting["balanced"]
    assert accounting["documents"] == {
        "read": 65,
        "clean": 52,
        "removed_document": 2,
        "removed_source": 9,
        "removed_blocked": 0,
        "quarantined": 2,
    }
    assert clean_of(run).schema.names == ["id", "text", "source", "extra"]
    removed = pa.concat_tables(
        [pq.read_table(p) for p in Path(run.folder.restricted.path, "removed").rglob("*.parquet")]
    )
    reasons = {row["id"]: (row["removal"], row["risks"]) for row in removed.to_pylist()}
    assert reasons["good-000007"] == ("document", ["A.2.e"])
    assert reasons["bad-000003"] == ("source", [])
    quarantined = [pq.read_table(p) for p in Path(run.folder.restricted.path, "quarantined").rglob("*.parquet")]
    assert sorted(pa.concat_tables(quarantined).column("loss").to_pylist()) == ["empty", "empty"]
    assert sources_of(run)[None]["documents"] == 5


def test_a_second_policy_scans_nothing_and_leaves_the_first_run_alone(tmp_path: Path) -> None:
    corpus = write_shards(tmp_path / "data", documents("a", 300))
    truth = write_truth(tmp_path / "truth.csv", {"a-000001": "A.1.a"})
    oracle = OracleRecipe(str(truth))
    _, first = run_job(config(tmp_path, corpus), oracle)
    before = digests(tmp_path / "run") | digests(tmp_path / "store")

    _, second = run_job(config(tmp_path, corpus, run=str(tmp_path / "second"), policy="strict"), oracle, executor=None)

    assert digests(tmp_path / "run") | digests(tmp_path / "store") == before
    assert second.setup.policy.id == "strict"


def test_new_shards_alone_are_scanned(tmp_path: Path) -> None:
    corpus = write_shards(tmp_path / "data", documents("a", 300), shards=10)
    oracle = OracleRecipe(str(write_truth(tmp_path / "truth.csv", {})))
    run_job(config(tmp_path, corpus), oracle)
    before = set((tmp_path / "store").rglob("*.parquet"))
    pq.write_table(pa.Table.from_pylist(documents("b", 20)), corpus / "new.parquet")

    run_job(config(tmp_path, corpus, run=str(tmp_path / "second")), oracle)

    added = set((tmp_path / "store").rglob("*.parquet")) - before
    assert len(added) == 2  # one unit: its documents and the oracle's findings


def test_a_finished_run_is_not_changed_by_new_shards(tmp_path: Path) -> None:
    corpus = write_shards(tmp_path / "data", documents("a", 30))
    oracle = OracleRecipe(str(write_truth(tmp_path / "truth.csv", {})))
    run_job(config(tmp_path, corpus), oracle)
    before = digests(tmp_path / "run")
    pq.write_table(pa.Table.from_pylist(documents("b", 20)), corpus / "new.parquet")

    with pytest.raises(UsageError, match="another run name"):
        run_job(config(tmp_path, corpus), oracle)

    assert digests(tmp_path / "run") == before


def test_a_run_folder_of_another_decision_is_refused(tmp_path: Path) -> None:
    corpus = write_shards(tmp_path / "data", documents("a", 30))
    oracle = OracleRecipe(str(write_truth(tmp_path / "truth.csv", {})))
    run_job(config(tmp_path, corpus), oracle)
    before = digests(tmp_path / "run")

    with pytest.raises(UsageError, match="policy"):
        run_job(config(tmp_path, corpus, policy="strict"), oracle)

    assert digests(tmp_path / "run") == before


def test_workers_and_shard_names_change_no_result(tmp_path: Path) -> None:
    rows = [row for name in ("a", "b", "c") for row in documents(name, 400)]
    truth = write_truth(tmp_path / "truth.csv", {f"b-{i:06d}": "A.1.d" for i in range(21)})
    corpus = write_shards(tmp_path / "data", rows, shards=6, group=37)
    renamed = tmp_path / "renamed"
    renamed.mkdir()
    for i, path in enumerate(sorted(corpus.iterdir())):
        (renamed / f"z{9 - i}.parquet").write_bytes(path.read_bytes())

    outcomes = []
    for name, shards, workers in (("one", corpus, 1), ("two", corpus, 2), ("other", renamed, 1)):
        asked = config(tmp_path / name, shards, executor={"workers": workers, "unit_bytes": 4096, "slice_bytes": 2048})
        _, run = run_job(asked, OracleRecipe(str(truth)))
        verdicts = pa.concat_tables([pq.read_table(p) for p in Path(run.folder.all_verdicts.path).rglob("*.parquet")])
        outcomes.append(
            (
                verdicts.sort_by("id").drop_columns(["row"]).to_pylist(),
                pq.read_table(run.folder.sources.path).to_pylist(),
                pq.read_table(run.folder.manual_sample.path).column("id").to_pylist(),
                sorted(
                    id
                    for p in Path(run.folder.samples.path, "technical").rglob("*.parquet")
                    for id in pq.read_table(p).column("id").to_pylist()
                ),
            )
        )
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert (
        digests(tmp_path / "one" / "store")
        == digests(tmp_path / "two" / "store")
        == digests(tmp_path / "other" / "store")
    )


@needs_data
def test_shares_and_decisions_of_the_mixed_corpus_equal_its_truth(tmp_path: Path) -> None:
    oracle = OracleRecipe(str(DATA / "mixed" / "truth_documents.csv.gz"))

    result, run = run_job(config(tmp_path, str(DATA / "mixed" / "*.parquet")), oracle)

    with (DATA / "mixed" / "truth.csv").open(encoding="utf-8") as file:
        truth = {None if row["source"] == "(null)" else row["source"]: row for row in csv.DictReader(file)}
    found = sources_of(run)
    assert found.keys() == truth.keys()
    for name, row in truth.items():
        assert (found[name]["documents"], found[name]["illegal"]) == (
            int(row["documents"]),
            int(row["risky_documents"]),
        )
        assert found[name]["decision"] == ("exclude" if row["over_5_percent"] == "true" else "keep")
    accounting = accounting_of(run)
    assert accounting["documents"]["read"] == 60_073
    assert accounting["documents"]["quarantined"] == 100
    assert accounting["balanced"]
    assert result.exit_code(gate=False) == 5
    [failed] = Path(run.folder.all_failed.path).rglob("*.json")
    assert "shard-10-damaged-truncated" in failed.name
    report = json.loads((run.folder.reports / "report.json").read_bytes())
    assert "shard-10-damaged-truncated" in report["corpus"]["failed"][0]["shard"]


@needs_data
def test_failures_within_what_is_allowed_end_well(tmp_path: Path) -> None:
    oracle = OracleRecipe(str(DATA / "mixed" / "truth_documents.csv.gz"))

    result, _ = run_job(config(tmp_path, str(DATA / "mixed" / "*.parquet"), max_failed_share=0.2), oracle)

    assert result.exit_code(gate=False) == 0


def test_stopping_after_any_step_and_going_on_gives_the_same_files(tmp_path: Path) -> None:
    corpus = write_shards(tmp_path / "data", documents("a", 100) + documents("b", 40))
    oracle = OracleRecipe(
        str(write_truth(tmp_path / "truth.csv", {"b-000001": "A.1.d", "b-000002": "A.1.d", "b-000003": "A.4.f"}))
    )
    run_job(config(tmp_path / "whole", corpus), oracle)
    stepwise = config(tmp_path / "steps", corpus)

    for step in ("scan", "judge", "assess", "apply", "draw", "check", "report"):
        run_job(stepwise, oracle, job=lambda run, until=step: filter_corpus(run, until))

    assert digests(tmp_path / "whole" / "run") == digests(tmp_path / "steps" / "run")
    assert digests(tmp_path / "whole" / "run.restricted") == digests(tmp_path / "steps" / "run.restricted")
