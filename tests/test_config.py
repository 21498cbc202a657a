import pickle
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from corpus_guard.config import Config, duration, duration_text, keys, load_config, size, size_text
from corpus_guard.errors import UsageError

MINIMAL = "corpus: {shards: data/*.parquet}\nrun: runs/a\n"
DOCUMENTED = """\
policy: tc260-003
corpus: {shards: "data/*.parquet", columns: {id: id, text: text, source: source}, phase: post_collection}
run: runs/2026-w47
store: store
restricted: null                   # default: <run>.restricted
keywords: {library: starter, engine: auto}
classifiers: []
screens: []                        # language, personal_info, blocklist, near_duplicate, copyright, synthetic
sources: {register: null, blacklist: null, decide: point}
evaluation: null                   # {library:, classifiers:}: the independent set-up of the technical check
labels: []                         # people's settled verdicts of earlier runs
executor: {kind: local, workers: 1, unit_bytes: 64MiB, unit_timeout: 30min}   # or ray
max_failed_share: 0
"""


@pytest.fixture
def write(tmp_path):
    def write(text: str, name: str = "site.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def faults(path: Path, overrides=None, env=None) -> list[str]:
    with pytest.raises(UsageError) as raised:
        load_config(path, overrides, env)
    return str(raised.value).splitlines()


# Values and defaults


def test_two_keys_are_enough(write, tmp_path):
    config = load_config(write(MINIMAL))

    assert config.corpus.shards == (f"{tmp_path}/data/*.parquet",)
    assert config.run == f"{tmp_path}/runs/a"
    assert config.store == f"{tmp_path}/runs/a/store"
    assert config.restricted == f"{tmp_path}/runs/a.restricted"
    assert (config.policy, config.corpus.phase, config.corpus.columns.text) == (
        "tc260-003",
        "post_collection",
        ("text",),
    )
    assert (config.keywords.library, config.keywords.engine) == ("starter", "auto")
    assert [use.model for use in config.classifiers] == ["ngram-screen"]
    assert config.executor.kind == "local"
    assert (config.executor.unit_bytes, config.executor.unit_timeout) == (64 * 2**20, 1800.0)
    assert config.max_failed_share == 0 and isinstance(config.max_failed_share, Fraction)
    assert config.base == tmp_path


def test_the_config_of_the_design_loads_word_by_word(write, tmp_path):
    config = load_config(write(DOCUMENTED))

    assert config.store == f"{tmp_path}/store"
    assert config.restricted == f"{tmp_path}/runs/2026-w47.restricted"
    assert (config.classifiers, config.screens, config.labels, config.evaluation) == ((), (), (), None)
    assert (config.corpus.columns.id, config.corpus.columns.source) == ("id", "source")


def test_stages_may_be_turned_off(write):
    config = load_config(write(MINIMAL + "keywords: null\nclassifiers: []\n"))

    assert (config.keywords, config.classifiers) == (None, ())


def test_lists_take_one_thing_where_one_is_common(write, tmp_path):
    config = load_config(
        write(
            "corpus: {shards: [a.parquet, 's3://b/c/*.parquet'], columns: {text: [title, 'messages[*].content']}}\n"
            "run: r\nscreens: [language, {screen: blocklist, list: hosts.txt}]\n"
        )
    )

    assert config.corpus.shards == (f"{tmp_path}/a.parquet", "s3://b/c/*.parquet")
    assert config.corpus.columns.text == ("title", "messages[*].content")
    assert [(use.screen, use.list) for use in config.screens] == [
        ("language", None), ("blocklist", f"{tmp_path}/hosts.txt"),
    ]  # fmt: skip


def test_paths_are_those_of_the_config_file_and_uris_stay(write, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.chdir("/")
    config = load_config(
        write(
            "corpus: {shards: 'gs://bucket/x'}\nrun: 's3://bucket/run?region=eu'\nlabels: [../l.parquet, ~/m.parquet]\n"
            "sources: {register: reg.csv, blacklist: memory://black}\n"
        )
    )

    assert config.run == "s3://bucket/run?region=eu"
    assert config.store == "s3://bucket/run/store?region=eu"
    assert config.restricted == "s3://bucket/run.restricted?region=eu"
    assert config.labels == (f"{tmp_path.parent}/l.parquet", "/home/someone/m.parquet")
    assert (config.sources.register, config.sources.blacklist) == (f"{tmp_path}/reg.csv", "memory://black")


def test_a_shipped_name_stays_a_name_and_a_path_becomes_absolute(write, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "own.yaml").write_text("id: own\n")
    config = load_config(
        write(MINIMAL + "policy: own.yaml\nkeywords: {library: mine}\nclassifiers: [./models/m, {model: a/b}]\n")
    )

    assert config.policy == f"{tmp_path}/own.yaml"
    assert config.keywords.library == f"{tmp_path}/mine"
    assert [use.model for use in config.classifiers] == [f"{tmp_path}/models/m", f"{tmp_path}/a/b"]
    assert load_config(write(MINIMAL + "policy: strict\n")).policy == "strict"


def test_names_of_an_independent_set_up_are_resolved_too(write, tmp_path):
    config = load_config(write(MINIMAL + "evaluation: {library: starter, classifiers: [./m, {model: ./n}]}\n"))

    assert config.evaluation.library == "starter"
    assert [use.model for use in config.evaluation.classifiers] == [f"{tmp_path}/m", f"{tmp_path}/n"]


def test_a_config_is_made_from_a_dict(tmp_path):
    data = {"corpus": {"shards": [tmp_path / "a.parquet"]}, "run": tmp_path / "run", "executor": {"unit_bytes": 1000}}
    config = Config.of(data, overrides={"executor.workers": 3})

    assert config.corpus.shards == (str(tmp_path / "a.parquet"),)
    assert config.run == str(tmp_path / "run")
    assert (config.executor.unit_bytes, config.executor.workers) == (1000, 3)
    assert config.base == Path.cwd()
    assert data["corpus"] == {"shards": [tmp_path / "a.parquet"]}
    with pytest.raises(UsageError, match="config: 'corpus.shards' is missing."):
        Config.of({"corpus": {}, "run": "r"})


def test_a_config_is_still_and_travels():
    config = Config.of({"corpus": {"shards": "a"}, "run": "r"}, base="/x")

    with pytest.raises(ValidationError):
        config.run = "elsewhere"
    again = pickle.loads(pickle.dumps(config))
    assert again == config and again.base == config.base == Path("/x")


@pytest.mark.parametrize(
    ("written", "meant"),
    [("64MiB", 2**26), ("1GiB", 2**30), ("1.5KiB", 1536), ("500MB", 500_000_000), ("1kB", 1000), ("1 TiB", 2**40),
     ("10B", 10), (7, 7)],
)  # fmt: skip
def test_sizes(written, meant):
    assert size(written) == meant


@pytest.mark.parametrize("bad", ["", "64", "64M", "64 Mib/s", "-1MiB", "0MiB", 0, -5, True, 1.5, None, [], "0.3B"])
def test_what_is_no_size(bad):
    with pytest.raises(ValueError, match="must be a size such as 64MiB"):
        size(bad)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("30min", 1800),
        ("90s", 90),
        ("2h", 7200),
        ("1h30min", 5400),
        ("1 d", 86400),
        ("250ms", 0.25),
        (5, 5),
        (0.5, 0.5),
    ],
)
def test_durations(written, meant):
    assert duration(written) == meant


@pytest.mark.parametrize("bad", ["", "30", "30m", "min", "soon", "1h-30min", 0, -1, True, None, float("inf"), "0s"])
def test_what_is_no_duration(bad):
    with pytest.raises(ValueError, match="must be a duration such as 30min"):
        duration(bad)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.integers(1, 2**60))
def test_a_size_and_a_duration_are_written_so_that_they_read_back(n):
    text = size_text(n)
    assert (size(text) if text.endswith("iB") else int(text)) == n
    assert duration(duration_text(float(n % 10**9 + 1))) == float(n % 10**9 + 1)


# Precedence


def test_a_flag_wins_over_the_environment_over_the_file_over_the_default(write):
    path = write(MINIMAL + "executor: {workers: 2, attempts: 4}\n")
    env = {"CORPUS_GUARD_EXECUTOR_WORKERS": "3", "CORPUS_GUARD_EXECUTOR_IN_FLIGHT": "5", "CORPUS_GUARD_DATA": "/d"}
    config = load_config(path, {"executor.workers": "4"}, env)

    executor = config.executor
    assert (executor.workers, executor.in_flight, executor.attempts, executor.kind) == (4, 5, 4, "local")
    assert config.origin("executor.workers") == "flag"
    assert config.origin("executor.in_flight") == "environment CORPUS_GUARD_EXECUTOR_IN_FLIGHT"
    assert config.origin("executor.attempts") == f"file {path}:3"
    assert config.origin("executor.kind") == "default"
    assert load_config(path, env=env).executor.workers == 3


def test_every_row_shows_key_value_and_who_set_it(write):
    path = write(MINIMAL)
    rows = {key: (value, origin) for key, value, origin in load_config(path, {"max_failed_share": "0.5%"}).rows()}

    assert rows["max_failed_share"] == ("0.5%", "flag")
    assert rows["run"][1] == f"file {path}:2"
    assert rows["executor.unit_bytes"] == ("64MiB", "default")
    assert rows["executor.unit_timeout"] == ("30min", "default")
    assert rows["corpus.columns.text"] == ("text", "default")
    assert rows["keywords.library"] == ("starter", "default")
    assert rows["evaluation"] == ("null", "default")
    assert rows["restricted"] == (f"{path.parent}/runs/a.restricted", "default")


def test_the_rows_have_every_key_once(write):
    rows = [
        key for key, _, _ in load_config(write(MINIMAL + "evaluation: {library: starter}\nspot_check: {}\n")).rows()
    ]

    assert len(rows) == len(set(rows))
    assert set(rows) == {key for key in keys() if "[]" not in key} - {"evaluation", "spot_check"}


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("policy", "strict", "strict"),
        ("corpus.shards", "s3://b/*.parquet", ("s3://b/*.parquet",)),
        ("corpus.shards", "[s3://b/1, s3://b/2]", ("s3://b/1", "s3://b/2")),
        ("corpus.columns.id", "*weird", "*weird"),
        ("executor.unit_timeout", "null", None),
        ("executor.gpu.num_gpus", "0.5", 0.5),
        ("executor.unit_bytes", "1MiB", 2**20),
        ("max_failed_share", "1%", Fraction(1, 100)),
        ("evaluation.library", "starter", "starter"),
        ("spot_check.technical", "12%", Fraction(3, 25)),
        ("corpus.phase", "pre_collection", "pre_collection"),
    ],
)
def test_flags_and_variables_are_read_as_one_writes_them(write, key, text, value):
    path = write(MINIMAL)
    variable = "CORPUS_GUARD_" + key.replace(".", "_").upper()
    for config in (load_config(path, {key: text}), load_config(path, env={variable: text})):
        found = config
        for part in key.split("."):
            found = getattr(found, part)
        assert found == value


def test_a_flag_fills_in_a_section_that_was_turned_off(write):
    config = load_config(write(MINIMAL + "keywords: null\n"), {"keywords.engine": "pyahocorasick"})

    assert (config.keywords.library, config.keywords.engine) == ("starter", "pyahocorasick")


def test_a_flag_for_a_whole_section_replaces_it(write):
    path = write(MINIMAL + "executor: {workers: 5}\n")
    config = load_config(path, {"executor": "{kind: ray}"})

    assert (config.executor.kind, config.executor.workers) == ("ray", 1)
    assert config.origin("executor.workers") == "flag"


# Faults


BAD = """\
polcy: x
policy: tc260-03
corpus: {columns: {txt: id, text: [], source: 5}, phase: post_colection}
keywords: {library: strter, engine: auto2}
classifiers: [{model: ./m, devise: cpu}, {device: gpu}]
screens: [languag]
evaluation: 3
executor:
  kind: rai
  workers: 0
  unit_bytes: 64MB3
  unit_timeout: soon
  gpu: {num_gpus: -1, workrs: 2}
max_failed_share: 101%
labels: x
restricted: r/x
run: r
"""


def test_all_faults_of_a_file_are_told_at_once_with_lines_and_near_matches(write):
    path = write(BAD)
    found = faults(path)

    expected = [
        ":1: unknown key 'polcy'; did you mean 'policy'?",
        ":2: there is no policy 'tc260-03'; did you mean 'tc260-003'?",
        ":3: 'corpus.shards' is missing.",
        ":3: 'corpus.columns.text' must name at least one.",
        ":3: 'corpus.columns.source' must be text.",
        ":3: unknown key 'txt' in 'corpus.columns'; did you mean 'text'?",
        ":3: 'corpus.phase' is 'post_colection', must be pre_collection or post_collection; did you mean",
        ":4: there is no keyword library 'strter'; did you mean 'starter'?",
        ":4: 'keywords.engine' is 'auto2', must be auto or hyperscan or pyahocorasick; did you mean 'auto'?",
        ":5: unknown key 'devise' in 'classifiers.0'; did you mean 'device'?",
        ":5: 'classifiers.1.model' is missing.",
        ":5: 'classifiers.1.device' is 'gpu', must be auto or cpu or cuda; did you mean 'cpu'?",
        ":6: 'screens.0.screen' is 'languag', must be language or",
        ":7: 'evaluation' must hold keys.",
        ":9: 'executor.kind' is 'rai', must be local or ray; did you mean 'ray'?",
        ":10: 'executor.workers' must be a whole number, 1 or more.",
        ":11: 'executor.unit_bytes' must be a size such as 64MiB, 1GB or 1048576.",
        ":12: 'executor.unit_timeout' must be a duration such as 30min, 1h30min or 90s.",
        ":13: 'executor.gpu.num_gpus' must be a number, 0 or more.",
        ":13: unknown key 'workrs' in 'executor.gpu'; did you mean 'workers'?",
        ":14: 'max_failed_share' must be a share from 0% to 100%, such as \"5%\".",
        ":15: 'labels' must be a list.",
        ":16: 'restricted' lies inside 'run', which trainers read; choose another place.",
    ]
    for words in expected:
        assert any(fault.startswith(f"{path}{words}") for fault in found), (words, found)
    assert len(found) == len(expected)
    assert [int(fault[len(str(path)) + 1 :].split(":")[0]) for fault in found] == sorted(
        int(words.split(":")[1]) for words in expected
    )


def test_faults_of_flags_and_variables_name_them(write):
    found = faults(
        write(MINIMAL),
        {"executor.wokers": "8", "executor.workers": "many", "corpus.shards": "[a"},
        {"CORPUS_GUARD_EXECUTOR_UNIT_BYTES": "1GiX", "CORPUS_GUARD_EXECUTOR_WORKRES": "1", "CORPUS_GUARD_DATA": "x"},
    )

    assert "--set executor.wokers: unknown key 'executor.wokers'; did you mean 'executor.workers'?" in found
    assert "--set executor.workers: 'executor.workers' must be a whole number, 1 or more." in found
    assert any(fault.startswith("CORPUS_GUARD_EXECUTOR_UNIT_BYTES: 'executor.unit_bytes' must be") for fault in found)
    assert any("did you mean CORPUS_GUARD_EXECUTOR_WORKERS?" in fault for fault in found)
    assert any(fault.startswith("--set corpus.shards:") and "is not YAML" in fault for fault in found)
    assert len(found) == 5


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("run: r\n", ": 'corpus' is missing."),
        ("corpus: {shards: a}\n", ": 'run' is missing."),
        ("corpus: {shards: []}\nrun: r\n", ":1: 'corpus.shards' must name at least one."),
        ("corpus: {shards: 5}\nrun: r\n", ":1: 'corpus.shards' must be text or a list of texts."),
        ("corpus: {shards: [a, 5]}\nrun: r\n", ":1: 'corpus.shards.1' must be text."),
        ("corpus: [a]\nrun: r\n", ":1: 'corpus' must hold keys."),
        ("corpus: {shards: a}\nrun: ''\n", ":2: 'run' must be text."),
        ("corpus: {shards: a}\nrun: 5\n", ":2: 'run' must be text."),
        ("corpus: {shards: a}\nrun: null\n", ":2: 'run' must be text."),
        ("corpus: {shards: a}\nrun: r\nrestricted: r\n", ":3: 'restricted' lies inside 'run'"),
        (MINIMAL + "policy: ./gone.yaml\n", ":3: there is no policy file"),
        (MINIMAL + "policy: null\n", ":3: 'policy' must be text."),
        (MINIMAL + "classifiers: [gone]\n", ":3: there is no model 'gone'."),
        (MINIMAL + "classifiers: ngram-screen\n", ":3: 'classifiers' must be a list."),
        (MINIMAL + "classifiers: [5]\n", ":3: 'classifiers.0' must hold keys."),
        (MINIMAL + "screens: [{list: x}]\n", ":3: 'screens.0.screen' is missing."),
        (MINIMAL + "spot_check: {manual: 0}\n", ":3: 'spot_check.manual' must be a whole number"),
        (MINIMAL + "spot_check: {technical: 110%}\n", ":3: 'spot_check.technical' must be a share"),
        (MINIMAL + "sources: {decide: maybe}\n", ":3: 'sources.decide' is 'maybe', must be point or assured."),
        (MINIMAL + "executor: {cpu: {memory: much}}\n", ":3: 'executor.cpu.memory' must be a size"),
        (MINIMAL + "executor: {cpu: {num_cpus: true}}\n", ":3: 'executor.cpu.num_cpus' must be a number"),
        (MINIMAL + "zzz: 1\n", ":3: unknown key 'zzz'; known are policy, corpus, run"),
        (MINIMAL + "run: again\n", ":3: key 'run' stands twice, first in line 2; keep one."),
        ("", ": 'corpus' is missing."),
    ],
)
def test_a_fault_has_file_line_and_key(write, text, told):
    path = write(text)

    assert any(fault.startswith(f"{path}{told}") for fault in faults(path)), faults(path)


@pytest.mark.parametrize("text", ["5", "[a]", "text"])
def test_a_file_that_holds_no_keys_is_refused(write, text):
    path = write(text)

    assert faults(path) == [f"{path}: must hold keys such as corpus, run and policy."]


def test_a_config_that_is_not_there_is_told(tmp_path):
    with pytest.raises(UsageError, match="there is no such file"):
        load_config(tmp_path / "gone.yaml")


def test_a_path_that_only_begins_like_the_run_is_outside_it(write):
    config = load_config(write(MINIMAL + "restricted: runs/a-restricted\n"))

    assert config.restricted.endswith("runs/a-restricted")


@settings(deadline=None, derandomize=True, max_examples=150)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=6,
    ),
    st.sampled_from(sorted({key.split("[")[0].split(".")[0] for key in keys()})),
)
def test_whatever_stands_under_a_key_is_taken_or_told(value, key):
    data = {"corpus": {"shards": "a"}, "run": "r", key: value}
    try:
        Config.of(data, base="/base")
    except UsageError as error:
        assert str(error).startswith("config: ")


# Documentation and import


def test_docs_config_md_and_the_code_name_the_same_keys_and_defaults():
    page = (Path(__file__).parents[1] / "docs/config.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]+)` \| (?:`([^`]*)`|(required)) \| (.+) \|$", page, re.MULTILINE)

    assert {key: default or required for key, default, required, _ in rows} == keys()
    assert len(rows) == len(keys())
    assert all(meaning.strip() for *_, meaning in rows)


def test_the_example_of_the_page_loads(write):
    page = (Path(__file__).parents[1] / "docs/config.md").read_text(encoding="utf-8")
    [example] = re.findall(r"```yaml\n(.+?)```", page, re.DOTALL)

    config = load_config(write(example.replace("[{model: ngram-screen}]", "[]")))

    assert config.executor.workers == 4


def test_variables_of_two_keys_never_have_the_same_name():
    variables = [key.replace(".", "_").upper() for key in keys() if "[]" not in key]

    assert len(variables) == len(set(variables))


def test_a_config_loads_without_arrow_numpy_and_warnings(tmp_path):
    (tmp_path / "c.yaml").write_text("corpus: {shards: a}\nrun: r\n")
    code = (
        "import sys; from corpus_guard.config import load_config; load_config(sys.argv[1]); "
        "sys.exit(bool({'pyarrow', 'numpy', 'torch', 'scipy', 'ray'} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-W", "error", "-c", code, str(tmp_path / "c.yaml")])

    assert done.returncode == 0
