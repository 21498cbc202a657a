"""What cannot be done is one sentence with what to do, exit code 2, and nothing written is harmed."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpus_guard.cli import main
from corpus_guard.steps.setup import Setup, open_run
from tests.corpora import config as config_of
from tests.corpora import digests, documents, write_shards
from tests.driving import write_config

Say = Callable[..., tuple[int, str]]


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """Runs the command in this process; its exit code and what it says on stderr."""

    def run(*arguments: Any) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["corpus-guard", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        return int(left.value.code or 0), capsys.readouterr().err

    return run


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return write_shards(tmp_path / "data", documents("a", 30))


def refused(said: tuple[int, str], *words: str) -> None:
    code, text = said
    assert code == 2, text
    assert "Traceback" not in text and text.startswith("corpus-guard: ")
    sentence = text.removeprefix("corpus-guard: ").strip()
    assert sentence.endswith((".", "?", ")")), sentence
    assert all(word in sentence for word in words), sentence


@pytest.mark.parametrize(
    ("shards", "words"),
    [
        ("nowhere/*.parquet", ["nowhere", "corpus.shards"]),
        ("nowhere", ["nowhere", "corpus.shards"]),
        ("s4://bucket/x", ["s4://"]),
        ("memory://nothing/here", ["memory://nothing/here", "corpus.shards"]),
    ],
)
def test_a_corpus_that_is_not_there(tmp_path: Path, say: Say, shards: str, words: list[str]) -> None:
    refused(say("run", write_config(tmp_path, shards), "--quiet"), *words)


def test_shards_of_which_none_is_parquet(tmp_path: Path, say: Say) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x.parquet").write_text("<html>")
    refused(say("run", write_config(tmp_path, tmp_path / "data"), "--quiet"), "x.parquet", "corpus.shards")


def test_columns_that_no_shard_has(tmp_path: Path, say: Say, shards: Path) -> None:
    corpus = {"shards": str(shards), "columns": {"text": "content", "source": "site"}}
    refused(say("run", write_config(tmp_path, shards, corpus=corpus), "--quiet"), "'content'", "'site'", "'text'")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"polcy": "tc260-003"}, ["polcy", "policy"]),
        ({"policy": "tc260-004"}, ["tc260-004", "tc260-003"]),
        ({"classifiers": ["no-such-model"]}, ["no-such-model"]),
        ({"keywords": {"library": "no-such-library"}}, ["no-such-library", "starter"]),
        ({"restricted": "run/private"}, ["restricted", "run"]),
        ({"sources": {"blacklist": "no.jsonl"}}, ["no.jsonl"]),
        ({"sources": {"register": "no.csv"}}, ["no.csv"]),
        ({"labels": ["no.parquet"]}, ["no.parquet"]),
        ({"executor": {"workers": 0}}, ["executor.workers"]),
    ],
)
def test_a_config_that_cannot_be_used(
    tmp_path: Path, say: Say, shards: Path, keys: dict[str, Any], words: list[str]
) -> None:
    said = say("run", write_config(tmp_path, shards, **keys), "--quiet")
    refused(said, *words)
    assert not list(tmp_path.glob("run*"))


def test_a_config_file_that_is_not_there(tmp_path: Path, say: Say) -> None:
    refused(say("run", tmp_path / "no.yaml"), "no.yaml")


def test_a_policy_file_with_a_wrong_key(tmp_path: Path, say: Say, shards: Path) -> None:
    (tmp_path / "policy.yaml").write_text("id: mine\ntitle: Mine\nextends: tc260-003\nsorces: {}\n")
    refused(say("run", write_config(tmp_path, shards, policy="policy.yaml"), "--quiet"), "policy.yaml", "sorces")


@pytest.mark.parametrize("key", ["run", "restricted", "store"])
def test_a_folder_that_cannot_be_written(tmp_path: Path, say: Say, shards: Path, key: str) -> None:
    """This may be run by root, who may write everywhere but below a file."""
    (tmp_path / "file").write_text("in the way")
    refused(say("run", write_config(tmp_path, shards, **{key: "file/below"}), "--quiet"), "file/below")
    assert (tmp_path / "file").read_text() == "in the way"


def test_restricted_text_behind_a_link_into_the_run_folder(tmp_path: Path, say: Say, shards: Path) -> None:
    (tmp_path / "run" / "clean").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "run" / "clean")
    refused(say("run", write_config(tmp_path, shards, restricted="link/private"), "--quiet"), "restricted")


def test_a_run_folder_of_another_decision(tmp_path: Path, say: Say, shards: Path) -> None:
    assert say("run", write_config(tmp_path, shards), "--quiet")[0] == 0
    before = digests(tmp_path / "run")

    refused(
        say("run", write_config(tmp_path, shards, policy="strict"), "--quiet"), "another policy", "another run name"
    )
    refused(say("run", write_config(tmp_path, shards, keywords=None), "--quiet"), "another run name")

    assert digests(tmp_path / "run") == before


def test_a_run_folder_that_another_driver_holds(tmp_path: Path, say: Say, shards: Path) -> None:
    path = write_config(tmp_path, shards)
    with open_run(Setup.of(config_of(tmp_path, shards))):
        before = digests(tmp_path / "run")
        refused(say("run", path, "--quiet"), "in use by process", "another run name")
        assert digests(tmp_path / "run") == before
    assert json.loads((tmp_path / "run" / "run.json").read_text())["identity"]


def test_a_store_with_a_damaged_file(tmp_path: Path, say: Say, shards: Path) -> None:
    path = write_config(tmp_path, shards)
    assert say("scan", path, "--quiet")[0] == 0
    victim = next((tmp_path / "store" / "findings").rglob("*.parquet"))
    victim.write_bytes(victim.read_bytes()[:-9])

    code, text = say("run", path, "--quiet")

    assert code in (1, 2) and str(victim) in text and "scan again" in text and "Traceback" not in text
    victim.unlink()
    assert say("run", path, "--quiet")[0] == 0


def test_a_manifest_that_is_damaged(tmp_path: Path, say: Say, shards: Path) -> None:
    path = write_config(tmp_path, shards)
    assert say("scan", path, "--quiet")[0] == 0
    manifest = tmp_path / "run" / "manifest.parquet"
    manifest.write_bytes(b"PAR1")

    code, text = say("run", path, "--quiet")

    assert code in (1, 2) and "manifest.parquet" in text and "Traceback" not in text


def test_shards_that_differ_in_their_columns(tmp_path: Path, say: Say) -> None:
    data = write_shards(tmp_path / "data", documents("a", 9))
    pq.write_table(pa.table({"id": ["1"], "content": ["x"]}), data / "other.parquet")
    refused(say("run", write_config(tmp_path, data), "--quiet"), "other.parquet", "'text'")
