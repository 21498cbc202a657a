"""What provisions make of evidence. Edges first: one body of evidence held against several editions."""

from dataclasses import replace
from datetime import date
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus_guard.policy import Policy, load_policy
from corpus_guard.report.evidence import (
    DenylistEvidence,
    Detector,
    Evidence,
    LibraryEvidence,
    PersonalEvidence,
    RegisterEvidence,
    SampleEvidence,
    SourceEvidence,
    StageEvidence,
    Statement,
)
from corpus_guard.report.provisions import counts, evaluate, standing
from corpus_guard.shipped import names
from corpus_guard.taxonomy import CODES, mask_of

TODAY = date(2026, 11, 21)
F24, O23, M24 = "tc260-003", "tc260-draft-2023-10", "gbt-draft-2024-05"
SHIPPED = (F24, O23, M24, "strict", "gbt-45654-2025", "international")


def detectors(*without: str, positives: int = 200) -> dict[str, list[Detector]]:
    return {code: [] if code in without else [Detector("model", positives, "usable")] for code in CODES}


@cache
def policy_of(name: str) -> Policy:
    return load_policy(name)


def result(policy: str, rule: str, evidence: Evidence) -> str:
    return evaluate(policy_of(policy), evidence)[rule].result


def told(policy: str, rule: str, evidence: Evidence) -> str:
    return evaluate(policy_of(policy), evidence)[rule].sentence


# One body of evidence, several editions (requirements section 4, the table at its end)

BODY = Evidence(
    as_of=TODAY,
    modalities=("text",),
    library=LibraryEvidence(
        total=9_999,
        per_risk=dict.fromkeys(CODES[:17], 600),
        too_long=1,
        newest_change=date(2026, 11, 13),
    ),
    detectors=detectors("A.5.a"),
    manual=SampleEvidence(population=36_003, drawn=4_000, judged=4_000, good=3_840),
    technical=SampleEvidence(population=36_003, drawn=3_600, judged=3_600, good=3_600),
)
TABLE = {
    # rule: in O23, F24, M24, strict
    "kw.total": ("fail", "advisory", "advisory", "fail"),
    "kw.len": ("advisory", "no rule", "no rule", "fail"),
    "kw.fresh": ("no rule", "advisory", "advisory", "fail"),
    "clf.cover": ("fail", "fail", "advisory", "fail"),
    "eval.manual": ("pass", "pass", "pass", "pass"),
    "eval.tech": ("fail", "fail", "advisory", "fail"),
}


@pytest.mark.parametrize("rule", TABLE)
def test_one_body_of_evidence_gets_from_each_edition_its_own_verdict(rule):
    def verdict(name: str) -> str:
        policy = load_policy(name)
        rows = {row.rule: row for row in evaluate(policy, BODY).provisions}
        return standing(policy, rows[rule]) if rule in rows else "no rule"

    assert tuple(verdict(name) for name in (O23, F24, M24, "strict")) == TABLE[rule]


def test_the_pass_of_the_draft_standard_is_one_at_the_level_of_reference():
    row = evaluate(load_policy(M24), BODY)["eval.manual"]

    assert (row.result, row.level) == ("conforms", "reference")


@pytest.mark.parametrize("name", [O23, F24, M24, "strict"])
@pytest.mark.parametrize(
    ("documents", "risk", "found", "excluded"),
    [(1_000, "A.1.h", 50, False), (1_000, "A.1.h", 51, True), (1_000, "A.5.b", 200, False)],
)
def test_a_source_at_five_percent_stays_one_over_it_goes_and_group_five_never_counts(
    name, documents, risk, found, excluded
):
    policy = load_policy(name)
    illegal = found if mask_of([risk]) & policy.illegal else 0

    assert policy.source.over(illegal, documents) is excluded
    used = SourceEvidence.of([(illegal, documents, "keep")], policy.source)
    expected = "does not conform" if excluded else "conforms"
    assert result(name, "src.post", Evidence(sources={"post_collection": used})) == expected
    kept_out = SourceEvidence.of([(illegal, documents, "exclude")], policy.source)
    assert result(name, "src.post", Evidence(sources={"post_collection": kept_out})) == "conforms"


@pytest.mark.parametrize(("name", "breach"), [(O23, "blacklist"), (F24, "do_not_train"), (M24, "do_not_train")])
def test_each_edition_says_what_becomes_of_a_source_over_the_limit(name, breach):
    assert load_policy(name).source.on_breach == breach


def test_the_draw_that_is_one_short_says_how_many_are_needed():
    row = evaluate(load_policy(F24), BODY)["eval.tech"]

    assert "3,600 of 36,003 documents drawn; 3,601 are needed" in row.sentence
    assert (row.rates[0].numerator, row.rates[0].denominator) == (3_600, 36_003)


# Nothing known, nothing guessed


@pytest.mark.parametrize("name", SHIPPED)
def test_without_evidence_every_provision_needs_evidence(name):
    assessment = evaluate(load_policy(name), Evidence())

    assert {row.result for row in assessment.provisions} == {"needs evidence"}
    assert assessment.conclusion.value is None
    assert assessment.evaluation_valid is None
    assert not assessment.failed


@pytest.mark.parametrize("name", SHIPPED)
def test_every_sentence_is_finished_and_stands_in_the_order_of_the_policy(name):
    policy = load_policy(name)
    for evidence in (Evidence(), BODY):
        rows = evaluate(policy, evidence).provisions
        assert [row.rule for row in rows] == [rule.id for rule in policy.rules]
        for row in rows:
            assert row.sentence[0].isupper() or row.sentence[0].isdigit()
            assert row.sentence.endswith(".") and ".." not in row.sentence


# Sources


def sources(**counts_: int) -> Evidence:
    return Evidence(sources={"post_collection": SourceEvidence(**counts_)})


@pytest.mark.parametrize(
    ("counts_", "expected", "words"),
    [
        ({"sources": 120, "assessed": 120, "over": 0, "over_used": 0}, "conforms", "none is over 5%"),
        ({"sources": 120, "assessed": 120, "over": 4, "over_used": 0}, "conforms", "4 over 5% are kept out"),
        (
            {"sources": 120, "assessed": 120, "over": 4, "over_used": 1},
            "does not conform",
            "1 of 120 sources is over 5%",
        ),
        ({"sources": 120, "assessed": 119, "over": 0, "over_used": 0}, "needs evidence", "1 of 120 sources is not"),
        ({"sources": 120, "assessed": 119, "over": 1, "over_used": 1}, "does not conform", "still used"),
        ({"sources": 2, "assessed": 2, "over": 0, "over_used": 0, "held": 2}, "conforms", "2 held until more"),
        ({"sources": 0, "assessed": 0, "over": 0, "over_used": 0}, "needs evidence", "nothing to assess"),
    ],
)
def test_sources_are_assessed_all_of_them_and_none_over_the_limit_is_used(counts_, expected, words):
    row = evaluate(load_policy(F24), sources(**counts_))["src.post"]

    assert row.result == expected
    assert words in row.sentence


def test_the_worst_source_is_found_by_exact_shares():
    rows = [(1, 30, "keep"), (33, 1_000, "keep"), (0, 0, "keep"), (1, 10, "exclude"), (2, 40, "hold")]

    found = SourceEvidence.of(rows, load_policy(F24).source, sources=7)

    assert found == SourceEvidence(sources=7, assessed=5, over=1, over_used=0, held=1, worst=(1, 10))


def test_an_assessment_before_collection_falls_with_the_census():
    good = SourceEvidence(sources=3, assessed=3, over=0, over_used=0)
    bad = SourceEvidence(sources=3, assessed=3, over=1, over_used=1)

    assert result(F24, "src.pre", Evidence(sources={"pre_collection": good})) == "conforms"
    assert result(F24, "src.pre", Evidence(sources={"post_collection": good})) == "needs evidence"
    both = Evidence(sources={"pre_collection": good, "post_collection": bad})
    assert result(F24, "src.pre", both) == "does not conform"


def test_one_assessment_serves_october_2023_in_either_phase():
    good = SourceEvidence(sources=3, assessed=3, over=0, over_used=0)

    for phase in ("pre_collection", "post_collection"):
        assert result(O23, "src.post", Evidence(sources={phase: good})) == "conforms"


def test_a_denylist_is_held_against_what_is_used():
    def evidence(used: int) -> Evidence:
        return Evidence(denylists={"blocked_by_law": DenylistEvidence(entries=10, matched=7, used=used)})

    assert result(F24, "src.blocked", evidence(0)) == "conforms"
    assert result(F24, "src.blocked", evidence(1)) == "does not conform"
    assert "1 document on the list of blocked information is still used" in told(F24, "src.blocked", evidence(1))
    assert result(O23, "src.blist", evidence(0)) == "needs evidence"


@pytest.mark.parametrize(
    ("cells", "modalities", "expected"),
    [
        ({("zh",): 2, ("en",): 5}, ("text",), "conforms"),
        ({("zh",): 1, ("en",): 5}, ("text",), "does not conform"),
        ({("zh",): 2, (None,): 5}, ("text",), "needs evidence"),
        ({("zh",): 2}, None, "needs evidence"),
        ({("zh",): 2}, ("text", "image"), "needs evidence"),
        ({}, ("text",), "needs evidence"),
    ],
)
def test_each_language_needs_several_sources(cells, modalities, expected):
    evidence = Evidence(sources_by={("language",): cells}, modalities=modalities)

    assert result(F24, "src.diverse", evidence) == expected


@pytest.mark.parametrize(
    ("shares", "paper", "f24", "o23"),
    [
        ({"domestic": 70, "foreign": 30}, True, "conforms", "conforms"),
        ({"domestic": 70, "foreign": 30}, False, "needs evidence", "needs evidence"),
        ({"domestic": 70}, True, "not applicable", "does not conform"),
        ({"domestic": 70, "foreign": 0}, True, "not applicable", "does not conform"),
        ({"domestic": 70, None: 1}, True, "needs evidence", "needs evidence"),
        ({}, True, "needs evidence", "needs evidence"),
    ],
)
def test_the_mix_of_origins_is_a_duty_only_where_there_is_one_except_in_october_2023(shares, paper, f24, o23):
    evidence = Evidence(shares={"origin": shares}, documents={"mix_rationale": paper})

    assert (result(F24, "src.mix", evidence), result(O23, "src.mix", evidence)) == (f24, o23)


def test_a_share_an_operator_limits_is_held_to_the_document(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(
        "id: own\ntitle: T\nextends: tc260-003\nrules:\n"
        "  - {id: mix.most, clause: own, level: shall, check: report_share, by: origin, of: foreign, max: 30%}\n"
    )

    def evidence(foreign: int) -> Evidence:
        return Evidence(shares={"origin": {"domestic": 100 - foreign, "foreign": foreign}})

    assert result(str(path), "mix.most", evidence(30)) == "conforms"
    assert "31 of 100 documents are foreign, over 30%" in told(str(path), "mix.most", evidence(31))


@pytest.mark.parametrize(
    ("register", "expected", "words"),
    [
        (None, "needs evidence", "no register"),
        (RegisterEvidence(kinds={"open": 2}), "not applicable", "No source is of kind commercial"),
        (RegisterEvidence(kinds={"open": 2}, unregistered=1), "needs evidence", "it may be commercial"),
        (RegisterEvidence(kinds={"commercial": 2}), "needs evidence", "no contract (2)"),
        (
            RegisterEvidence(
                kinds={"commercial": 2},
                valid={"commercial": {"contract": 2, "commitment": 2, "support": 2, "review": 1}},
            ),
            "needs evidence",
            "some have no review (1) on record",
        ),
        (
            RegisterEvidence(
                kinds={"commercial": 2},
                valid={"commercial": {"contract": 2, "commitment": 2, "support": 2, "review": 2}},
            ),
            "conforms",
            "2 sources of kind commercial",
        ),
        (
            RegisterEvidence(
                kinds={"commercial": 2},
                unregistered=3,
                valid={"commercial": {"contract": 2, "commitment": 2, "support": 2, "review": 2}},
            ),
            "needs evidence",
            "3 sources is not known",
        ),
        (
            RegisterEvidence(
                kinds={"commercial": 2},
                valid={"commercial": {"contract": 1, "commitment": 2, "support": 2, "review": 2}},
                expired={"commercial": {"contract": 1}},
            ),
            "does not conform",
            "expired: contract (1)",
        ),
    ],
)
def test_papers_of_commercial_sources_are_counted_source_by_source(register, expected, words):
    row = evaluate(load_policy(F24), Evidence(register=register))["src.contract"]

    assert row.result == expected
    assert words in row.sentence


def test_october_2023_asks_for_a_proof_of_legality_instead_of_a_commitment():
    papers = {"contract": 1, "legality_proof": 1}
    evidence = Evidence(register=RegisterEvidence(kinds={"commercial": 1}, valid={"commercial": papers}))

    assert result(O23, "src.contract", evidence) == "conforms"
    assert result(F24, "src.contract", evidence) == "needs evidence"
    assert result("strict", "src.contract", evidence) == "needs evidence"


def test_papers_of_the_operator_are_on_record_missing_or_unknown():
    assert result(F24, "ipr.owner", Evidence(documents={"ipr_owner": True, "ipr_strategy": True})) == "conforms"
    assert result(F24, "ipr.owner", Evidence(documents={"ipr_owner": True})) == "needs evidence"
    row = evaluate(load_policy(F24), Evidence(documents={"ipr_owner": True, "ipr_strategy": False}))["ipr.owner"]
    assert (row.result, row.sentence) == ("does not conform", "Stated as missing: ipr_strategy.")


# Content

FILTERED = replace(
    BODY,
    balanced=True,
    technical=SampleEvidence(population=36_003, drawn=3_601, judged=3_601, good=3_601),
    stages={"keyword": StageEvidence(40_000, 40_000), "classifier": StageEvidence(40_000, 40_000)},
)


@pytest.mark.parametrize(
    ("change", "expected", "words"),
    [
        ({}, "conforms", "Keyword looked at 40,000 of 40,000 documents"),
        ({"stages": {"keyword": StageEvidence(40_000, 40_000)}}, "needs evidence", "classifier did not run"),
        (
            {"stages": {"keyword": StageEvidence(40_000, 40_000), "classifier": StageEvidence(39_999, 40_000)}},
            "does not conform",
            "classifier looked at 39,999 of 40,000",
        ),
        (
            {"stages": {"keyword": StageEvidence(0, 0), "classifier": StageEvidence(0, 0)}},
            "needs evidence",
            "did not run",
        ),
        ({"stages": None}, "needs evidence", "did not run"),
        ({"balanced": False}, "does not conform", "Documents read are not"),
        ({"balanced": None}, "needs evidence", "accounts of the run are not known"),
        ({"manual": None}, "needs evidence", "people have not read a sample"),
        (
            {"manual": SampleEvidence(population=36_003, drawn=4_000, judged=4_000, good=3_839)},
            "does not conform",
            "Its evidence does not conform: eval.manual (9.2 a))",
        ),
        ({"technical": None}, "needs evidence", "its evidence is open: eval.tech (9.2 b))"),
    ],
)
def test_all_corpora_are_filtered_and_the_samples_show_it(change, expected, words):
    row = evaluate(load_policy(F24), replace(FILTERED, **change))["filter.all"]

    assert row.result == expected, row.sentence
    assert words in row.sentence


def test_the_draft_standard_takes_methods_as_examples_and_asks_for_every_modality():
    keyword_only = replace(FILTERED, stages={"keyword": StageEvidence(9, 9)}, manual=None, technical=None)

    assert result(M24, "filter.all", keyword_only) == "conforms"
    assert result(M24, "filter.all", replace(keyword_only, modalities=None)) == "needs evidence"
    images = replace(keyword_only, modalities=("text", "image"))
    assert told(M24, "filter.all", images) == "Only text is looked at; image was not assessed."


def test_a_screen_asked_for_some_kinds_does_not_apply_where_there_are_none():
    def evidence(**kinds: int) -> Evidence:
        return replace(FILTERED, register=RegisterEvidence(kinds=kinds))

    assert result(O23, "ipr.secret", evidence(open=3)) == "not applicable"
    assert result(O23, "ipr.secret", evidence(commercial=1)) == "needs evidence"


@pytest.mark.parametrize(
    ("found", "bare", "screened", "f24", "o23"),
    [
        ({"personal": 0, "sensitive": 0}, {}, 10, "not applicable", "not applicable"),
        ({"personal": 3, "sensitive": 0}, {}, 10, "conforms", "conforms"),
        ({"personal": 3, "sensitive": 0}, {"personal": 1}, 10, "needs evidence", "needs evidence"),
        ({"personal": 3}, {}, 10, "needs evidence", "needs evidence"),
        ({"personal": 0, "sensitive": 0}, {}, 9, "needs evidence", "needs evidence"),
        ({"personal": 0, "sensitive": 0, "biometric": 2}, {"biometric": 1}, 10, "not applicable", "needs evidence"),
    ],
)
def test_personal_information_needs_a_basis_where_there_is_some(found, bare, screened, f24, o23):
    personal = PersonalEvidence(screened=screened, documents=10, found=found, without_basis=bare)
    evidence = Evidence(personal=personal, modalities=("text",))

    assert (result(F24, "pi.consent", evidence), result(O23, "pi.consent", evidence)) == (f24, o23)


def test_exports_are_written_or_open():
    assert result("international", "eu.summary", Evidence(exports=frozenset())) == "needs evidence"
    written = Evidence(exports=frozenset({"eu_training_content_summary"}))
    assert result("international", "eu.summary", written) == "conforms"
    assert result("international", "ca.summary", written) == "needs evidence"


# Library and models


def library(**known: object) -> Evidence:
    return Evidence(as_of=TODAY, library=LibraryEvidence(**known))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("total", "expected"), [(9_999, "does not conform"), (10_000, "conforms"), (0, "does not conform")]
)
def test_a_library_has_not_less_than_10_000_entries(total, expected):
    assert result(O23, "kw.total", library(total=total)) == expected


def test_each_risk_of_the_first_group_has_200_entries_and_of_the_second_100():
    exact = {code: 200 if code.startswith("A.1") else 100 for code in CODES[:17]}

    assert result(O23, "kw.a1", library(per_risk=exact)) == "conforms"
    assert result(O23, "kw.a2", library(per_risk=exact)) == "conforms"
    assert "A.1.h (199)" in told(O23, "kw.a1", library(per_risk=exact | {"A.1.h": 199}))
    assert "9 risks of A.2 have fewer than 100" in told(O23, "kw.a2", library(per_risk={}))


def test_a_library_covers_17_risks_or_names_those_it_does_not():
    full = dict.fromkeys(CODES[:17], 1)

    assert result(F24, "kw.cover", library(per_risk=full)) == "conforms"
    row = evaluate(load_policy(F24), library(per_risk=full | {"A.2.f": 0}))["kw.cover"]
    assert (row.result, row.sentence) == ("does not conform", "1 of 17 risks have no keyword: A.2.f.")
    assert result("international", "kw.cover", library(per_risk=dict.fromkeys(CODES[3:17], 1))) == "conforms"


@pytest.mark.parametrize(
    ("changed", "gap", "expected"),
    [
        (date(2026, 11, 21), None, "conforms"),
        (date(2026, 11, 14), None, "conforms"),
        (date(2026, 11, 13), None, "does not conform"),
        (date(2026, 11, 20), 7, "conforms"),
        (date(2026, 11, 20), 8, "does not conform"),
        (date(2026, 11, 22), None, "needs evidence"),
        (None, None, "needs evidence"),
    ],
)
def test_a_library_is_at_most_seven_days_old_and_its_log_has_no_longer_gap(changed, gap, expected):
    assert result(F24, "kw.fresh", library(newest_change=changed, largest_gap_days=gap)) == expected


def test_the_age_of_a_library_needs_a_date_to_count_from():
    evidence = Evidence(library=LibraryEvidence(newest_change=TODAY))

    assert result(F24, "kw.fresh", evidence) == "needs evidence"


@pytest.mark.parametrize(
    ("detector", "expected"),
    [
        (Detector("m", 200, "usable"), "conforms"),
        (Detector("m", 199, "usable"), "does not conform"),
        (Detector("m", 5_000, "weak"), "does not conform"),
        (Detector("m", None, "no data"), "does not conform"),
        (Detector("m", 200, "usable", on=False), "does not conform"),
        (Detector("m", 200, "usable", candidate=True), "does not conform"),
    ],
)
def test_a_risk_is_covered_by_a_detector_with_a_usable_evaluation(detector, expected):
    evidence = Evidence(detectors=detectors() | {"A.3.b": [detector]})

    assert result(F24, "clf.cover", evidence) == expected


def test_gaps_in_coverage_are_named_apart():
    few = detectors("A.5.a", "A.5.b", positives=200) | {"A.3.b": [Detector("m", 3, "weak")]}
    row = evaluate(load_policy(F24), Evidence(detectors=few))["clf.cover"]

    assert row.sentence == (
        "28 of 31 risks are covered: no detector for A.5.a, A.5.b; no usable evaluation on 200 positives for A.3.b."
    )
    assert "and 23 more" in told(F24, "clf.cover", Evidence(detectors={}))


# Samples


@pytest.mark.parametrize(
    ("sample", "expected", "words"),
    [
        ((4_000, 4_000, 3_840), "conforms", "3,840 of 4,000 qualified, at least 96% asked for"),
        ((4_000, 4_000, 3_839), "does not conform", "3,839 of 4,000"),
        ((3_999, 3_999, 3_999), "does not conform", "3,999 of 50,000 documents drawn; 4,000 are needed"),
        ((4_000, None, None), "needs evidence", "not read yet"),
        ((4_000, 3_999, 3_999), "needs evidence", "1 are left"),
        ((4_000, 300, 139), "does not conform", "the 3,700 left cannot change that"),
        ((4_000, 300, 140), "needs evidence", "3,700 are left"),
        ((5_000, 5_000, 4_800), "conforms", "5,000 of 50,000"),
    ],
)
def test_people_read_4000_documents_and_96_percent_qualify(sample, expected, words):
    drawn, judged, good = sample
    evidence = Evidence(manual=SampleEvidence(population=50_000, drawn=drawn, judged=judged, good=good))
    row = evaluate(load_policy(F24), evidence)["eval.manual"]

    assert row.result == expected
    assert words in row.sentence


def test_a_corpus_smaller_than_the_sample_is_read_whole_and_marked():
    sample = SampleEvidence(population=100, drawn=100, judged=100, good=96)
    row = evaluate(load_policy(F24), Evidence(manual=sample))["eval.manual"]

    assert row.result == "conforms"
    assert "the corpus is smaller than 4,000" in row.sentence


@pytest.mark.parametrize(
    "sample", [SampleEvidence(), SampleEvidence(population=0, drawn=0), SampleEvidence(population=10), None]
)
def test_no_sample_needs_evidence(sample):
    evidence = Evidence(manual=sample, technical=sample)

    assert result(F24, "eval.manual", evidence) == result(F24, "eval.tech", evidence) == "needs evidence"


def test_a_technical_sample_without_an_independent_set_up_needs_evidence():
    sample = SampleEvidence(population=100, drawn=10, note="The filter's own detectors give 10 of 10.")
    row = evaluate(load_policy(F24), Evidence(technical=sample))["eval.tech"]

    assert row.result == "needs evidence"
    assert "not measured independently" in row.sentence and row.sentence.endswith("give 10 of 10.")


@settings(deadline=None, derandomize=True, max_examples=150)
@given(st.integers(1, 10**6), st.data())
def test_a_technical_sample_conforms_exactly_where_both_shares_are_reached(population, data):
    needed = -(-population // 10)
    drawn = data.draw(st.integers(max(0, needed - 2), min(population, needed + 2)))
    good = data.draw(st.integers(0, drawn))
    evidence = Evidence(technical=SampleEvidence(population=population, drawn=drawn, judged=drawn, good=good))

    reached = drawn * 10 >= population and good * 100 >= 98 * drawn
    assert (result(F24, "eval.tech", evidence) == "conforms") == reached


# Levels and the conclusion


def complete() -> Evidence:
    """Everything known, everything in order."""
    documents = {
        need: True for name in SHIPPED for rule in load_policy(name).rules for need in rule.arguments.get("needs", ())
    }
    fine = SourceEvidence(sources=5, assessed=5, over=1, over_used=0)
    stages = ("keyword", "classifier", "copyright", "trade_secret")
    return Evidence(
        as_of=TODAY,
        modalities=("text",),
        sources={"pre_collection": fine, "post_collection": fine},
        manual=SampleEvidence(population=50_000, drawn=4_000, judged=4_000, good=3_990),
        technical=SampleEvidence(population=50_000, drawn=5_000, judged=5_000, good=4_990),
        library=LibraryEvidence(total=12_000, per_risk=dict.fromkeys(CODES, 400), too_long=0, newest_change=TODAY),
        detectors=detectors(),
        stages={stage: StageEvidence(60_000, 60_000) for stage in stages},
        balanced=True,
        denylists={name: DenylistEvidence(5, 0, 0) for name in ("blocked_by_law", "source_blacklist")},
        sources_by={("language",): {("zh",): 3, ("en",): 2}},
        shares={"origin": {"domestic": 40_000, "foreign": 10_000}},
        register=RegisterEvidence(
            kinds={"open": 2, "commercial": 3},
            valid={"open": dict.fromkeys(documents, 2), "commercial": dict.fromkeys(documents, 3)},
        ),
        documents=documents | {"mix_rationale": True},
        personal=PersonalEvidence(screened=60_000, documents=60_000, found=dict.fromkeys(("personal", "sensitive"), 9)),
        exports=frozenset({"eu_training_content_summary", "ca_ab2013"}),
    )


@pytest.mark.parametrize("name", SHIPPED)
def test_with_everything_in_order_nothing_is_open_and_nothing_fails(name):
    policy = load_policy(name)
    assessment = evaluate(policy, complete())

    assert {row.result for row in assessment.provisions} <= {"conforms", "not applicable"}
    assert assessment.conclusion.value == ("fully_met" if policy.conclusion.values else None)
    assert assessment.evaluation_valid is (None if name == "international" else True)


def test_a_recommended_provision_never_changes_the_conclusion_of_tc260_003():
    bad_library = LibraryEvidence(total=1, per_risk=dict.fromkeys(CODES, 1), too_long=9, newest_change=date(2020, 1, 1))
    without = {"ipr_summary": False, "segregated_storage": False}
    evidence = replace(complete(), library=bad_library, documents=dict(complete().documents or {}) | without)

    assessment = evaluate(load_policy(F24), evidence)

    failed = {row.rule for row in assessment.provisions if row.result == "does not conform"}
    assert failed == {"kw.total", "kw.a1", "kw.a2", "kw.fresh", "ipr.disclose", "ann.apart"}
    assert {row.level for row in assessment.provisions if row.rule in failed} == {"should"}
    assert all("Advisory" in assessment[rule].sentence for rule in failed)
    assert assessment.conclusion.value == "fully_met"


def test_a_library_that_is_too_small_flags_the_evaluation_and_not_the_conclusion():
    small = replace(complete(), library=replace(complete().library, total=9_999))  # type: ignore[type-var]
    assessment = evaluate(load_policy(F24), small)

    assert assessment["eval.tools"].result == "conforms"
    assert "Recommended, and not met: kw.total (8.1 a))." in assessment["eval.tools"].sentence
    assert assessment.evaluation_valid is False
    assert assessment.conclusion.value == "fully_met"
    assert evaluate(load_policy(O23), small)["eval.tools"].result == "does not conform"


def test_the_samples_are_evidence_for_the_filtering_and_count_through_it():
    policy = load_policy(F24)
    bad = SampleEvidence(population=50_000, drawn=4_000, judged=4_000, good=3_839)
    assessment = evaluate(policy, replace(complete(), manual=bad))

    assert not counts(policy, policy.rule("eval.manual"))
    assert assessment.failed == ("filter.all",)
    assert assessment.conclusion.value == "partially_met"
    assert "filter.all" in assessment.conclusion.sentence


def test_the_strict_policy_counts_the_samples_themselves():
    bad = SampleEvidence(population=50_000, drawn=4_000, judged=4_000, good=3_839)
    assessment = evaluate(load_policy("strict"), replace(complete(), manual=bad))

    assert set(assessment.failed) == {"filter.all", "eval.manual"}


def test_one_open_provision_keeps_the_conclusion_open_unless_it_cannot_matter():
    one_open = replace(complete(), denylists=None)

    assessment = evaluate(load_policy(F24), one_open)
    assert assessment.conclusion.value is None
    assert assessment.open == ("src.blocked",)
    assert "No conclusion yet" in assessment.conclusion.sentence and "src.blocked" in assessment.conclusion.sentence
    one_failed = replace(one_open, detectors={})
    assert evaluate(load_policy(F24), one_failed).conclusion.value == "partially_met"


def own(tmp_path, rules: str) -> str:
    path = tmp_path / "own.yaml"
    sets = "\n".join(
        f"  {name}: {{groups: [{groups}], expect: {n}, clause: c}}"
        for name, groups, n in (("all", "A.1, A.2", 17), ("illegal", "A.1", 8), ("keyword", "A.2", 9))
    )
    values = "conclusion: {values: [fully_met, partially_met, not_met], clause: c}"
    path.write_text(f"id: own\ntitle: T\nrisk_sets:\n{sets}\nrules:\n{rules}\n{values}\n")
    return str(path)


PAPERS = "\n".join(f"  - {{id: {id}, clause: c, level: {level}, check: document, needs: [{id}]}}" for id, level in
                   (("a", "shall"), ("b", "shall"), ("s", "should")))  # fmt: skip


@pytest.mark.parametrize(
    ("a", "b", "s", "value"),
    [
        (True, True, True, "fully_met"),
        (True, True, False, "fully_met"),
        (True, True, None, "fully_met"),
        (True, False, True, "partially_met"),
        (False, False, True, "not_met"),
        (True, None, True, None),
        (False, None, True, None),
        (None, None, None, None),
    ],
)
def test_the_conclusion_is_that_of_the_text(tmp_path, a, b, s, value):
    known = {name: there for name, there in (("a", a), ("b", b), ("s", s)) if there is not None}
    conclusion = evaluate(load_policy(own(tmp_path, PAPERS)), Evidence(documents=known)).conclusion

    assert (conclusion.value, conclusion.clause) == (value, "c")


@pytest.mark.parametrize("name", [O23, M24])
def test_editions_without_an_overall_conclusion_give_none(name):
    conclusion = evaluate(load_policy(name), complete()).conclusion

    assert conclusion.value is None
    assert "result per provision" in conclusion.sentence


# Statements of named persons


def test_a_statement_fills_in_for_papers_and_never_for_a_measurement():
    def stated(rule: str) -> dict[str, Statement]:
        return {rule: Statement("not applicable", "We run no service yet", "A. Person", "2026-11-20")}

    row = evaluate(load_policy(F24), Evidence(statements=stated("ipr.complaint")))["ipr.complaint"]
    assert row.result == "not applicable"
    assert row.sentence == "A. Person states on 2026-11-20: We run no service yet."
    assert row.numbers == {"stated": True}
    for rule in ("eval.manual", "eval.tech", "kw.total", "kw.cover", "clf.cover", "eval.tools"):
        assert result(F24, rule, Evidence(statements=stated(rule))) == "needs evidence"


def test_a_statement_does_not_replace_a_result():
    fine = Statement("conforms", "Trust us.", "A. Person", "2026-11-20")
    used = Evidence(denylists={"blocked_by_law": DenylistEvidence(1, 1, 1)}, statements={"src.blocked": fine})

    assert result(F24, "src.blocked", used) == "does not conform"


def test_a_confirmed_clause_is_printed_instead_of_the_unverified_one(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(
        "id: c\ntitle: T\nextends: gbt-45654-2025\nconfirmed:\n"
        "  src.blocked: {by: A, on: 2026-01-02, clause: '5.9 z)'}\n"
    )
    assessment = evaluate(load_policy(path), Evidence())

    assert assessment["src.blocked"].clause == "5.9 z)"
    assert assessment["src.post"].clause.startswith("not verified")


def test_an_unknown_rule_is_no_result():
    with pytest.raises(KeyError):
        evaluate(load_policy(F24), Evidence())["nothing"]


def test_all_shipped_policies_are_tested_here():
    assert sorted(SHIPPED) == names("policies")
