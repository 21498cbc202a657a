"""Workers that die, hang and raise, and shards that are damaged, go or change: named, counted, and the rest goes on."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpus_guard.errors import UsageError
from corpus_guard.executors.local import LocalExecutor
from corpus_guard.steps import Result, filter_corpus
from corpus_guard.steps.retry import forget_failures
from corpus_guard.steps.setup import Run
from tests.corpora import config, digests, documents, run_job, write_shards, write_truth
from tests.misfits import MisfitRecipe
from tests.oracle import OracleRecipe

VICTIM = "a-000042"

LATER = ("samples", "draws.jsonl", "integrity.json", "reports")
"""What rests on the draw: after a retry it is the second draw of its run, under another key, and says so."""


def accounting(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run" / "accounting.json").read_bytes())


def records(folder: Path) -> dict[str, dict[str, Any]]:
    failed = folder / "run" / "failed"
    return {str(path.relative_to(failed)): json.loads(path.read_bytes()) for path in failed.rglob("*.json")}


def report(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run" / "reports" / "report.json").read_bytes())


def ids(folder: Path) -> list[str]:
    """Ids of all documents below *folder*, in no order that matters."""
    return sorted(id for path in folder.rglob("*.parquet") for id in pq.read_table(path).column("id").to_pylist())


def drawn(folder: Path) -> set[str]:
    samples = folder / "run" / "samples"
    return {*ids(samples / "technical"), *pq.read_table(samples / "manual.parquet").column("id").to_pylist()}


class Scanning(LocalExecutor):
    """Processes of its own for the scan, where stages go wrong; the cheap steps stay in this one."""

    def __init__(self, workers: int, timeout: float | None) -> None:
        super().__init__(attempts=2)
        self.scan = LocalExecutor(workers, timeout, attempts=2)

    def run(self, job: Any, *arguments: Any) -> Any:
        return self.scan.run(job, *arguments) if job.name == "scan" else super().run(job, *arguments)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = documents("a", 100) + documents("b", 20)
    return write_shards(tmp_path_factory.mktemp("corpus"), rows, shards=2, group=10)


class Job:
    """A corpus of 120 documents in 12 units, an oracle, and a stage that goes wrong as the file ``cause`` says."""

    def __init__(self, folder: Path, data: Path, device: Literal["cpu", "gpu"] = "cpu") -> None:
        self.folder, self.data, self.cause = folder, data, folder / "cause"
        risky = {"a-000007": "A.1.h", **{f"b-{i:06d}": "A.2.b" for i in range(5)}}
        truth = write_truth(folder / "truth.csv", risky)
        self.stages = (OracleRecipe(str(truth)), MisfitRecipe(str(self.cause), VICTIM, device=device))

    def run(self, workers: int = 1, timeout: float | None = None, job: Any = filter_corpus) -> Result:
        asked = config(self.folder, self.data, executor={"unit_bytes": "1KiB"})
        return run_job(asked, *self.stages, job=job, executor=Scanning(workers, timeout))[0]

    def retry(self) -> Result:
        def again(run: Run) -> Result:
            return filter_corpus(run, again=bool(forget_failures(run)))

        return self.run(job=again)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """What the job leaves when nothing goes wrong."""
    job = Job(tmp_path_factory.mktemp("sound"), data)
    assert job.run().exit_code(gate=False) == 0
    return job.folder


def same(folder: Path, sound: Path, without: tuple[str, ...] = ()) -> None:
    for name in ("run", "run.restricted", "store"):
        left, right = (digests(where / name, without=without) for where in (folder, sound))
        assert {name for name in left | right if left.get(name) != right.get(name)} == set()


def test_a_worker_killed_once_loses_nothing(tmp_path: Path, data: Path, sound: Path) -> None:
    job = Job(tmp_path, data)
    job.cause.write_text("kill once")

    result = job.run(workers=2)

    assert result.exit_code(gate=False) == 0 and not job.cause.exists()
    same(job.folder, sound)


@pytest.mark.parametrize(
    ("deed", "workers", "reason", "says"),
    [
        ("kill", 2, "killed", "SIGKILL"),
        ("hang", 2, "timeout", "not done after"),
        ("raise", 1, "error", "misfit does not like this document"),
    ],
)
def test_a_unit_that_always_fails_is_named_and_counted_and_can_be_tried_again(
    tmp_path: Path, data: Path, sound: Path, deed: str, workers: int, reason: str, says: str
) -> None:
    job = Job(tmp_path, data)
    job.cause.write_text(deed)

    result = job.run(workers, timeout=4 if deed == "hang" else None)

    assert result.exit_code(gate=False) == 5
    [(name, record)] = records(job.folder).items()
    assert name == "part-000/000000000020-000000000030.unit.json"
    assert (record["rows"], record["attempts"], record["reason"]) == (10, 2, reason) and says in record["error"]
    counts = accounting(job.folder)
    assert counts["balanced"] and counts["documents"]["read"] == 110 and counts["shards"]["failed_rows"] == 10
    found = report(job.folder)["corpus"]
    assert (found["rows"], found["documents"], found["failed_rows"]) == (120, 110, 10)
    assert [one["rows"] for one in found["failed"]] == [10]
    kept = ids(job.folder / "run" / "clean") + ids(job.folder / "run.restricted")
    assert len(kept) == 110 and VICTIM not in kept

    before = digests(job.folder / "run")
    assert job.run().exit_code(gate=False) == 5  # the same command tells again what came of it
    assert digests(job.folder / "run") == before

    job.cause.unlink()
    assert job.retry().exit_code(gate=False) == 0
    assert not records(job.folder)
    same(job.folder, sound, LATER)
    draws = [json.loads(line) for line in (job.folder / "run" / "draws.jsonl").read_bytes().splitlines()]
    assert [(draw["purpose"], draw["attempt"]) for draw in draws] == [
        ("manual", 1),
        ("technical", 1),
        ("manual", 2),
        ("technical", 2),
    ]
    again, first = report(job.folder), report(sound)
    assert [one["number"] for one in again["technical"]["attempts"]] == [1, 2]
    for one in (again, first):
        one["technical"]["attempts"], one["manual"]["attempts"] = [], []
        one["provisions"], one["technical"]["integrity"] = [], None  # they count attempts, and look again at the sample
    assert again == first


def test_a_retry_that_was_stopped_is_not_taken_for_a_finished_run(tmp_path: Path, data: Path, sound: Path) -> None:
    job = Job(tmp_path, data)
    job.cause.write_text("raise")
    job.run()
    job.cause.unlink()

    def stopped(run: Run) -> Result:
        forget_failures(run)
        return filter_corpus(run, "judge", again=True)

    job.run(job=stopped)

    assert job.run().exit_code(gate=False) == 0
    same(job.folder, sound, LATER)


def test_a_unit_whose_stage_fails_in_the_second_pool_is_never_clean(tmp_path: Path, data: Path) -> None:
    job = Job(tmp_path, data, device="gpu")
    job.cause.write_text("raise")

    assert job.run().exit_code(gate=False) == 5

    assert accounting(job.folder)["balanced"]
    assert len(ids(job.folder / "run" / "clean")) < 110 and VICTIM not in ids(job.folder / "run" / "clean")


def spoil(path: Path, group: int, column: str = "text") -> None:
    """Turn over 40 bytes in the middle of a data page."""
    chunk = next(
        part
        for part in (pq.read_metadata(path).row_group(group).column(i) for i in range(99))
        if part.path_in_schema == column
    )
    data = bytearray(path.read_bytes())
    start = chunk.data_page_offset + (chunk.total_compressed_size - (chunk.data_page_offset - chunk.file_offset)) // 2
    for at in range(start, start + 40):
        data[at] ^= 0xFF
    path.write_bytes(data)


def damaged_corpus(folder: Path) -> Path:
    """Two shards of five groups of 40; texts without dictionaries, pages with checksums."""
    folder.mkdir(parents=True)
    rows = [row | {"extra": os.urandom(8).hex() * 8} for row in documents("a", 400)]
    for shard in range(2):
        table = pa.Table.from_pylist(rows[shard::2])
        pq.write_table(
            table,
            folder / f"part-{shard}.parquet",
            row_group_size=40,
            use_dictionary=False,
            write_page_checksum=True,
            compression="none",
        )
    return folder


@pytest.mark.parametrize("column", ["text", "extra"])
def test_a_damaged_row_group_costs_its_rows_and_nothing_else(tmp_path: Path, column: str) -> None:
    """In the text it is found by the scan; in a column that no stage reads, when the shard is written."""
    data = damaged_corpus(tmp_path / "data")
    whole = (data / "part-0.parquet").read_bytes()
    spoil(data / "part-0.parquet", 2, column)
    oracle = OracleRecipe(str(write_truth(tmp_path / "truth.csv", {"a-000007": "A.1.h"})))
    asked = config(tmp_path, data, executor={"slice_bytes": 2048})

    result, _ = run_job(asked, oracle)

    assert result.exit_code(gate=False) == 5
    counts, found = accounting(tmp_path), report(tmp_path)["corpus"]
    lost = counts["shards"]["failed_rows"]
    assert counts["balanced"] and 0 < lost <= 40 and counts["documents"]["read"] == 400 - lost
    assert (found["failed_rows"], found["documents"]) == (lost, 400 - lost)
    assert sum(one["rows"] for one in found["failed"]) == lost
    kept = ids(tmp_path / "run" / "clean")
    assert len(kept) + len(ids(tmp_path / "run.restricted")) == 400 - lost
    assert drawn(tmp_path) <= {*kept}
    [record] = records(tmp_path).values()
    assert record["rows"] == lost and record["shard_name"] == "part-0" and record["error"]

    (data / "part-0.parquet").write_bytes(whole)
    again, _ = run_job(asked, oracle, job=lambda run: filter_corpus(run, again=bool(forget_failures(run))))

    assert again.exit_code(gate=False) == 0 and not records(tmp_path)
    straight = config(tmp_path / "straight", data, executor={"slice_bytes": 2048})
    run_job(straight, oracle)
    for name in ("run", "run.restricted", "store"):
        assert digests(tmp_path / name, without=LATER) == digests(tmp_path / "straight" / name, without=LATER)


def test_files_that_are_no_shards_are_named_with_what_is_wrong(tmp_path: Path) -> None:
    data = write_shards(tmp_path / "data", documents("a", 90), shards=3)
    (data / "cut.parquet").write_bytes((data / "part-000.parquet").read_bytes()[:-40])
    (data / "nothing.parquet").write_bytes(b"")
    (data / "page.parquet").write_text("<html>404 not found</html>" * 9)
    (data / "dangling.parquet").symlink_to(data / "nowhere.parquet")
    (data / "a folder.parquet").mkdir()
    oracle = OracleRecipe(str(write_truth(tmp_path / "truth.csv", {})))

    result, _ = run_job(config(tmp_path, data), oracle)

    assert result.exit_code(gate=False) == 5
    named = {name: record["error"] for name, record in records(tmp_path).items()}
    assert sorted(named) == ["cut.json", "dangling.json", "nothing.json", "page.json"]
    assert "cut short" in named["cut.json"] and "0 bytes" in named["nothing.json"]
    assert "footer" in named["page.json"] and "no file" in named["dangling.json"]
    assert result.summary["documents"]["clean"] == 90 and result.summary["corpus"]["failed_shards"] == 4
    assert {one["shard"].rpartition("/")[2] for one in report(tmp_path)["corpus"]["failed"]} == {
        "cut.parquet",
        "dangling.parquet",
        "nothing.parquet",
        "page.parquet",
    }


def swap(path: Path) -> None:
    """Another shard of the same size in its place: other ids, everything else alike."""
    table = pq.read_table(path)
    table = table.set_column(0, "id", pa.array([f"x{id[1:]}" for id in table.column("id").to_pylist()]))
    size = path.stat().st_size
    path.unlink()
    pq.write_table(table, path, row_group_size=10)
    assert path.stat().st_size == size


class Meddling(LocalExecutor):
    """Does something to the corpus right before a job of that name is worked off."""

    def __init__(self, before: str, deed: Callable[[], object]) -> None:
        super().__init__()
        self.before, self.deed = before, deed

    def run(self, job: Any, *arguments: Any) -> Any:
        if job.name == self.before:
            self.deed()
        return super().run(job, *arguments)


@pytest.mark.parametrize("before", ["scan", "judge", "apply"])
@pytest.mark.parametrize("deed", ["goes", "changes"])
def test_a_shard_that_goes_or_changes_during_the_run_is_named_and_the_rest_goes_on(
    tmp_path: Path, before: str, deed: str
) -> None:
    data = write_shards(tmp_path / "data", documents("a", 90), shards=3, group=10)
    oracle = OracleRecipe(str(write_truth(tmp_path / "truth.csv", {})))
    victim = data / "part-001.parquet"
    executor = Meddling(before, victim.unlink if deed == "goes" else lambda: swap(victim))

    result, _ = run_job(config(tmp_path, data), oracle, executor=executor)

    assert result.exit_code(gate=False) == 5
    counts = accounting(tmp_path)
    assert counts["balanced"] and counts["shards"]["failed_rows"] == 30 and counts["documents"]["clean"] == 60
    found = records(tmp_path)
    assert sum(record["rows"] for record in found.values()) == 30
    says = "gone" if deed == "goes" else "not the file that was planned"
    assert all(name.startswith("part-001/") and says in record["error"] for name, record in found.items())
    assert sum(one["rows"] for one in report(tmp_path)["corpus"]["failed"]) == 30
    kept = ids(tmp_path / "run" / "clean")
    assert len(kept) == 60 and not any(id.startswith("x") for id in kept) and drawn(tmp_path) <= {*kept}

    if deed == "goes":  # a finished run does not take another corpus
        with pytest.raises(UsageError, match="another run name"):
            run_job(config(tmp_path, data), oracle)
