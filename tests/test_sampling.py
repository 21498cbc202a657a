"""Samples of exact size that nobody can steer: by rank, mergeable, the same for any split of the corpus."""

import hashlib
import json
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus_guard import sampling
from corpus_guard.errors import UsageError
from corpus_guard.sampling import (
    Cut,
    DrawRecord,
    Fingerprint,
    Window,
    candidates,
    draw_key,
    draw_size,
    histogram,
    merge,
    next_attempt,
    ranks,
    read_draws,
)

KEY = draw_key("manifest", "policy", "technical", 1)


def one_by_one(ids, key, purpose):
    person = purpose.encode()[:16]
    return [int.from_bytes(hashlib.blake2b(i, digest_size=8, key=key, person=person).digest(), "big") for i in ids]


@pytest.mark.parametrize("key", [b"", b"k", KEY, b"x" * 64])
def test_ranks_equal_hashlib_for_every_length(key):
    rng = np.random.default_rng(7)
    lengths = [*range(140), 255, 256, 257, 300, 1000, 70_000] * 12
    ids = [rng.bytes(n) for n in lengths]

    assert len(ids) > sampling._FEW
    assert ranks(pa.array(ids, pa.binary()), key, "manual").tolist() == one_by_one(ids, key, "manual")


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    st.lists(st.text(max_size=70), max_size=30),
    st.binary(max_size=64),
    st.text(max_size=20),
    st.integers(0, 5),
    st.sampled_from([pa.string(), pa.large_string()]),
)
def test_ranks_equal_hashlib_for_any_text_key_and_purpose(ids, key, purpose, skipped, type):
    few, side_by_side = sampling._FEW, sampling._SIDE_BY_SIDE
    sampling._FEW, sampling._SIDE_BY_SIDE = 1, 7  # so that short lists too are hashed side by side, in several columns
    try:
        array = pa.array(ids, type).slice(min(skipped, len(ids)))
        found = ranks(array, key, purpose)
        halves = ranks(pa.chunked_array([array.slice(0, 2), array.slice(2)], type), key, purpose)
    finally:
        sampling._FEW, sampling._SIDE_BY_SIDE = few, side_by_side

    expected = one_by_one([i.as_py().encode() for i in array], key, purpose)
    assert found.tolist() == expected
    assert halves.tolist() == expected


def test_an_id_without_value_and_a_key_that_is_too_long_are_mistakes():
    with pytest.raises(ValueError, match="null"):
        ranks(pa.array(["a", None]), KEY, "manual")
    with pytest.raises(ValueError, match="64 bytes"):
        ranks(pa.array(["a"]), b"k" * 65, "manual")


def test_the_key_depends_on_everything_a_draw_rests_on():
    keys = {
        draw_key(*parts)
        for parts in [
            ("m", "p", "manual", 1), ("m2", "p", "manual", 1), ("m", "p2", "manual", 1), ("m", "p", "technical", 1),
            ("m", "p", "manual", 2), ("mp", "", "manual", 1), ("m", "p", "manual1", 1),
        ]
    }  # fmt: skip

    assert len(keys) == 7
    assert {len(key) for key in keys} == {32}


# The two purposes must not choose the same documents, or the technical check would check what people have read.
def test_purposes_draw_independently():
    ids = pa.array([str(i) for i in range(20_000)])
    both = (ranks(ids, KEY, "manual") < 1 << 61) & (ranks(ids, KEY, "technical") < 1 << 61)

    assert abs(int(both.sum()) - 20_000 / 64) < 80


def corpus(ids, shards, seed=0):
    """Documents spread over shards: a list of (digest, copy, rows, ids). Two shards are equal copies of one file."""
    rng = np.random.default_rng(seed)
    of = rng.integers(0, shards, len(ids))
    parts = []
    for shard in range(shards):
        mine = [i for i, s in zip(ids, of, strict=True) if s == shard]
        digest, copy = hashlib.sha256(str(shard // 2).encode()).hexdigest(), shard % 2
        parts.append((digest, copy, np.arange(len(mine)), mine))
    return parts


def table(part):
    digest, copy, rows, ids = part
    n = len(ids)
    return pa.table({"id": pa.array(ids, pa.string()), "digest": [digest] * n, "row": rows, "copy": [copy] * n}).cast(
        pa.schema([("id", pa.string()), ("digest", pa.string()), ("row", pa.int64()), ("copy", pa.int32())])
    )


def drawn(part, k):
    return candidates(table(part), ranks(pa.array(part[3], pa.string()), KEY, "manual"), k)


def naive_draw(parts, k):
    everything = [
        (rank, digest, int(row), copy)
        for digest, copy, rows, ids in parts
        for rank, row in zip(one_by_one([i.encode() for i in ids], KEY, "manual"), rows, strict=True)
    ]
    return sorted(everything)[:k]


ids_with_duplicates = st.lists(st.integers(0, 40).map(str), max_size=60)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(ids_with_duplicates, st.integers(1, 6), st.integers(0, 70), st.randoms(use_true_random=False))
def test_draws_of_parts_merge_to_the_draw_of_the_whole(ids, shards, k, random):
    parts = corpus(ids, shards)
    tables = [drawn(part, k) for part in parts]
    random.shuffle(tables)
    half = random.randint(0, len(tables))

    merged = merge([merge(ts, k) for ts in (tables[:half], tables[half:]) if ts], k)

    rows = [
        tuple(merged.select(["rank", "digest", "row", "copy"]).slice(i, 1).to_pylist()[0].values())
        for i in range(len(merged))
    ]
    assert rows == naive_draw(parts, k)


def test_everything_is_drawn_where_there_is_less_than_asked_for():
    assert drawn(("ab", 0, np.arange(3), ["x", "y", "z"]), 4_000).num_rows == 3
    assert drawn(("ab", 0, np.arange(0), []), 4_000).num_rows == 0
    assert drawn(("ab", 0, np.arange(3), ["x", "y", "z"]), 0).num_rows == 0


@pytest.mark.parametrize(
    ("population", "size"), [(0, 0), (1, 1), (9, 1), (10, 1), (11, 2), (36_003, 3_601), (10**18 + 1, 10**17 + 1)]
)
def test_ten_percent_is_rounded_up(population, size):
    assert draw_size(population, Fraction(1, 10)) == size


def test_four_thousand_or_everything():
    assert draw_size(3_999, least=4_000) == 3_999
    assert draw_size(100_000, least=4_000) == 4_000


def exact_cut(parts, need, collect=50):
    """What driver and workers do: count, narrow, and pick once few enough are left."""
    ranked = [
        (ranks(pa.array(ids, pa.string()), KEY, "manual"), digest, rows, copy) for digest, copy, rows, ids in parts
    ]
    found, rounds = Window(need), 0
    while isinstance(found, Window):
        total = sum((found.histogram(*part) for part in ranked), np.zeros(sampling.BUCKETS, np.int64))
        found, rounds = found.narrow(total), rounds + 1
        if isinstance(found, Window) and sum(int(found.members(*part).sum()) for part in ranked) <= collect:
            inside = [
                table(p).add_column(0, "rank", pa.array(r[0])).filter(pa.array(found.members(*r)))
                for p, r in zip(parts, ranked, strict=True)
            ]
            found = found.pick(pa.concat_tables(inside))
    members = [
        (int(part[0][i]), part[1], int(part[2][i]), part[3])
        for part in ranked
        for i in np.flatnonzero(found.contains(*part))
    ]
    return sorted(members), rounds


@pytest.mark.parametrize("collect", [0, 50])
@settings(deadline=None, derandomize=True, max_examples=40)
@given(ids=ids_with_duplicates, shards=st.integers(1, 6), need=st.integers(0, 60))
def test_the_cut_holds_exactly_as_many_as_asked_for_and_the_same_as_a_draw(collect, ids, shards, need):
    parts = corpus(ids, shards)
    need = min(need, len(ids))

    members, _ = exact_cut(parts, need, collect)

    assert members == naive_draw(parts, need)


@pytest.mark.parametrize("n", [9, 10, 11, 36_003])
@pytest.mark.parametrize("distinct", [False, True])
def test_a_tenth_is_exact_for_any_split(n, distinct):
    ids = [f"document {i if distinct else i % 7}" for i in range(n)]
    need = draw_size(n, Fraction(1, 10))
    splits = [corpus(ids, shards, seed) for shards, seed in ((1, 0), (5, 1), (12, 2))]

    sizes = {len(exact_cut(parts, need)[0]) for parts in splits}

    assert sizes == {-(-n // 10)}


def test_the_same_ids_are_drawn_whatever_the_split():
    ids = [f"document {i}" for i in range(5_000)]
    name = dict(zip(one_by_one([i.encode() for i in ids], KEY, "manual"), ids, strict=True))

    drawn_ids = {
        frozenset(name[rank] for rank, *_ in exact_cut(corpus(ids, shards, shards), 500)[0]) for shards in (1, 4, 9)
    }

    assert len(drawn_ids) == 1
    assert len(*drawn_ids) == 500


def test_a_million_equal_ids_still_give_an_exact_cut_in_few_rounds():
    same = ranks(pa.array(["x"]), KEY, "technical")[0]
    shards = [(f"{s}" * 64, np.arange(250_000)) for s in range(4)]
    found, rounds = Window(100_001), 0
    while isinstance(found, Window):
        parts = [(np.full(len(rows), same), digest, rows, 0) for digest, rows in shards]
        found, rounds = found.narrow(sum(found.histogram(*part) for part in parts)), rounds + 1

    assert sum(int(found.contains(*part).sum()) for part in parts) == 100_001
    assert rounds <= 16


def test_the_ends_of_the_order():
    part = (np.array([0, 2**64 - 1], np.uint64), "f" * 64, np.array([0, 7]), 1)

    assert Cut.none().contains(*part).tolist() == [False, False]
    assert Cut.all().contains(*part).tolist() == [True, True]
    assert Window(0).narrow(np.zeros(4096, np.int64)) == Cut.none()
    with pytest.raises(ValueError, match="count only 2"):
        Window(3).narrow(Window(3).histogram(*part))
    with pytest.raises(ValueError, match="holds only 0"):
        Window(1).pick(table(("ab", 0, np.arange(0), [])).add_column(0, "rank", pa.array([], pa.uint64())))


def test_histograms_add_up():
    some, more = ranks(pa.array(["a", "b"]), KEY, "x"), ranks(pa.array(["c"] * 9), KEY, "x")

    assert (histogram(np.concatenate([some, more])) == histogram(some) + histogram(more)).all()
    assert histogram(some, bits=8).shape == (256,)


def test_a_sample_is_spread_evenly_over_sources():
    ids = [f"forum.{i % 10}/{i}" for i in range(50_000)]
    members, _ = exact_cut([("ab" * 32, 0, np.arange(50_000), ids)], 5_000)

    counts = np.bincount([row % 10 for _, _, row, _ in members])

    assert ((counts - 500) ** 2 / 500).sum() < 27.9  # chi square, 9 degrees of freedom, p = 0.001


def test_fingerprints_add_up_and_tell_draws_apart():
    a, b = pa.array(["x", "y"]), pa.array(["z"])

    assert Fingerprint.of(a) + Fingerprint.of(b) == Fingerprint.of(pa.array(["z", "y", "x"]))
    assert Fingerprint.of(a).hex != Fingerprint.of(b).hex
    assert Fingerprint.of(pa.array(["x"])).lanes == tuple(
        int.from_bytes(hashlib.blake2b(b"x", digest_size=32, person=b"fingerprint").digest()[i : i + 8], "big")
        for i in (0, 8, 16, 24)
    )
    many = pa.array([f"document {i}" for i in range(2 * sampling._FEW)])
    assert Fingerprint.of(many) == sum(
        (Fingerprint.of(many.slice(i, 100)) for i in range(0, len(many), 100)), Fingerprint()
    )
    assert len(Fingerprint().hex) == 64


def record(**changed):
    fields = {
        "purpose": "manual", "population": 100, "size": 10, "manifest": "m", "policy": "p", "attempt": 1, "reason": "",
        "ids": "00",
    }  # fmt: skip
    fields |= changed
    fields.setdefault("key", draw_key(fields["manifest"], fields["policy"], fields["purpose"], fields["attempt"]).hex())
    return DrawRecord(**fields)


def test_the_ledger_reads_back():
    draws = [record(), record(attempt=2, reason="the first sample was lost – 丢失")]

    assert read_draws("".join(d.line for d in draws).encode(), "draws.jsonl") == draws


def test_broken_lines_of_the_ledger_are_named_all_at_once():
    changed = json.loads(record().line) | {"attempt": 2}
    lines = ["nonsense", json.dumps({"purpose": "manual"}), json.dumps(changed), "[]", record().line.strip(), "1"]

    with pytest.raises(UsageError) as error:
        read_draws("\n".join(lines).encode(), "draws.jsonl")

    told = str(error.value)
    assert "draws.jsonl:1: is no JSON" in told
    assert "draws.jsonl:2: lacks population" in told
    assert "draws.jsonl:3: key" in told
    assert "draws.jsonl:4: lacks purpose" in told
    assert "draws.jsonl:5" not in told
    assert "draws.jsonl:6" in told


def test_drawing_again_from_an_unchanged_corpus_needs_a_reason():
    draws = [record(), record(attempt=2, reason="x"), record(purpose="technical")]

    assert next_attempt(draws, "m2", "p", "manual", "") == 1
    assert next_attempt(draws, "m", "p", "manual", "two readers fell ill") == 3
    with pytest.raises(UsageError, match="drawn 2 times already"):
        next_attempt(draws, "m", "p", "manual", " ")
