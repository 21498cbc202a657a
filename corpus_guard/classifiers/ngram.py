"""
The n-gram screen: a linear model over hashed runs of one to four characters, in NumPy alone.

Every character of every document is read. Weights are small integers, so sums are exact and a
document's scores are the same bits whatever stands beside it. A screen, not a judge: it knows
spellings, no meaning. The text is folded by a table of the model's own, because weights belong to
the spelling they were trained on; the keyword stage's normaliser may change without them.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from safetensors.numpy import load_file

from corpus_guard.classifiers.batches import document_groups, pooled_batch
from corpus_guard.classifiers.calibrate import ScoreReader
from corpus_guard.classifiers.modelfile import ModelFile
from corpus_guard.classifiers.pooling import Pooling
from corpus_guard.errors import UsageError
from corpus_guard.findings import classifier_schema
from corpus_guard.text.windows import Windows

MODEL_TYPE = "hashed-ngram"
CODE_VERSION = "1"
"""Stands in digests: raised when the same weights would give other scores."""

ZERO = 128
"""Weights are stored as ``int8`` and summed as ``weight + ZERO``, which never is negative."""

_DELETED = 0xFFFFFFFF
_MARK = 0x10FFFF  # a code point that is never a character: three of them stand after every document
_TAIL = chr(_MARK) * 3
_LONGEST = 4
_GROUP_BYTES = 4 << 20  # documents decoded together; a longer one is decoded alone
_CHUNK = 1 << 16  # characters scored together: their sums stay in the second-level cache

U32 = npt.NDArray[np.uint32]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Folding:
    """Which code point stands for which: one table entry for each of Unicode's, ``_DELETED`` for none."""

    table: U32

    @classmethod
    def of(cls, source: U32, target: U32) -> "Folding":
        table = np.arange(_MARK + 1, dtype=np.uint32)
        table[source] = target
        table[_MARK] = 0
        return cls(table)

    def fold(self, text: pa.LargeStringArray) -> tuple[U32, Ints, Ints]:
        """
        ``(codes, start, length)``: the folded characters of all documents, three zeros after each.

        *text* has no nulls. Runs of white space become one space.
        """
        lengths = pc.utf8_length(text).to_numpy(zero_copy_only=False).astype(np.int64)
        joined = pc.binary_join_element_wise(
            text, pa.scalar(_TAIL, pa.large_string()), pa.scalar("", pa.large_string())
        )
        raw = np.empty(int(lengths.sum()) + len(_TAIL) * len(text), np.uint32)
        kept = np.empty(len(raw), np.bool_)
        at = 0
        space = False  # whether the part before ended in white space
        for part in _decoded(joined):
            codes = self.table.take(part)
            spaces = codes == 0x20
            keep = codes != _DELETED
            keep[1:] &= ~(spaces[1:] & spaces[:-1])
            keep[0] &= not (space and spaces[0])
            space = bool(spaces[-1])
            raw[at : at + len(part)] = codes
            kept[at : at + len(part)] = keep
            at += len(part)
        ends = np.cumsum(lengths + len(_TAIL))
        if not kept.all():
            before = np.zeros(len(kept) + 1, np.int64)
            np.cumsum(kept, out=before[1:])
            ends = before[ends]
            raw = raw[kept]
        start = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
        return raw, start, ends - start - len(_TAIL)


def _decoded(text: pa.LargeStringArray) -> Iterator[U32]:
    """Code points of all of *text*, a few million bytes at a time, cut between characters."""
    offsets = np.frombuffer(text.buffers()[1], np.int64)[text.offset : text.offset + len(text) + 1]
    data = memoryview(text.buffers()[2])
    first, last = int(offsets[0]), int(offsets[-1])
    while first < last:
        end = min(first + _GROUP_BYTES, last)
        while end < last and data[end] & 0xC0 == 0x80:
            end -= 1
        yield np.frombuffer(str(data[first:end], "utf-8").encode("utf-32-le"), np.uint32)
        first = end


def hashes(codes: U32, orders: tuple[int, ...], buckets: int, count: int) -> Iterator[npt.NDArray[np.intp]]:
    """For each of *orders*, the buckets of the runs of so many characters at the first *count* places of *codes*."""
    shift = np.uint32(32 - (buckets.bit_length() - 1))
    running = np.zeros(count, np.uint32)
    for n in range(max(orders)):
        running = (running ^ codes[n : n + count]) * np.uint32(0x9E3779B1)
        running ^= running >> np.uint32(15)
        if n + 1 in orders:
            yield ((running * np.uint32(0x85EBCA6B)) >> shift).astype(np.intp)


@dataclass(frozen=True, slots=True)
class NgramWeights:
    """
    A trained model: ``weight`` int8 ``[buckets, labels]``, ``scale`` and ``bias`` float32 ``[labels]``.

    The log-odds of a window with *n* characters are ``bias + scale * (sum of weights) / sqrt(n * orders)``.
    """

    weight: npt.NDArray[np.int8]
    scale: Floats
    bias: Floats
    orders: tuple[int, ...]
    fold_from: U32
    fold_to: U32

    @property
    def labels(self) -> int:
        return int(self.weight.shape[1])


def load_weights(model: ModelFile) -> NgramWeights:
    """The weights in the folder of *model*; ``UsageError`` where their parts do not fit together."""
    path = model.folder / "model.safetensors"
    config = json.loads((model.folder / "config.json").read_bytes())
    tensors: dict[str, Any] = load_file(path)
    expected = {
        "weight": np.int8,
        "scale": np.float32,
        "bias": np.float32,
        "fold_from": np.uint32,
        "fold_to": np.uint32,
    }
    for name, kind in expected.items():
        if name not in tensors or tensors[name].dtype != kind:
            raise UsageError(f"{path}: has no tensor '{name}' of type {np.dtype(kind)}; train the screen again.")
    orders = tuple(config.get("orders", ()))
    weights = NgramWeights(orders=orders, **{name: tensors[name] for name in expected})
    buckets, labels = weights.weight.shape
    if buckets & (buckets - 1) or not 2 <= buckets <= 1 << 30:
        raise UsageError(f"{path}: has {buckets} buckets; their number must be a power of two.")
    if not orders or set(orders) - set(range(1, _LONGEST + 1)) or list(orders) != sorted(set(orders)):
        raise UsageError(f"{model.folder / 'config.json'}: 'orders' must be ascending numbers from 1 to {_LONGEST}.")
    if {labels, len(weights.scale), len(weights.bias)} != {len(model.labels)}:
        raise UsageError(f"{path}: its tensors do not have the {len(model.labels)} labels of config.json.")
    if weights.fold_from.shape != weights.fold_to.shape or (weights.fold_from > _MARK).any():
        raise UsageError(f"{path}: its table of characters is not one; train the screen again.")
    if ((weights.fold_to > _MARK) & (weights.fold_to != _DELETED)).any():
        raise UsageError(f"{path}: its table of characters is not one; train the screen again.")
    return weights


class NgramScorer:
    """Scores texts. Holds a table of ``buckets * labels * 2`` bytes."""

    def __init__(self, weights: NgramWeights, windows: Windows) -> None:
        if windows.size % windows.stride:
            raise UsageError("the windows of an n-gram screen must have a size that is a multiple of their stride.")
        self.weights, self.windows = weights, windows
        self.folding = Folding.of(weights.fold_from, weights.fold_to)
        self._order = len(weights.orders)
        # Several sums share one 64-bit word: lanes are wide enough that no block's sum reaches the next one.
        self._lane = np.uint16 if windows.stride * self._order * 255 < 1 << 16 else np.uint32
        lanes = 8 // np.dtype(self._lane).itemsize
        padded = np.zeros((len(weights.weight) + 1, -(-weights.labels // lanes) * lanes), self._lane)
        padded[:-1, : weights.labels] = weights.weight.astype(np.int16) + ZERO
        self._table = padded.view(np.uint64)  # the last row, all zero, is for places that begin no run

    def scores(self, text: pa.LargeStringArray) -> tuple[Floats, Ints, Ints]:
        """
        ``(log-odds [windows, labels], windows per document, characters per document)``.

        *text* has no nulls; characters are counted after folding. Memory: about 20 bytes a character, measured.
        """
        codes, start, length = self.folding.fold(text)
        stride, labels = self.windows.stride, self.weights.labels
        blocks = np.maximum(-(-length // stride), 1)
        first = np.cumsum(blocks) - blocks
        document = np.repeat(np.arange(len(length)), blocks)
        begin = start[document] + (np.arange(len(document)) - first[document]) * stride
        end = np.minimum(begin + stride, (start + length)[document])
        sums = np.zeros((len(begin) + 1, labels), np.int64)
        self._block_sums(codes, begin, end, sums[1:])
        sums[1:] -= (ZERO * self._order) * (end - begin)[:, None]
        np.cumsum(sums, axis=0, out=sums)
        owner, low, high = self.windows.cut(length)
        block = first[owner] + low // stride
        last = first[owner] + np.maximum(-(-high // stride), 1)
        runs = np.maximum(high - low, 1) * self._order
        odds = (sums[last] - sums[block]) * self.weights.scale.astype(np.float64)
        odds /= np.sqrt(runs.astype(np.float64))[:, None]
        odds += self.weights.bias
        return odds.astype(np.float32), self.windows.count(length), length

    def _block_sums(self, codes: U32, begin: Ints, end: Ints, out: npt.NDArray[np.int64]) -> None:
        """Sums of stored weights over the runs that begin in each block."""
        step = max(_CHUNK // self.windows.stride, 1)
        for i in range(0, len(begin), step):
            j = min(i + step, len(begin))
            low, high = int(begin[i]), int(end[j - 1]) if j == len(begin) else int(begin[j])
            if high == low:
                continue  # a single document without characters
            inside = np.zeros(high - low + 1, np.int8)
            np.add.at(inside, begin[i:j] - low, 1)
            np.add.at(inside, end[i:j] - low, -1)
            outside = np.cumsum(inside[:-1], dtype=np.int8) == 0
            total: npt.NDArray[np.uint64] | None = None
            window = codes[low : high + _LONGEST - 1]
            if len(window) < high - low + _LONGEST - 1:
                window = np.concatenate([window, np.zeros(_LONGEST - 1, np.uint32)])
            for bucket in hashes(window, self.weights.orders, len(self.weights.weight), high - low):
                bucket[outside] = len(self.weights.weight)
                rows = self._table.take(bucket, axis=0)
                total = rows if total is None else np.add(total, rows, out=total)
            assert total is not None
            packed = np.add.reduceat(total, np.minimum(begin[i:j] - low, high - low - 1), axis=0)
            packed[begin[i:j] == end[i:j]] = 0
            out[i:j] = packed.view(self._lane)[:, : self.weights.labels]


class NgramStage:
    """One worker's n-gram screen."""

    def __init__(self, model: ModelFile) -> None:
        self._scorer = NgramScorer(load_weights(model), model.windows)
        self._pooling: Pooling = model.pooling
        self.schema = classifier_schema([label.name for label in model.labels])

    def find(self, documents: pa.RecordBatch) -> pa.RecordBatch:
        return pooled_batch(documents, self.schema, self._groups(documents.column("text").drop_null()), self._pooling)

    def _groups(self, text: pa.Array) -> Iterator[tuple[Floats, Ints, Ints]]:
        if not pa.types.is_large_string(text.type):
            text = text.cast(pa.large_string())
        for first, last in document_groups(text, _GROUP_BYTES):
            yield self._scorer.scores(text.slice(first, last - first))


@dataclass(frozen=True, slots=True)
class NgramRecipe:
    """How workers get the n-gram screen of *model*."""

    model: ModelFile
    name: str
    digest: str
    kind: Literal["classifier"] = "classifier"
    device: Literal["cpu"] = "cpu"

    @property
    def judging_digest(self) -> str:
        return self.model.judging_digest

    def build(self) -> NgramStage:
        return NgramStage(self.model)

    def reader(self, *, as_of: date, thresholds: dict[str, tuple[float, float]]) -> ScoreReader:
        return ScoreReader(self.model, thresholds)
