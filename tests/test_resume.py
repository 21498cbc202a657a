"""A driver killed at any moment: the same command goes on, and leaves what an undisturbed run leaves."""

import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from corpus_guard.demo import forbidden_phrases
from tests.corpora import digests, documents, write_shards
from tests.driving import files, kill_when, run_command, write_config

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


def undisturbed(folder: Path, shards: Path) -> dict[str, str]:
    config = write_config(folder, shards, executor={"workers": 1, "unit_bytes": "1KiB"}, **KEYS)
    done = run_command("run", config, "--quiet")
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


def kill_and_go_on(folder: Path, shards: Path, workers: int, moments: list[int]) -> list[bool]:
    """Kill the driver at these numbers of files, one start after another, then let it end; whether each kill hit."""
    config = write_config(folder, shards, executor={"workers": workers, "unit_bytes": "1KiB"}, **KEYS)
    hit = []
    for moment in moments:
        before = store_files(folder / "store")
        hit.append(kill_when(lambda m=moment: files(folder) > m, "run", config, "--quiet"))
        after = store_files(folder / "store")
        assert before.items() <= after.items(), "a unit that was done was done again"
    before = store_files(folder / "store")
    done = run_command("run", config, "--quiet")
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


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_killed_three_times_ends_like_one_that_was_not(
    tmp_path: Path, expected: dict[str, str], shards: Path, workers: int
) -> None:
    chance = random.Random(workers)
    all_files = len(expected)
    moments = [chance.randrange(all_files * third // 3, all_files * (third + 1) // 3) for third in range(3)]

    hit = kill_and_go_on(tmp_path, shards, workers, moments)

    assert all(hit)
    compare(tmp_path, expected)


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
