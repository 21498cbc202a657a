"""A driver killed at any moment: the same command goes on, and leaves what an undisturbed run leaves."""

import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpus_guard.demo import forbidden_phrases
from corpus_guard.steps import filter_corpus
from tests.corpora import config, digests, documents, run_job, write_shards, write_truth
from tests.driving import files, kill_when, run_command, write_config
from tests.oracle import OracleRecipe

UNITS = 60


def corpus(folder: Path) -> Path:
    """Six shards of ten row groups; one source over the limit, one below it, blanks."""
    rows = documents("quiet", 260) + documents("loud", 60) + documents("some", 280)
    phrase = forbidden_phrases("block")[0]
    for i, row in enumerate(rows):
        if row["source"] == "loud" and i % 4 == 0 or row["source"] == "some" and i % 40 == 0:
            row["text"] = f"{row['text']}。{phrase}。"
        if i % 97 == 5:
            row["text"] = None
    return write_shards(folder, rows, shards=6, group=10)


KEYS = {"evaluation": {"library": "starter", "engine": "pyahocorasick"}}


def undisturbed(folder: Path, shards: Path, verb: str = "run") -> dict[str, str]:
    config = write_config(folder, shards, executor={"workers": 1, "unit_bytes": "1KiB"}, **KEYS)
    done = run_command(verb, config, "--quiet")
    assert done.returncode == 0, done.stderr
    return digests(folder)


def store_files(folder: Path) -> dict[str, tuple[int, int]]:
    """Finished files of the store with their inode and time of change: a file written again has others."""
    return {
        str(path.relative_to(folder)): (status.st_ino, status.st_mtime_ns)
        for path in folder.rglob("*.parquet")
        if not path.name.startswith(".") and (status := path.stat())
    }


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpus(tmp_path_factory.mktemp("corpus") / "data")


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, shards: Path) -> dict[str, str]:
    return undisturbed(tmp_path_factory.mktemp("undisturbed"), shards)


def kill_and_go_on(folder: Path, shards: Path, workers: int, moments: list[int], verb: str = "run") -> list[bool]:
    """Kill the driver at these numbers of files, one start after another, then let it end; whether each kill hit."""
    config = write_config(folder, shards, executor={"workers": workers, "unit_bytes": "1KiB"}, **KEYS)
    hit = []
    for moment in moments:
        before = store_files(folder / "store")
        hit.append(kill_when(lambda m=moment: files(folder) > m, verb, config, "--quiet"))
        after = store_files(folder / "store")
        assert before.items() <= after.items(), "a unit that was done was done again"
    before = store_files(folder / "store")
    done = run_command(verb, config, "--quiet")
    assert done.returncode == 0, done.stderr
    assert before.items() <= store_files(folder / "store").items(), "a unit that was done was done again"
    return hit


def compare(folder: Path, expected: dict[str, str]) -> None:
    # Nobody lists what killed writers left in the store, and nobody may clear it up: other runs write there.
    found = {
        name: digest
        for name, digest in digests(folder).items()
        if not (name.startswith("store/") and "/.tmp-" in name) and name != "config.yaml"
    }
    wanted = {name: digest for name, digest in expected.items() if name != "config.yaml"}
    assert sorted(found) == sorted(wanted)
    assert [name for name in wanted if found[name] != wanted[name]] == []


def test_the_corpus_has_the_units_it_should(expected: dict[str, str], shards: Path) -> None:
    assert sum(pq.ParquetFile(path).num_row_groups for path in shards.iterdir()) == UNITS
    assert sum(name.startswith("store/findings/keywords-") for name in expected) == UNITS


@pytest.mark.parametrize(("workers", "kills"), [(1, 3), (2, 1)])
def test_a_killed_run_ends_like_one_that_was_not(
    tmp_path: Path, expected: dict[str, str], shards: Path, workers: int, kills: int
) -> None:
    chance = random.Random(workers)
    moments = [
        chance.randrange(len(expected) * part // kills, len(expected) * (part + 1) // kills) for part in range(kills)
    ]

    hit = kill_and_go_on(tmp_path, shards, workers, moments)

    assert all(hit)
    compare(tmp_path, expected)


def test_a_draw_stopped_between_its_two_files_is_not_made_a_second_time(tmp_path: Path) -> None:
    asked = config(tmp_path, write_shards(tmp_path / "data", documents("a", 60)))
    oracle = OracleRecipe(str(write_truth(tmp_path / "truth.csv", {})))
    run_job(asked, oracle, job=lambda run: filter_corpus(run, "draw"))
    before = digests(tmp_path / "run")
    (tmp_path / "run" / "draws.jsonl").unlink()

    run_job(asked, oracle, job=lambda run: filter_corpus(run, "draw"))

    assert digests(tmp_path / "run") == before


def test_other_units_than_before_are_judged_and_written_again(tmp_path: Path) -> None:
    rows = documents("a", 60) + documents("b", 40)
    rows[3]["text"] = None
    shards = write_shards(tmp_path / "data", rows, group=10)
    oracle = OracleRecipe(str(write_truth(tmp_path / "truth.csv", {"a-000007": "A.1.h"})))
    small, large = ({"unit_bytes": size} for size in ("1KiB", "1MiB"))
    run_job(config(tmp_path / "straight", shards, executor=large), oracle)
    run_job(config(tmp_path / "turned", shards, executor=small), oracle, job=lambda run: filter_corpus(run, "apply"))

    run_job(config(tmp_path / "turned", shards, executor=large), oracle)

    assert digests(tmp_path / "turned" / "run") == digests(tmp_path / "straight" / "run")


def test_shards_that_changed_or_went_leave_nothing_in_an_unfinished_run(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "data", documents("a", 60) + documents("b", 40), shards=4, group=10)
    truth = {f"a-{i:06d}": "A.1.h" for i in range(60)}
    oracle = OracleRecipe(str(write_truth(tmp_path / "truth.csv", truth)))
    asked = config(tmp_path / "turned", shards)
    run_job(asked, oracle, job=lambda run: filter_corpus(run, "draw"))
    (shards / "part-001.parquet").unlink()
    (shards / "part-003.parquet").write_text("no Parquet any more")
    pq.write_table(pa.Table.from_pylist(documents("c", 25)), shards / "part-002.parquet")

    turned, run = run_job(asked, oracle)

    straight, _ = run_job(config(tmp_path / "straight", shards), oracle)
    assert turned.summary["documents"] == straight.summary["documents"]
    for folder in ("run", "run.restricted"):
        left, right = ({*digests(tmp_path / name / folder)} for name in ("turned", "straight"))
        assert left == right
    without = ("samples", "draws.jsonl", "reports", "integrity.json")  # the draw is the second of its run
    assert digests(tmp_path / "turned" / "run", without=without) == digests(
        tmp_path / "straight" / "run", without=without
    )
    assert [line["attempt"] for line in map(json.loads, run.folder.draws.read_bytes().splitlines())] == [1, 1, 1, 1]


@pytest.mark.drill
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("seed", range(12))
def test_a_run_killed_anywhere_ends_like_one_that_was_not(
    tmp_path: Path, expected: dict[str, str], shards: Path, workers: int, seed: int
) -> None:
    chance = random.Random(1000 + 10 * seed + workers)
    moments = sorted(chance.randrange(len(expected)) for _ in range(4))

    kill_and_go_on(tmp_path, shards, workers, moments)

    compare(tmp_path, expected)


@pytest.mark.drill
@pytest.mark.parametrize("verb", ["spot-check", "sources assess"])
def test_the_other_jobs_killed_anywhere_end_like_those_that_were_not(tmp_path: Path, shards: Path, verb: str) -> None:
    wanted = undisturbed(tmp_path / "undisturbed", shards, verb)
    for seed in range(5):
        chance = random.Random(seed)
        moments = sorted(chance.randrange(len(wanted)) for _ in range(3))
        kill_and_go_on(tmp_path / str(seed), shards, 1, moments, verb)
        compare(tmp_path / str(seed), wanted)
