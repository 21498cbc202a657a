"""The report: its structure, and that no string of a corpus can become anything but text in any of its forms."""

import csv
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from corpus_guard.errors import UsageError
from corpus_guard.report import pictures
from corpus_guard.report.markdown import markdown, prose
from corpus_guard.report.model import (
    LISTED,
    Accounting,
    Attempt,
    Classifier,
    Conclusion,
    Corpus,
    CoverageCell,
    DocumentCounts,
    FailedShard,
    Integrity,
    Interval,
    Library,
    LibraryCount,
    Manual,
    ModelFacts,
    PolicyFacts,
    ProvisionResult,
    Rate,
    Report,
    RiskCoverage,
    Sources,
    StageFacts,
    Stages,
    Technical,
    as_json,
    dump,
    percent,
    retention_of,
    risk_counts,
    schema,
    worst_sources,
)
from corpus_guard.report.render import html, share, short, verdict, visible
from corpus_guard.report.tables import guarded, tables

SCHEMA = Path(pictures.__file__).parent / "templates" / "report.schema.json"

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</title></style></svg><iframe src=//evil.example>",
    "{{ 7 * 7 }}{% raw %}",
    "$\\frac{1}{2}$ $x^2$",
    "]]><!-- --> <![CDATA[",
    "a\u202egpj.exe\u2066\u200b\x00\x1b[31m\n\r\t",
    "=HYPERLINK(\"http://evil.example\")",
    "[x](javascript:alert(1)) ![y](http://evil.example/p.png) http://evil.example www.evil.example @all #1",
    "| cell | `code` ``more`` \\| \\",
    "# heading\n\n- list\n> quote\n<b>html</b>",
    "é" * 5000,
    "\udcff\udcfe",
    "",
]


def row(source, documents=100, illegal=0, decision="keep", **more):
    return {"source": source, "documents": documents, "illegal": illegal, "decision": decision, **more}


def report_with(text="plain", job="filter", names=None):
    """A complete report in which every string of the corpus, the policy and the tools is *text*."""
    counts = DocumentCounts(
        read=1000, clean=900, removed_document=30, removed_source=50, removed_blocked=0, quarantined=20
    )
    rate = Rate(3839, 4000, text)
    attempts = (Attempt(1, 4000, text, text),)
    risks = risk_counts({"A.1.h": 120, "A.4.f": 2}, {"A.1.h": 3, "A.4.f": 1}, names={"A.1.h": (text, text)})
    stage = StageFacts(name=text, kind=text, digest=text, looked_at=Rate(998, 1000, text))
    bounds = {"lower": 0.02, "upper": 0.14, "corrected": 0.05}
    rows = [
        row(name, 100, 6 + i, "exclude", reason=text, top_risks=[text], thin=True, **bounds)
        for i, name in enumerate(names or [text, None])
    ]
    return Report(
        job=job,
        run=text,
        as_of="2026-11-20",
        policy=PolicyFacts(id=text, title=text, digest=text, notices=(text,)),
        corpus=Corpus(manifest=text, phase=text, shards=3, rows=1000, failed=(FailedShard(text, text, None),)),
        conclusion=Conclusion("partially_met", text, text),
        provisions=(
            ProvisionResult(
                rule=text,
                clause=text,
                level="shall",
                result="does not conform",
                sentence=text,
                rates=(rate,),
                numbers={text: text},
            ),
        ),
        accounting=Accounting(documents=counts, shards={text: 3}, balanced=False, unbalanced=(text,)),
        retention=retention_of(counts),
        sources=Sources(
            total=len(rows), keep=0, exclude=len(rows), hold=0, limit=Rate(5, 100, text), decide=text,
            worst=worst_sources(rows, text),
        ),
        risks=risks,
        stages=Stages(ran=(stage,), only_keyword=1, only_classifier=2, both=3),
        technical=Technical(
            before=rate, evaluation=rate, evaluation_stages=(stage,), by_risk=risks, attempts=attempts,
            integrity=Integrity(10, 9), minimum=Rate(98, 100, text), conforms=False,
        ),
        manual=Manual(
            qualified=rate, interval=Interval(0.95, 0.97), by_risk=risks, attempts=attempts,
            minimum=Rate(96, 100, text), conforms=False,
        ),
        library=Library(id=text, version=text, digest=text, engine=text, risks=(LibraryCount("A.1.a", 3),)),
        classifier=Classifier(
            (ModelFacts(name=text, digest=text, licence=text, languages=(text,)),),
            (RiskCoverage("A.1.a", (CoverageCell(model=text, positives=None, status=text),)),),
        ),
        limits=(text,),
        digests={text: text},
    )  # fmt: skip


def empty_report(job="filter"):
    """What is known before anything was measured."""
    return Report(
        job=job,
        run="demo",
        as_of="2026-11-20",
        policy=PolicyFacts(id="tc260-003", title="TC260-003", digest="d"),
        corpus=Corpus(),
        conclusion=Conclusion(None, "Nothing was measured yet."),
    )


class Page(HTMLParser):
    """Tags with their attributes, and the text outside style."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.tags, self.text, self._style = [], [], False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._style = tag == "style"

    def handle_endtag(self, tag):
        self._style = False

    def handle_data(self, data):
        if not self._style:
            self.text.append(data)


@pytest.mark.parametrize(
    ("numerator", "denominator", "text"),
    [
        (0, 7, "0.00 %"),
        (7, 7, "100.00 %"),
        (1, 3, "33.33 %"),
        (5, 100, "5.00 %"),
        (50_001, 1_000_000, "5.0001 %"),
        (959_999, 1_000_000, "95.9999 %"),
        (3_839, 4_000, "95.98 %"),
        (24_999, 1_000_000, "2.4999 %"),
        (10**12 - 1, 10**12, "99.9999999999 %"),
        (0, 0, None),
    ],
)
def test_a_share_never_reads_as_a_round_figure_it_is_not(numerator, denominator, text):
    assert percent(numerator, denominator) == text


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.integers(1, 10**7).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_printed_share_stands_on_the_same_side_of_every_limit_as_the_counts(counts):
    numerator, denominator = counts

    printed = Fraction(percent(numerator, denominator).removesuffix(" %"))

    for limit in (5, 96, 98, Fraction(5, 2)):
        exact = 100 * Fraction(numerator, denominator)
        assert (printed > limit, printed < limit) == (exact > limit, exact < limit)


def test_the_schema_beside_the_templates_is_the_one_of_the_classes():
    assert json.loads(SCHEMA.read_text(encoding="utf-8")) == schema()


@pytest.mark.parametrize("report", [report_with(), empty_report(), empty_report("sources"), empty_report("spot-check")])
def test_a_report_keeps_to_the_schema(report):
    validator = pytest.importorskip("jsonschema", reason="jsonschema comes with ray").Draft202012Validator

    errors = [f"{error.json_path}: {error.message}" for error in validator(schema()).iter_errors(as_json(report))]

    assert errors == []


def test_report_json_is_the_same_bytes_for_the_same_report_and_refuses_what_is_not_a_number():
    assert dump(report_with("文")) == dump(report_with("文"))
    assert json.loads(dump(report_with("\udcff")))["run"] == "\udcff"
    with pytest.raises(ValueError):
        dump(replace(report_with(), manual=Manual(interval=Interval(float("nan"), 1.0))))


def test_counts_may_be_numbers_of_numpy():
    numpy = pytest.importorskip("numpy")

    report = replace(empty_report(), corpus=Corpus(documents=numpy.int64(12_000)))

    assert as_json(report)["corpus"]["documents"] == 12_000
    assert Rate(numpy.int64(1), numpy.int64(4)).percent == "25.00 %"


def test_a_report_of_another_version_is_refused():
    old = {**as_json(empty_report()), "schema_version": "0"}

    with pytest.raises(UsageError, match="schema_version '0'"):
        html(old)


@pytest.fixture(scope="module")
def harmless():
    return Page(html(as_json(report_with("plain"))))


@pytest.mark.parametrize("hostile", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_strings_make_no_tag_no_attribute_and_no_formula(hostile, harmless):
    page = Page(html(as_json(report_with(hostile))))

    def skeleton(one):
        return [(tag, sorted(attrs)) for tag, attrs in one.tags if tag not in ("text", "em")]

    if hostile:  # an empty clause or notice is left out, tags and all
        assert skeleton(page) == skeleton(harmless)
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    for _, attrs in page.tags:
        for name in ("href", "xlink:href", "src"):
            assert attrs.get(name, "#").startswith("#")
        assert "url(http" not in (attrs.get("style") or "")
    if hostile and len(hostile) < 90:
        assert visible(hostile) in "".join(page.text)


def test_the_page_has_no_script_and_its_policy_forbids_every_request():
    page = Page(html(as_json(report_with())))

    [policy] = [attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:")
    assert {"script", "link", "iframe", "object", "embed", "form"}.isdisjoint(tag for tag, _ in page.tags)


def test_ids_of_a_page_are_unique_though_three_pictures_are_in_it():
    page = Page(html(as_json(report_with())))

    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]

    assert len(ids) == len(set(ids))
    assert sum(tag == "svg" for tag, _ in page.tags) == 3


def test_pictures_keep_names_as_text_without_formulas():
    sources = as_json(report_with("$x^2$ <b>&amp;", names=["$x^2$ <b>&amp;", "美食天下论坛"]))["sources"]

    svg = pictures.share_per_source(sources)

    texts = re.findall(r"<text [^>]*>([^<]*)</text>", svg)
    assert "$x^2$ &lt;b&gt;&amp;amp;" in texts
    assert "美食天下论坛" in texts


@pytest.mark.parametrize(
    "draw",
    [
        lambda: pictures.share_per_source({"worst": [], "limit": {"numerator": 5, "denominator": 100}}),
        lambda: pictures.documents_per_risk([]),
        lambda: pictures.documents_per_risk(as_json(replace(empty_report(), risks=risk_counts({})))["risks"]),
        lambda: pictures.retention([]),
    ],
)
def test_there_is_no_picture_of_nothing(draw):
    assert draw() is None


@pytest.mark.parametrize("documents", [{"A.1.h": 1}, {"A.1.h": 10**9, "A.1.g": 1}, {"A.1.h": 51, "A.1.g": 1}])
def test_a_picture_of_risks_is_drawn_for_any_counts(documents):
    assert pictures.documents_per_risk(as_json(replace(empty_report(), risks=risk_counts(documents)))["risks"])


def test_the_same_report_is_drawn_as_the_same_bytes_in_every_process():
    program = (
        "import sys, json; sys.stdin.reconfigure(encoding='utf-8'); from corpus_guard.report.render import html;"
        "import hashlib; print(hashlib.sha256(html(json.load(sys.stdin)).encode()).hexdigest())"
    )
    report = dump(report_with("文 source"))

    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            input=report,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }

    assert len(digests) == 1


def test_what_is_not_known_is_said_and_never_filled_in():
    page = "".join(Page(html(as_json(empty_report()))).text)

    assert "Not known: the filter has not been applied yet." in page
    assert "Not known: no sample has been drawn for people yet." in page
    assert re.search(r"Documents read\s*not known", page)
    assert "None" not in page
    assert "*not known*" in markdown(as_json(empty_report()))


@pytest.mark.parametrize(
    ("job", "there", "absent"),
    [
        ("filter", {"accounting", "sources", "manual", "technical"}, set()),
        ("sources", {"sources", "risks"}, {"accounting", "manual", "technical"}),
        ("spot-check", {"manual", "technical"}, {"accounting", "sources"}),
    ],
)
def test_a_job_shows_its_own_sections_and_no_others(job, there, absent):
    ids = {attrs.get("id") for _, attrs in Page(html(as_json(empty_report(job)))).tags}

    assert there <= ids
    assert absent.isdisjoint(ids)


def test_the_three_technical_rates_stand_apart_and_a_missing_one_is_called_not_measured():
    report = as_json(replace(report_with(), technical=Technical(before=Rate(9, 10), after=Rate(10, 10))))

    page = "".join(Page(html(report)).text)

    assert "near 100 % by construction" in page
    assert "not measured" in page
    assert "*not measured*" in markdown(report)


def test_the_largest_report_stays_under_two_megabytes():
    long = '"<&>' * 500
    rows = [row(f"{i}{long}", 100, 50, "exclude", reason=long, top_risks=["A.1.h"] * 3) for i in range(2000)]
    report = report_with(long)
    failed = tuple(FailedShard(f"{i}{long}", long, None) for i in range(LISTED))
    report = replace(
        report,
        corpus=replace(report.corpus, failed_shards=LISTED, failed=failed),
        sources=replace(report.sources, total=2000, exclude=2000, worst=worst_sources(rows, "5.1")),
        provisions=report.provisions * 40,
    )

    assert len(report.sources.worst) == LISTED
    assert len(html(as_json(report)).encode()) < 2_000_000


def test_the_worst_sources_come_first_and_ties_are_settled():
    rows = [row("b", 10, 1), row("c", 1000, 50), row(None, 10, 1), row("a", 10, 1), row("h", 10, 0, "hold")]
    rows.append(row("x", 1000, 51, "exclude"))

    assert [one.source for one in worst_sources(rows, None)] == ["x", "h", None, "a", "b", "c"]


def test_retention_ends_at_what_is_clean():
    counts = DocumentCounts(
        read=100, clean=60, removed_document=10, removed_source=5, removed_blocked=5, quarantined=20
    )

    assert counts.balanced
    assert [step.documents.numerator for step in retention_of(counts)] == [100, 80, 70, 60]


def test_all_31_risks_are_listed_even_when_none_was_found():
    assert len(risk_counts({})) == 31
    assert risk_counts({"unresolved": 2})[-1].risk == "unresolved"


@pytest.mark.parametrize(
    ("value", "results", "tone"),
    [
        ("fully_met", [], "good"),
        ("partially_met", ["conforms"], "open"),
        ("not met", ["conforms"], "bad"),
        (None, ["conforms", "does not conform", "needs evidence"], "bad"),
        (None, ["conforms", "needs evidence"], "open"),
        (None, ["conforms", "not applicable"], "good"),
        (None, [], "none"),
    ],
)
def test_the_verdict_takes_its_tone_from_the_conclusion_or_from_the_binding_provisions(value, results, tone):
    provisions = [{"level": "shall", "result": result} for result in results]
    provisions.append({"level": "should", "result": "does not conform"})

    assert verdict({"conclusion": {"value": value}, "provisions": provisions})["tone"] == tone


@pytest.mark.parametrize("hostile", HOSTILE, ids=range(len(HOSTILE)))
def test_markdown_makes_no_link_image_or_html_of_hostile_strings(hostile):
    reader = MarkdownIt("commonmark", {"html": True}).enable("table").enable("strikethrough")

    def kinds(text):
        tokens = reader.parse(markdown(as_json(report_with(text))))
        flat = [one for token in tokens for one in (token, *(token.children or []))]
        return [token.type for token in flat if token.type not in ("text", "text_special", "code_inline")]

    found = kinds(hostile)

    forbidden = {"html_inline", "html_block", "link_open", "image", "fence", "code_block", "s_open", "hardbreak"}
    assert forbidden.isdisjoint(found)
    if hostile:
        plain = kinds("plain")
        assert [kind for kind in found if kind.endswith(("heading_open", "td_open", "tr_open"))] == [
            kind for kind in plain if kind.endswith(("heading_open", "td_open", "tr_open"))
        ]


def test_prose_leaves_clauses_readable():
    assert prose("9.2 a) at least 96 % (4,000)") == "9.2 a) at least 96 % (4,000)"
    assert prose("1. first") == "1\\. first"
    assert prose("see http://x and www.x") == "see http\\://x and www\\.x"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "＝1+1", "－1", "  =1", "\0=1"])
def test_no_cell_is_a_formula(text):
    assert guarded(text).startswith("'")


def test_numbers_stay_numbers_in_tables():
    report = as_json(report_with(names=["=cmd|' /C calc'!A0", None]))

    made = tables(report)
    rows = list(csv.reader(io.StringIO(made["worst_sources.csv"].decode("utf-8-sig"))))

    assert made["worst_sources.csv"].startswith(b"\xef\xbb\xbf")
    assert rows[0][:4] == ["source", "share", "documents", "illegal"]
    assert [line[0] for line in rows[1:]] == ["(null)", "'=cmd|' /C calc'!A0"]
    assert rows[1][2:4] == ["100", "7"]


def test_tables_of_an_empty_report_are_only_those_that_have_something_to_say():
    assert set(tables(as_json(empty_report()))) == {"provisions.csv"}


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.text(alphabet=st.characters(), max_size=80), st.integers(10, 60))
def test_visible_text_is_printable_short_and_unchanged_where_it_was_both(text, cut):
    made = visible(text, cut)

    assert made.isprintable()
    assert len(made) <= cut + 1
    if text.isprintable() and len(text) <= cut:
        assert made == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "not known"),
        (0.0, "0.00 %"),
        (1.0, "100.00 %"),
        (0.05, "5.00 %"),
        (1e-7, "0.00001 %"),
        (0.99999, "99.999 %"),
    ],
)
def test_bounds_are_never_rounded_to_none_or_all(value, text):
    assert share(value) == text


def test_a_limit_is_written_as_people_write_it():
    assert [short(text) for text in ("5.00 %", "2.50 %", "100.00 %", "0.00 %")] == ["5 %", "2.5 %", "100 %", "0 %"]
