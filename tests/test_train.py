"""Training a screen on a toy set: which rows may make weights, and what the command owns up to."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus_guard.classifiers import load_model, recipe
from corpus_guard.classifiers.train import Untrusted, average_precision, train_ngram
from corpus_guard.classifiers.training_rows import read_rows
from corpus_guard.errors import UsageError
from corpus_guard.findings import BATCH

CALM = "heron river stone water morning cloud field meadow window garden bridge lantern winter letter".split()
RISKY = {
    "A.1.h": "contraband smuggled untaxed forged passports cheap discreet delivery".split(),
    "A.2.d": "provincials bumpkins yokels backward villagers sneering hillfolk lowlanders".split(),
}
OPTIONS = {"buckets": 1 << 14, "epochs": 4, "untrusted": ()}


def sentence(rng, vocabulary, n=12):
    return " ".join(rng.choice(vocabulary, n))


def rows(seed, source, licence="MIT", risks=RISKY, n=80, benign=160, kind="social", language="en"):
    """Labelled rows of one source: *n* of each risk, and benign ones; one row in four is for development."""
    rng = np.random.default_rng(seed)
    made = [(sentence(rng, CALM), None, False) for _ in range(benign)]
    made += [
        (f"{sentence(rng, CALM, 4)} {sentence(rng, RISKY[risk], 6)}", risk, True) for risk in risks for _ in range(n)
    ]
    return [
        {
            "text": f"{text} {source} {i}", "source": source, "licence": licence, "language": language, "risk": risk,
            "is_risk": is_risk, "split": "dev" if i % 4 == 0 else "train", "kind": kind,
        }
        for i, (text, risk, is_risk) in enumerate(made)
    ]  # fmt: skip


def benign_documents(seed=5, n=600, source="books.en"):
    rng = np.random.default_rng(seed)
    return [
        {"text": sentence(rng, CALM, int(rng.integers(20, 400))), "source": source, "licence": "MIT"} for _ in range(n)
    ]


def write(path, made):
    pq.write_table(pa.Table.from_pylist(made), path)
    return path


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toys")
    labelled = rows(1, "forum", n=200) + rows(2, "board", n=200)
    labelled += rows(3, "prompts", risks=["A.1.h"], n=10, benign=5, kind="prompt")
    labelled += [
        row | {"risk": "A.3.a", "text": row["text"] + "!"} for row in rows(4, "few", risks=["A.1.h"], n=8, benign=0)
    ]
    labelled += [
        row | {"is_risk": None, "text": "undecided " + row["text"]} for row in rows(6, "unsure", n=5, benign=5)
    ]
    return [write(folder / "labelled.parquet", labelled), write(folder / "benign.parquet", benign_documents())]


@pytest.fixture(scope="module")
def trained(toys, tmp_path_factory):
    lines = []
    folder = train_ngram(toys, tmp_path_factory.mktemp("models") / "toy", 3, name="toy", say=lines.append, **OPTIONS)
    return folder, lines


def find(folder, texts):
    made = recipe(folder)
    columns = {name: pa.nulls(len(texts), BATCH.field(name).type) for name in BATCH.names}
    batch = pa.RecordBatch.from_pydict(columns | {"text": pa.array(texts, pa.large_string())}, schema=BATCH)
    return made, pa.Table.from_batches([made.build().find(batch)])


def test_a_screen_finds_what_it_was_shown_and_lets_benign_documents_pass(trained):
    rng = np.random.default_rng(99)
    risky = [f"{sentence(rng, CALM, 4)} {sentence(rng, RISKY['A.1.h'], 6)}" for _ in range(100)]
    calm = [sentence(rng, CALM, 100) for _ in range(400)]

    made, findings = find(trained[0], risky + calm)
    sure = made.reader(as_of=None, thresholds={}).opinion(findings).sure != 0

    assert sure[:100].mean() > 0.9
    assert sure[100:].sum() <= 2


def test_the_description_tells_evidence_for_all_31_risks(trained):
    model = load_model(trained[0])

    assert [label.name for label in model.labels] == ["A.1.h", "A.2.d"]
    assert (model.languages, model.licence, model.name) == (("en",), "Apache-2.0", "toy")
    assert len(model.evaluation) == 31
    found = model.evaluation["A.1.h"]
    assert found.status == "usable" and found.recall > 0.8 and found.ap > 0.9 and found.fpr <= 0.02
    assert (found.trained_natural, found.trained_synthetic) == (300, 8)
    assert found.positives_other_sources == 400 and found.ap_other_sources > 0.9
    assert model.evaluation["A.3.a"].status == "no data" and "6 rows to train on" in model.evaluation["A.3.a"].note
    assert model.evaluation["A.5.b"].status == "no data"


def test_the_card_has_a_line_for_each_risk_and_each_benign_source(trained):
    card = (trained[0] / "CARD.md").read_text()

    assert all(f"| {code} " in card for code in ("A.1.a", "A.1.h", "A.5.b"))
    assert "| books.en |" in card and "| forum |" in card
    assert "| A.1.h | forum en | 200 / " in card


def test_no_word_of_the_rows_stands_in_what_is_written_or_said(trained):
    folder, lines = trained
    written = "".join(path.read_text() for path in folder.iterdir() if path.suffix != ".safetensors") + "".join(lines)

    assert not any(word in written.split() for word in [*RISKY["A.1.h"], *RISKY["A.2.d"], "heron", "lantern", "meadow"])


def test_the_same_rows_and_seed_give_the_same_folder(toys, trained, tmp_path):
    again = train_ngram(toys, tmp_path / "again", 3, name="toy", **OPTIONS)

    assert {path.name for path in again.iterdir()} == {path.name for path in trained[0].iterdir()}
    for path in again.iterdir():
        assert path.read_bytes() == (trained[0] / path.name).read_bytes(), path.name


def test_rows_whose_licence_does_not_allow_it_make_no_weights(toys, trained, tmp_path):
    shared = rows(8, "wiki", licence="CC-BY-SA-4.0", n=100)
    statutes = [row | {"text": row["text"] + " article"} for row in benign_documents(9, 300, "laws")]
    statutes = [row | {"licence": "PRC statute text; no copyright"} for row in statutes]
    more = [*toys, write(tmp_path / "shared.parquet", shared), write(tmp_path / "statutes.parquet", statutes)]

    folder = train_ngram(more, tmp_path / "more", 3, name="toy", **OPTIONS)

    assert (folder / "model.safetensors").read_bytes() == (trained[0] / "model.safetensors").read_bytes()
    card = (folder / "CARD.md").read_text()
    assert "| A.1.h | wiki en | 100 / " in card and "| laws |" in card
    manifest = json.loads((folder / "training_data.json").read_text())
    parts = {(row["source"], row["part"]) for row in manifest["rows"]}
    assert {part for source, part in parts if source == "wiki"} == {"outside"}
    assert {part for source, part in parts if source == "laws"} == {"tune", "test"}


def test_a_risk_whose_evidence_is_not_trusted_stays_off_and_says_why(toys, tmp_path):
    doubts = [Untrusted("A.2.d", frozenset({"forum", "board"}), "rows are about something else")]
    doubts += [Untrusted("A.1.h", frozenset({"forum"}), "only if all rows are of the forum, which they are not")]

    folder = train_ngram(toys, tmp_path / "wary", 3, **OPTIONS | {"untrusted": doubts})

    model = load_model(folder)

    assert {label.name: label.upper is None for label in model.labels} == {"A.1.h": False, "A.2.d": True}
    assert model.evaluation["A.2.d"].status == "weak"
    assert model.evaluation["A.2.d"].note == "off: rows are about something else"


def test_risky_rows_of_a_language_with_few_of_them_make_no_weights(toys, trained, tmp_path):
    few = rows(11, "leaflets", risks=["A.1.h"], n=20, benign=0, language="la")

    folder = train_ngram([*toys, write(tmp_path / "few.parquet", few)], tmp_path / "few", 3, name="toy", **OPTIONS)

    assert (folder / "model.safetensors").read_bytes() == (trained[0] / "model.safetensors").read_bytes()
    assert load_model(folder).languages == ("en",)


def test_a_model_in_use_is_not_written_over(toys, trained):
    with pytest.raises(UsageError, match="is not empty"):
        train_ngram(toys, trained[0])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"risk": "A.9.z", "is_risk": True}, "unknown risk 'A.9.z'"),
        ({"is_risk": False, "risk": None}, "no risk has 25 rows to train on"),
    ],
)
def test_rows_that_cannot_train_are_a_sentence(tmp_path, changes, sentence):
    path = write(tmp_path / "rows.parquet", [row | changes for row in rows(1, "forum", n=30)])

    with pytest.raises(UsageError, match=sentence):
        train_ngram([path], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_missing_columns_and_files_are_named(tmp_path):
    path = write(tmp_path / "rows.parquet", [{"text": "heron", "source": "pond"}])

    with pytest.raises(UsageError, match="has no column licence"):
        read_rows([path], 0)
    with pytest.raises(UsageError, match="cannot be read as Parquet"):
        read_rows([tmp_path / "nothing.parquet"], 0)


def test_a_text_that_trains_is_never_measured_on(tmp_path):
    one = rows(1, "forum", n=30)
    two = [row | {"source": "mirror", "split": None} for row in one]

    data = read_rows([write(tmp_path / "one.parquet", one), write(tmp_path / "two.parquet", two)], 0)

    assert "heron" not in repr(data), "corpus text must not reach tracebacks"
    texts = np.array(data.text.to_pylist(), object)
    trained = set(texts[data.part == "train"])
    assert trained and not trained & set(texts[np.isin(data.part.astype(str), ["tune", "test"])])


@settings(deadline=None, derandomize=True, max_examples=80)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=30))
def test_average_precision_takes_all_documents_of_a_score_together(made):
    score, positive = np.array([s for s, _ in made]), np.array([p for _, p in made])
    expected = 0.0
    for threshold in sorted(set(score.tolist()), reverse=True):
        taken = score >= threshold
        gained = int((positive & (score == threshold)).sum())
        expected += gained / max(positive.sum(), 1) * positive[taken].mean()

    assert average_precision(score.astype(np.float64), positive) == pytest.approx(expected)
