"""What keyword hits mean is decided from the findings alone: borders, exceptions, combinations, dates, levels."""

from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corpus_guard.keywords.library import load_library
from corpus_guard.keywords.rules import KeywordReader
from corpus_guard.keywords.stage import KeywordRecipe
from corpus_guard.taxonomy import codes_of, mask_of

DAY = date(2026, 11, 21)


def library(folder: Path, entries: str, exceptions: str = "", combinations: str = "") -> str:
    """*entries*: the lines of risks/A.1.h.csv below term,level,match,expires,status."""
    (folder / "risks").mkdir(parents=True, exist_ok=True)
    (folder / "risks" / "A.1.h.csv").write_text("term,level,match,expires,status\n" + entries, encoding="utf-8")
    (folder / "exceptions.csv").write_text("term,scope\n" + exceptions, encoding="utf-8")
    (folder / "combinations.yaml").write_text(combinations, encoding="utf-8")
    return str(folder)


def findings(path: str, texts: list[str | None]) -> pa.Table:
    documents = pa.record_batch({"text": pa.array(texts, pa.large_string())})
    return pa.Table.from_batches([KeywordRecipe(path, "pyahocorasick").build().find(documents)])


def reader(path: str, day: date = DAY) -> KeywordReader:
    return KeywordReader(load_library(path), day)


def heard(path: str, texts: list[str], day: date = DAY) -> list[bool]:
    return [bool(mask) for mask in reader(path, day).opinion(findings(path, texts)).needs]


@pytest.mark.parametrize(
    ("entry", "text", "expected"),
    [
        ("sb", "Disburse the sb", True),
        ("sb", "Disburse", False),
        ("cp", "cpm", False),
        ("69", "695", False),
        ("star", "stars", False),
        ("star,,prefix", "stars", True),
        ("star,,prefix", "costar", False),
        ("ass", "classic", False),
        ("ass,,substring", "classic", True),
        ("248,,substring", "A1002481003", True),
        ("ktv包房", "ktv包房abc", True),
        ("ktv包房", "xktv包房", False),
        ("SM", "玩SM的", True),
        ("SM", "Smoking", False),
        ("大麻", "x大麻y", True),
        ("bar", "bar\u0301", False),
        ("bad word", "bad-word bad  WORD.", True),
    ],
)
def test_borders_are_kept_on_edges_of_scripts_that_separate_words(
    tmp_path: Path, entry: str, text: str, expected: bool
) -> None:
    path = library(tmp_path, entry + "\n")

    assert heard(path, [text]) == [expected]


@pytest.mark.parametrize(
    ("entry", "exception", "text", "expected"),
    [
        ("口交", "路口交通", "路口交通很乱", False),
        ("大麻", "大麻烦", "惹了大麻烦", False),
        ("大麻", "大麻烦", "惹了大麻烦，因为大麻", True),
        ("他妈", "他妈妈", "他妈妈来了", False),
        ("他妈", "他妈妈", "他妈的", True),
        ("cunt,,substring", "Scunthorpe", "in SCUNTHORPE", False),
        ("共产", "共产党", "共产党", False),
        ("麻烦", "大麻烦", "大麻烦", False),
        ("大麻烦人", "大麻烦", "大麻烦人", True),
    ],
)
def test_a_longer_exception_silences_the_hits_inside_it_and_no_others(
    tmp_path: Path, entry: str, exception: str, text: str, expected: bool
) -> None:
    path = library(tmp_path, entry + "\n", exceptions=exception + "\n")

    assert heard(path, [text]) == [expected]


@pytest.mark.parametrize(("scope", "expected"), [("", ""), ("A.1.h", "A.1.g"), ("A.1.g", "A.1.h"), ("h-1", "A.1.g")])
def test_an_exception_may_be_for_one_risk_or_one_entry(tmp_path: Path, scope: str, expected: str) -> None:
    risks = tmp_path / "risks"
    risks.mkdir()
    (risks / "A.1.h.csv").write_text("id,term\nh-1,大麻\n", encoding="utf-8")
    (risks / "A.1.g.csv").write_text("id,term\ng-1,大麻\n", encoding="utf-8")
    (tmp_path / "exceptions.csv").write_text(f"term,scope\n大麻烦,{scope}\n", encoding="utf-8")
    path = str(tmp_path)

    [alone, covered] = reader(path).opinion(findings(path, ["大麻", "大麻烦"])).needs.tolist()

    assert codes_of(alone) == ("A.1.g", "A.1.h")
    assert ",".join(codes_of(covered)) == expected


def test_levels_say_how_much_a_hit_is_worth(tmp_path: Path) -> None:
    path = library(tmp_path, "alpha,block\nbeta,review\ngamma,weak\ndelta\n")

    opinion = reader(path).opinion(findings(path, ["alpha beta", "gamma", "delta", "none", None]))

    risk = mask_of(["A.1.h"])
    assert opinion.sure.tolist() == [risk, 0, 0, 0, 0]
    assert opinion.needs.tolist() == [risk, 0, risk, 0, 0]
    assert opinion.weak.tolist() == [0, risk, 0, 0, 0]
    assert not opinion.supports.any() and not opinion.unresolved.any()


def test_an_entry_counts_up_to_and_on_its_last_day(tmp_path: Path) -> None:
    path = library(tmp_path, "alpha,,,2026-11-21\n")

    told = [heard(path, ["alpha"], day) for day in (date(2026, 11, 20), DAY, date(2026, 11, 22))]

    assert told == [[True], [True], [False]]


def test_retired_entries_say_nothing_and_cost_no_new_scan(tmp_path: Path) -> None:
    path = library(tmp_path, "alpha\nbeta\n")
    found, digest = findings(path, ["alpha", "beta"]), load_library(path).digest
    library(tmp_path, "alpha,,,,retired\nbeta\n")

    assert load_library(path).digest == digest
    assert reader(path).opinion(found).needs.astype(bool).tolist() == [False, True]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("我要购买一支枪", True),
        ("枪，买", True),
        ("购买一支玩具枪", False),
        ("玩具在很远很远很远很远的地方，购买一支枪", True),
        ("买……………………一支枪", False),
        ("只有枪", False),
        ("枪枪枪", False),
    ],
)
def test_a_combination_needs_its_terms_together_and_unwanted_ones_away(
    tmp_path: Path, text: str, expected: bool
) -> None:
    path = library(tmp_path, "", combinations="- {id: c-1, risk: A.1.h, all: [枪, [买, 购]], none: [玩具], window: 8}")

    assert heard(path, [text]) == [expected]


def test_any_is_one_more_group_and_no_window_means_the_whole_document(tmp_path: Path) -> None:
    path = library(
        tmp_path, "", combinations="combinations:\n- {id: c-1, risk: A.1.h, level: block, all: [gun], any: [buy, get]}"
    )

    opinion = reader(path).opinion(findings(path, ["get" + " " * 40 + "x " * 400 + "gun", "buy", "gun begun"]))

    assert opinion.sure.astype(bool).tolist() == [True, False, False]


def test_a_combination_never_joins_two_documents(tmp_path: Path) -> None:
    path = library(tmp_path, "", combinations="- {id: c-1, risk: A.1.h, all: [gun, buy]}")

    assert heard(path, ["gun", "buy", "gun"]) == [False, False, False]


texts = st.lists(st.text("abn.", max_size=12), max_size=4)


@given(texts=texts, window=st.none() | st.integers(1, 8))
@settings(
    deadline=None, derandomize=True, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_combinations_agree_with_trying_every_stretch(tmp_path: Path, texts: list[str], window: int | None) -> None:
    stated = "" if window is None else f", window: {window}"
    combination = "- {id: c-1, risk: A.1.h, all: [甲, [乙, 乙甲]], none: [丙]" + stated + "}"
    path = library(tmp_path, "", combinations=combination)
    # Chinese, because Latin neighbours would be word borders not kept.
    chinese = [text.translate(str.maketrans("abn", "甲乙丙")) for text in texts]

    assert heard(path, chinese) == [holds(text, window) for text in chinese]


def holds(text: str, window: int | None) -> bool:
    first = [(i, i + 1) for i in range(len(text)) if text[i] == "甲"]
    second = [(i, i + 1) for i in range(len(text)) if text[i] == "乙"]
    unwanted = [i for i in range(len(text)) if text[i] == "丙"]
    if window is None:
        return bool(first and second and not unwanted)
    for start in range(len(text)):
        ends = [min((e for s, e in group if s >= start), default=None) for group in (first, second)]
        if None in ends or not any(s == start for s, _ in first + second):
            continue
        end = max(e for e in ends if e is not None)
        near = any(i >= end - window and i + 1 <= start + window for i in unwanted)
        if end - start <= window and not near:
            return True
    return False


def test_reasons_name_entry_level_risk_and_place_but_no_text(tmp_path: Path) -> None:
    path = library(tmp_path, "alpha,block\n", combinations="- {id: c-1, risk: A.1.g, all: [gun, buy]}")
    [id] = load_library(path).ids

    told = reader(path).explain(findings(path, ["an alpha, gun to buy", "", None]))

    assert told == [[f"keywords {id} block A.1.h 3-8", "keywords c-1 review A.1.g 10-20"], [], []]


def test_findings_in_several_chunks_are_judged_like_one(tmp_path: Path) -> None:
    path = library(tmp_path, "alpha\n", exceptions="alpha beta\n")
    parts = [findings(path, texts) for texts in (["x", "alpha"], [], [None, "alpha beta", "alpha"])]

    opinion = reader(path).opinion(pa.concat_tables([parts[0].slice(1), *parts[1:]]))

    assert opinion.needs.astype(bool).tolist() == [True, False, False, True]


def test_no_findings_are_no_opinion(tmp_path: Path) -> None:
    path = library(tmp_path, "alpha\n")

    assert len(reader(path).opinion(findings(path, []).slice(0, 0)).sure) == 0
    assert reader(path).explain(findings(path, [])) == []
