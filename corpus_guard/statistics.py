"""
What counts may be said to show: exact thresholds, exact intervals, and what a detector's errors do to a rate.

A threshold of the standard is decided by integers alone (``over_limit``, ``at_least``). Intervals stand beside it and
say how sure one may be; they are exact (Clopper-Pearson, hypergeometric), never approximations that under-cover.
"""

from fractions import Fraction
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Side = Literal["two", "lower", "upper"]
Bounds = npt.NDArray[np.float64]
Standing = Literal["shown", "conforms", "does not conform", "refuted"]

CONFIDENCE = 0.95


def over_limit(bad: int, n: int, limit: Fraction) -> bool:
    """``bad / n`` is strictly over *limit* (5.1 a): exactly at it is not (R-2)."""
    return bad * limit.denominator > limit.numerator * n


def at_least(good: int, n: int, share: Fraction) -> bool:
    """``good / n`` is not less than *share* (9.2): 3,840 of 4,000 conform to 96 %. Of nothing, nothing conforms."""
    return n > 0 and good * share.denominator >= share.numerator * n


def required_sample(population: int, share: Fraction) -> int:
    """The smallest number that is not less than *share* of *population*."""
    return -(-population * share.numerator // share.denominator)


def largest_conforming(n: int, share: Fraction) -> int:
    """How many bad ones of *n* still leave at least *share* good: 160 of 4,000 at 96 %."""
    return n - required_sample(n, share)


def clopper_pearson(k: Any, n: Any, confidence: float = CONFIDENCE, side: Side = "two") -> tuple[Any, Any]:
    """
    Exact bounds (lower, upper) for the rate behind *k* of *n*; numbers or arrays of them.

    *side*: ``two`` splits the error between both bounds; ``lower`` and ``upper`` give all of it to one, the other is 0
    or 1. Nothing of nothing is anything: (0, 1). Coverage is never below *confidence* (Clopper & Pearson 1934).
    """
    from scipy.special import betaincinv

    k, n = np.asarray(k, np.float64), np.asarray(n, np.float64)
    error = 1 - confidence if side != "two" else (1 - confidence) / 2
    with np.errstate(all="ignore"):
        lower = np.where(k > 0, betaincinv(np.maximum(k, 1), n - k + 1, error), 0.0)
        upper = np.where(k < n, betaincinv(k + 1, np.maximum(n - k, 1), 1 - error), 1.0)
    if side == "upper":
        lower = np.zeros_like(upper)
    if side == "lower":
        upper = np.ones_like(lower)
    return (float(lower), float(upper)) if lower.ndim == 0 else (lower, upper)


_LARGE_SAMPLE = 100_000


def hypergeometric(
    k: int, n: int, population: int, confidence: float = CONFIDENCE, side: Side = "two"
) -> tuple[int, int]:
    """
    Exact bounds for how many of *population* are bad, when *k* of *n* drawn without replacement are.

    A census (``n == population``) has none: (k, k). Samples over 100,000 use Clopper-Pearson, rounded outwards: it
    ignores that the population is finite and so is never narrower than what is exact.
    """
    if not 0 <= k <= n <= population:
        raise ValueError(f"{k} of {n} drawn from {population} cannot be")
    least, most = k, population - (n - k)
    if n == population:
        return k, k
    if n > _LARGE_SAMPLE:
        low, high = clopper_pearson(k, n, confidence, side)
        return max(least, int(np.floor(low * population))), min(most, int(np.ceil(high * population)))
    from scipy.stats import hypergeom

    error = 1 - confidence if side != "two" else (1 - confidence) / 2
    lower, upper = least, most
    if side != "lower":  # the largest number under which so few would still be drawn
        upper = _last_true(least, most, lambda bad: hypergeom.cdf(k, population, bad, n) > error)
    if side != "upper":  # the smallest number under which so many would still be drawn
        lower = most - _last_true(0, most - least, lambda less: hypergeom.sf(k - 1, population, most - less, n) > error)
    return lower, upper


def _last_true(low: int, high: int, holds: Any) -> int:
    """The largest of ``low .. high`` that *holds*; true up to some point, and at *low*."""
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low


def standing(
    good: int, n: int, share: Fraction, confidence: float = CONFIDENCE, population: int | None = None
) -> Standing:
    """
    What *good* of *n* say of "at least *share*", at a one-sided *confidence*.

    ``shown`` (139 bad or fewer of 4,000 at 96 %), ``conforms`` (the text's point reading holds, up to 160, and is
    not shown), ``does not conform``, ``refuted`` (182 or more: shown to be below).
    """
    bad = n - good
    if at_least(good, n, share):
        return "shown" if bad <= largest_showing(n, share, confidence, population) else "conforms"
    return "refuted" if bad >= smallest_refuting(n, share, confidence, population) else "does not conform"


@lru_cache(maxsize=1024)
def largest_showing(n: int, share: Fraction, confidence: float = CONFIDENCE, population: int | None = None) -> int:
    """The most bad ones of *n* that still show a share of good of at least *share*; -1 where even none does not."""
    limit = 1 - share

    def shows(bad: int) -> bool:
        if population is None:
            return bool(clopper_pearson(bad, n, confidence, "upper")[1] <= float(limit))
        return not over_limit(hypergeometric(bad, n, population, confidence, "upper")[1], population, limit)

    return _last_true(-1, n, lambda bad: bad < 0 or shows(bad)) if n else -1


@lru_cache(maxsize=1024)
def smallest_refuting(n: int, share: Fraction, confidence: float = CONFIDENCE, population: int | None = None) -> int:
    """The fewest bad ones of *n* that show a share of good below *share*; ``n + 1`` where none would."""
    limit = 1 - share

    def refutes(bad: int) -> bool:
        if population is None:
            return bool(clopper_pearson(bad, n, confidence, "lower")[0] > float(limit))
        return over_limit(hypergeometric(bad, n, population, confidence, "lower")[0], population, limit)

    return _last_true(0, n, lambda bad: not refutes(bad)) + 1 if n else 1


@lru_cache(maxsize=65536)
def smallest_showing(bad: int, limit: Fraction, confidence: float = CONFIDENCE) -> int:
    """How many must be read with no more than *bad* bad ones to show a rate of at most *limit*: 59 with none at 5 %."""
    if limit <= 0:
        raise ValueError("no sample shows a rate of zero")
    low, high = bad, bad + 1
    while clopper_pearson(bad, high, confidence, "upper")[1] > float(limit):
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (
            (middle, high) if clopper_pearson(bad, middle, confidence, "upper")[1] > float(limit) else (low, middle)
        )
    return high


def acceptance(n: int, accepted: int, rate: Any) -> Any:
    """How often a sample of *n* with at most *accepted* bad ones comes out of a corpus with bad *rate* (OC curve)."""
    from scipy.stats import binom

    return binom.cdf(accepted, n, rate)


def rogan_gladen(rate: Any, sensitivity: float, specificity: float) -> Any:
    """
    The true rate behind a detector's *rate*, given its measured errors (Rogan & Gladen 1978), kept within 0 and 1.

    A diagnostic, not a gate: it is as uncertain as the errors it is given, and NaN where the detector knows nothing
    (sensitivity + specificity not over 1).
    """
    false_positives = 1 - specificity
    gain = sensitivity - false_positives
    rate = np.asarray(rate, np.float64)
    corrected = np.clip((rate - false_positives) / gain, 0, 1) if gain > 0 else np.full_like(rate, np.nan)
    return float(corrected) if corrected.ndim == 0 else corrected
