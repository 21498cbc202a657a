"""The doctor finds what would stop a run, before it costs a night."""

import importlib.util
import os
import shutil

import pytest

from corpus_guard import doctor
from corpus_guard.doctor import examine
from corpus_guard.steps import filter_corpus
from corpus_guard.steps.setup import Setup, open_run
from tests.corpora import config, documents, write_shards
from tests.driving import write_config


@pytest.fixture
def shards(tmp_path):
    return write_shards(tmp_path / "data", documents("a", 50))


def wrong(path):
    return {check.name: check.text for check in examine(path) if check.bad}


def test_a_machine_that_can_run_has_nothing_wrong(tmp_path, shards):
    found = examine(write_config(tmp_path, shards))

    assert [check for check in found if check.bad] == []
    lines = {check.name: check.line for check in found}
    assert lines["corpus"].startswith("ok    corpus         3 shards, ")
    assert {"run", "store", "restricted", "policy", "stage"} <= lines.keys()


def test_without_a_config_only_the_machine_is_looked_at():
    assert {check.name for check in examine(None)} >= {"python", "pyarrow", "keywords", "gpu", "clock"}


def test_every_fault_of_a_config_is_a_line_of_its_own(tmp_path, shards):
    path = write_config(tmp_path, shards, polcy="x", executor={"workers": 0})

    found = [check for check in examine(path) if check.bad]

    assert len(found) == 2
    assert all(check.name == "config" for check in found)


@pytest.mark.parametrize(
    ("keys", "where", "says"),
    [
        ({"policy": "tc260-004"}, "config", "tc260-003"),
        ({"keywords": {"library": "stater"}}, "config", "starter"),
        ({"classifiers": [{"model": "ngram-scren"}]}, "config", "ngram-screen"),
        ({"corpus": {"shards": "nowhere/*.parquet"}}, "corpus", "nowhere"),
        ({"run": "config.yaml/run"}, "run", "cannot be written"),
    ],
)
def test_what_a_run_would_stumble_over_is_told(tmp_path, shards, keys, where, says):
    assert says in wrong(write_config(tmp_path, shards, **keys))[where]


def test_a_column_the_corpus_has_not_is_told(tmp_path, shards):
    path = write_config(tmp_path, shards, corpus={"shards": str(shards), "columns": {"text": "body"}})

    assert "body" in wrong(path)["corpus"]


def test_a_corpus_that_begins_with_a_damaged_shard_is_told(tmp_path, shards):
    (shards / "part-000.parquet").write_bytes(b"PAR1 nothing of it")

    assert "part-000.parquet: cannot be read" in wrong(write_config(tmp_path, shards))["corpus"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_of_somebody_else_is_told(tmp_path, shards):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)

    assert "cannot be written" in wrong(write_config(tmp_path, shards, store=str(closed / "store")))["store"]


def test_a_file_where_a_folder_should_be_is_told(tmp_path, shards):
    (tmp_path / "store").write_text("")

    assert "cannot be written" in wrong(write_config(tmp_path, shards))["store"]


def test_a_run_of_another_decision_is_told_and_the_same_one_is_fine(tmp_path, shards):
    path = write_config(tmp_path, shards)
    asked = config(tmp_path, shards, keywords={"library": "starter", "engine": "pyahocorasick"})
    with open_run(Setup.of(asked)) as run:
        filter_corpus(run, until="scan")

    assert wrong(path) == {}
    assert "other policy" in wrong(write_config(tmp_path, shards, policy="strict"))["run"]


def test_little_room_is_worth_knowing_and_stops_nothing(tmp_path, shards, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))

    found = {check.name: check for check in examine(write_config(tmp_path, shards))}

    assert (found["run"].verdict, "little" in found["run"].text) == ("note", True)


def test_a_ray_cluster_without_tokens_is_worth_knowing(tmp_path, shards, monkeypatch):
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    path = write_config(tmp_path, shards, executor={"kind": "ray"})
    if importlib.util.find_spec("ray") is None:
        assert "corpus-guard[ray]" in wrong(path)["ray"]
        return

    assert {c.name: c.verdict for c in examine(path)}["ray"] == "note"
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert {c.name: c.verdict for c in examine(path)}["ray"] == "ok"


def test_only_the_first_shards_are_opened(tmp_path):
    shards = write_shards(tmp_path / "data", documents("a", 50), shards=12)
    (shards / "part-011.parquet").write_bytes(b"")

    assert wrong(write_config(tmp_path, shards)) == {}
    assert doctor.LOOKED_INTO < 12
