"""Corpus and library are read by one table, and every normalised character knows the raw one it came from."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus_guard.text import make_tables
from corpus_guard.text.normalise import _tables, fold, is_word, normalise, raw_offsets

TINY = "aA\u200b \n\t大Ａ　𝐚é\u0301é\ufeff①ß\0"


@pytest.mark.parametrize(
    ("raw", "normal"),
    [
        ("ＫＴＶ包房", "ktv包房"),
        ("大\u200b麻\ufeff", "大麻"),
        ("soft\u00adhyphen", "softhyphen"),
        ("make a\n\tbomb", "make a bomb"),
        ("全角　空格", "全角 空格"),
        ("ﾊﾟ", "ハ\u309a"),
        ("①²", "12"),
        ("don\u2019t", "don't"),
        ("co\u2010op", "co-op"),
        ("𝐁𝐎𝐌𝐁", "bomb"),
        ("Σς", "σσ"),
        ("ß", "ß"),
        ("İ", "İ"),
        ("", ""),
        ("\u200b\0", ""),
    ],
)
def test_writing_tricks_come_to_the_same_text(raw: str, normal: str) -> None:
    assert normalise(raw) == normal


def test_applying_the_table_twice_changes_nothing() -> None:
    folds, _, _ = _tables()

    assert np.array_equal(folds[folds], folds)


def test_the_committed_table_is_the_one_its_script_makes() -> None:
    committed = make_tables.TABLE.read_text(encoding="utf-8").splitlines()
    if unicodedata.unidata_version not in committed[0]:
        pytest.skip(f"the table was made with other Unicode data than this Python's {unicodedata.unidata_version}")

    assert make_tables.lines() == committed


def test_letters_of_scripts_with_spaces_make_words_and_others_do_not() -> None:
    chars = "aé7яעक\u0301" + "大ひカ한ก ་_-。\u200b"

    words = is_word(np.array([ord(char) for char in chars], np.uint32))

    assert words.tolist() == [True] * 7 + [False] * (len(chars) - 7)


@given(st.text(TINY, max_size=12))
@settings(deadline=None, derandomize=True)
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@given(st.text(TINY, max_size=12))
@settings(deadline=None, derandomize=True)
def test_every_normalised_stretch_maps_to_raw_text_that_normalises_to_it(text: str) -> None:
    folded = fold(text.encode())
    normal = folded.utf8.decode()
    spans = [(s, e) for s in range(len(normal)) for e in range(s + 1, len(normal) + 1)]

    for s, e in spans:
        [start], [end] = folded.raw(np.array([s]), np.array([e]))
        assert normalise(text[start:end]) == normal[s:e]


@given(st.text(" \t\0aA-\u007f", max_size=12))
@settings(deadline=None, derandomize=True)
def test_ascii_takes_a_shorter_way_to_the_same_result(text: str) -> None:
    short, long = fold(text.encode()), fold((text + "大").encode())

    assert short.utf8 + "大".encode() == long.utf8
    at = np.arange(len(short.codes))
    assert np.array_equal(short.raw(at, at + 1)[0], long.raw(at, at + 1)[0])


@given(st.text("a大𝐚é", max_size=12))
@settings(deadline=None, derandomize=True)
def test_byte_offsets_become_code_point_offsets(text: str) -> None:
    borders = np.cumsum([0] + [len(char.encode()) for char in text])

    assert raw_offsets(text.encode(), borders).tolist() == list(range(len(text) + 1))
