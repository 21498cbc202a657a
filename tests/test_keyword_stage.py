"""The keyword stage finds every occurrence, says exactly where, and does not care how documents are cut."""

import csv
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus_guard.errors import DataError, UsageError
from corpus_guard.findings import KEYWORD
from corpus_guard.keywords import engine, stage
from corpus_guard.keywords.engine import Hyperscan, Pyahocorasick, open_engine
from corpus_guard.keywords.stage import KEPT, KeywordRecipe, KeywordStage
from corpus_guard.text.normalise import is_word, normalise

ENGINES = ("pyahocorasick", "hyperscan")
ALPHABET = "abAＢ \n\u200b大麻𝐚😀é"
Found = list[tuple[int, int, int, int]]


def literals_of(terms: list[str]) -> list[str]:
    return sorted({normalise(term).strip() for term in terms} - {""})


def batch(texts: list[str | None]) -> pa.RecordBatch:
    return pa.record_batch({"text": pa.array(texts, pa.large_string())})


def find(literals: list[str], texts: list[str | None], name: str = "pyahocorasick") -> list[Found | None]:
    found = KeywordStage(open_engine(name, [text.encode() for text in literals])).find(batch(texts))
    assert found.schema == KEYWORD
    return as_tuples(found)


def as_tuples(found: pa.RecordBatch) -> list[Found | None]:
    rows = found.column("hits").to_pylist()
    return [row and [(h["entry"], h["start"], h["end"], h["edges"]) for h in row] for row in rows]


def oracle(literals: list[str], text: str) -> Found:
    """Character by character, the slow way."""
    kept: list[tuple[str, int]] = []
    for i, char in enumerate(text):
        folded = normalise(char)
        if folded and not (folded == " " and kept and kept[-1][0] == " "):
            kept.append((folded, i))
    normal = "".join(char for char, _ in kept)
    found = []
    for entry, literal in enumerate(literals):
        at = normal.find(literal)
        while at >= 0:
            end = at + len(literal)
            before = at > 0 and word(normal[at - 1])
            after = end < len(normal) and word(normal[end])
            found.append((kept[at][1], kept[end - 1][1] + 1, entry, before + 2 * after))
            at = normal.find(literal, at + 1)
    return [(entry, start, end, edges) for start, end, entry, edges in sorted(found)]


def word(char: str) -> bool:
    return bool(is_word(np.array([ord(char)], np.uint32))[0])


terms = st.lists(st.text(ALPHABET, min_size=1, max_size=4), min_size=1, max_size=6)
documents = st.lists(st.none() | st.text(ALPHABET, max_size=14), max_size=6)


@pytest.mark.parametrize("name", ENGINES)
@given(terms=terms, texts=documents)
@settings(deadline=None, derandomize=True, max_examples=150)
def test_all_overlapping_matches_are_found_and_only_these(name: str, terms: list[str], texts: list[str | None]) -> None:
    literals = literals_of(terms)

    found = find(literals, texts, name)

    assert found == [None if text is None else oracle(literals, text) for text in texts]


@given(terms=terms, texts=documents)
@settings(deadline=None, derandomize=True, max_examples=100)
def test_a_span_of_the_raw_text_normalises_to_its_literal(terms: list[str], texts: list[str | None]) -> None:
    literals = literals_of(terms)

    for text, hits in zip(texts, find(literals, texts), strict=True):
        for entry, start, end, _ in hits or []:
            assert text is not None and normalise(text[start:end]) == literals[entry]


@given(terms=terms, texts=documents, size=st.integers(1, 20), cut=st.integers(0, 6))
@settings(deadline=None, derandomize=True, max_examples=100)
def test_the_cutting_into_pieces_batches_and_slices_changes_nothing(
    terms: list[str], texts: list[str | None], size: int, cut: int
) -> None:
    literals = literals_of(terms)
    whole = find(literals, texts)
    small = KeywordStage(Pyahocorasick([text.encode() for text in literals]))
    table = (
        pa.Table.from_batches([batch(["a麻", None]), batch(texts), batch(["大大"])]).combine_chunks().to_batches()[0]
    )
    rows = table.slice(2, len(texts))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "_PIECE", size)
        parts = [small.find(rows.slice(0, cut)), small.find(rows.slice(cut))]

    assert [hits for part in parts for hits in as_tuples(part)] == whole


def test_no_match_runs_from_one_document_into_the_next() -> None:
    assert find(["大麻"], ["大", "麻", "大麻", "", "大", None, "麻"]) == [[], [], [(0, 0, 2, 0)], [], [], None, []]


def test_nested_prefix_and_suffix_literals_are_all_found() -> None:
    found = find(["ab", "abc", "b", "bc"], ["abc"])

    assert found == [[(0, 0, 2, 2), (1, 0, 3, 0), (2, 1, 2, 3), (3, 1, 3, 1)]]


def test_zero_width_characters_case_width_and_line_breaks_do_not_hide_a_keyword() -> None:
    [hits] = find(["ktv包房", "make a bomb"], ["＞Ｋ\u200bＴV包\ufeff房。Make  a\r\n BOMB!"])

    assert hits == [(0, 1, 8, 0), (1, 9, 23, 0)]


@pytest.mark.parametrize(
    ("text", "edges"),
    [
        ("ab", 0),
        ("xab", 1),
        ("abx", 2),
        ("7ab7", 3),
        ("大ab大", 0),
        ("가ab가", 0),
        ("a\u200bab", 1),
        (" ab-", 0),
        ("éabя", 3),
    ],
)
def test_edges_tell_whether_a_word_goes_on(text: str, edges: int) -> None:
    [hits] = find(["ab"], [text])

    assert hits is not None and hits[-1][3] == edges


def test_at_most_256_hits_are_kept_and_rare_literals_are_among_them() -> None:
    literals = sorted([f"x{i:03}" for i in range(300)] + ["a"])
    crowded = "a " * 1000 + "x007 x001"
    many = " ".join(literals) * 2

    found = KeywordStage(Pyahocorasick([text.encode() for text in literals])).find(batch([crowded, "a", many]))

    first, one, distinct = as_tuples(found)
    assert first is not None and one is not None and distinct is not None
    assert [len(first), len(one), len(distinct)] == [KEPT, 1, KEPT]
    assert {hit[0] for hit in first[-2:]} == {literals.index("x001"), literals.index("x007")}
    assert first == sorted(first, key=lambda hit: (hit[1], hit[2], hit[0]))
    assert len({hit[0] for hit in distinct}) == KEPT
    assert found.column("hits_total").to_pylist()[:2] == [1002, 1]


@pytest.mark.parametrize(
    "texts", [[], [None], ["", ""], [None, ""], ["\u200b"]], ids=["none", "null", "empty", "both", "invisible"]
)
def test_slices_without_any_text_are_fine(texts: list[str | None]) -> None:
    assert find(["ab"], texts) == [None if text is None else [] for text in texts]


def test_bytes_below_a_null_are_not_text() -> None:
    buffers = [pa.py_buffer(b"\x05"), pa.py_buffer(np.array([0, 2, 5, 7], np.int64)), pa.py_buffer(b"abab\xffab")]
    text = pa.LargeStringArray.from_buffers(3, buffers[1], buffers[2], buffers[0], 1)

    found = KeywordStage(Pyahocorasick([b"ab"])).find(pa.record_batch({"text": text}))

    assert as_tuples(found) == [[(0, 0, 2, 0)], None, [(0, 0, 2, 0)]]
    assert found.column("hits_total").to_pylist() == [1, None, 1]


def test_other_string_types_give_the_same() -> None:
    texts = pa.array(["xab", None, "大ab"])
    small = KeywordStage(Pyahocorasick([b"ab"]))

    given = [small.find(pa.record_batch({"text": texts.cast(kind)})) for kind in (pa.string(), pa.string_view())]

    assert [as_tuples(found) for found in given] == [[[(0, 1, 3, 1)], None, [(0, 1, 3, 0)]]] * 2


def test_invalid_utf8_is_a_sentence_that_names_the_row() -> None:
    offsets = pa.py_buffer(np.array([0, 2, 3], np.int64))
    text = pa.LargeStringArray.from_buffers(2, offsets, pa.py_buffer(b"ab\xff"))
    documents = pa.record_batch({"row": pa.array([70, 71]), "text": text})

    with pytest.raises(DataError, match="row 71"):
        KeywordStage(Pyahocorasick([b"ab"])).find(documents)


def test_threads_share_one_engine() -> None:
    fast = Hyperscan([b"ab", b"b"])

    with ThreadPoolExecutor(4) as pool:
        counts = list(pool.map(lambda n: len(fast.find(b"ab" * n)), range(200)))

    assert counts == [2 * n for n in range(200)]


def write_library(folder: Path, level: str = "review", term: str = "大麻") -> str:
    (folder / "risks").mkdir(exist_ok=True)
    with (folder / "risks" / "A.1.h.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["term", "level"], [term, level]])
    return str(folder)


def test_a_recipe_is_small_and_survives_the_trip_to_a_worker(tmp_path: Path) -> None:
    recipe = KeywordRecipe(write_library(tmp_path))

    sent = pickle.dumps(recipe)

    assert len(sent) < 1000
    assert pickle.loads(sent) == recipe
    assert as_tuples(pickle.loads(sent).build().find(batch(["大麻"]))) == [[(0, 0, 2, 0)]]


def test_the_digest_changes_with_the_literals_and_not_with_the_rules_or_the_engine(tmp_path: Path) -> None:
    digest = KeywordRecipe(write_library(tmp_path)).digest

    assert len(digest) == 64
    assert KeywordRecipe(write_library(tmp_path, level="block"), engine="pyahocorasick").digest == digest
    assert KeywordRecipe(write_library(tmp_path, term="大\u200b麻")).digest == digest
    assert KeywordRecipe(write_library(tmp_path, term="大麻烦")).digest != digest


def test_a_library_that_changed_after_planning_is_refused(tmp_path: Path) -> None:
    recipe = KeywordRecipe(write_library(tmp_path))
    write_library(tmp_path, term="别的")

    with pytest.raises(UsageError, match="changed after the run was planned"):
        recipe.build()


def test_auto_takes_hyperscan_where_it_proves_itself() -> None:
    assert open_engine("auto", [b"ab", b"abc"]).name == "hyperscan"


def test_auto_takes_the_reference_where_hyperscan_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hyperscan", None)

    assert open_engine("auto", [b"ab"]).name == "pyahocorasick"
    with pytest.raises(UsageError, match="not installed"):
        open_engine("hyperscan", [b"ab"])


def test_auto_takes_the_reference_where_hyperscan_answers_wrongly(monkeypatch: pytest.MonkeyPatch) -> None:
    class Forgetful(Hyperscan):
        def find(self, utf8: bytes) -> engine.Matches:
            found = super().find(utf8)
            return engine.Matches(found.literal[1:], found.start[1:], found.end[1:])

    monkeypatch.setattr(engine, "Hyperscan", Forgetful)

    assert open_engine("auto", [b"ab", b"abc"]).name == "pyahocorasick"
    with pytest.raises(UsageError, match="differ from the reference"):
        open_engine("hyperscan", [b"ab", b"abc"])


def test_an_unknown_engine_is_named() -> None:
    with pytest.raises(UsageError, match="there are auto"):
        open_engine("flashtext", [b"ab"])
