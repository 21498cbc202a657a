"""Assessing sources, spot checks, evaluation, review and trace: what stands beside the main job."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpus_guard.classifiers.ngram import NgramRecipe
from corpus_guard.errors import UsageError
from corpus_guard.steps import assess_sources, filter_corpus, spot_check
from corpus_guard.steps.review import export, settle
from corpus_guard.steps.setup import Setup, open_run
from corpus_guard.steps.trace import trace
from tests.corpora import config, digests, documents, run_job, write_shards, write_truth
from tests.oracle import OracleRecipe


def report_of(run: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run.folder.reports / "report.json").read_bytes())
    return found


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_shards(tmp_path / "data", documents("forum", 300) + documents("spam", 60))


@pytest.fixture
def oracle(tmp_path: Path) -> OracleRecipe:
    risky = {f"spam-{i:06d}": "A.1.h" for i in range(30)} | {"forum-000005": "A.2.e"}
    return OracleRecipe(str(write_truth(tmp_path / "truth.csv", risky)))


def test_assessing_sources_decides_and_writes_no_shard(tmp_path: Path, corpus: Path, oracle: OracleRecipe) -> None:
    result, run = run_job(config(tmp_path, corpus), oracle, job=assess_sources, name="sources")

    decisions = {row["source"]: row["decision"] for row in pq.read_table(run.folder.sources.path).to_pylist()}
    assert decisions == {"forum": "keep", "spam": "exclude"}
    assert not run.folder.all_clean.exists()
    assert report_of(run)["accounting"] is None
    assert result.summary["sources"] == {"total": 2, "keep": 1, "exclude": 1, "hold": 0}


def test_a_spot_check_scans_only_what_was_drawn(tmp_path: Path, corpus: Path, oracle: OracleRecipe) -> None:
    _, run = run_job(config(tmp_path, corpus), oracle, job=spot_check, name="spot-check")

    report = report_of(run)
    assert (report["technical"]["population"], report["technical"]["drawn"]) == (360, 36)
    drawn = list(Path(run.folder.samples.path, "technical").rglob("*.parquet"))
    ids = [id for p in drawn for id in pq.read_table(p).column("id").to_pylist()]
    bad = sum(id.startswith("spam") and int(id[-6:]) < 30 or id == "forum-000005" for id in ids)
    rate = report["technical"]["evaluation"]
    assert (rate["numerator"], rate["denominator"]) == (36 - bad, 36)
    scanned = list(Path(run.folder.run.path, "check").rglob("oracle-*/*/*.parquet"))
    assert sum(pq.read_metadata(p).num_rows for p in scanned) == 36
    assert not (tmp_path / "store").exists()


def test_a_spot_check_can_ask_for_more_than_the_policy_and_not_for_less(
    tmp_path: Path, corpus: Path, oracle: OracleRecipe
) -> None:
    asked = config(tmp_path, corpus, spot_check={"technical": "50%"})
    _, run = run_job(asked, oracle, job=spot_check, name="spot-check")

    assert report_of(run)["technical"]["drawn"] == 180
    with pytest.raises(UsageError, match="can only be raised"):
        Setup.of(config(tmp_path, corpus, spot_check={"technical": "5%"}), job="spot-check")


def test_a_screen_that_does_not_exist_yet_is_refused_and_not_passed_over(tmp_path: Path, corpus: Path) -> None:
    with pytest.raises(UsageError, match="language cannot run"):
        Setup.of(config(tmp_path, corpus, screens=["language"]))


def test_the_technical_check_is_open_without_an_evaluation_and_measured_with_one(
    tmp_path: Path, corpus: Path, oracle: OracleRecipe
) -> None:
    _, run = run_job(config(tmp_path, corpus), oracle)
    without = report_of(run)
    stricter = OracleRecipe(str(write_truth(tmp_path / "other.csv", {f"forum-{i:06d}": "A.1.g" for i in range(300)})))

    setup = Setup.of(config(tmp_path, corpus, run=str(tmp_path / "second")), stages=(oracle,), evaluation=(stricter,))
    with open_run(setup) as second:
        filter_corpus(second)

    by_rule = {row["rule"]: row["result"] for row in without["provisions"]}
    assert by_rule["eval.tech"] == "needs evidence"
    measured = report_of(second)
    assert measured["technical"]["evaluation"]["numerator"] == 0
    assert measured["technical"]["evaluation"]["denominator"] == 30  # a tenth of the 299 clean ones, rounded up
    assert {row["rule"]: row["result"] for row in measured["provisions"]}["eval.tech"] == "does not conform"


def test_people_settle_the_sample_and_only_the_report_changes(
    tmp_path: Path, corpus: Path, oracle: OracleRecipe
) -> None:
    asked = config(tmp_path, corpus)
    _, run = run_job(asked, oracle)
    before = digests(tmp_path / "run", without=("reports",))
    sheet = export(run)
    lines = [json.loads(line) for line in Path(sheet.path).read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 299 and all(line["text"] for line in lines)
    for i, line in enumerate(lines):
        line |= {"verdict": "qualified" if i else "unqualified", "risks": [] if i else ["A.2.e"]}
        line |= {"annotator": "ann", "reviewer": "rev"}
    filled = tmp_path / "filled.jsonl"
    filled.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")

    assert settle(run, filled) == {"drawn": 299, "settled": 299, "unqualified": 1, "open": 0}
    run_job(asked, oracle)

    manual = report_of(run)["manual"]
    assert (manual["qualified"]["numerator"], manual["qualified"]["denominator"]) == (298, 299)
    assert manual["people"] == 2 and manual["conforms"] is True
    assert digests(tmp_path / "run", without=("reports",)) == before


def test_a_sheet_is_refused_with_all_its_faults(tmp_path: Path, corpus: Path, oracle: OracleRecipe) -> None:
    _, run = run_job(config(tmp_path, corpus), oracle)
    lines = [json.loads(line) for line in Path(export(run).path).read_text(encoding="utf-8").splitlines()][:4]
    lines[0] |= {"verdict": "fine", "annotator": "a", "reviewer": "b"}
    lines[1] |= {"verdict": "qualified", "annotator": "a", "reviewer": "a"}
    lines[2] |= {"verdict": "unqualified", "annotator": "a", "reviewer": "b"}
    lines[3] |= {"verdict": "qualified", "annotator": "a", "reviewer": "b", "row": 999_999}
    filled = tmp_path / "filled.jsonl"
    filled.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")

    with pytest.raises(UsageError) as refused:
        settle(run, filled)

    said = str(refused.value)
    assert all(
        part in said for part in ("'fine'", "annotator and reviewer of one", "at least one risk", "was not drawn")
    )
    assert not run.folder.labels.exists()


def test_settled_verdicts_of_earlier_runs_override_the_stages(
    tmp_path: Path, corpus: Path, oracle: OracleRecipe
) -> None:
    labels = tmp_path / "labels.parquet"
    settled = [("forum-000005", "qualified", []), ("forum-000006", "unqualified", ["A.4.f"])]
    rows = [dict(zip(("id", "verdict", "risks"), one, strict=True)) for one in settled]
    pq.write_table(pa.Table.from_pylist(rows), labels)

    _, run = run_job(config(tmp_path, corpus, labels=[str(labels)]), oracle)

    with open_run(Setup.of(config(tmp_path, corpus, labels=[str(labels)]), stages=(oracle,)), write=False) as looking:
        first, second = (
            trace(looking, id).summary["documents"][0]["verdict"] for id in ("forum-000005", "forum-000006")
        )
    assert (first["status"], first["by"]) == ("ok", ["person"])
    assert (second["status"], second["risks"]) == ("unqualified", ["A.4.f"])


def test_a_document_is_traced_from_findings_to_sample(tmp_path: Path, corpus: Path, oracle: OracleRecipe) -> None:
    _, run = run_job(config(tmp_path, corpus), oracle)

    [spam] = trace(run, "spam-000000").summary["documents"]
    [fine] = trace(run, "forum-000001").summary["documents"]

    assert spam["stages"]["oracle"]["found"] and spam["verdict"]["illegal"]
    assert (spam["fate"], spam["source_decision"]["decision"]) == ("removed_document", "exclude")
    assert (fine["fate"], "manual" in fine["samples"]) == ("clean", True)
    with pytest.raises(UsageError, match="no judged document has the id"):
        trace(run, "nobody")


def test_nothing_of_a_text_stands_in_what_a_run_writes_outside_the_restricted_folder(
    tmp_path: Path, oracle: OracleRecipe
) -> None:
    rows = documents("forum", 40)
    for row in rows:
        row["text"] = f"canary-4711 {row['text']}"
    _, run = run_job(config(tmp_path, write_shards(tmp_path / "secret", rows)), oracle)

    for path in (tmp_path / "run").rglob("*"):
        if path.is_file() and "clean" not in path.parts:
            assert b"canary-4711" not in path.read_bytes()
            if path.suffix == ".parquet":
                assert "canary-4711" not in str(pq.read_table(path).to_pydict())


def test_a_changed_threshold_scans_nothing_and_loads_no_model(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = Path(__file__).parents[1] / "corpus_guard" / "classifiers" / "models" / "ngram-screen"
    model = tmp_path / "screen"
    shutil.copytree(shipped, model)
    _, first = run_job(config(tmp_path, corpus, classifiers=[{"model": str(model)}]))
    before = set((tmp_path / "store").rglob("*"))
    card = model / "corpus_guard.yaml"
    lower = re.sub(r"upper: 0\.\d+", "upper: 0.0001", card.read_text(encoding="utf-8"))
    card.write_text(re.sub(r"lower: 0\.\d+", "lower: 0.0001", lower), encoding="utf-8")
    monkeypatch.setattr(NgramRecipe, "build", lambda recipe: pytest.fail("a model was loaded"))

    _, second = run_job(config(tmp_path, corpus, classifiers=[{"model": str(model)}], run=str(tmp_path / "second")))

    assert set((tmp_path / "store").rglob("*")) == before
    counts = [json.loads(run.folder.accounting.read_bytes())["documents"]["clean"] for run in (first, second)]
    assert counts[1] < counts[0] == 360


def test_a_spot_check_with_an_evaluation_reports_the_evaluation(
    tmp_path: Path, corpus: Path, oracle: OracleRecipe
) -> None:
    none = OracleRecipe(str(write_truth(tmp_path / "none.csv", {"nobody": "A.1.a"})))
    setup = Setup.of(config(tmp_path, corpus), job="spot-check", stages=(oracle,), evaluation=(none,))

    with open_run(setup) as run:
        spot_check(run)

    rate = report_of(run)["technical"]["evaluation"]
    assert (rate["numerator"], rate["denominator"]) == (36, 36)


def test_drawing_again_needs_a_reason_that_stays_and_voids_the_old_sheet(tmp_path: Path, oracle: OracleRecipe) -> None:
    corpus = write_shards(tmp_path / "large", documents("forum", 5000))
    asked = config(tmp_path, corpus)
    _, run = run_job(asked, oracle)
    first = pq.read_table(run.folder.manual_sample.path)
    lines = [json.loads(line) for line in Path(export(run).path).read_text(encoding="utf-8").splitlines()]
    settled = [json.dumps(line | {"verdict": "qualified", "annotator": "a", "reviewer": "b"}) for line in lines]
    (tmp_path / "filled.jsonl").write_text("\n".join(settled), encoding="utf-8")
    settle(run, tmp_path / "filled.jsonl")

    _, run = run_job(asked, oracle, job=lambda run: filter_corpus(run, redraw="reviewers were not qualified"))

    second = pq.read_table(run.folder.manual_sample.path)
    assert second.num_rows == 4000 and set(first["id"].to_pylist()) != set(second["id"].to_pylist())
    manual = report_of(run)["manual"]
    assert [one["reason"] for one in manual["attempts"]] == ["first draw", "reviewers were not qualified"]
    assert 0 < manual["read"] < 4000 and manual["qualified"] is None
