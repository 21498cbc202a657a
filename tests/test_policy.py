import json
import pickle
import subprocess
import sys
from dataclasses import replace
from datetime import date
from fractions import Fraction
from math import ceil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus_guard.errors import UsageError
from corpus_guard.policy import (
    LEVELS,
    VERBS,
    SampleRule,
    SourceRule,
    confirm,
    load_policy,
    plain,
    share,
)
from corpus_guard.shipped import names, shipped
from corpus_guard.taxonomy import CODES, codes_of, mask_of
from corpus_guard.yamlfile import parse_yaml, read_yaml

SHIPPED = ("tc260-003", "tc260-draft-2023-10", "gbt-draft-2024-05", "strict", "gbt-45654-2025", "international")
CHINESE = SHIPPED[:5]

OWN = """\
kind: policy
schema: 1
id: own
title: Our own
risk_sets:
  all: {groups: [A.1, A.2, A.3, A.4, A.5], expect: 31, clause: c}
  illegal: {groups: [A.1, A.2, A.3, A.4], expect: 29, clause: c}
  keyword: {groups: [A.1, A.2], expect: 17, clause: c}
rules:
  - {id: src, clause: c, level: shall, check: source_ratio, phase: any, risks: illegal, max: "5%"}
"""


def own(tmp_path: Path, text: str, name: str = "own.yaml") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def faults(path: Path) -> list[str]:
    with pytest.raises(UsageError) as raised:
        load_policy(path)
    return str(raised.value).splitlines()


# The shipped policies


def test_the_six_policies_of_the_design_are_shipped():
    assert names("policies") == sorted(SHIPPED)


@pytest.mark.parametrize("name", CHINESE)
def test_the_three_risk_sets_have_31_29_and_17_members(name):
    policy = load_policy(name)

    assert [mask.bit_count() for mask in (policy.all, policy.illegal, policy.keyword)] == [31, 29, 17]
    assert {code[:3] for code in codes_of(policy.illegal)} == {"A.1", "A.2", "A.3", "A.4"}
    assert {code[:3] for code in codes_of(policy.keyword)} == {"A.1", "A.2"}


def test_the_international_policy_leaves_out_three_political_risks():
    policy = load_policy("international")

    assert [mask.bit_count() for mask in (policy.all, policy.illegal, policy.keyword)] == [28, 26, 14]
    assert set(CODES) - set(codes_of(policy.all)) == {"A.1.a", "A.1.b", "A.1.c"}


@pytest.mark.parametrize("name", SHIPPED)
def test_every_rule_names_its_clause_level_and_a_known_verb(name):
    for rule in load_policy(name).rules:
        assert rule.clause.strip()
        assert rule.level in LEVELS
        assert rule.check in VERBS


@pytest.mark.parametrize("name", SHIPPED)
def test_every_policy_says_what_sources_and_samples_need(name):
    policy = load_policy(name)

    assert policy.source.limit == (Fraction(1, 40) if name == "international" else Fraction(1, 20))
    assert policy.manual.min == Fraction(98 if name == "international" else 96, 100)
    assert (policy.manual.min_items, policy.technical.min_share) == (4000, Fraction(1, 10))
    assert policy.technical.min == Fraction(98, 100)


def test_library_sizes_bind_in_october_2023_are_recommended_in_2024_and_for_reference_in_the_draft_standard():
    def levels(name: str) -> list[str]:
        return [load_policy(name).rule(id).level for id in ("kw.total", "kw.a1", "kw.a2")]

    assert levels("tc260-draft-2023-10") == ["shall"] * 3
    assert levels("tc260-003") == ["should"] * 3
    assert levels("gbt-draft-2024-05") == ["reference"] * 3
    assert levels("strict") == ["shall"] * 3


def test_the_numbers_of_the_library_are_those_of_the_text():
    policy = load_policy("tc260-003")

    assert [policy.rule(id)["min"] for id in ("kw.total", "kw.a1", "kw.a2")] == [10000, 200, 100]
    assert policy.rule("kw.fresh")["max_days"] == 7
    length = load_policy("tc260-draft-2023-10").rule("kw.len")
    assert (length["max_han"], length["max_words"], length.level) == (10, 5, "generally")


def test_what_an_edition_does_not_say_it_does_not_ask():
    def rules(name: str) -> set[str]:
        return {rule.id for rule in load_policy(name).rules}

    assert "src.pre" in rules("tc260-003") and "src.pre" not in rules("tc260-draft-2023-10")
    assert "kw.fresh" not in rules("tc260-draft-2023-10")
    assert "kw.len" not in rules("tc260-003") and "kw.len" not in rules("gbt-draft-2024-05")
    assert "src.blocked" not in rules("gbt-draft-2024-05")
    assert {"kw.len", "kw.fresh", "src.blist", "src.pre", "src.blocked"} <= rules("strict")


def test_october_2023_words_one_risk_differently():
    [old] = [risk for risk in load_policy("tc260-draft-2023-10").risks if risk.code == "A.1.e"]
    [new] = [risk for risk in load_policy("tc260-003").risks if risk.code == "A.1.e"]

    assert "民族歧视" in old.zh and "民族歧视" not in new.zh


def test_one_assessment_serves_both_phases_in_october_2023():
    policy = load_policy("tc260-draft-2023-10")

    assert policy.source_rule("pre_collection") == policy.source_rule("post_collection")
    assert policy.source.on_breach == "blacklist"


def test_only_the_strict_policy_counts_what_waits_for_review_as_unqualified():
    assert [name for name in SHIPPED if load_policy(name).review_counts_as_unqualified] == ["strict"]


def test_a_run_under_tc260_003_is_told_of_the_standard_in_force():
    [notice] = load_policy("tc260-003").notices

    assert "GB/T 45654-2025 is in force since 2025-11-01" in notice


def test_the_unread_standard_says_that_it_is_not_verified_in_notice_and_clauses():
    policy = load_policy("gbt-45654-2025")

    assert policy.status.text == "not verified"
    assert "not verified" in policy.notices[0] and f"0 of {len(policy.rules)} rules" in policy.notices[0]
    assert all("not verified" in rule.clause for rule in policy.rules)
    assert all("not verified" in risk_set.clause for risk_set in policy.sets.values())


def test_policies_load_without_arrow_and_numpy():
    code = (
        "import sys; from corpus_guard.policy import load_policy; load_policy('strict'); "
        "sys.exit(bool({'pyarrow', 'numpy', 'torch', 'scipy', 'ray', 'pydantic'} & set(sys.modules)))"
    )

    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_policy_travels_to_workers():
    policy = load_policy("strict")

    assert pickle.loads(pickle.dumps(policy)) == policy


# Exact numbers


@pytest.mark.parametrize(
    ("illegal", "documents", "over"),
    [
        (0, 0, False),
        (0, 1000, False),
        (50, 1000, False),
        (51, 1000, True),
        (1, 10, True),
        (1, 20, False),
        (1, 19, True),
    ],
)
def test_a_source_is_over_only_strictly_over_five_percent(illegal, documents, over):
    assert load_policy("tc260-003").source.over(illegal, documents) is over


@pytest.mark.parametrize(
    ("population", "technical", "manual"),
    [
        (0, 0, 0),
        (1, 1, 1),
        (9, 1, 9),
        (10, 1, 10),
        (11, 2, 11),
        (3999, 400, 3999),
        (4000, 400, 4000),
        (36003, 3601, 4000),
    ],
)
def test_samples_are_rounded_up_and_never_larger_than_the_corpus(population, technical, manual):
    policy = load_policy("tc260-003")

    assert (policy.technical.size(population), policy.manual.size(population)) == (technical, manual)


@pytest.mark.parametrize(
    ("good", "judged", "met"), [(3840, 4000, True), (3839, 4000, False), (0, 0, False), (96, 100, True)]
)
def test_160_unqualified_of_4000_pass_and_161_do_not(good, judged, met):
    assert load_policy("tc260-003").manual.met(good, judged) is met


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.integers(0, 10**12), st.fractions(0, 1), st.one_of(st.none(), st.integers(1, 10**6)))
def test_the_size_of_a_sample_is_the_ceiling_of_the_share(population, wanted, least):
    rule = SampleRule("r", "c", "shall", least, wanted, Fraction(1))

    assert rule.size(population) == min(population, max(ceil(Fraction(population) * wanted), least or 0))


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.integers(0, 10**9), st.integers(0, 10**9), st.fractions(0, 1))
def test_comparisons_are_those_of_fractions(a, b, limit):
    part, whole = min(a, b), max(a, b)
    over = SourceRule("r", "c", "shall", "any", limit, "exclude").over(part, whole)
    met = SampleRule("r", "c", "shall", 1, None, limit).met(part, whole)

    assert over == (whole > 0 and Fraction(part, whole) > limit)
    assert met == (whole > 0 and Fraction(part, whole) >= limit)


@pytest.mark.parametrize(
    ("written", "meant"),
    [("5%", (1, 20)), ("2.5%", (1, 40)), ("0%", (0, 1)), ("100%", (1, 1)), ("5 %", (1, 20)), ("1/3", (1, 3)),
     (0, (0, 1)), (1, (1, 1)), (0.05, (1, 20)), (0.07, (7, 100)), ("0.065%", (13, 20000))],
)  # fmt: skip
def test_shares_are_read_exactly(written, meant):
    assert share(written) == Fraction(*meant)


@pytest.mark.parametrize(
    "bad", ["5", "five", "-1%", "101%", "1/0", True, None, [], 2, -1, float("nan"), 1.5, "5%%", "٥%x"]
)
def test_what_is_no_share_is_refused(bad):
    with pytest.raises(ValueError, match="must be a share"):
        share(bad)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.fractions(0, 1))
def test_a_share_is_written_so_that_it_reads_back(value):
    assert share(plain(value)) == value


# The digest


def test_layout_order_title_and_notes_do_not_change_the_digest(tmp_path):
    first = own(tmp_path, OWN)
    other = OWN.replace("title: Our own", "title: Another title").replace(
        "clause: c, level: shall", "level: shall, clause: c"
    )
    second = own(tmp_path, "# a comment\n" + other.replace('max: "5%"', "max: 1/20, note: why"), "second.yaml")

    assert load_policy(first).digest == load_policy(second).digest


@pytest.mark.parametrize(
    ("old", "new"),
    [('"5%"', '"4%"'), ("level: shall", "level: should"), ("phase: any", "phase: post_collection")],
)
def test_what_decides_changes_the_digest(tmp_path, old, new):
    assert load_policy(own(tmp_path, OWN)).digest != load_policy(own(tmp_path, OWN.replace(old, new), "b.yaml")).digest


def test_thresholds_and_the_review_switch_change_the_digest(tmp_path):
    plain_ = load_policy(own(tmp_path, OWN))
    with_thresholds = load_policy(own(tmp_path, OWN + "thresholds: {A.1.h: {upper: 0.9, lower: 0.5}}\n", "b.yaml"))
    unqualified = load_policy(own(tmp_path, OWN + "verdict: {review: unqualified}\n", "c.yaml"))

    assert with_thresholds.thresholds == {"A.1.h": (0.9, 0.5)}
    assert unqualified.review_counts_as_unqualified
    assert len({plain_.digest, with_thresholds.digest, unqualified.digest}) == 3


def test_all_shipped_policies_differ_and_each_has_64_hex():
    digests = {load_policy(name).digest for name in SHIPPED}

    assert len(digests) == len(SHIPPED)
    assert all(len(digest) == 64 and int(digest, 16) >= 0 for digest in digests)


# Extending


def test_an_own_policy_changes_one_number_of_a_shipped_one(tmp_path):
    path = own(
        tmp_path, 'id: own\ntitle: T\nextends: tc260-003\nrules:\n  - {id: src.post, max: "4%"}\ndrop: [src.mix]\n'
    )
    policy, base = load_policy(path), load_policy("tc260-003")

    assert policy.source.limit == Fraction(1, 25)
    assert policy.source.clause == base.source.clause
    assert {rule.id for rule in base.rules} - {rule.id for rule in policy.rules} == {"src.mix"}
    assert policy.notices[0].startswith("GB/T 45654-2025 is in force")
    assert len(policy.files) == 2


def test_a_policy_extends_a_file_beside_it(tmp_path):
    own(tmp_path, OWN, "base.yaml")
    policy = load_policy(own(tmp_path, "id: child\ntitle: T\nextends: ./base.yaml\n", "child.yaml"))

    assert policy.digest == load_policy(tmp_path / "base.yaml").digest
    assert (policy.id, policy.title) == ("child", "T")


def test_a_rule_with_another_verb_starts_over(tmp_path):
    own(tmp_path, OWN, "base.yaml")
    child = "id: child\ntitle: T\nextends: ./base.yaml\nrules:\n  - {id: src, check: library_age, max_days: 3}\n"
    rule = load_policy(own(tmp_path, child, "child.yaml")).rule("src")

    assert (rule.check, rule.clause, rule.level, rule.arguments) == ("library_age", "c", "shall", {"max_days": 3})


def test_a_policy_that_extends_itself_in_a_circle_is_refused(tmp_path):
    own(tmp_path, "id: a\ntitle: A\nextends: ./b.yaml\n", "a.yaml")
    own(tmp_path, "id: b\ntitle: B\nextends: ./a.yaml\n", "b.yaml")

    assert faults(tmp_path / "a.yaml") == [
        f"{tmp_path / 'b.yaml'}:3: extends './a.yaml', which extends this file again."
    ]


def test_a_number_may_be_raised_for_a_spot_check_and_never_lowered():
    policy = load_policy("tc260-003")
    raised = policy.raised(manual=5000, technical=Fraction(12, 100))

    assert (raised.manual.size(10**6), raised.technical.size(10**6)) == (5000, 120000)
    assert raised.digest != policy.digest
    assert policy.raised() == policy
    assert policy.raised(manual=4000).digest == policy.digest
    with pytest.raises(UsageError, match=r"3,999 is less than the 4,000 of policy tc260-003 \(9\.2 a\)\)"):
        policy.raised(manual=3999)
    with pytest.raises(UsageError, match="9% is less than the 10%"):
        policy.raised(technical=Fraction(9, 100))


def test_confirmations_of_the_unread_standard_are_kept_in_a_file_of_their_own(tmp_path):
    base, path = load_policy("gbt-45654-2025"), tmp_path / "confirmed.yaml"
    confirm(path, base, "src.pre", by='Li "Ann" 李', on=date(2026, 1, 2), clause="5.1 a)")
    policy = confirm(path, base, "src.post", by="B: #", on=date(2026, 1, 3), clause="5.1 b)")

    assert policy.digest == base.digest
    assert policy.clause(policy.rule("src.pre")) == "5.1 a)"
    assert policy.clause(policy.rule("src.mix")).startswith("not verified")
    assert policy.confirmed["src.pre"].by == 'Li "Ann" 李'
    assert f"2 of {len(policy.rules)} rules are confirmed" in policy.notices[0]
    assert list(tmp_path.iterdir()) == [path]


def test_a_confirmation_needs_a_rule_a_person_and_its_own_file(tmp_path):
    base = load_policy("gbt-45654-2025")
    other = own(tmp_path, OWN)
    before = other.read_bytes()

    with pytest.raises(UsageError, match="no rule 'src.poost'; did you mean 'src.post'"):
        confirm(tmp_path / "c.yaml", base, "src.poost", by="A", on=date(2026, 1, 2), clause="x")
    with pytest.raises(UsageError, match="name of a person"):
        confirm(tmp_path / "c.yaml", base, "src.post", by=" ", on=date(2026, 1, 2), clause="x")
    with pytest.raises(UsageError, match="no record of confirmations"):
        confirm(other, base, "src.post", by="A", on=date(2026, 1, 2), clause="x")
    assert other.read_bytes() == before


# Faults: each with file, line, key and the nearest match, all at once


def test_all_faults_of_a_file_are_told_at_once_in_the_order_of_lines(tmp_path):
    text = OWN.replace("title:", "titel:").replace("expect: 29", "expect: 28").replace("level: shall", "level: shal")
    path = own(tmp_path, text.replace("phase: any, ", "").replace("clause: c, level", "level"))

    assert faults(path) == [
        f"{path}: 'title' is missing.",
        f"{path}:4: unknown key 'titel'; did you mean 'title'?",
        f"{path}:7: risk set 'illegal' has 29 risks, 28 are expected.",
        f"{path}:10: 'clause' is missing.",
        f"{path}:10: 'level' is 'shal', must be shall or should or generally or reference; did you mean 'shall'?",
        f"{path}:10: rule 'src': source_ratio needs 'phase'.",
    ]


RULE = '  - {id: src, clause: c, level: shall, check: source_ratio, phase: any, risks: illegal, max: "5%"}\n'


@pytest.mark.parametrize(
    ("old", "new", "line", "told"),
    [
        ("id: own", "id: Own!", 3, "'id' must be an id"),
        ("id: own\n", "", None, "'id' is missing."),
        ("title: Our own", "title: 5", 4, "'title' must be text."),
        ("title: Our own", "title: {a: b}", 4, "'title' must be text."),
        ("kind: policy", "kind: polisy", 1, "kind must be policy."),
        ("schema: 1", "schema: 2", 2, "schema must be 1."),
        ("clause: c}\n  illegal", "clausel: c}\n  illegal", 6, "unknown key 'clausel'; did you mean 'clause'?"),
        ("[A.1, A.2], expect: 17", "[A.1, A.9], expect: 8", 8, "'groups' is 'A.9', must be"),
        ("[A.1, A.2], expect: 17", "[A.1, A.1], expect: 8", 8, "'groups' names one thing twice."),
        ("expect: 17", "expect: 18", 8, "risk set 'keyword' has 17 risks, 18 are expected."),
        ("expect: 17, ", "", 8, "'expect' is missing."),
        ("expect: 17", "expect: many", 8, "'expect' must be a whole number"),
        ("expect: 17", "without: [A.3.a], expect: 17", 8, "leaves out A.3.a, which is not in the set."),
        ("  keyword: {groups: [A.1, A.2], expect: 17, clause: c}\n", "", 5, "risk set 'keyword' is missing"),
        ("  keyword:", "  keywords:", 8, "unknown key 'keywords'; did you mean 'keyword'?"),
        ("A.1, A.2, A.3, A.4, A.5], expect: 31", "A.1], expect: 8", 7, "which 'all' has not."),
        ("check: source_ratio", "check: source_ration", 10, "did you mean 'source_ratio'?"),
        ("check: source_ratio, ", "", 10, "'check' is missing."),
        ("phase: any", "phase: before", 10, "'phase' is 'before', must be pre_collection or post_collection or any."),
        ("risks: illegal", "risks: ilegal", 10, "'risks' is 'ilegal', must be illegal; did you mean 'illegal'?"),
        ('max: "5%"', 'max: "105%"', 10, "'max' must be a share from 0% to 100%"),
        ('max: "5%"', 'maks: "5%"', 10, "rule 'src': source_ratio needs 'max'."),
        ('max: "5%"', 'max: "5%", maxx: 3', 10, "unknown key 'maxx'; did you mean 'max'?"),
        ('max: "5%"', 'max: "5%", on_breach: blaklist', 10, "did you mean 'blacklist'?"),
        ('max: "5%"', 'max: "5%", when: {kind: open}', 10, "'when' has no meaning for source_ratio."),
        (RULE, RULE + RULE, 11, "rule 'src' stands twice, first in line 10; keep one."),
        (RULE, "  - src\n", 10, "a rule must hold keys"),
        (RULE, "  - {clause: c}\n", 10, "a rule needs an id"),
        ("rules:\n" + RULE, "rules: 5\n", 9, "'rules' must be a list of rules."),
        ("rules:\n" + RULE, "", None, "a policy needs rules."),
        (RULE, RULE + "drop: [x]\n", 11, "drops 'x', which no extended policy has."),
        (RULE, RULE + "drop: x\n", 11, "'drop' must be a list of rule ids."),
        (RULE, RULE + "extends: tc260-03\n", 11, "there is no policy 'tc260-03'; did you mean 'tc260-003'?"),
        (RULE, RULE + "extends: ./gone.yaml\n", 11, "there is no policy file"),
        (RULE, RULE + "extends: [a]\n", 11, "extends must name one policy."),
        (RULE, RULE + "taxonomy: mine\n", 11, "taxonomy must be appendix-a."),
        (RULE, RULE + "risk_overrides: {A.9.z: {en: x}}\n", 11, "unknown key 'A.9.z'"),
        (RULE, RULE + "risk_overrides: {A.1.a: x}\n", 11, "'A.1.a' must be {en: ..., zh: ...}."),
        (RULE, RULE + "risk_overrides: {A.1.a: {de: x}}\n", 11, "unknown key 'de'"),
        (RULE, RULE + "verdict: {reviews: kept}\n", 11, "unknown key 'reviews'; did you mean 'review'?"),
        (RULE, RULE + "verdict: {review: droped}\n", 11, "'review' is 'droped', must be kept or unqualified"),
        (RULE, RULE + "verdict: 5\n", 11, "'verdict' must hold keys."),
        (RULE, RULE + "item: {unit: byte}\n", 11, "'unit' is 'byte', must be document."),
        (RULE, RULE + "thresholds: {A.1.x: {upper: 1, lower: 0}}\n", 11, "unknown key 'A.1.x'"),
        (RULE, RULE + "thresholds: {A.1.a: {upper: 1}}\n", 11, "must be {upper: ..., lower: ...}."),
        (RULE, RULE + "thresholds: {A.1.a: {upper: 0.4, lower: 0.5}}\n", 11, "the lower not over the upper."),
        (RULE, RULE + "thresholds: {A.1.a: {upper: 1.4, lower: 0.5}}\n", 11, "must be from 0 to 1"),
        (RULE, RULE + "status: {text: fully}\n", 11, "did you mean 'full'?"),
        (RULE, RULE + "status: {in_force: someday}\n", 11, "'in_force' must be a date"),
        (RULE, RULE + "status: {inforce: 2025-11-01}\n", 11, "did you mean 'in_force'?"),
        (RULE, RULE + "conclusion: {values: [fully_met]}\n", 11, "'values' must be empty or"),
        (RULE, RULE + "conclusion: {levels_that_count: [must]}\n", 11, "'levels_that_count' is 'must'"),
        (RULE, RULE + "conclusion: {leaves_out: [srk]}\n", 11, "did you mean 'src'?"),
        (RULE, RULE + "conclusion: {level: shall}\n", 11, "unknown key 'level'"),
        (RULE, RULE + "confirmed: {srk: {by: A, on: 2026-01-01, clause: x}}\n", 11, "did you mean 'src'?"),
        (RULE, RULE + "confirmed: {src: {by: A, clause: x}}\n", 11, "'on' is missing."),
        (RULE, RULE + "confirmed: {src: yes}\n", 11, "must be {by: ..., on: ..., clause: ...}."),
    ],
)  # fmt: skip
def test_a_fault_is_told_with_its_line_and_the_nearest_match(tmp_path, old, new, line, told):
    assert old in OWN
    path = own(tmp_path, OWN.replace(old, new, 1))

    found = [fault for fault in faults(path) if told in fault]

    assert found, faults(path)
    assert found[0].startswith(f"{path}:{line}: " if line else f"{path}: ")


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ("check: sample_rate, by: manual, draw: {min_item: 5}, risks: all, min: 1", "'draw' must be {min_items: ...}"),
        (
            "check: sample_rate, by: manual, draw: {min_items: 0}, risks: all, min: 1",
            "'draw' must be a whole number, 1 or",
        ),
        ("check: sample_rate, by: hand, draw: {min_items: 5}, risks: all, min: 1", "must be manual or technical"),
        ("check: library_count, min: 10.5", "'min' must be a whole number, 1 or more."),
        ("check: library_count, min: true", "'min' must be a whole number"),
        ("check: library_count, min: 5, each_in: A.7", "'each_in' is 'A.7'"),
        ("check: library_cover, risks: keywords", "did you mean 'keyword'?"),
        ("check: library_age, max_days: -1", "'max_days' must be a whole number, 0 or more."),
        ("check: entry_length, max_han: 10", "entry_length needs 'max_words'."),
        ("check: classifier_cover, risks: all, min_positive: few", "'min_positive' must be a whole number"),
        ("check: stages_ran, stages: []", "'stages' must name at least one."),
        ("check: stages_ran, stages: [keywrd]", "did you mean 'keyword'?"),
        ("check: stages_ran, stages: [keyword], coverage_of: [classifier]", "'classifier' is not among its stages."),
        ("check: stages_ran, stages: [keyword], per_modality: 1", "'per_modality' must be true or false."),
        ("check: stages_ran, stages: [keyword], shown_by: [gone]", "names rule 'gone', which there is not."),
        ("check: denylist, list: blacklist", "'list' is 'blacklist', must be"),
        ("check: min_sources, by: [tongue], min: 2", "'by' is 'tongue', must be"),
        ("check: report_share, by: origin, max: 30%", "'max' and 'of' are given together or not at all."),
        ("check: document, needs: [The Paper]", "'needs' must be a name of small letters"),
        ("check: document, needs: [a], when: {kind: opn}", "did you mean 'open'?"),
        ("check: document, needs: [a], when: {kinds: open}", "'when' must be {kind: ...}."),
        ("check: pi_basis, classes: [privat]", "'classes' is 'privat'"),
        ("check: export, format: eu", "'format' is 'eu', must be"),
        ("check: all_of, rules: [x]", "names itself"),
        ("check: all_of, rules: [srk]", "did you mean 'src'?"),
    ],
)
def test_arguments_of_every_verb_are_checked(tmp_path, rule, told):
    path = own(tmp_path, OWN + f"  - {{id: x, clause: c, level: shall, {rule}}}\n")

    assert any(told in fault and fault.startswith(f"{path}:11: ") for fault in faults(path)), faults(path)


def test_rules_that_name_each_other_in_a_circle_are_refused(tmp_path):
    loop = "  - {id: a, clause: c, level: shall, check: all_of, rules: [b]}\n"
    path = own(tmp_path, OWN + loop + loop.replace("id: a", "id: b").replace("[b]", "[a]"))

    assert [fault for fault in faults(path) if "rule 'a': names itself, directly or by another rule." in fault]


def test_two_rules_for_one_sample_are_refused(tmp_path):
    check = "check: sample_rate, by: manual, draw: {min_items: 5}, risks: all, min: 1"
    rule = f"  - {{id: a, clause: c, level: shall, {check}}}\n"
    path = own(tmp_path, OWN + rule + rule.replace("id: a", "id: b"))

    assert faults(path) == [f"{path}:12: rules a and b both ask for the manual sample; keep one."]


def test_a_group_without_risks_has_no_minimum(tmp_path):
    sets = OWN.replace("[A.1, A.2, A.3, A.4, A.5], expect: 31", "[A.1, A.2, A.3, A.4], expect: 29")
    path = own(tmp_path, sets + "  - {id: x, clause: c, level: shall, check: library_count, min: 5, each_in: A.5}\n")

    assert faults(path) == [f"{path}:11: no risk of A.5 is in the set 'all'."]


def test_a_fault_in_an_extended_file_names_that_file(tmp_path):
    base = own(tmp_path, OWN.replace("phase: any", "phase: never"), "base.yaml")
    child = own(tmp_path, "id: child\ntitle: T\nextends: ./base.yaml\nverdict: {review: no}\n", "child.yaml")

    [one, two] = sorted(faults(child))
    assert one.startswith(f"{base}:10: 'phase' is 'never'")
    assert two.startswith(f"{child}:4: 'review' is 'no'")


def test_dropping_a_rule_that_another_names_is_told_where_it_is_dropped(tmp_path):
    path = own(tmp_path, "id: own\ntitle: T\nextends: tc260-003\ndrop: [kw.fresh]\n")

    assert faults(path) == [f"{path}:4: drops 'kw.fresh', which rule 'eval.tools' names; change that rule too."]


def test_a_policy_without_source_or_sample_rules_loads_and_says_so_when_asked(tmp_path):
    rule = "  - {id: x, clause: c, level: shall, check: library_age, max_days: 7}\n"
    policy = load_policy(own(tmp_path, OWN.replace(RULE, rule)))

    for ask in ("source", "manual", "technical"):
        with pytest.raises(UsageError, match="add one"):
            getattr(policy, ask)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("tc260-3", "there is no policy 'tc260-3'; did you mean 'tc260-003'?"),
        ("../tc260-003", "there is no policy file '../tc260-003'."),
        ("gone.yaml", "there is no policy file 'gone.yaml'."),
        ("", "there is no policy ''."),
    ],
)
def test_a_policy_that_is_not_there_is_told_with_the_nearest_name(name, told):
    with pytest.raises(UsageError) as raised:
        load_policy(name)
    assert told in str(raised.value)


@pytest.mark.parametrize("text", ["", "5", "[a]", "null"])
def test_a_file_that_holds_no_keys_is_refused(tmp_path, text):
    path = own(tmp_path, text)

    assert faults(path) == [f"{path}: must hold keys such as id, title and rules."]


# The YAML it is written in


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: 1\nb: 2\na: 3\n", "x:3: key 'a' stands twice, first in line 1; keep one."),
        ("m: {a: 1, a: 2}\n", "x:1: key 'a' stands twice, first in line 1; keep one."),
        ("a: &k 1\n", "x:1: anchor '&k' is not allowed; write values out."),
        ("a: *k\n", "x:1: alias '*k' is not allowed; write the value out."),
        ("a: !!python/name:os.system\n", "x:1: tag 'tag:yaml.org,2002:python/name:os.system' is not allowed"),
        ("a: !x 5\n", "x:1: tag '!x' is not allowed; write a plain value."),
        ("!!str a: 5\n", "is not allowed; write a plain key."),
        ("a: 1\n<<: {b: 2}\n", "x:2: merge key '<<' is not allowed; write the keys out."),
        ("[a]: 1\n", "x:1: a key must be plain text"),
        ("? {a: b}\n: 1\n", "x:1: a key must be plain text"),
        ("'': 1\n", "x:1: a key is empty; give it a name."),
        ("a: 1\n---\nb: 2\n", "x:2: a second document starts here; one file holds one document."),
        ("a: [1\n", "x:2: is not YAML"),
        ("a: b: c\n", "x:1: is not YAML: mapping values are not allowed in this context."),
        ("a: \x00\n", "x: is not YAML: unacceptable character"),
        ("[" * 60 + "]" * 60, "x:1: nested deeper than 40 levels."),
    ],
)  # fmt: skip
def test_yaml_is_strict(text, told):
    with pytest.raises(UsageError) as raised:
        parse_yaml(text, "x")
    assert told in str(raised.value)


def test_all_faults_of_the_yaml_are_told_at_once():
    with pytest.raises(UsageError) as raised:
        parse_yaml("a: 1\na: 2\nb: !t x\nc: *gone\n", "x")
    assert [line.split(":")[1] for line in str(raised.value).splitlines()] == ["2", "3", "4"]


def test_words_and_numbers_mean_what_they_look_like():
    data, _ = parse_yaml(
        "{a: no, b: 012, c: '5', d: 12:30, e: 2025-11-01, f: 1.5, g: -3, h: true, i: ~, j: 1_000, k: 0}", "x"
    )

    assert data == {
        "a": "no", "b": "012", "c": "5", "d": "12:30", "e": "2025-11-01",
        "f": 1.5, "g": -3, "h": True, "i": None, "j": "1_000", "k": 0,
    }  # fmt: skip


def test_every_key_and_item_has_its_line():
    _, lines = parse_yaml("# c\na:\n  - x\n  - {b: 1,\n     c: 2}\n", "x")

    assert lines == {(): 2, ("a",): 2, ("a", 0): 3, ("a", 1): 4, ("a", 1, "b"): 4, ("a", 1, "c"): 5}


def test_a_file_that_cannot_be_read_is_told(tmp_path):
    with pytest.raises(UsageError, match="there is no such file"):
        read_yaml(tmp_path / "gone.yaml")
    with pytest.raises(UsageError, match="cannot be read"):
        read_yaml(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"a: 1\nb: \xe9\n")
    with pytest.raises(UsageError, match=r"latin.yaml:2: is not UTF-8 \(byte 8\)"):
        read_yaml(tmp_path / "latin.yaml")


def test_control_characters_of_a_file_do_not_reach_the_terminal():
    with pytest.raises(UsageError) as raised:
        parse_yaml('"\\e[31m": 1\n"\\e[31m": 2\n', "x")
    assert "\x1b" not in str(raised.value)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.text(max_size=200))
def test_no_text_makes_the_loader_fail_in_another_way(text):
    try:
        parse_yaml(text, "x")
    except UsageError as error:
        assert str(error).startswith("x")


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.text(alphabet="ab:-[]{}?&*!|>#'\" \n\t,0123", max_size=60))
def test_no_punctuation_makes_the_loader_fail_in_another_way(text):
    try:
        parse_yaml(text, "x")
    except UsageError as error:
        assert str(error).startswith("x")


# Where shipped files lie


def test_a_wheel_carries_what_a_checkout_has_beside_it(tmp_path):
    package = tmp_path / "corpus_guard"
    (package / "_shipped/configs/policies").mkdir(parents=True)
    (package / "_shipped/configs/policies/p.yaml").touch()
    (package / "_shipped/keyword_libs/lib").mkdir(parents=True)
    (package / "classifiers/models/screen").mkdir(parents=True)
    (tmp_path / "configs/models").mkdir(parents=True)
    (tmp_path / "configs/models/adapter.yaml").touch()
    (tmp_path / "configs/models/screen.yaml").touch()

    assert shipped("policies", "p", package=package) == package / "_shipped/configs/policies/p.yaml"
    assert shipped("keyword_libs", "lib", package=package) == package / "_shipped/keyword_libs/lib"
    assert shipped("models", "screen", package=package) == package / "classifiers/models/screen"
    assert shipped("models", "adapter", package=package) == tmp_path / "configs/models/adapter.yaml"
    assert names("models", package=package) == ["adapter", "screen"]


@pytest.mark.parametrize("name", ["", ".", "..", "../policies/strict", "a/b", "a\\b", ".hidden", "x\0", "gone"])
def test_a_path_is_no_shipped_name(name):
    assert shipped("policies", name) is None


def test_a_kind_nobody_ships_is_an_error():
    with pytest.raises(ValueError, match="nothing of the kind 'wine'"):
        names("wine")


def test_masks_and_codes_of_sets_agree():
    policy = load_policy("tc260-003")

    assert mask_of(policy.sets["keyword"].codes) == policy.keyword
    assert replace(policy, id="x").digest == policy.digest


KEYS = ("kind", "schema", "id", "title", "status", "extends", "risk_overrides", "risk_sets", "item", "verdict")
PLACES = [(key,) for key in (*KEYS, "thresholds", "drop", "rules", "conclusion", "confirmed")] + [
    ("risk_sets", "all"), ("risk_sets", "all", "groups"), ("risk_sets", "all", "expect"), ("thresholds", "A.1.a"),
    ("risk_overrides", "A.1.a"), ("status", "text"), ("confirmed", "kw.total"), ("conclusion", "values"),
    *[("rule", key) for key in ("id", "clause", "level", "check", "when", "on_breach", "note", "min", "by", "draw",
                               "stages", "rules", "also", "shown_by", "needs", "risks", "max", "of", "coverage")],
]  # fmt: skip


@settings(deadline=None, derandomize=True, max_examples=120)
@given(
    st.sampled_from(PLACES),
    st.sampled_from([rule.id for rule in load_policy("tc260-003").rules]),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["all", "A.1"]),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=6,
    ),
)
def test_whatever_stands_anywhere_in_a_policy_is_taken_or_told(tmp_path_factory, place, rule, value):
    data: dict = {"id": "own", "title": "T", "extends": "tc260-003", "rules": [{"id": rule}]}
    holder = data
    for part in place[:-1]:
        holder = holder["rules"][0] if part == "rule" else holder.setdefault(part, {})
    holder[place[-1]] = value
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_text(json.dumps(data))
    try:
        assert len(load_policy(path).digest) == 64
    except UsageError as error:
        assert "fuzz.yaml" in str(error) or "tc260-003" in str(error)
