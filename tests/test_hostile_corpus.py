"""Corpora as they come: every kind of text column, broken bytes, odd files, and names that mean harm."""

import csv
import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpus_guard.demo import forbidden_phrases
from corpus_guard.steps import Result
from corpus_guard.steps.setup import Run
from tests.corpora import config, digests, documents, run_job, write_shards
from tests.driving import run_command, write_config

KEYWORDS = {"library": "starter", "engine": "pyahocorasick"}
PHRASE = forbidden_phrases("block")[0]
CALM = "今天天气很好。"


def run(folder: Path, shards: Path | str | list[str], columns: dict[str, Any] | None = None, **keys: Any) -> Run:
    """A whole run with the starter library; every row must be accounted for."""
    asked = config(
        folder,
        shards if isinstance(shards, Path) else "unused",
        keywords=KEYWORDS,
        corpus={
            "shards": [str(shards)] if isinstance(shards, Path) else shards,
            "columns": columns or {"id": "id", "text": "text", "source": "source"},
        },
        **keys,
    )
    result, done = run_job(asked)
    counts = accounting(done)
    assert counts["balanced"], counts
    kept = sum(
        pq.read_metadata(path).num_rows
        for folder in (done.folder.all_clean, done.folder.restricted)
        for path in Path(folder.path).rglob("*.parquet")
    )
    assert kept == counts["documents"]["read"]
    assert result.exit_code(gate=False) == 0
    return done


def accounting(run: Run) -> dict[str, Any]:
    return json.loads(run.folder.accounting.read_bytes())


def rows(folder: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(folder.rglob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def clean(run: Run) -> list[dict[str, Any]]:
    return rows(Path(run.folder.all_clean.path))


def removed(run: Run) -> list[dict[str, Any]]:
    return rows(Path(run.folder.restricted.path, "removed"))


def quarantined(run: Run) -> list[dict[str, Any]]:
    return rows(Path(run.folder.restricted.path, "quarantined"))


def report(run: Run) -> dict[str, Any]:
    return json.loads((run.folder.reports / "report.json").read_bytes())


def put(path: Path, table: pa.Table, **how: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **how)
    return path


TEXTS = [CALM * 3, f"{CALM}{PHRASE}。", None, " \u3000\u200b\n", "plain words", CALM]
KINDS = {
    "string": pa.string(),
    "large_string": pa.large_string(),
    "dictionary": pa.dictionary(pa.int8(), pa.string()),
    "dictionary of large": pa.dictionary(pa.int32(), pa.large_string()),
    "string_view": pa.string_view(),
    "binary": pa.binary(),
    "large_binary": pa.large_binary(),
    "binary_view": pa.binary_view(),
}


def as_kind(values: list[str | None], kind: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(kind):
        return pa.array(values, kind.value_type).dictionary_encode().cast(kind)
    if "binary" in str(kind):
        return pa.array([None if value is None else value.encode() for value in values], kind)
    return pa.array(values, kind)


def test_every_kind_of_text_column_gives_the_same_fates_and_keeps_its_type(tmp_path: Path) -> None:
    """One shard of each kind in one corpus."""
    for name, kind in KINDS.items():
        table = pa.table(
            {
                "id": [f"{name}-{i}" for i in range(len(TEXTS))],
                "text": as_kind(TEXTS, kind),
                "source": as_kind(["s"] * len(TEXTS), kind),
            }
        )
        put(tmp_path / "data" / f"{name}.parquet", table)

    done = run(tmp_path, tmp_path / "data", executor={"slice_bytes": 64})

    assert accounting(done)["documents"] == {
        "read": 48,
        "clean": 0,
        "removed_document": 8,
        "removed_source": 24,
        "removed_blocked": 0,
        "quarantined": 16,
    }
    assert {row["id"] for row in removed(done) if row["removal"] == "document"} == {f"{name}-1" for name in KINDS}
    assert [one["source"] for one in pq.read_table(done.folder.sources.path).to_pylist()] == ["s"]
    for name in KINDS:
        given = pq.read_schema(tmp_path / "data" / f"{name}.parquet")
        assert pq.read_schema(done.folder.clean(name).path).equals(given, check_metadata=True)


def test_evidence_names_the_field_of_several_columns_and_of_messages(tmp_path: Path) -> None:
    several = pa.table({"id": ["t"], "title": [CALM], "text": [f"{CALM}{PHRASE}。"], "source": ["a"]})
    put(tmp_path / "several" / "x.parquet", several)
    turns = [{"role": "user", "content": CALM}, {"role": "assistant", "content": f"{CALM}{PHRASE}。"}]
    chat = pa.table({"id": ["m"], "messages": [turns], "source": ["a"]})
    put(tmp_path / "chat" / "x.parquet", chat)

    columns = {"id": "id", "text": ["title", "text"], "source": "source"}
    first = run(tmp_path / "1", tmp_path / "several", columns)
    second = run(tmp_path / "2", tmp_path / "chat", {"id": "id", "text": "messages[*].content", "source": "source"})

    [row] = removed(first)
    assert any(f" in text at {len(CALM)}" in reason for reason in row["evidence"]), row["evidence"]
    [row] = removed(second)
    assert any(f" in messages[1].content at {len(CALM)}" in reason for reason in row["evidence"]), row["evidence"]
    assert row["messages"] == turns and CALM not in "".join(row["evidence"])


def broken_string(values: list[bytes]) -> pa.Array:
    """A column that says it is a string and is not UTF-8, as some writers leave it."""
    raw = pa.array(values, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(raw), raw.buffers())


def test_invalid_utf8_is_quarantined_and_kept_byte_for_byte(tmp_path: Path) -> None:
    bad = b"\xff\xfe not text \xc3"
    for name, column in {
        "binary": pa.array([bad, CALM.encode(), b"\xe4\xbb"], pa.binary()),
        "string": broken_string([bad, CALM.encode(), b"\xed\xa0\x80"]),
    }.items():
        put(
            tmp_path / "data" / f"{name}.parquet",
            pa.table({"id": ["1", "2", "3"], "text": column, "source": ["s"] * 3}),
        )

    done = run(tmp_path, tmp_path / "data")

    assert accounting(done)["documents"]["quarantined"] == 4
    for name in ("binary", "string"):
        table = pq.read_table(done.folder.quarantined(name).path)
        assert table.column("loss").to_pylist() == ["undecodable"] * 2
        assert table.column("text").cast(pa.binary()).to_pylist()[0] == bad


def test_very_long_documents_are_scanned_to_their_end(tmp_path: Path) -> None:
    texts = [CALM * 43_000 + PHRASE, "a " * 1_500_000 + f" {PHRASE}", "short"]
    put(
        tmp_path / "data" / "x.parquet", pa.table({"id": ["300k", "3m", "short"], "text": texts, "source": list("abc")})
    )

    done = run(tmp_path, tmp_path / "data", executor={"slice_bytes": "64KiB"})

    assert sorted(row["id"] for row in removed(done)) == ["300k", "3m"]
    [row] = [row for row in removed(done) if row["id"] == "3m"]
    assert any("3000001-" in reason for reason in row["evidence"]), row["evidence"]


def test_one_giant_row_group_in_small_slices_gives_what_large_slices_give(tmp_path: Path) -> None:
    given = documents("a", 3000)
    for i in range(0, 3000, 100):
        given[i]["text"] = f"{PHRASE}。" * (i % 7 + 1)
    put(tmp_path / "data" / "x.parquet", pa.Table.from_pylist(given))

    small = run(tmp_path / "small", tmp_path / "data", executor={"slice_bytes": 4096, "unit_bytes": 4096})
    run(tmp_path / "large", tmp_path / "data")

    assert accounting(small)["documents"]["removed_document"] == 30
    for name in ("run", "run.restricted", "store"):
        assert digests(tmp_path / "small" / name) == digests(tmp_path / "large" / name)


def test_empty_shards_alone_and_among_others(tmp_path: Path) -> None:
    nothing = pa.Table.from_pylist(documents("a", 1)).slice(0, 0)
    put(tmp_path / "data" / "empty.parquet", nothing)
    alone = run(tmp_path / "alone", tmp_path / "data")
    put(tmp_path / "data" / "full.parquet", pa.Table.from_pylist(documents("a", 5)))
    pq.write_table(nothing, tmp_path / "data" / "groups.parquet", row_group_size=1)

    both = run(tmp_path / "both", tmp_path / "data")

    assert accounting(alone)["documents"]["read"] == 0 and report(alone)["corpus"]["rows"] == 0
    assert accounting(both)["documents"]["clean"] == 5 and accounting(both)["shards"]["empty"] == 2
    assert pq.read_schema(both.folder.clean("empty").path).names == ["id", "text", "source"]


def test_equal_ids_are_counted_in_the_report(tmp_path: Path) -> None:
    given = documents("a", 30) + documents("a", 10) + documents("a", 5)
    done = run(tmp_path, write_shards(tmp_path / "data", given, shards=4))
    assert report(done)["corpus"]["duplicate_ids"] == 15
    assert accounting(done)["documents"]["clean"] == 45


def test_of_two_copies_of_a_shard_no_more_is_checked_than_was_drawn(tmp_path: Path) -> None:
    """The cut falls between two equal documents: one of them is drawn, though both copies share their findings."""
    data = write_shards(tmp_path / "data", documents("a", 35), shards=1)
    (data / "copy.parquet").write_bytes((data / "part-000.parquet").read_bytes())

    done = run(tmp_path, data, evaluation=KEYWORDS)

    technical = report(done)["technical"]
    assert (technical["drawn"], technical["evaluation"]["denominator"]) == (7, 7)
    assert report(done)["corpus"]["duplicate_ids"] == 35


def test_folders_with_the_same_names_globs_lists_and_file_uris(tmp_path: Path) -> None:
    for part in ("one", "two/deep"):
        write_shards(tmp_path / "data" / part, documents(part[:3], 30))
    named = [f"file://{tmp_path}/data/one", str(tmp_path / "data" / "two" / "**" / "part-*.parquet")]
    listed = run(tmp_path / "listed", named)
    globbed = run(tmp_path / "globbed", [str(tmp_path / "data" / "**" / "*.parquet")])
    folder = run(tmp_path / "folder", tmp_path / "data")

    for done in (listed, globbed, folder):
        assert accounting(done)["documents"]["clean"] == 60 and accounting(done)["shards"]["written"] == 6
        names = {
            path.relative_to(done.folder.all_clean.path) for path in Path(done.folder.all_clean.path).rglob("*.parquet")
        }
        assert names == {Path(part, f"part-00{i}.parquet") for part in ("one", "two/deep") for i in range(3)}
    assert report(listed)["corpus"]["manifest"] == report(folder)["corpus"]["manifest"]
    assert digests(tmp_path / "listed" / "store") == digests(tmp_path / "folder" / "store")


def test_columns_that_are_called_like_ours_are_kept_under_another_name(tmp_path: Path) -> None:
    ours = ("removal", "risks", "evidence", "loss", "row", "state", "input_loss")
    given = [row | {name: f"{name} of {i}" for name in ours} for i, row in enumerate(documents("a", 40))]
    given[0]["text"], given[1]["text"] = PHRASE, None
    done = run(tmp_path, write_shards(tmp_path / "data", given, shards=1))

    [row] = removed(done)
    assert row["removal"] == "document" and row["input_removal"] == "removal of 0" and row["loss"] == "loss of 0"
    [row] = quarantined(done)
    assert row["loss"] == "empty" and row["removal"] == "removal of 1" and "loss of 1" in row.values()
    assert {*clean(done)[0]} == {"id", "text", "source", *ours}


HOSTILE = [
    "../../etc/passwd",
    "/absolute/path",
    "=cmd|' /C calc'!A0",
    "+1+1",
    "-1",
    "@SUM(1)",
    "\t=1",
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{7*7}}${7*7}",
    "two\nlines\r\nof text",
    "\x1b[31mred\x1b[0m\x07\x00bell",
    "\u202edesrever\u202c",
    "|a|b|`code`[x](javascript:alert(1))",
    "长" * 10_000,
    "",
    " ",
    "(null)",
]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Any]]:
    """A corpus whose sources, ids, languages and shard names mean harm, run by the command itself."""
    folder = tmp_path_factory.mktemp("hostile")
    given = []
    for number, source in enumerate([*HOSTILE, None]):
        for i in range(20):
            text = f"{CALM}{PHRASE}。" if i < 1 + number % 3 else CALM
            given.append({"id": f"{source}\x1b{i}", "text": text, "source": source, "lang": source})
    data = folder / "data"
    write_shards(data, given, shards=2)
    (data / "part-000.parquet").rename(data / "=cmd() & new\nline \x1b[2J<script>.parquet")
    (data / "=1+1 \x1b[2J\n<script>alert(2)<|script>.parquet").write_bytes(b"no Parquet")
    asked = write_config(
        folder,
        data,
        corpus={"shards": str(data), "columns": {"id": "id", "text": "text", "source": "source", "language": "lang"}},
    )
    yield folder, run_command("run", asked)


def test_hostile_names_change_no_number(hostile: tuple[Path, Any]) -> None:
    folder, done = hostile
    assert done.returncode == 5, done.stderr
    sources = {row["source"]: row for row in pq.read_table(folder / "run" / "sources.parquet").to_pylist()}
    assert sources.keys() == {*HOSTILE, None}
    for number, source in enumerate([*HOSTILE, None]):
        row = sources[source]
        assert (row["documents"], row["illegal"]) == (20, 1 + number % 3)
        assert row["decision"] == ("keep" if number % 3 == 0 else "exclude")
    counts = json.loads((folder / "run" / "accounting.json").read_bytes())
    assert counts["balanced"] and counts["documents"]["read"] == 20 * (len(HOSTILE) + 1)


def test_nothing_is_written_outside_the_folders(hostile: tuple[Path, Any]) -> None:
    folder, _ = hostile
    assert {path.name for path in folder.iterdir()} == {"data", "config.yaml", "run", "run.restricted", "store"}
    for path in (folder / "run").rglob("*"):
        assert path.name.isprintable() and not set(path.name) & set('<>|"\\')


def test_the_page_runs_no_script_of_the_corpus(hostile: tuple[Path, Any]) -> None:
    folder, _ = hostile
    page = (folder / "run" / "reports" / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"<\s*script", page, re.IGNORECASE)
    assert not re.search(r"<[^>]+\son\w+\s*=", page) and "<img src=x" not in page
    assert "&lt;script&gt;alert(1)" in page or html.escape("<script>alert(1)</script>") in page
    assert not set(page) & {chr(c) for c in range(32)} - {"\n", "\t"}
    markdown = (folder / "run" / "reports" / "report.md").read_text(encoding="utf-8")
    markdown = re.sub(r"(`+)[^\n]*?[^`]\1(?!`)", "", markdown)  # inside of code nothing is a tag or a link
    assert "<script" not in markdown.lower() and "](javascript:" not in markdown
    assert not set(markdown) & {chr(c) for c in range(32)} - {"\n"}


def test_no_cell_of_a_table_is_a_formula(hostile: tuple[Path, Any]) -> None:
    folder, _ = hostile
    tables = [folder / "run" / "sources.csv", *(folder / "run" / "reports" / "tables").glob("*.csv")]
    assert len(tables) > 3
    for path in tables:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for row in csv.reader(file):
                for cell in row:
                    number = re.fullmatch(r"-?[0-9.,]+(e-?[0-9]+)?%?", cell)
                    assert number or not cell.lstrip().startswith(("=", "+", "-", "@")), (path.name, cell)
                    assert not set(cell) & {chr(c) for c in range(32)}, (path.name, cell)


def test_the_terminal_gets_no_control_character(hostile: tuple[Path, Any]) -> None:
    folder, done = hostile
    said = done.stdout + done.stderr
    assert "excluded over" in said
    assert not set(said) & ({chr(c) for c in range(32)} | {"\u202e"}) - {"\n"}, said
    assert max(map(len, said.splitlines())) < 2_000


def test_names_of_failures_are_harmless_too(hostile: tuple[Path, Any]) -> None:
    folder, _ = hostile
    found = json.loads((folder / "run" / "reports" / "report.json").read_bytes())
    [failed] = found["corpus"]["failed"]
    assert "<script>alert(2)" in failed["shard"]
    [record] = (folder / "run" / "failed").rglob("*.json")
    assert json.loads(record.read_bytes())["shard"] == failed["shard"]


def test_a_run_whose_places_are_object_stores(tmp_path: Path) -> None:
    """Corpus, run, store and restricted text on fsspec's memory filesystem: the same files as on a disk."""
    fsspec = pytest.importorskip("fsspec")
    data = write_shards(tmp_path / "data", documents("a", 40) + [{"id": "x", "text": PHRASE, "source": "b"}])
    memory = fsspec.filesystem("memory")
    memory.put(str(data), "/hostile/data", recursive=True)
    asked = config(
        tmp_path,
        "memory://hostile/data",
        keywords=KEYWORDS,
        run="memory://hostile/run",
        store="memory://hostile/store",
        restricted="memory://hostile/private",
    )

    result, done = run_job(asked)

    assert isinstance(result, Result) and result.exit_code(gate=False) == 0
    assert result.summary["documents"]["clean"] == 40 and result.summary["documents"]["removed_document"] == 1
    here = run(tmp_path / "here", data)
    for name in ("sources.parquet", "clean/part-000.parquet", "reports/report.html"):
        assert (done.folder.run / name).exists()
    remote = pa.BufferReader(done.folder.clean("part-000").read_bytes())
    assert pq.read_table(remote).equals(pq.read_table(here.folder.clean("part-000").path))
    assert (done.folder.run / "sources.csv").read_bytes() == here.folder.sources_csv.read_bytes()
    before = {path: memory.cat(path) for path in memory.find("/hostile") if "/.lock/" not in path}
    run_job(asked)
    assert before == {path: memory.cat(path) for path in memory.find("/hostile") if "/.lock/" not in path}
