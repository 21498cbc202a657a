"""The store and the run folder: done means the file exists, and a run never changes."""

import json
import os
import stat
from datetime import date
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus_guard.errors import DataError, UsageError
from corpus_guard.findings import KEYWORD, classifier_schema
from corpus_guard.places import Place, safe_name
from corpus_guard.shards import Unit
from corpus_guard.store import RunFolder, Store, stage_key

KEY = stage_key("keywords", "a" * 64, "b" * 64)


@pytest.fixture(params=["local", "memory"])
def root(request, tmp_path):
    return Place.of(tmp_path if request.param == "local" else f"memory://{uuid4().hex}")


@pytest.fixture
def store(root):
    return Store(root / "store")


def unit_of(rows, row_lo=0, digest="d" * 64):
    return Unit("/x/a.parquet", "a", digest, 0, 0, 1, row_lo, rows, 10)


def some_findings(rows):
    return pa.table({"row": pa.array(range(rows), pa.int64()), "state": ["ok"] * rows})


def test_findings_come_back_with_their_types_and_metadata(store):
    scores = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(6, dtype=np.float16)), 3)
    table = pa.table(
        [scores, pa.array([1, None], pa.uint32()), pa.array([3, 4], pa.uint32()), pa.array([1, 1], pa.float32())],
        schema=classifier_schema(["a", "b", "c"]),
    )

    store.put(KEY, unit_of(2), table, {"labels": '["a"]'})

    assert store.read(KEY, unit_of(2)).cast(table.schema).equals(table)
    assert store.read(KEY, unit_of(2)).schema.types == table.schema.types
    assert store.read(KEY, unit_of(2), ["window"]).column_names == ["window"]
    assert store.metadata(KEY, unit_of(2)) == {"labels": '["a"]'}


hits = st.lists(
    st.fixed_dictionaries({name: st.integers(0, 9) for name in ("entry", "start", "end", "edges")}), max_size=3
)


@settings(deadline=None, derandomize=True, max_examples=50)
@given(rows=st.lists(st.tuples(st.none() | hits, st.none() | st.integers(0, 9)), max_size=20), cut=st.integers(0, 20))
def test_equal_findings_give_equal_bytes_however_they_are_chunked(rows, cut):
    store = Store(Place.of(f"memory://{uuid4().hex}"))
    table = pa.table([pa.array([r[i] for r in rows], field.type) for i, field in enumerate(KEYWORD)], schema=KEYWORD)
    unit = unit_of(len(rows))

    store.put(KEY, unit, table, {"b": "1", "a": "2"})
    first = (store.place / store.place.names()[0]).read_bytes()
    store.put(KEY, unit, pa.concat_tables([table.slice(0, cut), table.slice(cut)]), {"a": "2", "b": "1"})

    assert (store.place / store.place.names()[0]).read_bytes() == first
    assert store.read(KEY, unit).to_pylist() == table.to_pylist()


def test_what_is_put_is_done_and_what_is_deleted_is_not(store):
    first, second, other = unit_of(3), unit_of(3, row_lo=3), unit_of(3, digest="e" * 64)
    assert store.done_all(KEY) == set()
    assert store.done(KEY, first.shard_digest) == set()

    for unit in (first, second, other):
        store.put(KEY, unit, some_findings(3))

    assert store.done(KEY, first.shard_digest) == {first.name, second.name}
    assert store.done_all(KEY) == {("d" * 12, first.name), ("d" * 12, second.name), ("e" * 12, first.name)}
    assert store.done_all(stage_key("keywords", "c" * 64, "b" * 64)) == set()
    store.delete(KEY, first)
    store.delete(KEY, first)
    assert store.done(KEY, first.shard_digest) == {second.name}
    with pytest.raises(FileNotFoundError):
        store.read(KEY, first)


def test_findings_have_one_row_per_document(store):
    with pytest.raises(ValueError, match="2 rows of findings for 3 documents"):
        store.put(KEY, unit_of(3), some_findings(2))


def test_a_partial_unit_counts_while_all_it_skipped_is_blacklisted(store):
    unit = unit_of(3)
    store.put(KEY, unit, some_findings(3), {"n": "1"}, skipped=["b", "a", "a"])

    assert store.done_all(KEY) == set()
    assert store.done_all(KEY, frozenset({"a"})) == set()
    assert store.done_all(KEY, frozenset({"a", "b", "c"})) == {("d" * 12, unit.name)}
    assert store.done(KEY, unit.shard_digest, {"a", "b"}) == {unit.name}
    assert store.skipped(KEY, unit) == {"a", "b"}
    assert store.metadata(KEY, unit) == {"n": "1"}
    with pytest.raises(FileNotFoundError):
        store.read(KEY, unit, blacklisted={"a"})


def test_the_full_unit_wins_over_partial_ones_and_the_least_partial_over_the_rest(store):
    unit = unit_of(1)

    def put(state, *skipped):
        store.put(KEY, unit, pa.table({"state": [state]}), skipped=skipped)

    put("two", "a", "b")
    assert store.read(KEY, unit)["state"].to_pylist() == ["two"]
    put("one", "c")
    assert store.read(KEY, unit)["state"].to_pylist() == ["one"]
    assert store.read(KEY, unit, blacklisted={"a", "b"})["state"].to_pylist() == ["two"]
    put("full")
    assert store.read(KEY, unit)["state"].to_pylist() == ["full"]
    assert store.skipped(KEY, unit) == frozenset()
    assert store.done_all(KEY) == {("d" * 12, unit.name)}
    store.delete(KEY, unit)
    assert store.done_all(KEY, {"a", "b", "c"}) == set()


SOURCES = "abc"


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    put=st.lists(st.tuples(st.integers(0, 3), st.sets(st.sampled_from(SOURCES))), max_size=8),
    blacklisted=st.frozensets(st.sampled_from(SOURCES)),
)
def test_done_is_what_can_be_read_under_the_blacklist(put, blacklisted):
    store = Store(Place.of(f"memory://{uuid4().hex}"))
    for number, skipped in put:
        store.put(KEY, unit_of(1, row_lo=number), some_findings(1), skipped=skipped)

    done = store.done_all(KEY, blacklisted)

    assert done == {("d" * 12, unit_of(1, row_lo=n).name) for n, skipped in put if skipped <= blacklisted}
    for number in range(4):
        unit = unit_of(1, row_lo=number)
        if ("d" * 12, unit.name) in done:
            assert store.skipped(KEY, unit, blacklisted) <= blacklisted
        else:
            with pytest.raises(FileNotFoundError):
                store.read(KEY, unit, blacklisted=blacklisted)


def test_damaged_findings_are_told_and_not_used(store):
    store.put(KEY, unit_of(100), some_findings(100))
    file = store.place / store.place.names()[0]
    data = bytearray(file.read_bytes())
    data[10] ^= 1

    for damaged in (bytes(data), bytes(data[:50]), b""):
        file.put(damaged)
        with pytest.raises(DataError, match="Delete it and scan again"):
            store.read(KEY, unit_of(100))


def test_a_stage_has_another_key_for_another_reading_or_digest():
    assert stage_key("keywords", "a", "b") == stage_key("keywords", "a", "b")
    keys = {stage_key(name, s, r) for name in ("keywords", "../x") for s in "ab" for r in "ab"}

    assert len(keys) == 8
    assert all("/" not in key for key in keys)
    assert KEY.startswith("keywords-") and len(KEY) == len("keywords-") + 12


# -- run folders ------------------------------------------------------------------------------


def test_a_run_is_bound_to_what_it_began_with(root):
    run = RunFolder.of(root / "run")
    run.open()

    assert run.bind({"policy": "p" * 64, "stages": "l" * 64}, date(2026, 11, 1)) == date(2026, 11, 1)
    assert run.bind({"stages": "l" * 64, "policy": "p" * 64, "labels": ""}, date(2027, 1, 1)) == date(2026, 11, 1)
    before = run.identity.read_bytes()
    with pytest.raises(UsageError) as told:
        run.bind({"policy": "q" * 64, "stages": "m" * 64}, date(2026, 11, 1))

    assert "another policy (pppppppppppp then, qqqqqqqqqqqq now)" in str(told.value)
    assert "other stages" in str(told.value)
    assert "choose another run name" in str(told.value)
    assert run.identity.read_bytes() == before
    assert json.loads(before)["as_of"] == "2026-11-01"


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"identity": {}, "as_of": "soon"}', b"\xff"])
def test_a_damaged_identity_is_not_bound_again(root, content):
    run = RunFolder.of(root / "run")
    run.identity.put(content)

    with pytest.raises(UsageError, match="choose another run name"):
        run.bind({}, date(2026, 1, 1))


def test_restricted_text_lies_beside_the_run_and_never_inside(root):
    run = RunFolder.of(root / "run")

    assert run.restricted.uri == f"{root.uri}/run.restricted"
    run.open()
    for inside in (run.run, run.run / "clean", run.run / "a/b"):
        with pytest.raises(UsageError, match="lies inside the run folder"):
            RunFolder.of(run.run, inside).open()
    with pytest.raises(UsageError, match="lies inside"):
        RunFolder.of(root / "a/run", root / "a").open()
    RunFolder.of(root / "run", root / "run-restricted").open()


def test_a_link_into_the_run_is_inside_the_run(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "run")

    with pytest.raises(UsageError, match="lies inside"):
        RunFolder.of(Place.of(tmp_path / "run"), Place.of(tmp_path / "link/x")).open()


def test_restricted_is_closed_to_others(tmp_path):
    new = RunFolder.of(Place.of(tmp_path / "run"))
    new.open()
    (tmp_path / "shared").mkdir()
    os.chmod(tmp_path / "shared", 0o755)
    RunFolder.of(Place.of(tmp_path / "run"), Place.of(tmp_path / "shared")).open()

    assert stat.S_IMODE(os.stat(new.restricted.path).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(tmp_path / "shared").st_mode) == 0o750
    assert os.listdir(new.restricted.path) == []


def test_a_run_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(UsageError):
        RunFolder.of(Place.of(tmp_path / "file/run")).open()


def test_every_path_of_a_run_is_below_its_folder(root):
    run = RunFolder.of(root / "run")
    unit = Unit("p", f"deep/{safe_name('..')}", "d" * 64, 0, 0, 1, 0, 1, 1)
    name = unit.shard_name

    public = [
        run.manifest, run.identity, run.verdicts(unit), run.tally(name), run.sources, run.sources_csv, run.clean(name),
        run.accounting, run.shard_accounting(name), run.manual_sample, run.technical_sample(name), run.technical,
        run.draws, run.failed(name), run.failed(name, unit.name), run.reports,
    ]  # fmt: skip
    private = [run.removed(name), run.quarantined(name), run.review, run.labels]

    assert len({place.uri for place in public + private}) == len(public) + len(private)
    assert all(place.uri.startswith(run.run.uri + "/") for place in public)
    assert all(place.uri.startswith(run.restricted.uri + "/") for place in private)
    assert run.clean("a/x").uri.endswith("/run/clean/a/x.parquet")


def test_one_driver_works_on_a_run(root):
    run = RunFolder.of(root / "run")

    with run.lock(), pytest.raises(UsageError, match="in use by process"), run.lock():
        pass


def test_findings_are_plain_parquet(tmp_path):
    store = Store(Place.of(tmp_path))
    store.put(KEY, unit_of(2), some_findings(2))

    assert pq.read_table(tmp_path / f"findings/{KEY}/{'d' * 12}/{unit_of(2).name}.parquet").num_rows == 2
