"""
What stored scores mean: probabilities, opinions, and reasons a person can read. Also fits calibrations.

Raw scores stay in the store; a new calibration or threshold is a new reader, no new scan.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpus_guard.classifiers.modelfile import Calibration, Label, ModelFile
from corpus_guard.findings import Opinion
from corpus_guard.taxonomy import mask_of

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


def sigmoid(x: Doubles) -> Doubles:
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -700, 700))), np.float64)


def probability(calibration: Calibration, scores: Doubles, windows: npt.NDArray[np.int64], log_odds: bool) -> Doubles:
    """Probabilities of document *scores* pooled over so many *windows*; *log_odds*: what an uncalibrated score is."""
    match calibration.way:
        case "platt":
            return sigmoid(
                calibration.a * scores + calibration.b + calibration.length * np.log2(np.maximum(windows, 1))
            )
        case "isotonic":
            score, chance = zip(*calibration.points, strict=True)
            return np.asarray(np.interp(scores, score, chance), np.float64)
        case "none":
            return sigmoid(scores) if log_odds else np.asarray(np.clip(scores, 0, 1), np.float64)


@dataclass(frozen=True, slots=True)
class _Threshold:
    """What a label's probability does: over *upper* its mask is sure (or unresolved), over *lower* it supports."""

    label: int
    mask: int
    decided: bool
    upper: float | None
    lower: float | None


class ScoreReader:
    """
    Opinions out of classifier findings.

    Several labels of one risk combine by the largest probability: one over its threshold is enough. A policy's own
    threshold for a risk wins, and turns on a label that is off. It is no threshold for a broader label, whose
    candidates are several risks: that keeps its own.
    """

    def __init__(self, model: ModelFile, thresholds: Mapping[str, tuple[float, float]]) -> None:
        self._model = model
        self._thresholds = [
            threshold for i, label in enumerate(model.labels) for threshold in _thresholds(i, label, thresholds)
        ]

    def probabilities(self, findings: pa.Table) -> Floats:
        """float32 ``[documents, labels]``, 0 where there is no score."""
        scores, there = _scores(findings, len(self._model.labels))
        tokens = findings.column("tokens").fill_null(0).to_numpy().astype(np.int64)
        windows = self._model.windows.count(tokens)
        result = np.empty(scores.shape, np.float32)
        log_odds = self._model.activation != "none"
        for i, label in enumerate(self._model.labels):
            result[:, i] = probability(label.calibration, scores[:, i].astype(np.float64), windows, log_odds)
        result[~there] = 0
        return result

    def opinion(self, findings: pa.Table) -> Opinion:
        opinion = Opinion.none(len(findings))
        chance = self.probabilities(findings)
        there = np.asarray(findings.column("scores").is_valid())
        for threshold in self._thresholds:
            mask = np.uint32(threshold.mask)
            over = opinion.sure if threshold.decided else opinion.unresolved
            if threshold.upper is not None:
                over[there & (chance[:, threshold.label] >= np.float32(threshold.upper))] |= mask
            if threshold.lower is not None and threshold.decided:
                opinion.supports[there & (chance[:, threshold.label] >= np.float32(threshold.lower))] |= mask
        return opinion

    def explain(self, findings: pa.Table) -> list[list[str]]:
        chance = self.probabilities(findings)
        windows = findings.column("window").to_pylist()
        return [
            [] if window is None else self._reasons(row, window)
            for row, window in zip(chance.tolist(), windows, strict=True)
        ]

    def _reasons(self, chance: Sequence[float], window: int) -> list[str]:
        reasons = []
        for threshold in self._thresholds:
            label, value = self._model.labels[threshold.label], np.float32(chance[threshold.label])
            risks = " or ".join(label.risks)
            named = risks if label.name == risks else f"{risks} ({label.name})"
            if threshold.upper is not None and value >= np.float32(threshold.upper):
                reasons.append(f"{self._model.name} {named} {value:.3f} >= {threshold.upper:.3f} window {window}")
            elif threshold.decided and threshold.lower is not None and value >= np.float32(threshold.lower):
                reasons.append(
                    f"{self._model.name} {named} {value:.3f} supports, >= {threshold.lower:.3f} window {window}"
                )
        return reasons


def _thresholds(index: int, label: Label, given: Mapping[str, tuple[float, float]]) -> list[_Threshold]:
    if not label.risks:
        return []
    own = [risk for risk in label.risks if not label.decided or risk not in given]
    found = [_Threshold(index, mask_of([risk]), True, *given[risk]) for risk in label.risks if risk not in own]
    if own and (label.upper is not None or label.lower is not None):
        found.append(_Threshold(index, mask_of(own), label.decided, label.upper, label.lower))
    return found


def _scores(findings: pa.Table, labels: int) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.bool_]]:
    """Raw scores ``[documents, labels]`` and which documents have them."""
    column = findings.column("scores")
    parts = [np.zeros((0, labels), np.float16)]
    for chunk in column.chunks:
        values = chunk.values.slice(chunk.offset * labels, len(chunk) * labels)
        parts.append(values.to_numpy(zero_copy_only=False).reshape(-1, labels))
    there = np.asarray(column.is_valid(), np.bool_)
    scores = np.concatenate(parts).astype(np.float16)
    scores[~there] = 0
    return scores, there


def fit_platt(
    scores: Doubles, windows: npt.NDArray[np.int64], positive: npt.NDArray[np.bool_], weight: Doubles
) -> Calibration | None:
    """
    Platt's two numbers and one for length, by weighted maximum likelihood with a faint pull to zero.

    The largest of many windows is large by chance alone: log2 of their number takes that back, and never adds.
    ``None`` where scores do not rise with the label.
    """
    length = np.log2(np.maximum(windows, 1)).astype(np.float64)
    for columns in ((scores, np.ones_like(scores), length), (scores, np.ones_like(scores))):
        fitted = _logistic(np.stack(columns, axis=1), positive.astype(np.float64), weight)
        if len(fitted) == 2 or fitted[2] <= 0:
            break
    if fitted[0] <= 0:
        return None
    a, b, *rest = (round(float(number), 6) for number in fitted)
    return Calibration("platt", a, b, sum(rest))


def _logistic(x: Doubles, y: Doubles, weight: Doubles, ridge: float = 1e-5) -> Doubles:
    weight = weight / weight.sum()
    beta = np.zeros(x.shape[1])
    for _ in range(100):
        chance = sigmoid(x @ beta)
        slope = x.T @ (weight * (chance - y)) + ridge * beta
        curve = (x * (weight * chance * (1 - chance))[:, None]).T @ x + ridge * np.eye(x.shape[1])
        step = np.linalg.solve(curve, slope)
        largest = np.abs(step).max()
        beta -= step * min(1.0, 2.0 / largest)  # far from the answer Newton's step overshoots
        if largest < 1e-9:
            break
    return beta


def fit_isotonic(scores: Doubles, positive: npt.NDArray[np.bool_], weight: Doubles) -> Calibration:
    """Pool adjacent violators: steps as points, for a label with a thousand positives and more."""
    distinct, group = np.unique(scores, return_inverse=True)
    mass = np.bincount(group, weight)
    mean = np.bincount(group, weight * positive) / mass
    level: list[list[float]] = []  # mean, weight, first score, last score
    for score, chance, size in zip(distinct.tolist(), mean.tolist(), mass.tolist(), strict=True):
        level.append([chance, size, score, score])
        while len(level) > 1 and level[-2][0] >= level[-1][0]:
            above, more, _, last = level.pop()
            below = level[-1]
            below[0] = (below[0] * below[1] + above * more) / (below[1] + more)
            below[1] += more
            below[3] = last
    points = [(edge, round(chance, 6)) for chance, _, first, last in level for edge in dict.fromkeys((first, last))]
    return Calibration("isotonic", points=tuple(points if len(points) > 1 else [*points, *points]))
