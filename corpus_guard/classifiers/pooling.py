"""
One score per document out of the scores of its windows.

Works on log-odds, label by label, for many documents at once. Which way suits a model is found on
development data: ``max`` finds one passage in a long text and errs more often the longer the text
is; ``top_k_mean`` wants several; ``noisy_or`` adds up the chances that at least one window is meant.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

LIMIT = 60.0
"""Log-odds are kept within this, so that they stay finite as ``float16`` and as probabilities."""


@dataclass(frozen=True, slots=True)
class Pooling:
    """``k`` counts for ``top_k_mean`` alone: the mean of the *k* strongest windows, of all where there are fewer."""

    way: Literal["max", "top_k_mean", "noisy_or"]
    k: int = 1

    def pool(self, odds: Floats, count: Ints) -> tuple[Floats, Ints]:
        """
        Log-odds ``[windows, labels]`` and windows per document -> ``[documents, labels]`` and the strongest window.

        Each document has at least one window. The strongest is the first that has the largest score of any label.
        """
        odds = np.clip(odds, -LIMIT, LIMIT)
        first = np.cumsum(count) - count
        if not len(count):
            return np.zeros((0, odds.shape[1]), np.float32), np.zeros(0, np.int64)
        if len(count) == len(odds):
            return odds, np.zeros(len(count), np.int64)
        top = odds.max(axis=1)
        best = np.maximum.reduceat(top, first)
        hits = np.flatnonzero(top == np.repeat(best, count))
        document = np.repeat(np.arange(len(count)), count)
        strongest = hits[np.searchsorted(document[hits], np.arange(len(count)))] - first
        match self.way:
            case "max":
                pooled = np.maximum.reduceat(odds, first, axis=0)
            case "top_k_mean":
                pooled = self._top_k_mean(odds, count, first, document)
            case "noisy_or":
                pooled = _noisy_or(odds, first)
        return pooled.astype(np.float32), strongest

    def _top_k_mean(self, odds: Floats, count: Ints, first: Ints, document: Ints) -> Floats:
        pooled = np.empty((len(count), odds.shape[1]), np.float32)
        rank = np.arange(len(odds)) - first[document]
        taken = rank < self.k
        for label in range(odds.shape[1]):
            order = np.lexsort((-odds[:, label], document))
            column = np.where(taken, odds[order, label], 0).astype(np.float64)
            pooled[:, label] = np.add.reduceat(column, first) / np.minimum(count, self.k)
        return pooled


def _noisy_or(odds: Floats, first: Ints) -> Floats:
    none = np.add.reduceat(-np.logaddexp(0, odds.astype(np.float64)), first, axis=0)  # log of: no window is meant
    none = np.minimum(none, -1e-300)
    return np.asarray(np.clip(np.log(-np.expm1(none)) - none, -LIMIT, LIMIT), np.float32)
