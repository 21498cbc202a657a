"""The command line as people and schedulers meet it: exit codes, sentences instead of tracebacks, JSON, gates."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from corpus_guard.cli import app, main
from corpus_guard.config import load_config
from corpus_guard.policy import load_policy
from tests.corpora import documents, write_shards
from tests.driving import COMMAND, environment, files, write_config

HOSTILE = "evil\x1b]0;title\x07\u202e\nforged: line"


@pytest.fixture
def call(monkeypatch, capsys):
    """Run the command in this process: exit code, stdout, stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["corpus-guard", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        told = capsys.readouterr()
        return stop.value.code or 0, told.out, told.err

    return run


def risky(source, n, bad):
    rows = documents(source, n)
    for row in rows[:bad]:
        row["text"] += " forbidden ware"
    return rows


def write_library(folder, **risks):
    """A library with one ``block`` entry per risk."""
    (folder / "risks").mkdir(parents=True)
    for code, term in risks.items():
        path = folder / "risks" / f"{code.replace('_', '.')}.csv"
        path.write_text(f"id,term,level,added\n{path.stem}-1,{term},block,2026-11-20\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run over three sources, one of them over the limit and of a hostile name; copy it, never change it."""
    folder = tmp_path_factory.mktemp("finished")
    shards = write_shards(folder / "data", risky("good", 200, 4) + risky("bad", 50, 10) + risky(HOSTILE, 40, 30))
    library = write_library(folder / "library", A_1_h="forbidden ware")
    path = write_config(folder, shards, keywords={"library": str(library), "engine": "pyahocorasick"})
    done = subprocess.run(
        [*COMMAND, "run", str(path), "--log-json"], capture_output=True, text=True, env=environment(), check=False
    )
    assert done.returncode == 0, done.stderr
    return path, done


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished run, to be changed."""
    shutil.copytree(finished[0].parent, tmp_path / "copy")
    path = tmp_path / "copy" / "config.yaml"
    text = path.read_text(encoding="utf-8").replace(str(finished[0].parent), str(tmp_path / "copy"))
    path.write_text(text, encoding="utf-8")
    return path


def verbs(command=app, before=()):
    for name, verb in command.commands.items():
        if isinstance(verb, click.Group):
            yield from verbs(verb, (*before, name))
        else:
            yield (*before, name), verb


# Help


@pytest.mark.parametrize("words", [words for words, _ in verbs()], ids=" ".join)
def test_every_verb_helps_with_an_example(call, words):
    code, out, err = call(*words, "--help")

    assert (code, err) == (0, "")
    assert any(line.strip().startswith(f"corpus-guard {' '.join(words)}") for line in out.splitlines())


def test_every_verb_with_a_result_speaks_json():
    without = {words for words, verb in verbs() if "as_json" not in {one.name for one in verb.params}}

    assert without == {("config", "init")}


def test_help_is_quick_and_loads_nothing_heavy():
    program = (
        "import sys\nfrom corpus_guard.cli import main\nsys.argv = ['corpus-guard', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "names = 'torch ray transformers scipy matplotlib pyarrow numpy pydantic yaml rich jinja2 hyperscan'.split()\n"
        "print('LOADED', [name for name in names if name in sys.modules])"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment())

    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stdout.splitlines()[-1] == "LOADED []"
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.6


# Mistakes: one sentence, the right exit code, no traceback


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["run", "nope.yaml"], 2, "nope.yaml: there is no such file"),
        (["run", "."], 2, "cannot be read"),
        (["plan", "broken.yaml"], 2, "is not YAML"),
        (["status", "bytes.yaml"], 2, "is not UTF-8"),
        (["rnu", "config.yaml"], 2, "Did you mean 'run'?"),
        (["sources", "asess", "config.yaml"], 2, "asess"),
        (["run"], 2, "Missing argument 'CONFIG'"),
        (["run", "config.yaml", "--qiuet"], 2, "--quiet"),
        (["run", "config.yaml", "--set", "executor.workers"], 2, "write KEY=VALUE"),
        (["config", "show", "config.yaml", "--set", "store"], 2, "write KEY=VALUE"),
        (["run", "config.yaml", "--set", "executor.wrkers=2"], 2, "did you mean 'executor.workers'?"),
        (["run", "config.yaml", "--set", "executor.workers=none"], 2, "executor.workers"),
        (["run", "config.yaml", "--set", "corpus.shards=nowhere/*.parquet"], 2, "nowhere"),
        (["run", "config.yaml", "--set", "run=config.yaml/run"], 2, "config.yaml"),
        (["run", "config.yaml", "--set", "restricted=run/inside"], 2, "restricted"),
        (["status", "config.yaml"], 2, "no run was started here"),
        (["verify", "config.yaml"], 2, "no run was started here"),
        (["trace", "config.yaml"], 2, "Missing argument 'ID'"),
        (["trace", "config.yaml", "a-000001"], 2, "run corpus-guard judge first"),
        (["sources", "check", "config.yaml"], 4, "has assessed no sources yet"),
        (["review", "export", "config.yaml"], 2, "no sample was drawn yet"),
        (["review", "import", "config.yaml", "sheet.jsonl"], 2, "no sample was drawn yet"),
        (["policy", "show", "tc260-004"], 2, "tc260-003"),
        (["policy", "verify", "tc260-003", "src.pots", "--by", "N", "--clause", "5"], 2, "did you mean 'src.post'?"),
        (["policy", "verify", "tc260-003", "src.post", "--by", "N", "--clause", "5", "--on", "May"], 2, "May"),
        (["keywords", "check", "stater"], 2, "shipped: starter"),
        (["keywords", "check", "starter", "--policy", "nope"], 2, "there is no policy 'nope'"),
        (["keywords", "test", "nowhere", "text"], 2, "neither a folder nor a shipped name"),
        (["model", "check", "ngram-scren"], 2, "ngram-screen"),
        (["model", "card", "."], 2, "there is no such file"),
        (["model", "train", "ngram-screen", "--rows", "nope.parquet", "--out", "m"], 2, "cannot be read as Parquet"),
        (["model", "train", "ngram-screen", "--rows", "nope.parquet", "--out", "data"], 2, "is not empty"),
        (["model", "train", "bert", "--rows", "x", "--out", "m"], 2, "bert"),
        (["sources", "blacklist", "list", "nope.jsonl"], 2, "there is no such blacklist"),
        (["sources", "blacklist", "add", "b.jsonl", "x", "--by", " ", "--reason", "y"], 2, "names a person"),
        (["sources", "blacklist", "lift", "b.jsonl", "x", "--by", "N", "--reason", "y"], 2, "--run"),
        (
            ["sources", "blacklist", "lift", "b.jsonl", "x", "--by", "N", "--reason", "y", "--run", "."],
            2,
            "no folder of",
        ),
        (["doctor", "nope.yaml"], 3, "there is no such file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_a_sentence_and_an_exit_code(call, tmp_path, monkeypatch, arguments, code, says):
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path, write_shards(tmp_path / "data", documents("a", 9), shards=1))
    (tmp_path / "broken.yaml").write_text("[1, 2")
    (tmp_path / "bytes.yaml").write_bytes(b"run: \xff\xfe")

    found, out, err = call(*arguments)

    assert found == code
    assert says in out + err
    assert "Traceback" not in err
    if code != 3:  # the doctor's findings are its result
        assert out == ""
        assert [line for line in err.splitlines() if not line.startswith("GB/T")][0].startswith("corpus-guard: ")


def test_an_error_of_the_machine_is_a_sentence_too(call, tmp_path):
    found, _, err = call("config", "init", "/proc/nothing/here.yaml")

    assert found == 1
    assert err.startswith("corpus-guard: /proc/nothing")


def test_with_log_json_the_error_is_json_too(call):
    code, out, err = call("run", "nope\u202e.yaml", "--log-json")

    record = json.loads(err)
    assert (code, out, record["exit"]) == (2, "", 2)
    assert record["error"].startswith("nope\u202e.yaml: there is no such file")
    assert err.rstrip("\n").isprintable()


# A run, and looking at it


def test_everything_a_finished_run_logged_is_json_and_its_result_is_lines(finished):
    _, done = finished

    records = [json.loads(line) for line in done.stderr.splitlines()]
    assert {record.get("step") for record in records} >= {"scan", "judge", "apply", "draw"}
    assert any("GB/T 45654-2025" in record.get("message", "") for record in records)
    assert "documents   " in done.stdout


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        (["run"], {"run", "report", "corpus", "documents", "sources", "technical", "manual", "conclusion"}),
        (["plan"], {"policy", "manifest", "shards", "rows", "bytes", "units", "todo", "samples", "bad_shards"}),
        (["status"], {"run", "job", "as_of", "finished", "worked_on_by", "differs", "steps", "failed"}),
        (["trace", "good-000000"], {"documents"}),
        (["verify"], {"ok", "faults", "checked"}),
        (["sources", "check"], {"ok", "faults", "checked"}),
        (["config", "show"], {"policy", "corpus.shards", "executor.workers"}),
        (["doctor"], {"checks", "ok"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_json_is_one_object_on_stdout_and_nothing_drives_the_terminal(call, finished, words, keys):
    verb, rest = (words[:2], words[2:]) if words[0] in ("sources", "config") else (words[:1], words[1:])

    code, out, err = call(*verb, finished[0], *rest, "--json")
    _, lines, told = call(*verb, finished[0], *rest)

    assert code == 0
    assert out.count("\n") == 1
    assert json.loads(out).keys() >= keys
    for text in (out, err, lines, told):
        assert text.replace("\n", "").isprintable()
        assert "\nforged" not in text


def test_a_hostile_name_is_whole_in_json_and_spelled_out_for_people(call, finished):
    _, out, _ = call("trace", finished[0], f"{HOSTILE}-000000", "--json")
    _, lines, _ = call("trace", finished[0], f"{HOSTILE}-000000")

    assert json.loads(out)["documents"][0]["source"] == HOSTILE
    assert "evil\\x1b]0;title\\x07\\u202e\\x0aforged: line" in lines


def test_status_tells_steps_state_and_what_differs(call, finished):
    code, out, _ = call("status", finished[0])

    assert code == 0
    assert "state      finished; nobody works on it" in out
    assert "scan       3 of 3  done" in out
    assert "note " not in out
    assert "the config now says otherwise: policy" in call("status", finished[0], "--set", "policy=strict")[1]


def test_status_names_who_works_on_a_run(call, copied):
    from corpus_guard.places import Place

    with Place.of(str(copied.parent / "run")).lock():
        _, out, _ = call("status", copied)
        summary = json.loads(call("status", copied, "--json")[1])
        refused = call("run", copied)

    assert f"worked on by process {os.getpid()} on " in out
    assert summary["worked_on_by"].items() >= {"pid": os.getpid(), "seen": True}.items()
    assert refused[0] == 2
    assert f"in use by process {os.getpid()}" in refused[2]
    assert "nobody works on it" in call("status", copied)[1]


def test_status_does_not_claim_to_see_other_machines(call, copied):
    (copied.parent / "run" / ".lock").write_text(
        '{"host": "elsewhere", "pid": 1, "since": "2026-11-20T01:02:03+00:00"}'
    )

    assert (
        "last held by process 1 on elsewhere since 2026-11-20T01:02:03+00:00, out of sight" in call("status", copied)[1]
    )


def test_status_of_a_spot_check_has_its_own_steps(call, copied):
    copy = ["--set", "run=spot", "--set", "store=spot-store"]
    assert call("spot-check", copied, *copy, "-q")[0] == 0

    _, out, _ = call("status", copied, *copy)

    assert [line.split()[0] for line in out.splitlines()] == ["run", "state", "draw", "check", "report", "failed"]
    assert "otherwise" not in out
    assert call("verify", copied, *copy)[0] == 0


def test_the_gate_of_a_run_tells_what_is_missing_from_what_fails(call, copied):
    assert call("run", copied, "--gate", "-q")[0] == 3  # one entry is no keyword library

    lenient = copied.parent / "lenient.yaml"
    text = "id: lenient\ntitle: Lenient\nextends: tc260-003\nconclusion: {levels_that_count: []}\n"
    lenient.write_text(text, encoding="utf-8")
    manual = copied.parent / "manual.yaml"
    kept = {"eval.manual", "eval.tech", "src.post"}
    rules = [rule.id for rule in load_policy("tc260-003").rules if rule.id not in kept]
    manual.write_text(
        yaml.safe_dump(
            {
                "id": "manual",
                "title": "Samples only",
                "extends": "tc260-003",
                "drop": rules,
                "conclusion": {"leaves_out": []},
            }
        )
    )
    code, out, _ = call("run", copied, "--gate", "-q", "--set", f"policy={manual}", "--set", "run=other", "--json")

    assert (code, json.loads(out)["manual"]["qualified"]) == (4, None)


def test_more_failed_than_allowed_is_exit_5_and_retry_mends_it(call, copied):
    shard = copied.parent / "data" / "part-001.parquet"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-20])
    new = ["--set", "run=second"]

    code, out, _ = call("run", copied, *new, "-q")
    assert (code, "exit 5" in out) == (5, True)
    assert "failed     1, corpus-guard retry tries again" in call("status", copied, *new)[1]
    shard.write_bytes(whole)

    code, out, err = call("retry", copied, *new)

    assert "1 failed unit or shard will be tried again" in err
    assert (code, "3 shards, 290 documents" in out) == (0, True)


def test_a_config_mended_after_a_first_try_that_planned_nothing_goes_on(call, tmp_path):
    path = write_config(tmp_path, write_shards(tmp_path / "data", documents("a", 9), shards=1))
    assert call("run", path, "-q", "--set", "corpus.columns.text=body")[0] == 2

    assert call("run", path, "-q")[0] == 0


def test_a_second_decision_in_the_same_run_folder_is_refused(call, copied):
    code, _, err = call("run", copied, "--set", "policy=strict", "-q")

    assert code == 2
    assert "choose another run name" in err


# Gates over files


def test_a_whole_run_verifies(call, finished):
    code, out, _ = call("verify", finished[0])

    assert code == 0
    assert "ok     3 clean shards with 196 rows, as accounted, and none beside them" in out
    assert "WRONG" not in out


def cut_clean(run):
    path = run / "clean" / "part-000.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)


def lose_removed(run):
    (run.parent / "run.restricted" / "removed" / "part-001.parquet").unlink()


def add_stranger(run):
    shutil.copy(run / "clean" / "part-000.parquet", run / "clean" / "part-00O.parquet")


def change_account(run):
    path = run / "accounting" / "part-002.json"
    account = json.loads(path.read_text())
    path.write_text(
        json.dumps(account | {"clean": account["clean"] + 1, "removed_source": account["removed_source"] - 1})
    )


def unbalance(run):
    path = run / "accounting.json"
    path.write_text(path.read_text().replace('"balanced": true', '"balanced": false'))


def move_key(run):
    path = run / "draws.jsonl"
    path.write_text(path.read_text().replace('"attempt": 1', '"attempt": 2', 1))


def change_sample(run):
    path = run / "samples" / "manual.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)


def change_decision(run):
    path = run / "sources.parquet"
    table = pq.read_table(path)
    at = table.schema.get_field_index("decision")
    pq.write_table(table.set_column(at, "decision", pa.array(["keep"] * table.num_rows)), path)


def garble_clean(run):
    (run / "clean" / "part-000.parquet").write_bytes(b"nothing of Parquet")


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (cut_clean, "part-000.parquet has 64 rows, 65 are accounted for"),
        (garble_clean, "part-000.parquet cannot be read"),
        (lose_removed, "part-001.parquet is missing"),
        (add_stranger, "part-00O.parquet was not written by this run"),
        (change_account, "documents clean, its shards"),
        (unbalance, "does not balance"),
        (move_key, "is not that of its manifest, policy and attempt"),
        (change_sample, "The manual sample is not the one the ledger names"),
        (change_decision, "sources with decision keep"),
    ],
)
def test_what_does_not_hold_together_is_told_and_exits_3(call, copied, harm, says):
    harm(copied.parent / "run")

    code, out, err = call("verify", copied)

    assert (code, err) == (3, "")
    assert any(line.startswith("WRONG") and says in line for line in out.splitlines()), out
    assert not json.loads(call("verify", copied, "--json")[1])["ok"]


def test_a_run_that_is_not_finished_has_no_evidence_to_verify(call, copied):
    (copied.parent / "run" / "reports" / "report.json").unlink()

    code, _, err = call("verify", copied)

    assert code == 4
    assert "is not finished" in err


def test_sources_check_passes_what_the_policy_passes(call, finished):
    code, out, _ = call("sources", "check", finished[0])

    assert code == 0
    assert "every source is decided: 1 keep, 2 exclude, 0 hold" in out


def test_sources_check_tells_every_source_that_should_not_be_used(call, copied):
    stricter = copied.parent / "stricter.yaml"
    rule = {"id": "src.post", "max": "1%"}
    stricter.write_text(yaml.safe_dump({"id": "s", "title": "S", "extends": "tc260-003", "rules": [rule]}))

    code, out, _ = call("sources", "check", copied, "--set", f"policy={stricter}")

    assert code == 3
    assert "WRONG  Source good is over 1 % and still used: 4 of 200 documents (2 %)." in out
    change_decision(copied.parent / "run")
    out = call("sources", "check", copied)[1]
    assert "Source bad is over 5 % and still used: 10 of 50 documents (20 %)." in out


def test_sources_check_knows_the_blacklist_of_today(call, copied):
    listed = copied.parent / "b.jsonl"
    assert call("sources", "blacklist", "add", listed, "good", "--by", "Li Na", "--reason", "sold")[0] == 0

    code, out, _ = call("sources", "check", copied, "--set", f"sources.blacklist={listed}")

    assert code == 3
    assert "Source good is on the blacklist and still used." in out


# The blacklist


def test_a_source_comes_on_the_blacklist_and_leaves_it_by_named_people_and_newer_facts(call, copied):
    listed = copied.parent / "b.jsonl"
    run = str(copied.parent / "run")
    person = ["--by", "Li Na", "--reason", "read 40 of its documents"]

    added = call("sources", "blacklist", "add", listed, "good", "bad", *person, "--run", run, "--on", "2026-01-02")
    assert added[0] == 0
    assert "bad: on the list, by Li Na: read 40 of its documents" in added[1]
    assert call("sources", "blacklist", "add", listed, "good", *person)[0] == 2

    shown = call("sources", "blacklist", "list", listed)[1]
    assert "good: since 2026-01-02, by Li Na: read 40 of its documents" in shown
    assert "2 sources on the list, 2 entries" in shown

    still_over = call("sources", "blacklist", "lift", listed, "bad", *person, "--run", run)
    assert still_over[0] == 2
    assert "still finds bad over the limit (10 of 50 documents)" in still_over[2]

    same_day = call("sources", "blacklist", "lift", listed, "good", *person, "--run", run)
    assert same_day[0] == 2
    assert "needs a newer assessment" in same_day[2]
    entries = [json.loads(line) for line in listed.read_text().splitlines()]
    assert (entries[0]["assessment"]["illegal"], entries[0]["assessment"]["documents"]) == (4, 200)


def test_a_newer_assessment_lifts_and_one_that_did_not_look_does_not(call, copied):
    listed = copied.parent / "b.jsonl"
    person = ["--by", "Li Na", "--reason", "moderated now"]
    assert call("sources", "blacklist", "add", listed, "good", *person, "--on", "2026-01-02")[0] == 0
    unseen = ["--set", f"sources.blacklist={listed}", "--set", "run=unseen"]
    assert call("sources", "assess", copied, *unseen, "-q")[0] == 0

    code, _, err = call("sources", "blacklist", "lift", listed, "good", *person, "--run", copied.parent / "unseen")
    assert code == 2
    assert "did not look at the documents of good" in err
    lifted = call("sources", "blacklist", "lift", listed, "good", *person, "--run", copied.parent / "run")

    assert lifted[0] == 0
    assert json.loads(call("sources", "blacklist", "list", listed, "--json")[1])["current"] == {}
    assert "lift good: by Li Na" in call("sources", "blacklist", "list", listed, "--all")[1]


def test_of_several_sources_all_are_listed_or_none(call, tmp_path):
    listed = tmp_path / "b.jsonl"
    person = ["--by", "Li Na", "--reason", "sold"]
    call("sources", "blacklist", "add", listed, "one", *person)

    assert call("sources", "blacklist", "add", listed, "two", "one", *person)[0] == 2
    assert list(json.loads(call("sources", "blacklist", "list", listed, "--json")[1])["current"]) == ["one"]


# Keywords, models, policies, configs


def test_keywords_check_fails_on_what_binds_and_only_advises_on_what_is_recommended(call, tmp_path):
    covered = {code.replace(".", "_"): f"term of {code}" for code in load_policy("tc260-003").sets["keyword"].codes}
    library = write_library(tmp_path / "library", **covered)

    code, out, _ = call("keywords", "check", library)
    assert code == 0
    assert "advice   8.1 a)  should     17 distinct entries; not less than 10,000 is asked for." in out
    assert "ok       8.1 b)  shall      All 17 risks have keywords." in out

    code, out, _ = call("keywords", "check", library, "--policy", "strict")
    assert code == 3
    assert "FAIL     O23 9.1 b)  shall      17 distinct entries; not less than 10,000 is asked for." in out
    assert call("keywords", "check", "starter")[0] == 0


def test_keywords_check_tells_risks_without_a_keyword(call, tmp_path):
    library = write_library(tmp_path / "library", A_1_h="forbidden ware")

    code, out, _ = call("keywords", "check", library, "--json", "--as-of", "2026-11-21")

    found = json.loads(out)
    assert (code, found["ok"], found["per_risk"]["A.1.h"]) == (3, False, 1)
    by_rule = {row["rule"]: row for row in found["provisions"]}
    assert by_rule["kw.cover"]["result"] == "does not conform"
    assert "16 of 17 risks have no keyword" in by_rule["kw.cover"]["sentence"]
    assert (found["least"]["A.1.h"], found["least"]["A.2.a"]) == (200, 100)
    assert by_rule["kw.fresh"]["result"] == "conforms"
    assert "12 days before" in call("keywords", "check", library, "--as-of", "2026-12-02")[1]


def test_keywords_test_shows_hits_and_why_one_does_not_count(call, tmp_path):
    library = tmp_path / "library"
    (library / "risks").mkdir(parents=True)
    (library / "risks" / "A.1.h.csv").write_text(
        "id,term,level,expires,status\nh-1,ware,block,,\nh-2,假币,review,,\nh-3,old,weak,2020-01-01,\nh-4,gone,block,,retired\n"
    )
    (library / "exceptions.csv").write_text("term,scope,reason\n假币鉴别,,how to tell them\n")
    (library / "combinations.yaml").write_text("- {id: c-1, risk: A.1.f, all: [假币, buy], window: 40}\n")
    text = "ware wares 假币 假币鉴别 old gone buy\u202e"

    code, out, _ = call("keywords", "test", library, text, "--json")

    found = json.loads(out)
    told = {(hit["entry"], hit["start"]): hit["result"] for hit in found["hits"]}
    assert code == 0
    assert told == {
        ("h-1", 0): "counts",
        ("h-1", 5): "does not count: a part of a longer word",
        ("h-2", 11): "counts",
        ("h-2", 14): "does not count: inside an exception",
        ("h-3", 19): "does not count: the entry expired after 2020-01-01",
        ("h-4", 23): "does not count: the entry is retired",
        ("c-1", 11): "counts",
    }
    assert found["counting"] == {"A.1.h": {"block": 1, "review": 1}, "A.1.f": {"review": 1}}
    lines = call("keywords", "test", library, text)[1]
    assert "A.1.h: the document has the risk" in lines
    assert "nothing found" in call("keywords", "test", library, "a quiet day")[1]


def test_keywords_stats_counts_levels_languages_and_life(call, tmp_path):
    library = tmp_path / "library"
    (library / "risks").mkdir(parents=True)
    (library / "risks" / "A.1.h.csv").write_text(
        "id,term,lang,level,expires,status\nh-1,ware,en,block,2030-01-01,\nh-2,假币,zh,review,,\nh-3,old,en,weak,2020-01-01,\n"
    )

    found = json.loads(call("keywords", "stats", library, "--as-of", "2026-11-21", "--json")[1])

    assert found["levels"]["A.1.h"] == {"block": 1, "review": 1, "weak": 0}
    assert (found["languages"], found["expired"], found["next_expiry"]) == ({"en": 1, "zh": 1}, 1, "2030-01-01")
    assert "1 will expire, the first on 2030-01-01" in call("keywords", "stats", library, "--as-of", "2026-11-21")[1]


def test_model_check_holds_coverage_to_the_policy_and_card_prints_the_card(call):
    code, out, _ = call("model", "check", "ngram-screen")
    assert code == 3
    assert "FAIL    8.4 shall: " in out

    found = json.loads(call("model", "check", "ngram-screen", "--json")[1])
    assert len(found["coverage"]) == 31
    assert found["models"][0]["labels"]
    assert call("model", "card", "ngram-screen")[1].startswith("# ngram-screen")
    assert json.loads(call("model", "card", "ngram-screen", "--json")[1])["card"].endswith("CARD.md")


def test_confirmations_of_a_policy_gather_in_one_record(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    person = ["--by", "Li Na", "--on", "2026-11-21"]

    first = call("policy", "verify", "gbt-45654-2025", "src.post", *person, "--clause", "5.1 b)")
    second = call("policy", "verify", "gbt-45654-2025", "eval.tech", *person, "--clause", "A.2", "--json")

    assert (first[0], second[0]) == (0, 0)
    assert json.loads(second[1])["confirmed"] == 2
    shown = call("policy", "show", "gbt-45654-2025-confirmed.yaml")[1]
    [line] = [line for line in shown.splitlines() if line.strip().startswith("src.post")]
    assert "5.1 b)" in line and "confirmed by Li Na on 2026-11-21" in line


def test_config_init_writes_a_config_that_loads_and_never_writes_over_one(call, tmp_path):
    path = tmp_path / "new" / "site.yaml"

    assert call("config", "init", path) == (0, f"{path}\n", "")
    loaded = load_config(path)
    assert (loaded.policy, loaded.run) == ("tc260-003", str(path.parent / "runs" / "first"))
    path.write_text("mine")

    code, _, err = call("config", "init", path)

    assert (code, path.read_text()) == (2, "mine")
    assert "was not touched" in err


def test_config_show_names_the_winner(call, finished, monkeypatch):
    monkeypatch.setenv("CORPUS_GUARD_EXECUTOR_ATTEMPTS", "7")

    _, out, _ = call("config", "show", finished[0], "--set", "executor.workers=3", "--origin")

    assert "executor.workers: 3    # flag" in out
    assert "executor.attempts: 7    # environment CORPUS_GUARD_EXECUTOR_ATTEMPTS" in out
    assert "max_failed_share: 0%    # default" in out


# Review


def test_a_sheet_goes_to_people_and_comes_back_and_is_never_written_over(call, copied):
    code, out, err = call("review", "export", copied)
    sheet = Path(out.strip())
    assert (code, sheet.name, sheet.is_file()) == (0, "sheet.jsonl", True)
    assert "196 documents" in err
    rows = [json.loads(line) for line in sheet.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        row |= {"verdict": "qualified", "annotator": "a", "reviewer": "b"}
    filled = sheet.with_name("filled.jsonl")
    filled.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    code, _, err = call("review", "export", copied)
    assert (code, "--again" in err) == (2, True)
    assert call("review", "export", copied, "--again", "-q")[0] == 0

    code, out, _ = call("review", "import", copied, filled)
    assert code == 0
    assert "196 of 196 documents settled, 0 unqualified, 0 open" in out
    code, out, _ = call("verify", copied)
    assert (code, "People settled more of the sample" in out) == (3, True)
    assert call("report", copied, "-q")[0] == 0
    assert call("verify", copied)[0] == 0


def test_a_faulty_sheet_is_refused_line_by_line(call, copied, tmp_path):
    sheet = tmp_path / "sheet.jsonl"
    sheet.write_text('{"verdict": "qualfied", "shard": "part-000", "row": 999}\nnothing\n')

    code, out, err = call("review", "import", copied, sheet)

    assert (code, out) == (2, "")
    assert {1, 2} <= {int(line.split(":")[1]) for line in err.removeprefix("corpus-guard: ").splitlines()}


# As a process


def left_of_session(session):
    """Processes of *session* that still run."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, _, _, of = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            except OSError:
                continue
            if int(of) == session and state != "Z":
                found.append(int(entry.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_is_one_sentence_exit_130_and_no_worker_is_left(tmp_path, workers):
    shards = write_shards(tmp_path / "data", documents("a", 12_000), shards=400)
    path = write_config(tmp_path, shards, executor={"workers": workers})
    with subprocess.Popen(
        [*COMMAND, "run", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    ) as process:
        until = time.monotonic() + 60
        while files(tmp_path / "store") < 5 and process.poll() is None and time.monotonic() < until:
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)

    assert process.returncode == 130
    assert out == ""
    said = [line for line in err.splitlines() if line and not line.startswith("GB/T")]
    assert said == ["corpus-guard: interrupted; the same command goes on where this one stopped."]
    until = time.monotonic() + 10
    while left_of_session(process.pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert left_of_session(process.pid) == []
    done = subprocess.run([*COMMAND, "scan", str(path), "-q"], capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("verb", [["policy", "list"], ["policy", "show", "tc260-003", "--json"], ["--help"]])
def test_a_reader_who_has_had_enough_is_no_error_to_talk_about(verb):
    with subprocess.Popen(
        [*COMMAND, *verb], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    ) as process:
        process.stdout.close()
        err = process.stderr.read()

    assert err == b""
    assert process.wait() == 1


def test_a_terminal_of_another_encoding_gets_escapes_and_no_traceback(tmp_path):
    path = write_config(tmp_path, write_shards(tmp_path / "数据", documents("来源", 9), shards=1))

    done = subprocess.run(
        [*COMMAND, "config", "show", str(path)],
        capture_output=True,
        env=environment() | {"PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"},
    )

    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"\u6570\u636e" in done.stdout
