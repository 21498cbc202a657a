"""Findings become verdicts: what is sure, what needs support, what is left to people, and what stays unjudged."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus_guard.errors import DataError, UsageError
from corpus_guard.findings import DOCUMENTS, STATES, Opinion
from corpus_guard.taxonomy import CODES, codes_of, mask_of
from corpus_guard.verdicts import VERDICTS, JudgingRules, Labels, judge, load_labels

ALL = JudgingRules(all_mask=(1 << 31) - 1, illegal_mask=(1 << 29) - 1)
FIELDS = ("sure", "needs", "supports", "unresolved", "weak")


def documents(states, ids=None):
    n = len(states)
    columns = {name: pa.nulls(n, DOCUMENTS.field(name).type) for name in DOCUMENTS.names}
    columns |= {"row": pa.array(range(n), pa.int64()), "state": pa.array(states, pa.string())}
    columns["id"] = pa.array(ids or [f"d{i}" for i in range(n)])
    return pa.table(columns, schema=DOCUMENTS)


def opinion(n=1, **codes):
    """Masks by name: ``opinion(sure=["A.1.h"])`` for one document, a list of lists for several."""
    rows = {name: given if n > 1 else [given] for name, given in codes.items()}
    return Opinion(*(np.array([mask_of(codes) for codes in rows.get(f, [[]] * n)], np.uint32) for f in FIELDS))


def verdict(rules=ALL, labels=None, state="ok", states=None, **opinions):
    [row] = judge(documents([state]), opinions, rules, labels, states or {}).to_pylist()
    return row


def labelled(**verdicts):
    return Labels(pa.array(list(verdicts)), np.array([mask_of(v) for v in verdicts.values()], np.uint32))


def test_a_document_without_any_finding_is_qualified():
    assert verdict(keywords=opinion()) == {
        "row": 0, "id": "d0", "source": None, "qualified": True, "illegal": False, "risks": [], "by": [],
        "status": "ok", "loss": None,
    }  # fmt: skip


def test_a_sure_finding_is_enough_alone():
    found = verdict(keywords=opinion(sure=["A.1.h", "A.2.a"]), ngram=opinion())

    assert (found["qualified"], found["illegal"], found["status"]) == (False, True, "unqualified")
    assert found["risks"] == ["A.1.h", "A.2.a"]
    assert found["by"] == ["keywords"]


def test_a_need_counts_with_support_for_the_same_risk_from_another_stage():
    found = verdict(keywords=opinion(needs=["A.1.h", "A.2.a"]), ngram=opinion(supports=["A.2.a", "A.3.a"]))

    assert found["risks"] == ["A.2.a"]
    assert found["by"] == ["keywords", "ngram"]
    assert found["status"] == "unqualified"


def test_a_need_without_support_is_kept_for_review():
    found = verdict(keywords=opinion(needs=["A.1.h"]), ngram=opinion(supports=["A.1.g"]))

    assert (found["qualified"], found["illegal"], found["risks"]) == (True, False, [])
    assert (found["status"], found["by"]) == ("review", ["keywords"])


def test_a_strict_policy_counts_what_is_for_review():
    strict = JudgingRules(ALL.all_mask, ALL.illegal_mask, review_counts_as_unqualified=True)

    found = verdict(strict, keywords=opinion(needs=["A.1.h"]))

    assert (found["status"], found["risks"], found["by"]) == ("unqualified", ["A.1.h"], ["keywords"])


def test_support_and_weak_hits_alone_decide_nothing():
    found = verdict(keywords=opinion(weak=["A.1.h"]), ngram=opinion(supports=["A.1.h"]))

    assert (found["status"], found["by"]) == ("ok", [])


@pytest.mark.parametrize(
    ("risk", "qualified", "illegal"), [("A.4.g", False, True), ("A.5.a", False, False), ("A.5.b", False, False)]
)
def test_unreliable_text_is_unqualified_and_not_illegal(risk, qualified, illegal):
    found = verdict(ngram=opinion(sure=[risk]))

    assert (found["qualified"], found["illegal"]) == (qualified, illegal)


@pytest.mark.parametrize(
    ("candidates", "illegal"), [(["A.2.a", "A.2.b"], True), (["A.4.g", "A.5.a"], False), (["A.5.a", "A.5.b"], False)]
)
def test_candidates_are_unqualified_and_illegal_only_if_each_is(candidates, illegal):
    found = verdict(ngram=opinion(unresolved=candidates))

    assert (found["qualified"], found["illegal"]) == (False, illegal)
    assert found["risks"] == ["unresolved:" + ",".join(candidates)]
    assert found["by"] == ["ngram"]


def test_candidates_say_nothing_more_once_one_of_them_is_found():
    found = verdict(keywords=opinion(sure=["A.2.b"]), ngram=opinion(unresolved=["A.2.a", "A.2.b"]))

    assert found["risks"] == ["A.2.b"]
    assert found["by"] == ["keywords"]


def test_candidates_of_two_stages_stand_beside_each_other():
    found = verdict(
        ngram=opinion(unresolved=["A.2.a", "A.2.b"]), guard=opinion(unresolved=["A.4.f", "A.5.a"]),
        third=opinion(unresolved=["A.2.a", "A.2.b"]),
    )  # fmt: skip

    assert found["risks"] == ["unresolved:A.2.a,A.2.b", "unresolved:A.4.f,A.5.a"]
    assert found["illegal"] is True
    assert found["by"] == ["ngram", "guard", "third"]


def test_risks_a_policy_does_not_have_are_ignored():
    few = JudgingRules(mask_of(["A.2.a", "A.5.a"]), mask_of(["A.2.a"]))

    assert verdict(few, keywords=opinion(sure=["A.1.a"], needs=["A.1.b"]))["status"] == "ok"
    assert verdict(few, ngram=opinion(unresolved=["A.1.a", "A.1.b"]))["status"] == "ok"
    half = verdict(few, keywords=opinion(sure=["A.1.a"]), ngram=opinion(unresolved=["A.1.a", "A.2.a"]))
    assert (half["risks"], half["illegal"]) == (["unresolved:A.2.a"], False)


@pytest.mark.parametrize(
    ("state", "loss"),
    [("empty", "empty"), ("undecodable", "undecodable"), ("failed", "failed: reading"), ("skipped", "skipped")],
)
def test_a_text_that_cannot_be_looked_at_is_quarantined_and_not_judged(state, loss):
    found = verdict(state=state, keywords=opinion(sure=["A.1.h"]), states={"keywords": pa.array([state])})

    assert (found["status"], found["loss"]) == ("quarantined", loss)
    assert (found["qualified"], found["illegal"], found["risks"], found["by"]) == (None, None, [], [])


def test_a_missing_stage_leaves_its_documents_unjudged_whatever_the_others_say():
    found = verdict(keywords=opinion(sure=["A.1.h"]), ngram=None)

    assert (found["status"], found["loss"], found["qualified"]) == ("quarantined", "failed: ngram", None)


def test_a_failed_stage_is_named_and_so_are_two():
    one = verdict(keywords=opinion(), ngram=opinion(), states={"ngram": pa.array(["failed"])})
    two = verdict(keywords=None, ngram=opinion(), states={"ngram": pa.array(["failed"])})

    assert one["loss"] == "failed: ngram"
    assert two["loss"] == "failed: keywords, ngram"


def test_a_document_of_a_blacklisted_source_is_skipped_even_where_a_stage_is_missing():
    found = verdict(keywords=opinion(), ngram=None, states={"keywords": pa.array(["skipped"])})

    assert (found["status"], found["loss"], found["illegal"]) == ("quarantined", "skipped", None)


def test_a_person_wins_over_every_stage():
    freed = verdict(labels=labelled(d0=[]), keywords=opinion(sure=["A.1.h"]), ngram=opinion(unresolved=["A.2.a"]))
    found = verdict(labels=labelled(d0=["A.5.a"]), keywords=opinion(needs=["A.1.h"]))

    assert (freed["qualified"], freed["risks"], freed["status"], freed["by"]) == (True, [], "ok", ["person"])
    assert (found["qualified"], found["illegal"], found["risks"], found["by"]) == (False, False, ["A.5.a"], ["person"])


def test_a_person_makes_up_for_a_failed_stage_and_not_for_a_text_that_is_not_there():
    labels = labelled(d0=["A.1.h"])

    assert verdict(labels=labels, ngram=None)["status"] == "unqualified"
    for state in ("empty", "undecodable", "failed", "skipped"):
        assert verdict(labels=labels, state=state, ngram=opinion())["status"] == "quarantined"


def test_a_label_holds_for_every_document_of_its_id():
    table = judge(documents(["ok"] * 3, ["a", "b", "a"]), {"k": opinion(3)}, ALL, labelled(a=["A.1.h"]), {})

    assert table.column("qualified").to_pylist() == [False, True, False]


def test_findings_of_another_number_of_rows_are_refused():
    with pytest.raises(DataError, match="keywords have 2 rows for 1 documents"):
        judge(documents(["ok"]), {"keywords": opinion(2)}, ALL, None, {})


def test_no_documents_and_no_stages_are_fine():
    assert (
        judge(documents([]), {"k": Opinion.none(0)}, ALL, labelled(a=[]), {"k": pa.array([], pa.string())}).num_rows
        == 0
    )
    assert judge(documents(["ok"]), {}, ALL, None, {}).column("status").to_pylist() == ["ok"]


def test_chunked_sliced_and_large_columns_are_read_as_they_are():
    table = documents(["empty", "ok", "ok", "failed"])
    chunked = pa.concat_tables([table.slice(1, 1), table.slice(2, 2)])
    large = chunked.set_column(1, "state", chunked.column("state").cast(pa.large_string()))
    dictionary = pa.chunked_array([pa.array(["ok", "failed", "ok"]).dictionary_encode()])

    found = judge(large, {"k": opinion(3)}, ALL, None, {"k": dictionary})

    assert found.column("loss").to_pylist() == [None, "failed: k", "failed: reading"]
    assert found.schema == VERDICTS


def naive(state, opinions, rules, label, states):
    """Read design section 7 aloud, for one document."""
    if state in ("empty", "undecodable"):
        return ("quarantined", None, None, [], state)
    if state == "failed":
        return ("quarantined", None, None, [], "failed: reading")
    if state == "skipped" or "skipped" in states.values():
        return ("quarantined", None, None, [], "skipped")
    known, illegal_risks = set(codes_of(rules.all_mask)), set(codes_of(rules.illegal_mask))
    if label is not None:
        risks = [code for code in codes_of(label) if code in known]
        return ("unqualified" if risks else "ok", not risks, bool(set(risks) & illegal_risks), risks, None)
    broken = [name for name, o in opinions.items() if o is None or states.get(name, "ok") != "ok"]
    if broken:
        return ("quarantined", None, None, [], "failed: " + ", ".join(broken))
    says = {f: {c for o in opinions.values() for c in codes_of(int(getattr(o, f)[0]))} for f in FIELDS}
    needs = says["needs"] if rules.review_counts_as_unqualified else says["needs"] & says["supports"]
    risks = (says["sure"] | needs) & known
    entries, unresolved_illegal = [], False
    for o in opinions.values():
        candidates = set(codes_of(int(o.unresolved[0])))
        if candidates & known and not candidates & risks:
            unresolved_illegal |= candidates <= illegal_risks
            entry = "unresolved:" + ",".join(c for c in CODES if c in candidates & known)
            entries += [entry] if entry not in entries else []
    illegal = bool(risks & illegal_risks) or unresolved_illegal
    listed = [c for c in CODES if c in risks] + entries
    status = "unqualified" if listed else "review" if says["needs"] & known else "ok"
    return (status, not listed, illegal, listed, None)


# Few risks, so that stages meet.
masks = st.sets(st.sampled_from(["A.1.a", "A.1.h", "A.2.a", "A.5.a", "A.5.b"])).map(mask_of)
one_opinion = st.tuples(*[masks] * 5)
documents_of_two_stages = st.tuples(
    st.sampled_from(("ok", "ok", "ok", *STATES)),
    one_opinion,
    one_opinion,
    st.sampled_from(("ok", "ok", "ok", *STATES)),
    st.one_of(st.none(), st.none(), masks),
)


@settings(deadline=None, derandomize=True, max_examples=80)
@given(
    st.lists(documents_of_two_stages, min_size=1, max_size=12),
    st.booleans(),
    st.tuples(masks, masks),
    st.booleans(),
)
def test_columns_are_judged_as_documents_one_by_one(rows, second_missing, sets, strict):
    everything, illegal = sets
    rules = JudgingRules(everything, illegal & everything, strict)
    table = documents([row[0] for row in rows])
    first, second = (
        Opinion(*(np.array([row[i][f] for row in rows], np.uint32) for f in range(5))) for i in (1, 2)
    )  # fmt: skip
    opinions = {"keywords": first, "ngram": None if second_missing else second}
    states = {"keywords": pa.array([row[3] for row in rows])}
    settled = {f"d{i}": row[4] for i, row in enumerate(rows) if row[4] is not None}
    labels = Labels(pa.array(list(settled), pa.string()), np.array(list(settled.values()), np.uint32))

    found = judge(table, opinions, rules, labels, states).to_pylist()

    for i, (row, state) in enumerate(zip(found, rows, strict=True)):
        alone = {
            name: None if o is None else Opinion(*(getattr(o, f)[i : i + 1] for f in FIELDS))
            for name, o in opinions.items()
        }
        expected = naive(state[0], alone, rules, state[4], {"keywords": state[3]})
        assert (row["status"], row["qualified"], row["illegal"], row["risks"], row["loss"]) == expected
        assert bool(row["by"]) == (
            row["status"] in ("unqualified", "review") or (row["loss"] is None and state[4] is not None)
        )


def write(path, *rows, **more):
    table = pa.table(
        {
            "id": [r[0] for r in rows],
            "verdict": [r[1] for r in rows],
            "risks": pa.array([r[2] for r in rows], pa.list_(pa.string())),
        }
    )
    for name, values in more.items():
        table = table.append_column(name, pa.array(values))
    pq.write_table(table, path)
    return str(path)


def test_labels_of_later_files_win(tmp_path):
    first = write(tmp_path / "a.parquet", ("x", "unqualified", ["A.1.h"]), ("y", "qualified", None), by=["p1", "p2"])
    second = write(tmp_path / "b.parquet", ("x", "qualified", []))

    labels = load_labels([first, second])

    known, risks = labels.of(pa.array(["y", "z", "x"]))
    assert known.tolist() == [True, False, True]
    assert risks.tolist() == [0, 0, 0]
    assert load_labels([second, first]).of(pa.array(["x"]))[1].tolist() == [mask_of(["A.1.h"])]


def test_all_faults_of_all_label_files_are_told_at_once(tmp_path):
    bad = write(
        tmp_path / "a.parquet", ("w", "unsure", []), ("x", "unqualified", []), ("y", "qualified", ["A.1.h"]),
        (None, "qualified", []), ("z", "unqualified", ["A.9.z"]), ("v", "qualified", []),
        ("v", "unqualified", ["A.1.h"]),
    )  # fmt: skip
    pq.write_table(pa.table({"id": ["a"], "verdict": ["qualified"]}), tmp_path / "b.parquet")
    (tmp_path / "c.parquet").write_bytes(b"no parquet")

    with pytest.raises(UsageError) as error:
        load_labels([bad, tmp_path / "b.parquet", tmp_path / "c.parquet", tmp_path / "none.parquet"])

    told = str(error.value)
    for part in (
        "row 0 (id w): verdict 'unsure'", "row 1 (id x): is unqualified without a risk",
        "row 2 (id y): is qualified and has", "row 3: has no id", "row 4 (id z): A.9.z is no risk",
        "row 6 (id v): is settled twice", "no column risks", "cannot be read as Parquet", "no such file",
    ):  # fmt: skip
        assert part in told


def test_labels_without_lists_of_codes_are_refused(tmp_path):
    pq.write_table(pa.table({"id": ["a"], "verdict": ["qualified"], "risks": ["A.1.h"]}), tmp_path / "a.parquet")

    with pytest.raises(UsageError, match="must be a list of risk codes"):
        load_labels([tmp_path / "a.parquet"])
