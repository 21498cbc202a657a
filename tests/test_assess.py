"""A source is excluded strictly over the limit, is on hold while that is open, and every decision has its reason."""

import csv
import gzip
import io
import os
from datetime import date
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta

from corpus_guard.findings import DOCUMENTS, Opinion
from corpus_guard.sources.assess import SOURCES, AssessingRules, assess, csv_cell, percent, write_csv
from corpus_guard.sources.blacklist import BY_ITSELF, Assessment, Blacklist, due
from corpus_guard.sources.register import Register, Source
from corpus_guard.sources.tally import TALLY, add, tally
from corpus_guard.taxonomy import mask_of
from corpus_guard.verdicts import JudgingRules, judge

FIVE = AssessingRules(limit=Fraction(5, 100))
SAMPLE = AssessingRules(limit=Fraction(5, 100), phase="pre_collection")
DAY = date(2026, 11, 21)


def tallies(**sources):
    """A tally of sources by name: ``forum=dict(documents=1000, illegal=51)``; ``null`` is the null source."""
    rows = []
    for name, changed in sources.items():
        row = dict.fromkeys(TALLY.names, 0) | {"source": None if name == "null" else name, "language": None}
        rows.append(row | {"kind": None, "origin": None} | changed)
    return pa.Table.from_pylist(rows, schema=TALLY)


def one(rules=FIVE, register=None, blacklist=None, unknown_rows=None, name="forum", **counts):
    [row] = assess(tallies(**{name: counts}), rules, register, blacklist, unknown_rows).to_pylist()
    return row


@pytest.mark.parametrize(
    ("illegal", "decision"), [(0, "keep"), (49, "keep"), (50, "keep"), (51, "exclude"), (1_000, "exclude")]
)
@pytest.mark.parametrize("rules", [FIVE, SAMPLE])
def test_a_source_is_excluded_only_over_five_percent(illegal, decision, rules):
    found = one(rules, documents=1_000, illegal=illegal)

    assert (found["decision"], found["share"]) == (decision, illegal / 1_000)


def test_each_reason_is_a_sentence_with_counts():
    assert (
        one(documents=1_000, illegal=49)["reason"]
        == "49 of 1,000 documents are illegal (4.9 %), not over the limit of 5 %."
    )
    assert (
        one(documents=1_000, illegal=51)["reason"]
        == "51 of 1,000 documents are illegal (5.1 %), over the limit of 5 %."
    )
    assert one(documents=1_000, illegal=40, unjudged=11)["reason"] == (
        "40 of 1,000 documents are illegal (4 %); with the 11 that could not be judged it could be over the limit "
        "of 5 %."
    )


def test_other_limits_and_huge_counts_are_decided_by_integers_too():
    seven = AssessingRules(limit=Fraction(7, 100))
    big = 10**17

    assert one(seven, documents=100, illegal=7)["decision"] == "keep"
    assert one(documents=20 * big, illegal=big)["decision"] == "keep"
    assert one(documents=20 * big, illegal=big + 1)["decision"] == "exclude"
    assert one(AssessingRules(limit=Fraction(0)), documents=5, illegal=0)["decision"] == "keep"
    assert one(AssessingRules(limit=Fraction(0)), documents=5, illegal=1)["decision"] == "exclude"


@pytest.mark.parametrize(("unjudged", "decision"), [(0, "keep"), (10, "keep"), (11, "hold")])
def test_a_source_is_on_hold_while_its_own_failed_rows_could_carry_it_over(unjudged, decision):
    assert one(documents=1_000, illegal=40, unjudged=unjudged)["decision"] == decision


def test_blank_texts_hold_nothing_and_count_as_documents():
    found = one(documents=1_000, illegal=50, blank=500)

    assert (found["decision"], found["unjudged"]) == ("keep", 0)


def test_rows_of_unknown_source_hold_no_source_and_are_reported():
    table = assess(
        tallies(
            large={"documents": 10_000, "illegal": 10}, small={"documents": 10}, bad={"documents": 10, "illegal": 9}
        ),
        FIVE, unknown_rows={"shard-01": 3, "shard-07": 4},
    )  # fmt: skip

    assert table.column("decision").to_pylist() == ["exclude", "keep", "keep"]
    assert table.schema.metadata == {b"unknown_rows": b"7", b"unknown_could_carry": b"1"}


def test_the_null_source_is_assessed_like_any_other():
    table = assess(tallies(null={"documents": 10, "illegal": 1}, a={"documents": 10}), FIVE)

    assert table.schema.equals(SOURCES)
    assert table.column("source").to_pylist() == ["a", None]
    assert table.column("decision").to_pylist() == ["keep", "exclude"]


def test_a_tally_by_language_is_taken_together_by_source():
    halves = pa.concat_tables(
        [tallies(a={"documents": 10, "language": x, "illegal": i}) for x, i in (("zh", 0), ("en", 1))]
    )

    assert assess(halves, FIVE).column("illegal").to_pylist() == [1]


def test_small_sources_are_thin_and_decided_all_the_same():
    assert [one(documents=n)["thin"] for n in (1, 58, 59)] == [True, True, False]
    small = one(documents=10, illegal=1)
    assert (small["decision"], small["thin"]) == ("exclude", True)
    assert one(documents=1_000, illegal=49)["thin"] is True
    assert one(documents=1_000, illegal=900)["thin"] is False


def test_bounds_are_exact_and_a_known_size_makes_those_of_a_sample_narrower():
    register = Register({"forum": Source("forum", size=1_200)})
    census, sample = (one(rules, register, documents=1_000, illegal=49) for rules in (FIVE, SAMPLE))

    assert census["upper"] == pytest.approx(beta.ppf(0.95, 50, 951))
    assert census["lower"] == pytest.approx(beta.ppf(0.05, 49, 952))
    assert census["lower"] < sample["lower"] < 0.049 < sample["upper"] < census["upper"]


def test_assured_holds_a_sampled_source_that_is_not_shown_to_be_under_the_limit():
    assured = AssessingRules(limit=Fraction(5, 100), phase="pre_collection", decide="assured")

    assert one(assured, documents=1_000, illegal=38)["decision"] == "keep"
    held = one(assured, documents=1_000, illegal=39)
    assert held["decision"] == "hold"
    assert held["reason"].startswith("39 of 1,000 documents are illegal (3.9 %); the 95 % bound is 5.0")
    assert one(assured, documents=1_000, illegal=51)["decision"] == "exclude"
    assert "; 19 more documents, all of them fine, would show that it is not." in one(assured, documents=40)["reason"]


def test_a_census_has_no_sampling_error_so_assured_holds_only_for_the_detectors_errors():
    census = {"limit": Fraction(5, 100), "decide": "assured"}

    assert one(AssessingRules(**census), documents=20)["decision"] == "keep"
    blind = AssessingRules(**census, sensitivity=0.6, specificity=0.999)
    held = one(blind, documents=1_000, illegal=45)
    assert held["decision"] == "hold"
    assert held["reason"] == (
        "45 of 1,000 documents are illegal (4.5 %); corrected for the detectors' errors it could be 7.35 %, "
        "over the limit of 5 %."
    )
    assert one(blind, documents=1_000, illegal=10)["decision"] == "keep"


def test_a_corrected_share_stands_beside_and_is_null_where_errors_are_not_known():
    measured = AssessingRules(limit=Fraction(5, 100), sensitivity=0.9, specificity=0.98)

    assert one(documents=1_000, illegal=60)["corrected"] is None
    found = one(measured, documents=1_000, illegal=60)
    assert found["corrected"] == pytest.approx((0.06 - 0.02) / 0.88)
    assert found["decision"] == "exclude"  # the raw figure decides


def test_a_blacklisted_source_is_excluded_with_the_entry_as_reason():
    listed = Blacklist().added("forum", on=DAY, by="Li Na", reason="mirror of a blocked site.")
    found = one(FIVE, None, listed, documents=100, skipped=100)

    assert found["decision"] == "exclude"
    assert found["share"] is None
    assert found["reason"] == (
        "On the blacklist: since 2026-11-21, by Li Na: mirror of a blocked site; "
        "100 of 100 documents were not looked at."
    )


def test_documents_skipped_for_a_list_that_no_longer_has_their_source_hold_it():
    assert one(documents=100, skipped=100)["decision"] == "hold"


def test_the_most_frequent_risks_come_first():
    found = one(documents=100, illegal=9, risk_A_1_h=2, risk_A_2_a=5, risk_A_4_f=2, risk_A_5_b=1, risk_unresolved=9)

    assert found["top_risks"] == ["A.2.a", "A.1.h", "A.4.f"]
    assert one(documents=100)["top_risks"] == []


def test_no_sources_give_an_empty_table():
    assert assess(add([]), FIVE).schema.equals(SOURCES)
    assert write_csv(assess(add([]), FIVE)).count(b"\n") == 1


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    st.integers(0, 300).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))),
    st.integers(0, 20),
    st.integers(1, 30),
)
def test_decisions_follow_from_fractions(counts, unjudged, percent_):
    (n, illegal), limit = counts, Fraction(percent_, 100)
    unjudged = min(unjudged, n - illegal)
    found = one(AssessingRules(limit=limit), documents=n, illegal=illegal, unjudged=unjudged)

    over = n > 0 and Fraction(illegal, n) > limit
    could = n > 0 and Fraction(illegal + unjudged, n) > limit
    assert found["decision"] == ("exclude" if over else "hold" if could else "keep")


@pytest.mark.parametrize(
    ("part", "whole", "shown"),
    [
        (1, 20, "5 %"), (49, 1_000, "4.9 %"), (1, 3, "33.33 %"), (2, 3, "66.67 %"), (0, 7, "0 %"), (7, 7, "100 %"),
        (50_001, 1_000_000, "5.0001 %"), (49_999, 1_000_000, "4.9999 %"), (50_000_001, 10**9, "5.0000001 %"),
        (0, 0, "none to count"),
    ],
)  # fmt: skip
def test_a_percentage_is_never_rounded_onto_the_limit(part, whole, shown):
    assert percent(part, whole, Fraction(5, 100)) == shown


def read_csv(data):
    assert data.startswith(b"\xef\xbb\xbf")
    return list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline="")))


def test_the_table_for_people_has_the_worst_first():
    table = assess(
        tallies(
            fine={"documents": 100}, open={"documents": 100, "illegal": 4, "unjudged": 9},
            bad={"documents": 100, "illegal": 6, "risk_A_1_h": 6}, worse={"documents": 100, "illegal": 60},
            null={"documents": 100, "illegal": 1},
        ),
        FIVE,
    )  # fmt: skip

    rows = read_csv(write_csv(table))

    assert [row[0] for row in rows] == ["source", "worse", "bad", "open", "(null)", "fine"]
    assert rows[2][SOURCES.get_field_index("top_risks")] == "A.1.h"
    assert len(read_csv(write_csv(table, rows=2))) == 3


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"), ("+1", "'+1"), ("-1", "'-1"), ("@SUM(1)", "'@SUM(1)"), ("\t=1", "'\\u0009=1"),
        ("\r=1", "'\\u000d=1"), ("\n", "'\\u000a"), ("＝1+1", "'＝1+1"), ("＋1", "'＋1"), ("－1", "'－1"),
        ("＠A", "'＠A"), ("  =1", "'  =1"), ("'x", "''x"), ("(null)", "'(null)"), ("a=b", "a=b"), ("论坛", "论坛"),
        ("a\u202eb\x00", "a\\u202eb\\u0000"),
        (None, ""), (-1, "-1"), (0.05, "0.05"), (True, "true"), (["A.1.h", "A.2.a"], "A.1.h A.2.a"),
        ("x" * 40_000, "x" * 32_000 + " … (cut)"),
    ],
)  # fmt: skip
def test_no_cell_runs_in_a_spreadsheet(text, cell):
    assert csv_cell(text) == cell


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.text(max_size=12))
def test_any_source_name_comes_back_as_one_cell(name):
    table = assess(tallies(x={"documents": 1, "source": name}), FIVE)

    rows = read_csv(write_csv(table))

    assert len(rows) == 2
    assert rows[1][0] == csv_cell(name)
    assert not rows[1][0].startswith(tuple("=+-@\t\r\n＝＋－＠"))


def test_counts_alone_blacklist_only_what_is_over_beyond_error_and_chance():
    measured = {"sensitivity": 0.95, "specificity": 0.98}
    rules = AssessingRules(limit=Fraction(5, 100), **measured)
    table = assess(
        tallies(
            sure={"documents": 1_000, "illegal": 200}, thin={"documents": 10, "illegal": 2},
            close={"documents": 1_000, "illegal": 70}, listed={"documents": 1_000, "illegal": 200},
            null={"documents": 1_000, "illegal": 200}, held={"documents": 100, "unjudged": 50},
        ),
        rules,
    )  # fmt: skip
    listed = Blacklist().added("listed", on=DAY, by="Li Na", reason="x")
    where = {"on": DAY, "manifest": "m", "policy": "p"}

    [(source, assessment)] = due(table, rules.limit, 0.95, 0.98, listed, **where)

    assert source == "sure"
    assert (assessment.documents, assessment.illegal, assessment.on) == (1_000, 200, "2026-11-21")
    assert 0.05 < assessment.corrected_lower < 0.2
    longer = listed.added(source, on=DAY, by=BY_ITSELF, reason="over the limit", assessment=assessment)
    assert longer.current() == {"sure", "listed"}
    assert due(table, rules.limit, None, None, listed, **where) == []


def test_an_assessment_knows_what_it_is_of():
    assert Assessment("2026-11-21", "m", "p", 10, 1).corrected_lower is None


DATA = Path(os.environ.get("CORPUS_GUARD_DATA") or Path(__file__).parents[2] / "shared" / "data") / "mixed"


@pytest.mark.skipif(not DATA.is_dir(), reason="the mixed corpus is not on this machine; set CORPUS_GUARD_DATA")
def test_a_mixed_corpus_judged_by_its_labels_gives_its_known_shares():
    with gzip.open(DATA / "truth_documents.csv.gz", "rt", encoding="utf-8", newline="") as file:
        risky = {row["id"]: row["is_risk"] for row in csv.DictReader(file)}
    rules = JudgingRules((1 << 31) - 1, (1 << 29) - 1)
    parts = []
    for path in sorted(DATA.glob("shard-*.parquet")):
        if "damaged" in path.name:
            continue
        shard = pq.read_table(path, columns=["id", "source", "text"])
        ids = shard.column("id").to_pylist()
        n = len(ids)
        blank = [text is None or not text.strip() for text in shard.column("text").to_pylist()]
        columns = {name: pa.nulls(n, DOCUMENTS.field(name).type) for name in DOCUMENTS.names}
        columns |= {"id": shard.column("id").cast(pa.string()), "source": shard.column("source").cast(pa.string())}
        columns["state"] = pa.array(["empty" if b else "ok" for b in blank], pa.string())
        sure = np.array([mask_of(["A.1.h"]) if risky[i].lower() == "true" else 0 for i in ids], np.uint32)
        none = Opinion.none(n)
        opinion = Opinion(sure, none.needs, none.supports, none.unresolved, none.weak)
        documents = pa.table(columns, schema=DOCUMENTS)
        parts.append(tally(documents, judge(documents, {"labels": opinion}, rules, None, {})))
    with open(DATA / "truth.csv", encoding="utf-8-sig", newline="") as file:
        truth = {row["source"]: row for row in csv.DictReader(file)}

    found = {row["source"] or "(null)": row for row in assess(add(parts), FIVE).to_pylist()}

    assert found.keys() == truth.keys()
    for source, row in found.items():
        assert row["documents"] == int(truth[source]["documents"]), source
        assert row["illegal"] == int(truth[source]["risky_documents"]), source
        assert (row["decision"] == "exclude") is (truth[source]["over_5_percent"].lower() in ("true", "yes", "1")), (
            source
        )
