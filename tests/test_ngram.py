"""The n-gram screen: every character counts, the same bits however documents are cut into batches."""

import math
import os
import shutil
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from corpus_guard.classifiers import load_model, recipe
from corpus_guard.classifiers.batches import document_groups
from corpus_guard.classifiers.ngram import Folding, NgramScorer, NgramWeights
from corpus_guard.classifiers.pooling import Pooling
from corpus_guard.errors import UsageError
from corpus_guard.findings import BATCH
from corpus_guard.text.windows import Windows

LABELS, BUCKETS = 5, 1 << 10
DELETED = 0xFFFFFFFF


def weights(seed=0, labels=LABELS, buckets=BUCKETS):
    rng = np.random.default_rng(seed)
    return NgramWeights(
        weight=rng.integers(-127, 128, (buckets, labels)).astype(np.int8),
        scale=np.linspace(0.01, 0.02, labels, dtype=np.float32),
        bias=np.linspace(-1, 1, labels, dtype=np.float32),
        orders=(1, 2, 3, 4),
        fold_from=np.array([ord("A"), 0x200B, ord("\n")], np.uint32),
        fold_to=np.array([ord("a"), DELETED, 0x20], np.uint32),
    )


def naive(text, w, windows):
    """Character by character: what the vectorised scorer must give, bit for bit."""
    raw = [{"A": "a", "\n": " "}.get(c, c) for c in text]
    codes = [ord(c) for i, c in enumerate(raw) if c != "\u200b" and not (c == " " and i and raw[i - 1] == " ")]
    padded = codes + [0, 0, 0]
    shift = 32 - (len(w.weight).bit_length() - 1)
    rows = []
    for start in range(0, max(len(codes) - windows.size, 0) + windows.stride, windows.stride):
        end = min(start + windows.size, len(codes))
        total = np.zeros(w.labels, np.int64)
        for i in range(start, end):
            running = 0
            for n in range(4):
                running = ((running ^ padded[i + n]) * 0x9E3779B1) & 0xFFFFFFFF
                running ^= running >> 15
                total += w.weight[((running * 0x85EBCA6B) & 0xFFFFFFFF) >> shift]
        odds = total * w.scale.astype(np.float64) / math.sqrt(max(end - start, 1) * 4) + w.bias
        rows.append(odds.astype(np.float32))
        if end == len(codes):
            break
    return np.array(rows)


TEXTS = st.lists(
    st.text(st.sampled_from(list("aAb \n\u200b中文，é😀\U0010ffff\0")), max_size=90), min_size=1, max_size=6
)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(TEXTS, st.sampled_from([(16, 8), (8, 8), (24, 8), (64, 32)]), st.integers(1, 9))
def test_scores_are_those_of_reading_character_by_character(texts, sizes, labels):
    w, windows = weights(labels=labels), Windows(*sizes)
    if any("\U0010ffff" in text or "\0" in text for text in texts):
        texts = [text.replace("\U0010ffff", "").replace("\0", "") for text in texts]

    odds, count, _ = NgramScorer(w, windows).scores(pa.array(texts, pa.large_string()))

    assert (odds == np.concatenate([naive(text, w, windows) for text in texts])).all()
    assert len(odds) == count.sum()


@pytest.mark.parametrize("stride", [32, 64, 65, 500])
def test_sums_do_not_run_over_into_the_next_label(stride):
    w = weights()
    extreme = NgramWeights(np.full_like(w.weight, 127), *(getattr(w, n) for n in NgramWeights.__slots__[1:]))

    odds, _, _ = NgramScorer(extreme, Windows(2 * stride, stride)).scores(pa.array(["x" * 5000], pa.large_string()))

    assert np.allclose(odds[0], 127 * 4 * 2 * stride * w.scale / math.sqrt(8 * stride) + w.bias)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(TEXTS, st.data())
def test_findings_are_the_same_bits_however_documents_are_cut(texts, data):
    stage = recipe("ngram-screen").build()
    texts = [None if data.draw(st.booleans()) and i else text * 30 for i, text in enumerate(texts)]
    cut = data.draw(st.integers(0, len(texts)))

    whole = stage.find(batch(texts))
    parts = [stage.find(batch(part)) for part in (texts[:cut], texts[cut:])]

    assert pa.Table.from_batches([whole]).equals(pa.Table.from_batches(parts).combine_chunks())


def batch(texts):
    columns = {name: pa.nulls(len(texts), BATCH.field(name).type) for name in BATCH.names}
    columns |= {"text": pa.array(texts, pa.large_string()), "row": pa.array(range(len(texts)), pa.int64())}
    return pa.RecordBatch.from_pydict(columns, schema=BATCH)


def test_a_document_longer_than_a_group_has_the_scores_of_its_windows():
    w, windows = weights(), Windows(64, 32)
    scorer = NgramScorer(w, windows)
    unit = "heron 鹭 stood still。"
    text = unit * 400_000  # about 9 MB in UTF-8: decoded in several parts

    odds, count, length = scorer.scores(pa.array([text], pa.large_string()))

    assert length.tolist() == [len(text)]
    assert count.tolist() == windows.count([len(text)]).tolist()
    period = len(unit) * 32 // math.gcd(len(unit), 32) // 32
    assert (odds[: period * 100] == np.tile(odds[:period], (100, 1))).all()
    assert (odds[-period - 1 : -1] == odds[-2 * period - 1 : -period - 1]).all()


def test_null_texts_get_null_findings_and_keep_their_place():
    stage = recipe("ngram-screen").build()

    findings = stage.find(batch([None, "a heron stood still", None]))

    assert findings.schema == stage.schema
    for name in findings.schema.names:
        assert findings.column(name).is_valid().to_pylist() == [False, True, False]
    assert findings.column("inclusion_probability").to_pylist()[1] == 1.0
    assert stage.find(batch([])).num_rows == 0
    assert stage.find(batch([None, None])).column("scores").null_count == 2


def test_a_slice_of_a_batch_is_scored_like_a_batch_of_its_own():
    stage = recipe("ngram-screen").build()
    texts = ["one heron", None, "two 鹭", "three" * 100, None]

    cut = stage.find(batch(texts).slice(1, 3))

    assert cut.equals(stage.find(batch(texts[1:4])))


def test_only_white_space_and_invisible_characters_still_give_one_window():
    odds, count, length = NgramScorer(weights(), Windows(64, 32)).scores(
        pa.array(["\u200b" * 5, ""], pa.large_string())
    )

    assert count.tolist() == [1, 1] and length.tolist() == [0, 0]
    assert np.isfinite(odds).all()


def test_folding_counts_each_document_by_itself():
    folding = Folding.of(np.array([0x200B], np.uint32), np.array([DELETED], np.uint32))

    codes, start, length = folding.fold(pa.array(["ab ", " \u200bc", "", "  d"], pa.large_string()))

    assert length.tolist() == [3, 2, 0, 2]
    assert ["".join(map(chr, codes[s : s + n])) for s, n in zip(start, length, strict=True)] == ["ab ", " c", "", " d"]


def test_groups_hold_whole_documents_and_a_large_one_alone():
    text = pa.array(["a" * 5, "b" * 5, "c" * 100, "", "d"], pa.large_string())

    assert list(document_groups(text, 10)) == [(0, 2), (2, 3), (3, 5)]
    assert list(document_groups(text.slice(1, 2), 10)) == [(0, 1), (1, 2)]
    assert list(document_groups(text.slice(0, 0), 10)) == []


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.lists(st.integers(0, 200), max_size=8), st.integers(1, 30), st.data())
def test_windows_cover_every_unit_in_order(lengths, size, data):
    windows = Windows(size, data.draw(st.integers(1, size)))

    document, start, end = windows.cut(lengths)

    assert np.bincount(document, minlength=len(lengths)).tolist() == windows.count(lengths).tolist()
    for i, length in enumerate(lengths):
        mine = document == i
        assert sorted({k for s, e in zip(start[mine], end[mine], strict=True) for k in range(s, e)}) == list(
            range(length)
        )
        assert (end[mine] - start[mine] <= size).all() and end[mine][-1] == length


@settings(deadline=None, derandomize=True, max_examples=80)
@given(
    st.lists(st.lists(st.floats(-70, 70, width=32), min_size=1, max_size=6), min_size=1, max_size=5), st.integers(1, 4)
)
def test_pooling_is_that_of_each_document_alone(documents, k):
    odds = np.array([[score, -score] for windows in documents for score in windows], np.float32)
    count = np.array([len(windows) for windows in documents])

    best, window = Pooling("max").pool(odds, count)
    top, _ = Pooling("top_k_mean", k).pool(odds, count)
    some, _ = Pooling("noisy_or").pool(odds, count)

    for i, windows in enumerate(documents):
        kept = np.clip(np.array(windows, np.float32), -60, 60)
        assert best[i].tolist() == [kept.max(), (-kept).max()]
        assert window[i] == np.argmax(np.abs(kept))
        if len(documents) < count.sum():
            assert top[i, 0] == pytest.approx(np.sort(kept)[::-1][:k].mean(), abs=1e-4)
        if np.abs(kept).max() < 20:
            chance = 1 - np.prod(1 - 1 / (1 + np.exp(-kept.astype(np.float64))))
            assert 1 / (1 + math.exp(-some[i, 0])) == pytest.approx(chance, abs=1e-5)


def test_the_shipped_screen_says_of_all_31_risks_what_it_knows():
    model = load_model("ngram-screen")

    assert len(model.evaluation) == 31
    assert {e.status for e in model.evaluation.values()} <= {"usable", "weak", "no data"}
    for risk in ("A.4.a", "A.4.d", "A.4.f"):
        assert [label.upper for label in model.labels if label.name == risk] == [None]
    assert sum(path.stat().st_size for path in model.folder.iterdir()) < 20_000_000


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda t: t.pop("bias"), "has no tensor 'bias'"),
        (lambda t: t.update(scale=t["scale"].astype(np.float64)), "has no tensor 'scale' of type float32"),
        (lambda t: t.update(weight=t["weight"][:-1]), "must be a power of two"),
        (lambda t: t.update(bias=t["bias"][:-1]), "do not have the 16 labels"),
        (lambda t: t.update(fold_from=t["fold_from"] + np.uint32(0x110000)), "table of characters"),
        (lambda t: t.update(fold_to=np.full_like(t["fold_to"], 0x110000)), "table of characters"),
    ],
)
def test_weights_that_do_not_fit_together_are_a_sentence(spoil, sentence, tmp_path):
    folder = tmp_path / "screen"
    shutil.copytree(load_model("ngram-screen").folder, folder)
    tensors = load_file(folder / "model.safetensors")
    spoil(tensors)
    save_file(tensors, folder / "model.safetensors")

    with pytest.raises(UsageError, match=sentence):
        recipe(folder).build()


def data_folder():
    found = Path(os.environ.get("CORPUS_GUARD_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not (found / "traindev_sharealike_and_statutes.parquet").exists():
        pytest.skip("the labelled data is not here; set CORPUS_GUARD_DATA to its folder")
    return found


def test_the_shipped_screen_lets_statutes_pass():
    path = data_folder() / "traindev_sharealike_and_statutes.parquet"
    table = pq.read_table(path, columns=["text", "kind"], filters=[("kind", "=", "law")])
    made = recipe("ngram-screen")

    findings = pa.Table.from_batches([made.build().find(batch(table["text"].to_pylist()))])
    opinion = made.reader(as_of=date(2026, 11, 21), thresholds={}).opinion(findings)

    assert len(findings) > 5_000
    assert (opinion.sure | opinion.unresolved != 0).sum() * 200 <= len(findings)
