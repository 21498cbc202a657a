"""Thresholds are decided by integers; intervals are exact and agree with SciPy's own and with what they promise."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, hypergeom

from corpus_guard.statistics import (
    acceptance,
    at_least,
    clopper_pearson,
    hypergeometric,
    largest_conforming,
    largest_showing,
    over_limit,
    required_sample,
    rogan_gladen,
    smallest_refuting,
    smallest_showing,
    standing,
)

FIVE, NINETY_SIX = Fraction(5, 100), Fraction(96, 100)


@pytest.mark.parametrize(
    ("bad", "n", "over"),
    [(49, 1_000, False), (50, 1_000, False), (51, 1_000, True), (0, 0, False), (1, 20, False), (1, 19, True)],
)
def test_a_share_is_over_five_percent_only_strictly(bad, n, over):
    assert over_limit(bad, n, FIVE) is over


@pytest.mark.parametrize(
    ("bad", "n", "conforms"), [(160, 4_000, True), (161, 4_000, False), (0, 1, True), (0, 0, False), (1, 25, True)]
)
def test_a_rate_of_exactly_the_share_conforms(bad, n, conforms):
    assert at_least(n - bad, n, NINETY_SIX) is conforms


def test_no_float_decides():
    big = 10**30

    assert not over_limit(7 * big, 100 * big, Fraction(7, 100))
    assert over_limit(7 * big + 1, 100 * big, Fraction(7, 100))
    assert at_least(98 * big, 100 * big, Fraction(98, 100))
    assert not at_least(98 * big - 1, 100 * big, Fraction(98, 100))


def test_sizes_and_counts_of_the_text():
    assert required_sample(36_003, Fraction(1, 10)) == 3_601
    assert required_sample(100, Fraction(7, 100)) == 7  # math.ceil(0.07 * 100) is 8
    assert largest_conforming(4_000, NINETY_SIX) == 160


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    st.integers(1, 5_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))),
    st.sampled_from([0.9, 0.95, 0.99]),
)
def test_clopper_pearson_agrees_with_scipy(counts, confidence):
    k, n = counts
    sides = {"two": "two-sided", "lower": "greater", "upper": "less"}

    for side, alternative in sides.items():
        expected = binomtest(k, n, alternative=alternative).proportion_ci(confidence, "exact")
        assert clopper_pearson(k, n, confidence, side) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_bounds_of_columns_are_those_of_their_elements():
    k, n = np.array([0, 0, 3, 7]), np.array([0, 5, 7, 7])

    lower, upper = clopper_pearson(k, n)

    assert (lower[0], upper[0]) == (0, 1)
    assert [(a, b) for a, b in zip(lower, upper, strict=True)] == [
        clopper_pearson(int(a), int(b)) for a, b in zip(k, n, strict=True)
    ]
    assert upper[3] == 1
    assert lower[1] == 0


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.integers(1, 60).flatmap(lambda total: st.tuples(st.just(total), st.integers(0, total))), st.data())
def test_hypergeometric_bounds_hold_every_number_that_the_draw_does_not_refute(sizes, data):
    population, n = sizes
    k = data.draw(st.integers(0, n))
    possible = range(k, population - (n - k) + 1)
    not_too_many = [m for m in possible if hypergeom.cdf(k, population, m, n) > 0.05]
    not_too_few = [m for m in possible if hypergeom.sf(k - 1, population, m, n) > 0.05]

    assert hypergeometric(k, n, population, 0.95, "upper") == (k, max(not_too_many))
    assert hypergeometric(k, n, population, 0.95, "lower") == (min(not_too_few), population - (n - k))
    assert hypergeometric(k, n, population, 0.90) == (min(not_too_few), max(not_too_many))


def test_a_census_has_no_interval():
    assert hypergeometric(3, 20, 20) == (3, 3)


def test_a_large_sample_of_a_finite_population_is_never_claimed_too_narrowly():
    low, high = hypergeometric(2_000, 110_000, 1_000_000)
    error = 0.025

    assert hypergeom.cdf(2_000, 1_000_000, high, 110_000) <= error
    assert hypergeom.sf(1_999, 1_000_000, low, 110_000) <= error
    assert low < 18_182 < high


def test_counts_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="5 of 4 drawn"):
        hypergeometric(5, 4, 10)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (0, "shown"), (139, "shown"), (140, "conforms"), (160, "conforms"), (161, "does not conform"),
        (181, "does not conform"), (182, "refuted"), (4_000, "refuted"),
    ],
)  # fmt: skip
def test_what_a_sample_of_four_thousand_says(bad, says):
    assert standing(4_000 - bad, 4_000, NINETY_SIX) == says


@pytest.mark.parametrize(("population", "shown"), [(None, 139), (10_000, 144), (50_000, 140), (100_000, 139)])
def test_a_finite_corpus_is_shown_by_slightly_less(population, shown):
    assert largest_showing(4_000, NINETY_SIX, population=population) == shown
    assert smallest_refuting(4_000, NINETY_SIX) == 182


def test_a_few_documents_show_nothing():
    assert largest_showing(58, 1 - FIVE) == -1
    assert largest_showing(59, 1 - FIVE) == 0
    assert largest_showing(0, NINETY_SIX) == -1
    assert smallest_refuting(0, NINETY_SIX) == 1
    assert standing(0, 0, NINETY_SIX) == "does not conform"
    assert smallest_refuting(1, Fraction(1, 100)) == 2  # one bad document never shows a rate below 1 %


@pytest.mark.parametrize(("bad", "n"), [(0, 59), (1, 93), (2, 124), (3, 153), (4, 181)])
def test_how_many_must_be_read_to_show_five_percent(bad, n):
    assert smallest_showing(bad, FIVE) == n
    assert largest_showing(n, 1 - FIVE) == bad


@pytest.mark.parametrize(
    ("n", "keep", "exclude"), [(20, -1, 4), (100, 1, 10), (300, 8, 22), (1_000, 38, 63), (5_000, 224, 277)]
)
def test_what_a_sample_of_a_source_can_decide(n, keep, exclude):
    assert largest_showing(n, 1 - FIVE) == keep
    assert smallest_refuting(n, 1 - FIVE) == exclude


@pytest.mark.parametrize(
    ("rate", "passes"), [(0.03, 0.9998), (0.035, 0.959), (0.04, 0.521), (0.045, 0.067), (0.05, 0.0016)]
)
def test_how_often_the_plan_of_the_text_passes(rate, passes):
    assert acceptance(4_000, 160, rate) == pytest.approx(passes, abs=1e-3)
    assert acceptance(4_000, 160, rate) == binom.cdf(160, 4_000, rate)


def test_a_rate_is_corrected_for_the_detectors_errors():
    truth, sensitivity, specificity = 0.03, 0.9, 0.99
    seen = truth * sensitivity + (1 - truth) * (1 - specificity)

    assert rogan_gladen(seen, sensitivity, specificity) == pytest.approx(truth)
    assert rogan_gladen(np.array([0.0, 0.005, 1.0]), 0.9, 0.99).tolist() == [0, 0, 1]
    assert rogan_gladen(0.05, 1, 1) == 0.05
    assert np.isnan(rogan_gladen(0.05, 0.4, 0.6))
    assert np.isnan(rogan_gladen(np.array([0.05]), 0.4, 0.6)).all()
