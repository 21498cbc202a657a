"""What stored scores mean: probabilities, opinions and reasons, without text or model."""

from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus_guard.classifiers.calibrate import ScoreReader, fit_isotonic, fit_platt, probability
from corpus_guard.classifiers.modelfile import Calibration, Label, ModelFile
from corpus_guard.classifiers.ngram import NgramRecipe
from corpus_guard.classifiers.pooling import Pooling
from corpus_guard.findings import classifier_schema
from corpus_guard.taxonomy import codes_of
from corpus_guard.text.windows import Windows

PORN = Label("porn", ("A.1.f",), "<", 0.9, 0.3)
ETHNIC = Label("ethnic", ("A.2.a",), "=", 0.5, None)
HATE = Label("hate", ("A.2.a", "A.2.d"), ">", 0.8)
CLOSE = Label("close", ("A.1.f", "A.5.a"), "~", 0.8)
OFF = Label("weak", ("A.4.d",), "=", None, None)
IGNORED = Label("safe")


def model(*labels, activation="sigmoid"):
    return ModelFile(
        folder=Path("guard"), name="guard", model_type="bert", licence="MIT", languages=(), activation=activation,
        windows=Windows(4, 2), pooling=Pooling("max"), labels=labels, evaluation={}, weight_files=(),
    )  # fmt: skip


def findings(*probabilities, tokens=4):
    """One document for each row of probabilities, stored as log-odds; ``None`` is a text that was not looked at."""
    labels = next(len(row) for row in probabilities if row)
    scores = [row and np.log(np.array(row) / (1 - np.array(row))).astype(np.float16) for row in probabilities]
    there = [row is not None for row in scores]
    columns = {
        "scores": pa.array([None if row is None else list(row) for row in scores], pa.list_(pa.float16(), labels)),
        "window": pa.array([3 if known else None for known in there], pa.uint32()),
        "tokens": pa.array([tokens if known else None for known in there], pa.uint32()),
        "inclusion_probability": pa.array([1.0 if known else None for known in there], pa.float32()),
    }
    return pa.table(columns, schema=classifier_schema([f"label {i}" for i in range(labels)]))


def named(masks):
    return [codes_of(int(mask)) for mask in masks]


def test_a_score_over_the_upper_threshold_is_sure_and_over_the_lower_one_supports():
    opinion = ScoreReader(model(PORN), {}).opinion(findings([0.95], [0.6], [0.2]))

    assert named(opinion.sure) == [("A.1.f",), (), ()]
    assert named(opinion.supports) == [("A.1.f",), ("A.1.f",), ()]
    assert not opinion.needs.any() and not opinion.weak.any() and not opinion.unresolved.any()


def test_a_score_exactly_at_the_threshold_counts():
    even = model(Label("even", ("A.1.f",), "=", 0.5, 0.5))

    assert named(ScoreReader(even, {}).opinion(findings([0.5])).sure) == [("A.1.f",)]


@pytest.mark.parametrize("label", [HATE, CLOSE])
def test_a_broader_or_overlapping_label_leaves_open_which_risk_it_is(label):
    opinion = ScoreReader(model(label), {}).opinion(findings([0.9], [0.7]))

    assert named(opinion.unresolved) == [label.risks, ()]
    assert not opinion.sure.any() and not opinion.supports.any()


def test_labels_of_one_risk_combine_by_the_larger_one():
    other = Label("slur", ("A.2.a",), "<", 0.5, None)

    opinion = ScoreReader(model(ETHNIC, other), {}).opinion(findings([0.9, 0.1], [0.1, 0.9], [0.1, 0.1]))

    assert named(opinion.sure) == [("A.2.a",), ("A.2.a",), ()]


def test_the_policys_thresholds_win_for_its_risk_alone():
    reader = ScoreReader(model(PORN, ETHNIC), {"A.1.f": (0.5, 0.1)})

    opinion = reader.opinion(findings([0.6, 0.4], [0.2, 0.6]))

    assert named(opinion.sure) == [("A.1.f",), ("A.2.a",)]
    assert named(opinion.supports) == [("A.1.f",), ("A.1.f",)]


def test_a_label_that_is_off_says_nothing_unless_the_policy_gives_its_risk_a_threshold():
    scores = findings([0.99])

    assert not ScoreReader(model(OFF), {}).opinion(scores).sure.any()
    assert named(ScoreReader(model(OFF), {"A.4.d": (0.9, 0.5)}).opinion(scores).sure) == [("A.4.d",)]


def test_a_policys_threshold_for_a_risk_is_none_for_a_broader_label():
    opinion = ScoreReader(model(HATE), {"A.2.a": (0.1, 0.1)}).opinion(findings([0.5]))

    assert not opinion.unresolved.any() and not opinion.sure.any()


def test_documents_that_were_not_looked_at_have_no_opinion():
    certain = model(Label("all", ("A.1.f",), "=", 0.0, 0.0))

    opinion = ScoreReader(certain, {}).opinion(findings(None, [0.5], None))

    assert named(opinion.sure) == [(), ("A.1.f",), ()]
    assert ScoreReader(certain, {}).explain(findings(None, [0.5])) == [
        [],
        ["guard A.1.f (all) 0.500 >= 0.000 window 3"],
    ]


def test_opinions_do_not_depend_on_chunks_and_slices_of_the_table():
    reader = ScoreReader(model(PORN, ETHNIC, IGNORED), {})
    table = findings([0.95, 0.1, 0.5], None, [0.4, 0.9, 0.5], [0.1, 0.1, 0.99])
    chunked = pa.concat_tables([table.slice(0, 1), table.slice(1, 2), table.slice(3)])

    for part in ("sure", "supports", "unresolved"):
        whole = getattr(reader.opinion(table), part)
        assert getattr(reader.opinion(chunked), part).tolist() == whole.tolist()
        assert getattr(reader.opinion(table.slice(2)), part).tolist() == whole.tolist()[2:]
    assert len(reader.opinion(table.slice(0, 0)).sure) == 0


def test_reasons_name_risk_score_threshold_and_window_and_no_text():
    reasons = ScoreReader(model(PORN, HATE), {}).explain(findings([0.95, 0.9], [0.5, 0.1], [0.1, 0.1]))

    assert reasons == [
        ["guard A.1.f (porn) 0.950 >= 0.900 window 3", "guard A.2.a or A.2.d (hate) 0.900 >= 0.800 window 3"],
        ["guard A.1.f (porn) 0.500 supports, >= 0.300 window 3"],
        [],
    ]


def test_a_recipes_reader_needs_no_model():
    made = NgramRecipe(model(PORN), "guard", "0" * 64)

    assert named(made.reader(as_of=date(2026, 11, 21), thresholds={}).opinion(findings([0.95])).sure) == [("A.1.f",)]


def test_a_plain_score_is_a_probability_only_within_its_bounds():
    given = probability(Calibration(), np.array([-2.0, 0.25, 7.0]), np.ones(3, np.int64), log_odds=False)

    assert given.tolist() == [0.0, 0.25, 1.0]


def test_isotonic_points_are_joined_by_lines():
    curve = Calibration("isotonic", points=((-1.0, 0.1), (1.0, 0.5)))

    assert probability(curve, np.array([-9.0, 0.0, 9.0]), np.ones(3, np.int64), True) == pytest.approx([0.1, 0.3, 0.5])


def test_platt_scaling_finds_the_numbers_that_made_the_labels():
    rng = np.random.default_rng(1)
    scores, windows = rng.normal(size=50_000) * 2, 2 ** rng.integers(0, 8, 50_000)
    positive = rng.random(50_000) < 1 / (1 + np.exp(-(1.5 * scores - 1 - 0.3 * np.log2(windows))))

    fitted = fit_platt(scores, windows, positive, np.ones(50_000))

    assert (fitted.a, fitted.b, fitted.length) == pytest.approx((1.5, -1, -0.3), abs=0.06)


def test_length_never_speaks_for_a_risk():
    rng = np.random.default_rng(1)
    windows = 2 ** rng.integers(0, 8, 2_000)
    positive = rng.random(2_000) < np.log2(windows) / 8

    assert fit_platt(positive + rng.normal(size=2_000), windows, positive, np.ones(2_000)).length == 0


def test_scores_that_fall_with_the_label_give_no_calibration():
    scores = np.linspace(-1, 1, 100)

    assert fit_platt(scores, np.ones(100, np.int64), scores < 0, np.ones(100)) is None


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.lists(st.tuples(st.integers(-9, 9), st.booleans()), min_size=1, max_size=40))
def test_isotonic_probabilities_rise_and_keep_the_mean(rows):
    scores, positive = np.array([float(s) for s, _ in rows]), np.array([p for _, p in rows])

    curve = fit_isotonic(scores, positive, np.ones(len(rows)))
    points = np.array(curve.points)

    assert (np.diff(points[:, 0]) >= 0).all() and (np.diff(points[:, 1]) >= 0).all()
    at_scores = probability(curve, scores, np.ones(len(rows), np.int64), True)
    assert at_scores.mean() == pytest.approx(positive.mean(), abs=1e-4)
