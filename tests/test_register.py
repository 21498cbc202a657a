"""The register says what is known of sources; the blacklist only grows, and nobody leaves it unnamed."""

import json
from datetime import date

import pytest

from corpus_guard.errors import UsageError
from corpus_guard.places import Place
from corpus_guard.sources.blacklist import (
    BY_ITSELF,
    Assessment,
    Blacklist,
    load_blacklist,
    read_blacklist,
    save_blacklist,
)
from corpus_guard.sources.register import Document, Source, load_register, read_register

YAML = """\
operator:
  ipr_strategy: 2026-01-05 policies/ipr.pdf
sources:
  - source: forum.zh.a
    kind: self_collected
    owner: 某论坛
    origin: domestic
    size: 120000
    assessed: 2026-02-01
    collected: 2026-02-03
    documents:
      collection_record: 2026-02-03/2027-02-02 records/forum zh a.csv
      optout_check: {date: 2026-02-02, file: records/robots.txt}
  - source: null
    kind: other
"""

CSV = (
    "source,kind,owner,origin,size,assessed,collected,document.collection_record,document.optout_check\r\n"
    "forum.zh.a,self_collected,某论坛,domestic,120000,2026-02-01,2026-02-03,"
    "2026-02-03/2027-02-02 records/forum zh a.csv,2026-02-02 records/robots.txt\r\n"
    "\r\n"
    "(null),other,,,,,,,\r\n"
)

FORUM = Source(
    "forum.zh.a", "self_collected", "某论坛", None, "domestic", 120_000, date(2026, 2, 1), date(2026, 2, 3),
    {
        "collection_record": Document(date(2026, 2, 3), date(2027, 2, 2), "records/forum zh a.csv"),
        "optout_check": Document(date(2026, 2, 2), None, "records/robots.txt"),
    },
)  # fmt: skip


@pytest.mark.parametrize(("name", "text"), [("r.yaml", YAML), ("r.csv", CSV), ("R.CSV", "\ufeff" + CSV)])
def test_yaml_and_csv_say_the_same(name, text, tmp_path):
    (tmp_path / name).write_bytes(text.encode())

    register = load_register(str(tmp_path / name))

    assert register.sources == {"forum.zh.a": FORUM, None: Source(None, "other")}
    assert register.size("forum.zh.a") == 120_000
    assert register.size(None) is register.size("unknown") is None
    assert register.unregistered(["unknown", None, "forum.zh.a"]) == ["unknown"]
    assert [s.source for s in register.of_kinds(["self_collected"])] == ["forum.zh.a"]
    assert [s.source for s in register.of_kinds([], among=[None])] == [None]


def test_documents_of_the_operator_stand_in_yaml():
    assert read_register(YAML.encode(), "r.yaml").operator == {
        "ipr_strategy": Document(date(2026, 1, 5), None, "policies/ipr.pdf")
    }


@pytest.mark.parametrize(
    ("day", "lacking"),
    [
        ("2026-02-02", ("collection_record", "licence")), ("2026-02-03", ("licence",)), ("2027-02-02", ("licence",)),
        ("2027-02-03", ("collection_record", "licence")),
    ],
)  # fmt: skip
def test_a_document_holds_from_its_day_to_its_end(day, lacking):
    assert FORUM.lacks(["collection_record", "optout_check", "licence"], date.fromisoformat(day)) == lacking


def test_the_digest_depends_on_content_alone():
    digest = read_register(YAML.encode(), "a.yaml").digest

    assert read_register(("# note\n" + YAML).encode(), "b.yaml").digest == digest
    assert read_register(YAML.replace("kind: other", "kind: open").encode(), "a.yaml").digest != digest
    assert len(read_register(b"sources: []", "a.yaml").digest) == 64


def test_all_faults_of_a_yaml_register_are_told_with_their_lines():
    text = """\
sources:
  - source: a
    knd: open
  - source: b
    kind: opne
  - source: a
  - kind: open
  - source: 12
    size: 0
    owner: 7
    origin: abroad
    documents:
      licence: contracts/a.pdf
      Contract: 2026-01-01
      proof: {date: 2026-13-01}
      late: {date: 2026-02-01, expires: 2026-01-01}
operators: {}
"""

    with pytest.raises(UsageError) as error:
        read_register(text.encode(), "r.yaml")

    lines = str(error.value).splitlines()
    for part in (
        "r.yaml:3: unknown key 'knd'; did you mean 'kind'?", "r.yaml:5: kind 'opne' is not known; did you mean 'open'?",
        "r.yaml:6: source a is registered twice", "r.yaml:7: must be a mapping with the key source",
        "r.yaml:8: source must be text", "r.yaml:9: size must be", "r.yaml:10: owner must be text",
        "r.yaml:11: origin 'abroad' is not known", "r.yaml:13: document licence must begin with its day",
        "r.yaml:14: document name 'Contract'", "r.yaml:15: '2026-13-01' is no day",
        "r.yaml:16: document late expires (2026-01-01) before", "r.yaml:17: unknown key 'operators'",
    ):  # fmt: skip
        assert any(line.startswith(part) for line in lines), part
    assert len(lines) == 13


def test_all_faults_of_a_csv_register_are_told_with_their_lines():
    text = (
        'source,kind,knd,kind\na,open,x,open\n,open,x,open\nb,open\nc,opne,x,opne\na,open,x,open\n"d\nd",open,x,open\n'
    )

    with pytest.raises(UsageError) as error:
        read_register(text.encode(), "r.csv")

    told = str(error.value)
    for part in (
        "r.csv:1: column kind stands twice", "r.csv:1: unknown column 'knd'; did you mean 'kind'?",
        "r.csv:3: has no source; write (null)", "r.csv:4: has 2 cells", "r.csv:5: kind 'opne'",
        "r.csv:6: source a is registered twice",
    ):  # fmt: skip
        assert part in told
    for text, message in (
        (b"", "no column source"),
        (b"name\nx\n", "no column source"),
        (b"source\n\xff\n", ":2: is not UTF-8"),
    ):
        with pytest.raises(UsageError, match=message):
            read_register(text, "r.csv")


def test_a_register_that_is_not_there_or_is_no_mapping_is_told(tmp_path):
    with pytest.raises(UsageError, match="no such register"):
        load_register(str(tmp_path / "none.yaml"))
    with pytest.raises(UsageError, match="is a mapping"):
        read_register(b"- a\n", "r.yaml")
    with pytest.raises(UsageError, match="must be a list"):
        read_register(b"sources: {a: open}\n", "r.yaml")


DAY, LATER = date(2026, 11, 21), date(2026, 12, 21)


def assessment(on=DAY, corrected_lower=0.2):
    return Assessment(on.isoformat(), "m" * 64, "p" * 64, 1_000, 300, corrected_lower)


def listed():
    return (
        Blacklist()
        .added("a.example", on=DAY, by=BY_ITSELF, reason="over the limit", assessment=assessment())
        .added("论坛", on=DAY, by="Li Na", reason="mirror of a blocked site")
    )


def test_a_source_comes_on_the_list_and_leaves_it():
    both = listed()
    one = both.lifted("a.example", on=LATER, by="Li Na", reason="cleaned up", assessment=assessment(LATER, 0.0))

    assert both.current() == {"a.example", "论坛"}
    assert one.current() == {"论坛"}
    assert both.reason("论坛") == "since 2026-11-21, by Li Na: mirror of a blocked site"
    again = one.added("a.example", on=LATER, by="Li Na", reason="worse again")
    assert again.current() == {"a.example", "论坛"}
    assert "worse again" in again.reason("a.example")


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (
            lambda b: b.added("a.example", on=DAY, by="Li Na", reason="x"),
            "is on the blacklist already, since 2026-11-21",
        ),
        (lambda b: b.added("b", on=DAY, by=BY_ITSELF, reason="x"), "only a named person can blacklist it"),
        (
            lambda b: b.added("b", on=DAY, by=BY_ITSELF, reason="x", assessment=assessment(corrected_lower=None)),
            "no corrected lower bound",
        ),
        (lambda b: b.added(None, on=DAY, by="Li Na", reason="x"), "null source names nobody"),
        (lambda b: b.added("b", on=DAY, by=" ", reason="x"), "names a person and a reason"),
        (lambda b: b.added("b", on=DAY, by="Li Na", reason=""), "names a person and a reason"),
        (
            lambda b: b.lifted("a.exampel", on=LATER, by="Li Na", reason="x", assessment=assessment(LATER)),
            "not on the blacklist; did you mean 'a.example'",
        ),
        (
            lambda b: b.lifted("a.example", on=LATER, by=BY_ITSELF, reason="x", assessment=assessment(LATER)),
            "only by a named person",
        ),
        (
            lambda b: b.lifted("a.example", on=LATER, by="Li Na", reason="x", assessment=assessment(DAY)),
            "needs a newer assessment than that of 2026-11-21",
        ),
        (
            lambda b: b.lifted("论坛", on=LATER, by="Li Na", reason="x", assessment=assessment(date(2026, 11, 1))),
            "needs a newer assessment",
        ),
    ],
)
def test_nothing_goes_on_or_off_the_list_without_what_it_needs(act, message):
    with pytest.raises(UsageError, match=message):
        act(listed())


@pytest.mark.parametrize("where", ["file", "memory"])
def test_the_file_only_grows_and_reads_back(where, tmp_path):
    place = Place.of(str(tmp_path / "blacklist.jsonl")) if where == "file" else Place.of("memory://bl/blacklist.jsonl")
    assert load_blacklist(place, create=True) == Blacklist()
    save_blacklist(listed(), place)
    before = place.read_bytes()

    longer = load_blacklist(place).added("c", on=DAY, by="Li Na", reason="x")
    save_blacklist(longer, place)

    assert place.read_bytes().startswith(before)
    assert load_blacklist(place) == longer
    with pytest.raises(UsageError, match="changed by somebody else"):
        save_blacklist(listed().added("d", on=DAY, by="Li Na", reason="x"), place)
    assert load_blacklist(place) == longer


def test_a_list_that_is_not_there_is_not_taken_for_an_empty_one(tmp_path):
    with pytest.raises(UsageError, match="no such blacklist"):
        load_blacklist(str(tmp_path / "none.jsonl"))


def test_changed_removed_and_cut_lines_show():
    lines = listed().added("c", on=DAY, by="Li Na", reason="x").content().splitlines(keepends=True)
    edited = lines[0].replace(b"over the limit", b"out of spite!!")

    for content in (
        edited + lines[1] + lines[2],
        lines[1] + lines[2],
        lines[0] + lines[2],
        lines[1] + lines[0] + lines[2],
    ):
        with pytest.raises(UsageError, match="does not follow from the line before"):
            read_blacklist(content, "b.jsonl")
    with pytest.raises(UsageError, match="b.jsonl:3: has no end"):
        read_blacklist(lines[0] + lines[1] + lines[2][:-9], "b.jsonl")
    assert read_blacklist(lines[0] + lines[1], "b.jsonl").head != read_blacklist(b"".join(lines), "b.jsonl").head


def test_all_faulty_lines_are_named():
    good = json.loads(listed().entries[0].line)
    lines = [
        b"nonsense", b"[]", *(json.dumps(good | change).encode() for change in (
            {"action": "remove"}, {"by": ""}, {"on": "21.11.2026"}, {"reasn": "x"}, {"source": None},
            {"assessment": {"on": "2026-11-21"}}, {"assessment": 7},
        )), b"\xff",
    ]  # fmt: skip

    with pytest.raises(UsageError) as error:
        read_blacklist(b"\n".join(lines) + b"\n", "b.jsonl")

    told = str(error.value).splitlines()
    assert [line.split(": ")[0] for line in told] == [f"b.jsonl:{i}" for i in range(1, 11)]
    for part in (
        "is no JSON",
        "is no entry",
        "neither add nor lift",
        "has no by",
        "is no day",
        "did you mean 'reason'",
        "has no source",
    ):
        assert any(part in line for line in told), part
