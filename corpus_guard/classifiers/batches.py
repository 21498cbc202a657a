"""
From a slice of documents to groups that are scored together, and back to one row of findings per document.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpus_guard.classifiers.pooling import Pooling

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


def document_groups(text: pa.LargeStringArray, nbytes: int) -> Iterator[tuple[int, int]]:
    """Runs of documents of at most *nbytes* bytes together; a longer document is a run by itself."""
    offsets = np.frombuffer(text.buffers()[1], np.int64)[text.offset : text.offset + len(text) + 1]
    first = 0
    while first < len(text):
        last = int(np.searchsorted(offsets, offsets[first] + nbytes, side="right")) - 1
        last = min(max(last, first + 1), len(text))
        yield first, last
        first = last


def pooled_batch(
    documents: pa.RecordBatch, schema: pa.Schema, groups: Iterator[tuple[Floats, Ints, Ints]], pooling: Pooling
) -> pa.RecordBatch:
    """
    Findings of *documents* out of the window scores of those that have text, group by group, in order.

    Each group is ``(log-odds [windows, labels], windows per document, length per document)``.
    """
    scores, strongest, lengths = [], [], []
    for odds, count, length in groups:
        pooled, window = pooling.pool(odds, count)
        scores.append(pooled.astype(np.float16))
        strongest.append(window.astype(np.uint32))
        lengths.append(np.minimum(length, 0xFFFFFFFF).astype(np.uint32))
    labels = schema.field("scores").type.list_size
    n = len(documents)
    there = pc.is_valid(documents.column("text")).to_numpy(zero_copy_only=False)
    absent = pa.array(~there)
    dense = np.zeros((n, labels), np.float16)
    window, tokens = np.zeros(n, np.uint32), np.zeros(n, np.uint32)
    if scores:
        dense[there] = np.concatenate(scores)
        window[there] = np.concatenate(strongest)
        tokens[there] = np.concatenate(lengths)
    columns = [
        pa.FixedSizeListArray.from_arrays(pa.array(dense.reshape(-1)), labels, mask=absent),
        pa.array(window, mask=~there),
        pa.array(tokens, mask=~there),
        pa.array(np.ones(n, np.float32), mask=~there),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)
