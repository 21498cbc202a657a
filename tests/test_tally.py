"""Counts add up: whatever the cut into units and the order of adding, a source has the same numbers."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus_guard.findings import DOCUMENTS
from corpus_guard.sources.tally import COUNTS, KEYS, RISK_COLUMNS, TALLY, add, by, partition, risk_column, tally, unread
from corpus_guard.verdicts import VERDICTS

JUDGED = {"qualified": True, "illegal": False, "risks": [], "by": [], "status": "ok", "loss": None}


def unqualified(*risks, illegal=True, by=("keywords",)):
    return {
        "qualified": False,
        "illegal": illegal,
        "risks": list(risks),
        "by": list(by),
        "status": "unqualified",
        "loss": None,
    }


def lost(loss):
    return {"qualified": None, "illegal": None, "risks": [], "by": [], "status": "quarantined", "loss": loss}


def tables(rows):
    """Documents and verdicts of ``(source, language, characters, verdict)`` rows."""
    n = len(rows)
    documents = {name: pa.nulls(n, DOCUMENTS.field(name).type) for name in DOCUMENTS.names}
    documents["source"] = pa.array([row[0] for row in rows], pa.string())
    documents["language"] = pa.array([row[1] for row in rows], pa.string())
    documents["characters"] = pa.array([row[2] for row in rows], pa.int64())
    verdicts = [{"row": i, "id": str(i), "source": row[0]} | row[3] for i, row in enumerate(rows)]
    return pa.table(documents, schema=DOCUMENTS), pa.Table.from_pylist(verdicts, schema=VERDICTS)


def counted(*rows, kinds=None):
    return tally(*tables(rows), kinds=kinds)


def counts(table, **only):
    return {name: n for name, n in zip(table.column_names, (c[0].as_py() for c in table.columns), strict=True) if n}


def test_every_document_as_collected_is_counted():
    table = counted(
        ("a", "zh", 10, JUDGED),
        ("a", "zh", 20, unqualified("A.1.h", "A.2.a")),
        ("a", "zh", 30, unqualified("A.5.a", illegal=False, by=("ngram",))),
        ("a", "zh", 40, JUDGED | {"status": "review", "by": ["keywords"]}),
        ("a", "zh", None, lost("empty")),
        ("a", "zh", None, lost("undecodable")),
        ("a", "zh", None, lost("failed: reading")),
        ("a", "zh", 50, lost("failed: ngram")),
        ("a", "zh", 60, lost("skipped")),
    )

    assert table.schema == TALLY
    assert counts(table) == {
        "source": "a", "language": "zh", "documents": 9, "characters": 210, "illegal": 1, "illegal_characters": 20,
        "unqualified": 2, "review": 1, "unjudged": 2, "blank": 2, "skipped": 1, "only_keyword": 1, "only_classifier": 1,
        "risk_A_1_h": 1, "risk_A_2_a": 1, "risk_A_5_a": 1,
    }  # fmt: skip


def test_rows_that_nobody_could_read_are_in_no_source():
    documents, verdicts = tables(
        [(None, None, None, lost("failed: reading")), (None, None, 5, JUDGED), (None, None, 5, lost("failed: ngram"))]
    )

    table = tally(documents, verdicts)

    assert unread(documents, verdicts) == 1
    assert counts(table) == {"documents": 2, "characters": 10, "unjudged": 1}


def test_the_null_source_is_one_of_its_own():
    table = counted(
        (None, "zh", 1, JUDGED), ("", "zh", 1, JUDGED), ("(null)", "zh", 1, JUDGED), (None, None, 1, JUDGED)
    )

    assert by(table, "source").column("source").to_pylist() == ["", "(null)", None]
    assert by(table, "source").column("documents").to_pylist() == [1, 1, 2]


def test_a_document_counts_once_in_each_risk():
    table = counted(
        ("a", None, 1, unqualified("A.1.h", "A.1.h", "unresolved:A.2.a,A.2.b", "unresolved:A.4.a,A.4.b")),
        ("a", None, 1, unqualified("unresolved:A.2.a,A.2.b")),
    )

    assert counts(table)["risk_A_1_h"] == 1
    assert counts(table)["risk_unresolved"] == 2
    assert "risk_A_2_a" not in counts(table)
    assert counts(table)["illegal"] == 2


@pytest.mark.parametrize(
    ("stages", "column"),
    [
        (["keywords"], "only_keyword"), (["guard"], "only_classifier"), (["keywords", "guard"], "both"),
        (["blocklist"], None), (["person"], None), (["blocklist", "guard"], "only_classifier"),
    ],
)  # fmt: skip
def test_which_kinds_of_stages_made_a_document_unqualified(stages, column):
    kinds = {"keywords": "keyword", "guard": "classifier", "blocklist": "screen"}
    found = counts(counted(("a", None, 1, unqualified("A.1.h", by=stages)), kinds=kinds))

    assert {name for name in ("only_keyword", "only_classifier", "both") if name in found} == (
        {column} if column else set()
    )


def test_without_documents_there_is_nothing():
    assert counted().schema == TALLY
    assert counted().num_rows == 0
    assert add([]).schema == TALLY
    assert add([counted(), counted()]).num_rows == 0


def naive(rows):
    found = {}
    for source, language, characters, verdict in rows:
        if source is None and verdict["loss"] == "failed: reading":
            continue
        entry = found.setdefault((source, language), dict.fromkeys((*COUNTS, *RISK_COLUMNS), 0))
        loss, risks = verdict["loss"], verdict["risks"]
        entry["documents"] += 1
        entry["characters"] += characters or 0
        entry["illegal"] += bool(verdict["illegal"])
        entry["illegal_characters"] += (characters or 0) * bool(verdict["illegal"])
        entry["unqualified"] += verdict["status"] == "unqualified"
        entry["review"] += verdict["status"] == "review"
        entry["blank"] += loss in ("empty", "undecodable")
        entry["skipped"] += loss == "skipped"
        entry["unjudged"] += loss is not None and loss.startswith("failed")
        if verdict["status"] == "unqualified":
            keyword, classifier = "keywords" in verdict["by"], "ngram" in verdict["by"]
            entry["only_keyword"] += keyword and not classifier
            entry["only_classifier"] += classifier and not keyword
            entry["both"] += keyword and classifier
        for code in {risk if risk.startswith("A") else "unresolved" for risk in risks}:
            entry[risk_column(code)] += 1
    return found


verdict = st.one_of(
    st.just(JUDGED),
    st.builds(
        lambda risks, illegal, by: unqualified(*risks, illegal=illegal, by=by),
        st.lists(st.sampled_from(["A.1.a", "A.5.b", "unresolved:A.2.a,A.2.b"]), min_size=1, max_size=3, unique=True),
        st.booleans(),
        st.lists(st.sampled_from(["keywords", "ngram", "person"]), unique=True),
    ),
    st.sampled_from(["empty", "undecodable", "failed: reading", "failed: ngram", "skipped"]).map(lost),
)
rows = st.lists(
    st.tuples(
        st.sampled_from([None, "a", "b", "(null)"]),
        st.sampled_from([None, "zh"]),
        st.one_of(st.none(), st.integers(0, 9)),
        verdict,
    ),
    max_size=25,
)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(rows, st.lists(st.integers(0, 25), max_size=3), st.randoms(use_true_random=False))
def test_any_cut_and_any_order_gives_the_count_of_the_whole(rows, cuts, random):
    edges = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    parts = [counted(*rows[a:b]) for a, b in zip(edges, edges[1:], strict=False)]
    random.shuffle(parts)
    half = random.randint(0, len(parts))

    total = add([add(parts[:half]), *parts[half:]])

    assert total.equals(counted(*rows))
    found = {
        (row["source"], row["language"]): {k: n for k, n in row.items() if k not in KEYS} for row in total.to_pylist()
    }
    assert {key: entry | {"bytes": 0} for key, entry in naive(rows).items()} == found


@settings(deadline=None, derandomize=True, max_examples=20)
@given(rows, st.integers(1, 5))
def test_parts_hold_whole_sources_and_nothing_is_lost(rows, parts):
    table = counted(*rows)

    cut = partition(table, parts)

    assert len(cut) == parts
    assert add(cut).equals(table)
    names = [set(part.column("source").to_pylist()) for part in cut]
    assert sum(len(n) for n in names) == len(set(table.column("source").to_pylist()))


def test_large_counts_stay_exact():
    table = counted(("a", None, 2**52 + 1, unqualified("A.1.a")))

    assert counts(add([table] * 64))["illegal_characters"] == 64 * (2**52 + 1)
    assert isinstance(np.asarray(table.column("documents"))[0], np.int64)
