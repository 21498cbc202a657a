"""Long proofs: memory against a giant row group, and Ray against the local executor, byte for byte."""

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpus_guard.demo import forbidden_phrases
from corpus_guard.executors.ray import RayExecutor
from corpus_guard.steps import filter_corpus
from corpus_guard.steps.retry import forget_failures
from tests.corpora import config, digests, documents, run_job, write_shards, write_truth
from tests.driving import environment, write_config
from tests.misfits import MisfitRecipe
from tests.oracle import OracleRecipe

pytestmark = pytest.mark.drill

MEASURED = """
import sys
from corpus_guard.cli import main
try:
    main()
finally:  # of this process alone; getrusage would count what its parent had before exec
    [line] = [line for line in open('/proc/self/status') if line.startswith('VmHWM')]
    print(line.split()[1], file=sys.stderr)
"""


def peak(config_file: Path, verb: str = "run") -> int:
    """Peak resident memory of the command in bytes; it must end well."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, verb, str(config_file), "--quiet"],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stderr.split()[-1]) * 1024


def giant(path: Path, megabytes: int) -> Path:
    """One shard with one row group of *megabytes* of different texts, some with a block entry."""
    chance = random.Random(7)
    phrase = forbidden_phrases("block")[0]
    words = [chance.choice("天地玄黄宇宙洪荒日月盈昃辰宿列张") * chance.randrange(1, 4) for _ in range(5000)]
    texts, size = [], 0
    while size < megabytes * 1_000_000:
        text = "".join(chance.choices(words, k=300)) + f" {len(texts)}"
        if len(texts) % 50 == 0:
            text += f"。{phrase}。"
        texts.append(text)
        size += len(text.encode())
    n = len(texts)
    table = pa.table(
        {"id": [f"d{i}" for i in range(n)], "text": pa.array(texts, pa.large_string()), "source": ["s"] * n}
    )
    path.parent.mkdir(parents=True)
    pq.write_table(table, path, row_group_size=n, use_dictionary=False, compression="zstd")
    return path.parent


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_memory_is_bounded_by_the_slice_not_by_the_row_group(
    tmp_path: Path, record_property: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    slice_bytes = 16 * 2**20
    data = giant(tmp_path / "data" / "x.parquet", 400)
    group = pq.read_metadata(data / "x.parquet").row_group(0)
    small = write_shards(tmp_path / "small", documents("a", 100))
    executor = {"executor": {"workers": 1, "slice_bytes": slice_bytes}}

    base = peak(write_config(tmp_path / "base", small, **executor))
    scan = peak(write_config(tmp_path / "giant", data, **executor), "scan")
    whole = peak(write_config(tmp_path / "giant", data, **executor))

    mib = {name: round(value / 2**20) for name, value in (("base", base), ("scan", scan), ("run", whole))}
    with capsys.disabled():
        print(f"\nrow group of {group.total_byte_size / 2**20:.0f} MiB, slices of 16 MiB, peak RSS in MiB: {mib}")
    for name, value in mib.items():
        record_property(f"peak_rss_mib_{name}", value)
    assert group.total_byte_size > 390_000_000
    assert scan - base < 8 * slice_bytes
    assert whole - base < 2 * 256 * 2**20  # a writer gathers row groups of 128 MiB, and copies one while it encodes it


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("corpus")
    rows = [row for name in ("a", "b", "c") for row in documents(name, 400)]
    phrase = forbidden_phrases("block")[0]
    for i, row in enumerate(rows):
        if i % 90 == 0:
            row["text"] = f"{row['text']}{phrase}。"
        if i % 101 == 0:
            row["text"] = None
    truth = write_truth(folder / "truth.csv", {f"b-{i:06d}": "A.1.d" for i in range(21)})
    return write_shards(folder / "data", rows, shards=5, group=40), truth


KEYS: dict[str, Any] = {
    "keywords": {"library": "starter", "engine": "pyahocorasick"},
    "evaluation": {"library": "starter", "engine": "pyahocorasick"},
}
UNITS: dict[str, Any] = {"unit_bytes": 2048, "slice_bytes": 1024}


def stages(truth: Path, device: str) -> tuple[Any, ...]:
    from corpus_guard.keywords.stage import KeywordRecipe

    return KeywordRecipe("starter", "pyahocorasick"), OracleRecipe(str(truth), device=device)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory, corpus: tuple[Path, Path]) -> dict[str, dict[str, str]]:
    """What the local executor leaves, where the oracle is for CPUs and where it is for GPUs (not looked at twice)."""
    folder = tmp_path_factory.mktemp("local")
    data, truth = corpus
    for device in ("cpu", "gpu"):
        run_job(config(folder / device, data, executor=UNITS, **KEYS), *stages(truth, device))
    return {device: digests(folder / device) for device in ("cpu", "gpu")}


@pytest.mark.parametrize(("workers", "device"), [(1, "cpu"), (2, "cpu"), (1, "gpu"), (2, "gpu")])
def test_ray_leaves_the_files_that_the_local_executor_leaves(
    tmp_path: Path,
    corpus: tuple[Path, Path],
    local: dict[str, dict[str, str]],
    ray_cluster: Any,
    workers: int,
    device: str,
) -> None:
    data, truth = corpus
    pools = {"cpu": {"workers": workers}, "gpu": {"workers": workers, "num_gpus": 0}}
    asked = config(tmp_path, data, executor={"kind": "ray", **UNITS, **pools}, **KEYS)

    result, _ = run_job(asked, *stages(truth, device))

    assert result.exit_code(gate=False) == 0
    found, wanted = digests(tmp_path), local[device]
    assert {name for name in found | wanted if found.get(name) != wanted.get(name)} == set()


def test_on_ray_a_unit_that_kills_its_actor_is_named_and_can_be_tried_again(
    tmp_path: Path, corpus: tuple[Path, Path], ray_cluster: Any
) -> None:
    data, truth = corpus
    cause = tmp_path / "cause"
    recipes = (*stages(truth, "cpu"), MisfitRecipe(str(cause), "a-000042"))
    asked = config(tmp_path, data, executor=UNITS, **KEYS)
    cause.write_text("kill")
    executor = RayExecutor(cpu_workers=2, attempts=2)

    result, run = run_job(asked, *recipes, executor=executor)

    assert result.exit_code(gate=False) == 5
    [record] = [json.loads(path.read_bytes()) for path in Path(run.folder.all_failed.path).rglob("*.json")]
    assert (record["attempts"], record["reason"]) == (2, "killed")
    assert json.loads(run.folder.accounting.read_bytes())["balanced"]

    cause.unlink()
    again, run = run_job(
        asked, *recipes, executor=executor, job=lambda run: filter_corpus(run, again=bool(forget_failures(run)))
    )
    assert again.exit_code(gate=False) == 0
    run_job(config(tmp_path / "straight", data, executor=UNITS, **KEYS), *recipes)
    later = ("samples", "draws.jsonl", "integrity", "reports", "check", "technical")
    for name in ("run", "run.restricted", "store/findings"):
        assert digests(tmp_path / name, without=later) == digests(tmp_path / "straight" / name, without=later)
