"""Shards: every row comes out once, whatever the file's types, cuts and damages are."""

import hashlib
import io
import os
import threading
import unicodedata
from pathlib import Path
from uuid import uuid4

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus_guard import findings
from corpus_guard.errors import DataError, TransientError, UsageError
from corpus_guard.places import Place
from corpus_guard.shards import (
    Reading,
    Shard,
    ShardFile,
    ShardWriter,
    Unit,
    check_reading,
    fetch_documents,
    fetch_rows,
    find_shards,
    locate,
    manifest_hash,
    plan_units,
    read_documents,
    read_footers,
    read_manifest,
    read_schema,
    read_table,
    registered_domains,
    row_bytes,
    write_manifest,
)
from corpus_guard.shards import corpus as corpus_module

DATA = Path(os.environ.get("CORPUS_GUARD_DATA") or Path(__file__).parents[2] / "shared" / "data")
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no corpus at {DATA}; set CORPUS_GUARD_DATA")

EASY = settings(deadline=None, derandomize=True, max_examples=60)


def write(path, columns, **options):
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)
    return path


def shard_of(path) -> Shard:
    [shard], bad = read_footers(find_shards(str(path)))
    assert not bad
    return shard


def documents(shard, reading=Reading(), unit_bytes=1 << 30, **options) -> pa.Table:  # noqa: B008  # frozen
    batches = [b for unit in plan_units([shard], unit_bytes) for b in read_documents(unit, reading, **options)]
    for batch in batches:
        batch.validate(full=True)
        assert batch.schema.equals(findings.BATCH)
        assert all(column.offset == 0 for column in batch.columns)
    return pa.Table.from_batches(batches, findings.BATCH)


def texts(path, *names, **options):
    table = documents(shard_of(path), Reading(text=names or ("text",)), **options)
    return table["text"].to_pylist()


def strings(values, of=None):
    """A string column of any bytes, as Parquet files hold them: nobody checks that they are UTF-8."""
    of = of or pa.string()
    values = [value.encode() if isinstance(value, str) else value for value in values]
    raw = pa.array(values, pa.large_binary() if of in (pa.large_string(), pa.large_binary()) else pa.binary())
    return pa.Array.from_buffers(of, len(raw), raw.buffers(), raw.null_count)


# -- an oracle, row by row --------------------------------------------------------------------


def is_blank(text):
    fillers = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"
    marks = {*range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0), *map(ord, fillers)}
    return all(unicodedata.category(c) in ("Cc", "Cf", "Zs", "Zl", "Zp") or ord(c) in marks for c in text)


def expected(parts):
    """State and text of a document of *parts* (bytes or null)."""
    kept = [part for part in parts if part is not None]
    try:
        text = b"\n".join(kept).decode()
    except UnicodeDecodeError:
        return "undecodable", None
    return ("empty", None) if is_blank(text) else ("ok", text)


raw_texts = st.one_of(
    st.none(),
    st.text(max_size=20).map(str.encode),
    st.text(alphabet=" \t\n\u3000\u200b\ufeff\u00ad\u2028\u115f", max_size=80).map(str.encode),
    st.binary(max_size=6),
    st.sampled_from([b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80", b"\0", b"ok\xff", "字".encode() * 50]),
)


@EASY
@given(
    rows=st.lists(st.tuples(raw_texts, raw_texts, st.none() | st.integers(0, 9)), max_size=40),
    of=st.sampled_from([pa.string(), pa.large_string(), pa.binary(), pa.large_binary(), "dictionary", "view"]),
    group=st.integers(1, 50),
    unit_bytes=st.integers(1, 2000),
    slice_bytes=st.integers(1, 500),
    dictionary=st.booleans(),
    stored=st.booleans(),
)
def test_any_cut_into_row_groups_units_and_slices_gives_the_same_documents(
    tmp_path_factory, rows, of, group, unit_bytes, slice_bytes, dictionary, stored
):
    def column(values):
        if of == "dictionary":
            return strings(values).dictionary_encode()
        if of == "view":
            return pa.array(values, pa.binary()).cast(pa.binary_view())
        return strings(values, of)

    title, body, number = zip(*rows, strict=True) if rows else ((), (), ())
    path = tmp_path_factory.mktemp("x") / "x.parquet"
    table = {"title": column(title), "number": pa.array(number, pa.int32()), "body": column(body)}
    write(path, table, row_group_size=group, use_dictionary=dictionary, store_schema=stored)
    shard = shard_of(path)

    table = documents(shard, Reading(text=("title", "body"), id="number"), unit_bytes, slice_bytes=slice_bytes)

    wanted = [expected([t, b]) for t, b in zip(title, body, strict=True)]
    assert table["row"].to_pylist() == list(range(len(rows)))
    assert list(zip(table["state"].to_pylist(), table["text"].to_pylist(), strict=True)) == wanted
    assert table["characters"].to_pylist() == [len(text or "") for _, text in wanted]
    assert table["bytes"].to_pylist() == [len((text or "").encode()) for _, text in wanted]
    made = [f"{shard.digest[:12]}#{row}" for row in range(len(rows))]
    assert table["id"].to_pylist() == [m if n is None else str(n) for n, m in zip(number, made, strict=True)]


message = st.fixed_dictionaries({"role": st.just("u"), "content": raw_texts})
messages = st.none() | st.lists(st.none() | message, max_size=4)
MESSAGE = pa.struct([("role", pa.string()), ("content", pa.binary())])


@EASY
@given(
    rows=st.lists(messages, max_size=30),
    of=st.sampled_from([pa.list_(MESSAGE), pa.large_list(MESSAGE)]),
    group=st.integers(1, 40),
    slice_bytes=st.integers(1, 300),
)
def test_nested_texts_are_joined_in_order_without_their_nulls(tmp_path_factory, rows, of, group, slice_bytes):
    path = write(tmp_path_factory.mktemp("x") / "x.parquet", {"messages": pa.array(rows, of)}, row_group_size=group)

    table = documents(shard_of(path), Reading(text=("messages[*].content",)), slice_bytes=slice_bytes)

    wanted = [expected([message and message["content"] for message in row or ()]) for row in rows]
    assert list(zip(table["state"].to_pylist(), table["text"].to_pylist(), strict=True)) == wanted


PIECES = pa.list_(pa.list_(pa.string()))
PAIRS = pa.map_(pa.string(), pa.string())
WORDS = pa.list_(pa.dictionary(pa.int8(), pa.string()))


@pytest.mark.parametrize(
    ("column", "path", "wanted"),
    [
        (pa.array([{"a": {"b": "x"}}, {"a": None}, None]), "c.a.b", ["x", None, None]),
        (pa.array([[["a", "b"], None, ["c"]], [[]], None], PIECES), "c[*][*]", ["a\nb\nc", None, None]),
        (pa.array([[("k", "v"), ("l", "w")], [], None], PAIRS), "c[*]", ["v\nw", None, None]),
        (pa.array([["a", "b"], None, ["c", None]], pa.list_(pa.string(), 2)), "c[*]", ["a\nb", None, "c"]),
        (pa.array([{"t": ["a"]}, {"t": []}, {"t": ["b", None, "c"]}]), "c.t[*]", ["a", None, "b\nc"]),
        (pa.array([["a", "a"], ["b"], []], WORDS), "c[*]", ["a\na", "b", None]),
    ],
)
def test_paths_go_through_structs_lists_and_maps(tmp_path, column, path, wanted):
    first = pa.table({"z.z": ["-"] * 3, "c": column, "d": ["-"] * 3})
    write(tmp_path / "x.parquet", pa.concat_tables([first, first]).slice(1, 4))

    assert texts(tmp_path / "x.parquet", path) == (wanted + wanted)[1:5]


def test_a_column_whose_whole_name_is_the_path_wins(tmp_path):
    write(tmp_path / "x.parquet", {"a": [{"b": "path"}], "a.b": ["column"], "a.b.c": ["longer"], "m[*].t": ["odd"]})

    assert texts(tmp_path / "x.parquet", "a.b") == ["column"]
    assert texts(tmp_path / "x.parquet", "m[*].t", "a.b.c") == ["odd\nlonger"]


@pytest.mark.parametrize(
    "of",
    [
        pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view(),
        pa.binary(6), pa.dictionary(pa.int8(), pa.string()), pa.dictionary(pa.int32(), pa.large_binary()),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("stored", [True, False])
def test_text_of_every_type_is_read(tmp_path, of, stored):
    values = [b"\xe5\xad\x97abc", None, b"  \xe3\x80\x80 ", b"\xe5\xad\x97abc"]
    column = pa.array(values, of if not pa.types.is_dictionary(of) else of.value_type)
    column = column.cast(of) if pa.types.is_dictionary(of) else column
    table = pa.table({"text": pa.chunked_array([column.slice(1), column.slice(0, 1)])})
    write(tmp_path / "x.parquet", table, store_schema=stored)

    table = documents(shard_of(tmp_path / "x.parquet"))

    assert table["text"].to_pylist() == [None, None, "字abc", "字abc"]
    assert table["state"].to_pylist() == ["empty", "empty", "ok", "ok"]


@pytest.mark.parametrize(
    ("column", "wanted"),
    [
        (pa.array([7, None], pa.uint64()), ["7", None]),
        (pa.array([True, None]), ["true", None]),
        (pa.array(["a", None]).dictionary_encode(), ["a", None]),
        (pa.array([b"\xff\x00", b"ok"], pa.binary()), ["0xff00", "ok"]),
        (pa.array([b"\xffa", b"ok"], pa.binary(2)), ["0xff61", "ok"]),
        (pa.array([b"\xff" * 16, None], pa.uuid()), ["ff" * 16, None]),
        (pa.array(["a", None], pa.string_view()), ["a", None]),
        (pa.array([{"x": "a"}, None]), ["a", None]),
        (pa.array([None, None], pa.null()), [None, None]),
    ],
)
def test_sources_of_other_types_become_strings(tmp_path, column, wanted):
    write(tmp_path / "x.parquet", {"text": ["a", "b"], "s": column})
    source = "s.x" if pa.types.is_struct(column.type) else "s"

    table = documents(shard_of(tmp_path / "x.parquet"), Reading(source=source, dataset=source))

    assert table["source"].to_pylist() == wanted
    assert table["dataset"].to_pylist() == wanted


def test_dates_become_iso_dates(tmp_path):
    write(tmp_path / "x.parquet", {"text": ["a"], "d": pa.array([19_675], pa.date32())})

    table = documents(shard_of(tmp_path / "x.parquet"), Reading(collected_at="d"))

    assert table["collected_at"].to_pylist() == ["2023-11-14"]


def test_without_a_source_column_the_source_is_the_registered_domain(tmp_path):
    urls = [
        "https://user:pw@News.BBC.co.uk:8080/a?b#c", "example.com/x", "//a.b.example.org", "http://192.168.0.1/x",
        "http://[::1]/x", "http://localhost/", "", None, "x.org:80/?u=//y.org", "https://例子.中国/页", "https://a.github.io",
    ]  # fmt: skip
    write(tmp_path / "x.parquet", {"text": ["a"] * len(urls), "url": urls})
    wanted = ["bbc.co.uk", "example.com", "example.org", "192.168.0.1", "::1", "localhost"]
    wanted += [None, None, "x.org", "例子.中国", "github.io"]

    table = documents(shard_of(tmp_path / "x.parquet"), Reading(url="url"))

    assert table["source"].to_pylist() == wanted
    assert registered_domains(pa.array([], pa.string())).to_pylist() == []


# -- schemas that differ ----------------------------------------------------------------------


def test_shards_may_lack_optional_columns_and_order_them_differently(tmp_path):
    write(tmp_path / "a.parquet", {"id": ["1"], "text": ["a"], "source": ["s"]})
    write(tmp_path / "b.parquet", {"source": pa.array(["t"], pa.large_string()), "text": pa.array([b"b"])})
    found, _ = read_footers(find_shards(str(tmp_path)))
    reading = Reading(id="id", source="source")

    check_reading(found, reading)
    tables = [documents(shard, reading) for shard in found]

    assert [t["source"].to_pylist() for t in tables] == [["s"], ["t"]]
    assert tables[1]["id"].to_pylist() == [f"{found[1].digest[:12]}#0"]


def test_several_texts_may_be_missing_in_part_but_not_all(tmp_path):
    write(tmp_path / "a.parquet", {"title": ["t"], "body": ["b"]})
    write(tmp_path / "b.parquet", {"body": ["c"]})
    write(tmp_path / "c.parquet", {"other": ["c"], "number": [1]})
    found, _ = read_footers(find_shards(str(tmp_path)))

    assert [documents(s, Reading(text=("title", "body")))["text"][0].as_py() for s in found[:2]] == ["t\nb", "c"]
    with pytest.raises(UsageError, match=r"No text column 'title' or 'body'; the columns are 'number', 'other'"):
        documents(found[2], Reading(text=("title", "body")))


def test_all_faults_of_a_reading_are_told_at_once(tmp_path):
    write(tmp_path / "a.parquet", {"n": [1], "text": ["a"], "tags": [["a"]]})
    write(tmp_path / "b.parquet", {"n": [1], "tags": [["a"]]})
    found, _ = read_footers(find_shards(str(tmp_path)))

    with pytest.raises(UsageError) as told:
        check_reading(found, Reading(text=("text", "n"), id="typo", source="tags"))

    message = str(told.value)
    assert "Column 'n' is int64, not text" in message
    assert "No shard has a column 'typo'" in message
    assert "Column 'tags' is list" in message and "cannot be the source" in message


def test_a_shard_without_rows_has_no_units_and_one_without_groups_too(tmp_path):
    write(tmp_path / "a.parquet", {"text": pa.array([], pa.string())})
    pq.ParquetWriter(tmp_path / "b.parquet", pa.schema([("text", pa.string())])).close()
    found, _ = read_footers(find_shards(str(tmp_path)))

    assert [shard.rows for shard in found] == [0, 0]
    assert plan_units(found, 1) == []
    assert list(read_documents(found[0], Reading())) == []


def test_columns_of_equal_names_do_not_shift_the_others(tmp_path):
    table = pa.Table.from_arrays([pa.array(["1"]), pa.array(["2"]), pa.array(["t"])], names=["id", "id", "text"])
    write(tmp_path / "x.parquet", table)

    assert documents(shard_of(tmp_path / "x.parquet"), Reading(id="id"))["id"].to_pylist() == ["1"]


# -- memory -----------------------------------------------------------------------------------


def test_a_giant_row_group_is_read_in_bounded_slices(tmp_path):
    long = "字" * 20_000
    write(tmp_path / "x.parquet", {"text": [f"{i}{long}" for i in range(300)]}, row_group_size=10**6)
    shard = shard_of(tmp_path / "x.parquet")

    [unit] = plan_units([shard], 1 << 20)
    sizes = [batch.column("text").nbytes for batch in read_documents(unit, Reading(), slice_bytes=1 << 20)]

    assert shard.groups[0][1] > 16 << 20
    assert max(sizes) <= 1 << 20


def test_a_document_of_three_million_characters_is_one_slice(tmp_path):
    rows = ["a", "字" * 3_000_000, "b"] + ["c" * 100] * 1000
    write(tmp_path / "x.parquet", {"text": rows})

    slices = list(read_documents(shard_of(tmp_path / "x.parquet"), Reading(), slice_bytes=1 << 20))

    assert [row for batch in slices for row in batch.column("row").to_pylist()] == list(range(1003))
    assert max(batch.column("characters").to_numpy().max() for batch in slices) == 3_000_000
    assert all(batch.num_rows == 1 or batch.column("text").nbytes <= 1 << 20 for batch in slices)


@pytest.mark.parametrize("stored", [True, False])
def test_many_copies_of_one_long_text_are_not_decoded_at_once(tmp_path, stored):
    copies = pa.DictionaryArray.from_arrays(pa.array(np.zeros(20_000, np.int32)), ["x" * 1_000_000])
    write(tmp_path / "x.parquet", {"text": copies}, store_schema=stored)  # 20 GB when decoded
    shard = shard_of(tmp_path / "x.parquet")

    slices = read_documents(shard, Reading(), slice_bytes=16 << 20)
    tables = read_table(shard, slice_bytes=16 << 20)

    assert all(next(slices).column("text").nbytes <= 16 << 20 for _ in range(5))
    assert all(next(tables)[1].num_rows <= 16 for _ in range(5))


# -- damage -----------------------------------------------------------------------------------


def damaged_copy(path, column, group):
    """The file at *path* with zeros written over a column chunk."""
    data = bytearray(Path(path).read_bytes())
    chunk = pq.read_metadata(path).row_group(group).column(column)
    start = chunk.dictionary_page_offset if chunk.has_dictionary_page else chunk.data_page_offset
    data[start : start + chunk.total_compressed_size] = bytes(chunk.total_compressed_size)
    Path(path).write_bytes(data)


@pytest.mark.parametrize("unit_bytes", [1, 1 << 30])
def test_a_damaged_row_group_costs_its_own_rows_and_names_who_they_are(tmp_path, unit_bytes):
    columns = {"text": [f"text {i}" for i in range(50)], "source": [f"s{i}" for i in range(50)]}
    path = write(tmp_path / "x.parquet", columns, row_group_size=10)
    shard = shard_of(path)
    damaged_copy(path, column=0, group=2)
    damage = []

    table = documents(shard, Reading(source="source"), unit_bytes, on_damage=lambda *lost: damage.append(lost))

    assert table["row"].to_pylist() == list(range(50))
    assert [s == "failed" for s in table["state"].to_pylist()] == [20 <= row < 30 for row in range(50)]
    assert table["source"].to_pylist() == columns["source"]
    assert table["text"].to_pylist() == [None if 20 <= i < 30 else t for i, t in enumerate(columns["text"])]
    assert table["id"].to_pylist()[25] == f"{shard.digest[:12]}#25"
    assert [(group, rows) for group, rows, _ in damage] == [(2, 10)]
    assert damage[0][2]


def test_of_a_giant_damaged_row_group_the_part_before_the_damage_is_kept(tmp_path):
    columns = {"text": [f"{i:06d}" * 300 for i in range(5000)]}
    options = {"compression": "none", "use_dictionary": False, "data_page_size": 1 << 16, "write_page_checksum": True}
    path = write(tmp_path / "x.parquet", columns, row_group_size=10**6, **options)
    shard = shard_of(path)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"004000" * 300, b"004_00" * 300))
    damage = []

    table = documents(shard, slice_bytes=1 << 20, on_damage=lambda *lost: damage.append(lost))

    lost = table["state"].to_pylist().count("failed")
    assert 1000 <= lost < 4000
    assert table["text"].to_pylist() == columns["text"][: 5000 - lost] + [None] * lost
    assert table["row"].to_pylist() == list(range(5000))
    assert [(group, rows) for group, rows, _ in damage] == [(0, lost)]


def test_without_text_everything_else_is_the_same(tmp_path):
    path = write(tmp_path / "x.parquet", {"text": strings(["a", None, b"\xff", " ", "字"]), "id": list("vwxyz")})
    shard = shard_of(path)

    table = documents(shard, Reading(id="id"), want_text=False)

    assert table["text"].null_count == 5
    assert table.drop_columns("text").equals(documents(shard, Reading(id="id")).drop_columns("text"))


def test_where_the_source_is_damaged_too_it_is_not_known(tmp_path):
    path = write(tmp_path / "x.parquet", {"text": ["a"] * 20, "source": ["s"] * 20}, row_group_size=10)
    shard = shard_of(path)
    damaged_copy(path, column=0, group=0)
    damaged_copy(path, column=1, group=0)

    table = documents(shard, Reading(source="source"))

    assert table["source"].to_pylist() == [None] * 10 + ["s"] * 10
    assert table["state"].to_pylist() == ["failed"] * 10 + ["ok"] * 10


def test_tables_leave_damaged_rows_out_and_say_where(tmp_path):
    path = write(tmp_path / "x.parquet", {"text": [str(i) for i in range(30)]}, row_group_size=10)
    shard = shard_of(path)
    damaged_copy(path, column=0, group=1)
    damage = []

    found = list(read_table(shard, on_damage=lambda *lost: damage.append(lost)))

    rows = [(lo + i, text) for lo, table in found for i, text in enumerate(table["text"].to_pylist())]
    assert rows == [(i, str(i)) for i in range(30) if not 10 <= i < 20]
    assert [(group, n) for group, n, _ in damage] == [(1, 10)]
    with pytest.raises(DataError, match="row 12 "):
        fetch_rows(shard, np.array([1, 12]))


def test_pages_whose_checksum_is_wrong_are_damage(tmp_path):
    path = tmp_path / "x.parquet"
    write(path, {"text": ["abcdefgh" * 10]}, compression="none", use_dictionary=False, write_page_checksum=True)
    shard = shard_of(path)
    data = path.read_bytes()
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    path.write_bytes(data[:footer].replace(b"abcdefgh", b"abcXefgh") + data[footer:])

    assert documents(shard)["state"].to_pylist() == ["failed"]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "0 bytes"),
        (b"PAR1", "4 bytes"),
        (b"PAR1" + b"x" * 100, "cut short"),
        (b"PAR1" + b"x" * 100 + b"PARE", "encrypted"),
        (b"PAR1" + b"\xff" * 100 + b"\xff\xff\xff\x7fPAR1", "claims"),
        (b"PAR1" + b"\xff" * 100 + b"\x40\0\0\0PAR1", "damaged"),
    ],
)
def test_a_file_without_a_footer_is_a_bad_shard_with_its_size(tmp_path, data, told):
    (tmp_path / "x.parquet").write_bytes(data)
    write(tmp_path / "y.parquet", {"text": ["a"]})

    found, [bad] = read_footers(find_shards(str(tmp_path)))

    assert [shard.name for shard in found] == ["y"]
    assert (bad.name, bad.size) == ("x", len(data))
    assert told in bad.error


def test_a_link_to_nowhere_is_a_bad_shard(tmp_path):
    write(tmp_path / "y.parquet", {"text": ["a"]})
    (tmp_path / "x.parquet").symlink_to(tmp_path / "nowhere")

    for pattern in (tmp_path, tmp_path / "*.parquet"):
        _, [bad] = read_footers(find_shards(str(pattern)))
        assert bad.name == "x"


def test_a_shard_that_changed_since_the_plan_is_refused(tmp_path):
    shard = shard_of(write(tmp_path / "x.parquet", {"text": ["a"]}))
    write(tmp_path / "x.parquet", {"text": ["a", "b"]})

    with pytest.raises(DataError, match="plan again"):
        documents(shard)
    (tmp_path / "x.parquet").unlink()
    with pytest.raises(DataError, match="plan again"):
        documents(shard)


def test_random_damage_never_loses_a_row_or_raises_anything_unexpected(tmp_path):
    random = np.random.default_rng(0)
    path = tmp_path / "x.parquet"
    for trial in range(120):
        columns = {"id": [str(i) for i in range(90)], "text": [f"文字 {i} " * (i % 7) for i in range(90)]}
        columns["m"] = [[{"t": "x"}] * (i % 3) for i in range(90)]
        codec = ["zstd", "snappy", "none", "gzip", "lz4"][trial % 5]
        write(path, columns, row_group_size=30, compression=codec, use_dictionary=bool(trial % 2))
        data = bytearray(path.read_bytes())
        body = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
        for at in random.integers(4, body, 3):
            data[at] ^= 1 << random.integers(8)
        at = random.integers(4, body)
        data[at : min(at + random.integers(60), body)] = bytes(min(60, body - at))[: max(0, min(60, body - at))]
        path.write_bytes(data[: len(data)])
        found, bad = read_footers(find_shards(str(path)))
        for shard in found:
            for text in ("text", "m[*].t"):
                try:
                    table = documents(shard, Reading(text=(text,), id="id"))
                except (DataError, UsageError):
                    continue
                assert table["row"].to_pylist() == list(range(shard.rows))
                assert table["id"].null_count == 0
        assert len(found) + len(bad) == 1


# -- object stores ----------------------------------------------------------------------------


class UnsteadyFileSystem(MemoryFileSystem):
    """Reads of bytes *broken* fail the next *failures* times."""

    protocol = "unsteady"
    failures = 0
    broken = range(0)
    lock = threading.Lock()

    def _open(self, path, mode="rb", **options):
        file = super()._open(path, mode, **options)
        return UnsteadyFile(file.getvalue()) if mode == "rb" else file


class UnsteadyFile(io.BytesIO):
    def read(self, size=-1):
        here = range(self.tell(), self.tell() + (size if size >= 0 else 1 << 30))
        kind = UnsteadyFileSystem
        with kind.lock:
            if kind.failures > 0 and here.start < kind.broken.stop and kind.broken.start < here.stop:
                kind.failures -= 1
                raise OSError("503 Slow Down")
        return super().read(size)


@pytest.fixture
def unsteady(tmp_path):
    fsspec.register_implementation("unsteady", UnsteadyFileSystem, clobber=True)
    UnsteadyFileSystem.failures = 0
    random = np.random.default_rng(0)  # what does not compress, so that the footer is read apart from the groups
    path = write(tmp_path / "x.parquet", {"text": [random.bytes(8000).hex() for _ in range(50)]}, row_group_size=10)
    place = Place.of(f"unsteady://{uuid4().hex}/x.parquet")
    place.put_file(path)
    chunk = pq.read_metadata(path).row_group(2).column(0)
    start = chunk.dictionary_page_offset
    UnsteadyFileSystem.broken = range(start, start + chunk.total_compressed_size)
    yield place
    UnsteadyFileSystem.failures = 0


def test_a_short_fault_of_the_store_is_read_over(unsteady):
    shard = shard_of(unsteady.uri)
    UnsteadyFileSystem.failures = 1

    assert documents(shard)["state"].to_pylist() == ["ok"] * 50
    assert UnsteadyFileSystem.failures == 0


def test_a_lasting_fault_of_the_store_is_no_damage(unsteady):
    shard = shard_of(unsteady.uri)
    UnsteadyFileSystem.failures = 1000

    with pytest.raises(TransientError):
        documents(shard)


def test_damage_on_a_store_is_damage(unsteady):
    data = bytearray(unsteady.read_bytes())
    shard = shard_of(unsteady.uri)
    data[UnsteadyFileSystem.broken.start : UnsteadyFileSystem.broken.stop] = bytes(len(UnsteadyFileSystem.broken))
    unsteady.put(bytes(data))

    assert documents(shard)["state"].to_pylist() == ["ok"] * 20 + ["failed"] * 10 + ["ok"] * 20


def test_footers_are_asked_for_again_when_the_store_fails(unsteady, monkeypatch):
    monkeypatch.setattr(corpus_module.time, "sleep", lambda _: None)
    size = len(unsteady.read_bytes())
    files = find_shards(unsteady.uri)
    UnsteadyFileSystem.broken = range(size - 8, size)
    UnsteadyFileSystem.failures = 3

    assert len(read_footers(files)[0]) == 1
    UnsteadyFileSystem.failures = 1000
    with pytest.raises(TransientError):
        read_footers(files)


# -- finding shards ---------------------------------------------------------------------------


@pytest.fixture(params=["local", "memory"])
def corpus(request, tmp_path):
    root = Place.of(tmp_path / "root" if request.param == "local" else f"memory://{uuid4().hex}/root")
    data = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": ["a"]}), data)
    good = ["a/x.parquet", "b/x.parquet", "b/c/y.pq"]
    for name in [*good, "b/_SUCCESS", "b/_metadata.parquet", "a/.x.parquet", "README.md"]:
        (root / name).put(data.getvalue())
    return root


def names(*patterns, base=None):
    return [file.name for file in find_shards([str(pattern) for pattern in patterns], base)]


def test_shards_are_found_by_folder_glob_file_and_uri(corpus):
    assert names(corpus) == ["a/x", "b/c/y.pq", "b/x"]
    assert names(f"{corpus}/*/*.parquet") == ["a/x", "b/x"]
    assert names(f"{corpus}/**/*.p*") == ["a/x", "b/c/y.pq", "b/x"]
    assert names(f"{corpus}/[ab]/x.parquet", f"{corpus}/a") == ["a/x", "b/x"]
    assert names(f"{corpus}/[!a]/x.parquet") == ["b/x"]
    assert names(f"{corpus}/a/x.parquet") == ["x"]
    assert names(f"{corpus}/a/x.parquet", f"{corpus}/b/x.parquet") == ["a/x", "b/x"]
    assert names("root/a", "root/b", base=corpus.parent) == ["a/x", "b/c/y.pq", "b/x"]


def test_every_pattern_that_finds_nothing_is_told(corpus):
    with pytest.raises(UsageError, match=r"nothing\.parquet, .*\*\.csv"):
        find_shards([str(corpus), f"{corpus}/nothing.parquet", f"{corpus}/*.csv"])


def test_a_file_whose_name_looks_like_a_glob_is_itself(tmp_path):
    write(tmp_path / "x[1].parquet", {"text": ["a"]})

    [file] = find_shards(str(tmp_path / "x[1].parquet"))
    assert len(read_footers([file])[0]) == 1


def test_places_far_apart_keep_their_names_apart(tmp_path):
    write(tmp_path / "x.parquet", {"text": ["a"]})
    remote = Place.of(f"memory://{uuid4().hex}/x.parquet")
    remote.put((tmp_path / "x.parquet").read_bytes())

    found = names(tmp_path / "x.parquet", remote)

    assert len(set(found)) == 2
    assert all(not name.startswith("/") and ".." not in name for name in found)


def test_hostile_file_names_become_safe_and_unique(tmp_path):
    for name in ("a?.parquet", "a:.parquet", "CON.parquet", "n\n.parquet", "a_.parquet"):
        write(tmp_path / name, {"text": ["a"]})

    found = names(tmp_path)

    assert len(set(found)) == 5
    assert not any(c in name for name in found for c in "?:\n")


# -- identity ---------------------------------------------------------------------------------


def test_a_renamed_shard_keeps_its_digest_and_copies_are_counted(tmp_path):
    write(tmp_path / "a/x.parquet", {"text": ["a"]})
    write(tmp_path / "b/x.parquet", {"text": ["b", "c"]})
    before, _ = read_footers(find_shards(str(tmp_path)))
    (tmp_path / "a/x.parquet").rename(tmp_path / "z.parquet")
    (tmp_path / "copy.parquet").write_bytes((tmp_path / "z.parquet").read_bytes())

    after, _ = read_footers(find_shards(str(tmp_path)))

    digests = {shard.name: shard.digest for shard in after}
    assert digests["z"] == digests["copy"] == before[0].digest
    assert [(unit.shard_name, unit.copy) for unit in plan_units(after)] == [("b/x", 0), ("copy", 0), ("z", 1)]


def some_shard(name, digest, groups=((3, 10),)):
    return Shard(f"/x/{name}", name, 1, "v", digest, sum(rows for rows, _ in groups), tuple(groups), "s")


@EASY
@given(st.lists(st.integers(0, 5), max_size=8), st.randoms(use_true_random=False))
def test_the_manifest_hash_is_of_digests_not_of_names_or_order(digests, random):
    ordered = [some_shard(f"n{i}", f"{digest:064x}") for i, digest in enumerate(digests)]
    mixed = [some_shard(f"other{i}", f"{digest:064x}") for i, digest in enumerate(digests)]
    random.shuffle(mixed)

    assert manifest_hash(ordered) == manifest_hash(mixed)
    assert manifest_hash(ordered) != manifest_hash([*ordered, some_shard("n", "f" * 64)])


def test_the_digest_is_of_size_footer_and_etag(tmp_path):
    path = write(tmp_path / "x.parquet", {"text": ["a"]})
    data = path.read_bytes()
    footer = data[-8 - int.from_bytes(data[-8:-4], "little") :]
    [file] = find_shards(str(path))
    plain = hashlib.sha256(len(data).to_bytes(8, "little") + footer)

    assert shard_of(path).digest == plain.hexdigest()
    with_etag = ShardFile(file.path, file.name, file.size, "e1", file.version)
    plain.update(b"e1")
    assert read_footers([with_etag])[0][0].digest == plain.hexdigest()


@pytest.mark.parametrize("change", ["text", "source", "id", "collected_at"])
def test_another_reading_has_another_digest(change):
    reading = Reading(text=("a", "b"), id="id")

    assert Reading(text=("a", "b"), id="id").digest == reading.digest
    assert Reading(**{"text": ("a", "b"), "id": "id", change: "other"}).digest != reading.digest
    assert Reading(text=("b", "a"), id="id").digest != reading.digest


def test_footers_are_not_read_twice(tmp_path, monkeypatch):
    write(tmp_path / "a.parquet", {"text": ["a"]})
    write(tmp_path / "b.parquet", {"text": ["b"]})
    first, _ = read_footers(find_shards(str(tmp_path)))
    os.utime(tmp_path / "b.parquet", ns=(1, 1))
    opened = []
    true_read = corpus_module._read_footer
    monkeypatch.setattr(corpus_module, "_read_footer", lambda file: opened.append(file.name) or true_read(file))

    again, _ = read_footers(find_shards(str(tmp_path)), first)

    assert opened == ["b"]
    assert [shard.digest for shard in again] == [shard.digest for shard in first]


def test_a_manifest_comes_back_as_it_was(tmp_path):
    write(tmp_path / "a.parquet", {"text": [str(i) for i in range(10)]}, row_group_size=3)
    (tmp_path / "bad.parquet").write_bytes(b"short")
    found, bad = read_footers(find_shards(str(tmp_path)))
    place = Place.of(tmp_path / "m/manifest.parquet")

    write_manifest(place, found, bad)
    first = place.read_bytes()
    write_manifest(place, found[::-1], bad)

    assert read_manifest(place) == (found, bad)
    assert place.read_bytes() == first
    write_manifest(place, [], [])
    assert read_manifest(place) == ([], [])
    place.put(b"nonsense")
    with pytest.raises(DataError, match="plan again"):
        read_manifest(place)


# -- units ------------------------------------------------------------------------------------


@EASY
@given(
    groups=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 100)), max_size=12),
    unit_bytes=st.integers(1, 150),
)
def test_units_hold_every_row_once_and_are_no_larger_than_asked(groups, unit_bytes):
    shard = some_shard("n", "0" * 64, groups)

    units = plan_units([shard], unit_bytes)

    rows = [row for unit in units for row in range(unit.row_lo, unit.row_lo + unit.rows)]
    assert rows == list(range(shard.rows))
    for unit in units:
        within = groups[unit.first_group : unit.last_group]
        assert unit.rows == sum(n for n, _ in within) > 0
        assert unit.nbytes == sum(size for _, size in within)
        assert unit.nbytes <= unit_bytes or sum(1 for n, _ in within if n) == 1 or any(n == 0 for n, _ in within)
    assert len({unit.name for unit in units}) == len(units)


def test_a_unit_is_named_by_its_rows():
    assert Unit("p", "n", "d", 0, 1, 2, 10, 5, 100).name == "000000000010-000000000015"


# -- fetching ---------------------------------------------------------------------------------


@EASY
@given(picked=st.sets(st.integers(0, 99)), group=st.integers(1, 120))
def test_fetched_rows_are_the_rows(tmp_path_factory, picked, group):
    columns = {"text": [f"t{i}" if i % 5 else None for i in range(100)], "b": list(range(100))}
    columns["c"] = [[i] for i in range(100)]
    path = write(tmp_path_factory.mktemp("x") / "x.parquet", columns, row_group_size=group)
    shard = shard_of(path)
    rows = np.array(sorted(picked), np.int64)

    assert fetch_rows(shard, rows).equals(pq.read_table(path).take(rows))
    assert fetch_rows(shard, rows, ["c", "text"]).equals(pq.read_table(path).select(["c", "text"]).take(rows))
    assert fetch_documents(shard, Reading(), rows).equals(documents(shard).take(rows))


def test_only_the_row_groups_that_are_needed_are_read(tmp_path):
    path = write(tmp_path / "x.parquet", {"text": [f"t{i}" for i in range(30)]}, row_group_size=10)
    shard = shard_of(path)
    damaged_copy(path, column=0, group=1)

    assert fetch_rows(shard, np.array([3, 25]))["text"].to_pylist() == ["t3", "t25"]


@pytest.mark.parametrize("rows", [[3, 3], [5, 2], [-1], [30]])
def test_rows_to_fetch_ascend_within_the_shard(tmp_path, rows):
    shard = shard_of(write(tmp_path / "x.parquet", {"text": ["a"] * 30}))

    with pytest.raises(ValueError, match="ascend"):
        fetch_rows(shard, np.array(rows))
    with pytest.raises(UsageError, match="no column 'nope'"):
        fetch_rows(shard, np.array([1]), ["nope"])


@pytest.mark.parametrize(
    ("offset", "field", "within"),
    [(0, "title", 0), (2, "title", 2), (3, "m[0].t", 0), (4, "m[0].t", 1), (6, "m[2].t", 0), (9, "tags[0]", 0),
     (10, "tags[1]", 0), (13, "tags[1]", 3)],
)
def test_an_offset_of_the_joined_text_leads_to_its_field(offset, field, within):
    row = pa.table(
        {
            "title": ["字字"],
            "empty": pa.array([None], pa.string()),
            "m": [[{"t": "ab"}, {"t": None}, {"t": "cd"}]],
            "tags": pa.array([[("k", ""), ("l", "xyz")]], PAIRS),
        }
    )
    reading = Reading(text=("title", "empty", "missing", "m[*].t", "tags[*]"))

    assert locate(row, reading, offset) == (field, within)
    with pytest.raises(IndexError):
        locate(row, reading, 14)


@EASY
@given(rows=st.lists(st.text(max_size=5) | st.none(), min_size=1, max_size=5), title=st.none() | st.text(max_size=5))
def test_located_characters_are_those_of_the_joined_text(rows, title):
    row = pa.table({"title": pa.array([title], pa.string()), "m": pa.array([rows], pa.list_(pa.string()))})
    joined = "\n".join(part for part in [title, *rows] if part is not None)

    for offset, character in enumerate(joined):
        field, within = locate(row, Reading(text=("title", "m[*]")), offset)
        text = title if field == "title" else rows[int(field[2:-1])]
        assert (text + "\n")[within] == character


# -- tables and writing -----------------------------------------------------------------------


def rich_table(item="element"):
    schema = pa.schema(
        [
            pa.field("text", pa.large_string(), metadata={"note": "körper"}),
            pa.field("tags", pa.list_(pa.field(item, pa.struct([("k", pa.string())])))),
            pa.field("source", pa.dictionary(pa.int32(), pa.string())),
            pa.field("view", pa.string_view()),
            pa.field("at", pa.timestamp("ms", "UTC")),
            pa.field("vector", pa.list_(pa.field(item, pa.float32()), 2)),
            *([pa.field("map", pa.map_(pa.string(), pa.int8()))] if item == "element" else []),
        ],
        metadata={"pandas": "{}", "origin": "test"},
    )
    rows = [
        {"text": f"字{i}" if i % 4 else None, "tags": [{"k": str(i)}] * (i % 3), "source": f"s{i % 2}", "view": "v" * i,
         "at": i, "vector": [i, i], "map": [("a", i % 100)][: i % 2]}
        for i in range(100)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema)


@pytest.mark.parametrize("slice_bytes", [1, 1000, 1 << 20])
@pytest.mark.parametrize("item", ["element", "item"])
def test_tables_keep_the_inputs_own_schema(tmp_path, slice_bytes, item):
    table = rich_table(item)
    path = tmp_path / "x.parquet"
    shard = shard_of(write(path, table, row_group_size=30, use_compliant_nested_type=item == "element"))

    found = list(read_table(shard, slice_bytes))

    schema = read_schema(shard)
    assert schema.equals(pq.read_schema(path), check_metadata=True)
    assert schema.field("text").equals(table.schema.field("text"), check_metadata=True)
    assert all(part.schema.equals(schema, check_metadata=True) for _, part in found)
    assert [lo for lo, _ in found] == list(np.cumsum([0, *(part.num_rows for _, part in found)])[:-1])
    assert pa.concat_tables([part for _, part in found]).to_pylist() == table.to_pylist()
    with ShardWriter(Place.of(tmp_path / "y.parquet"), schema) as writer:
        for _, part in found:
            writer.write(part)
    assert pq.read_schema(tmp_path / "y.parquet").equals(schema, check_metadata=True)


@settings(EASY, max_examples=15)
@given(cuts=st.lists(st.integers(0, 100), max_size=6), group_bytes=st.integers(300, 9000))
def test_written_bytes_depend_on_the_rows_not_on_how_they_came(tmp_path_factory, cuts, group_bytes):
    folder = Place.of(tmp_path_factory.mktemp("x"))
    table = rich_table("item")
    with ShardWriter(folder / "whole.parquet", table.schema, group_bytes) as writer:
        writer.write(table)
    edges = [0, *sorted(cuts), 100]
    with ShardWriter(folder / "parts.parquet", table.schema, group_bytes) as writer:
        for lo, hi in zip(edges, edges[1:], strict=False):
            writer.write(table.slice(lo, hi - lo))

    assert (folder / "whole.parquet").read_bytes() == (folder / "parts.parquet").read_bytes()
    back = pq.read_table((folder / "parts.parquet").path)
    assert back.schema.equals(table.schema, check_metadata=True)
    assert back.to_pylist() == table.to_pylist()
    assert writer.rows == 100


@pytest.mark.parametrize("where", ["local", "memory"])
def test_a_shard_appears_whole_or_not_at_all(tmp_path, where):
    folder = Place.of(tmp_path / "out" if where == "local" else f"memory://{uuid4().hex}/out")
    schema = pa.schema([("text", pa.string())])

    with pytest.raises(ZeroDivisionError), ShardWriter(folder / "a/x.parquet", schema) as writer:
        writer.write(pa.table({"text": ["a"]}, schema))
        assert list(folder.names()) == []
        raise ZeroDivisionError
    assert list(folder.names()) == []
    assert not list(tmp_path.rglob(".tmp*"))

    with ShardWriter(folder / "a/x.parquet", schema):
        pass
    assert pq.read_table(pa.BufferReader((folder / "a/x.parquet").read_bytes())).schema.equals(schema)
    with pytest.raises(ValueError, match="columns"), ShardWriter(folder / "y.parquet", schema) as writer:
        writer.write(pa.table({"other": ["a"]}))


@EASY
@given(st.lists(st.none() | st.lists(st.none() | st.text(max_size=5), max_size=3), max_size=20), st.integers(0, 20))
def test_the_size_of_a_row_is_a_function_of_its_value(rows, start):
    plain = pa.array(rows, pa.list_(pa.string()))
    packed = pa.array(rows, pa.large_list(pa.dictionary(pa.int8(), pa.string())))

    sizes = row_bytes(plain)

    assert list(sizes[start:]) == list(row_bytes(plain.slice(start))) == list(row_bytes(packed.slice(start)))
    assert len(sizes) == len(rows)


# -- real files -------------------------------------------------------------------------------


@needs_data
def test_the_mixed_corpus_is_read_as_its_readme_counts():
    found, bad = read_footers(find_shards(str(DATA / "mixed")))
    reading = Reading(id="id", source="source", url="url", language="language", kind="kind", licence="licence")
    check_reading(found, reading)

    table = pa.concat_tables([documents(shard, reading, 1 << 20, slice_bytes=1 << 20) for shard in found])

    assert [b.name for b in bad] == ["shard-10-damaged-truncated"]
    assert table.num_rows == 60_073
    assert table["source"].null_count == 12
    states = {v["values"]: v["counts"] for v in table["state"].value_counts().to_pylist()}
    assert states == {"ok": 59_973, "empty": 100}
