"""
The keyword stage: a slice of documents in, every place where a literal of the library stands out.

Looks only; which hits count is decided by ``rules.py`` from the findings alone. Documents are normalised and
scanned together in pieces of some hundred kilobytes (caches like that), whole documents each, so nothing
depends on how they are cut into slices.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpus_guard.errors import DataError, UsageError
from corpus_guard.findings import HIT, KEYWORD, Reader
from corpus_guard.keywords.engine import EngineName, KeywordEngine, open_engine
from corpus_guard.keywords.library import load_library
from corpus_guard.keywords.rules import KeywordReader
from corpus_guard.text.normalise import Folded, fold, is_word, raw_offsets

KEPT = 256
"""Hits kept per document: the first of every distinct literal first, then in order of the text."""

_PIECE = 256 * 1024

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class KeywordRecipe:
    """
    How to make the keyword stage: a library (path or shipped name) and an engine.

    Reads the library when it is made, for its digest; workers read it again and refuse another one.
    All engines find the same, so the engine is not part of the digest.
    """

    library_path: str
    engine: EngineName = "auto"
    digest: str = field(init=False)
    judging_digest: str = field(init=False)
    name: str = field(init=False, default="keywords")
    kind: Literal["keyword"] = field(init=False, default="keyword")
    device: Literal["cpu"] = field(init=False, default="cpu")

    def __post_init__(self) -> None:
        library = load_library(self.library_path)
        object.__setattr__(self, "digest", library.digest)
        object.__setattr__(self, "judging_digest", library.rules_digest)

    def build(self) -> "KeywordStage":
        library = load_library(self.library_path)
        if library.digest != self.digest:
            raise UsageError(
                f"{library.path}: the keyword library changed after the run was planned "
                f"(digest {library.digest[:12]}, planned {self.digest[:12]}); start the run again."
            )
        literals = [text.encode() for text in library.literals]
        return KeywordStage(open_engine(self.engine, literals))

    def reader(self, *, as_of: date, thresholds: dict[str, tuple[float, float]]) -> Reader:
        """Keywords have levels, not scores: *thresholds* say nothing here."""
        library = load_library(self.library_path)
        if library.digest != self.digest:
            raise UsageError(
                f"{library.path}: findings were made with another keyword library "
                f"(digest {self.digest[:12]}, now {library.digest[:12]}); scan again."
            )
        return KeywordReader(library, as_of)


@dataclass(frozen=True, slots=True)
class _Hits:
    """Hits of some documents, sorted by (document, start, end, literal)."""

    document: Ints
    literal: Ints
    start: Ints
    end: Ints
    edges: Ints

    def take(self, which: npt.NDArray[np.bool_] | Ints) -> "_Hits":
        return _Hits(self.document[which], self.literal[which], self.start[which], self.end[which], self.edges[which])


class KeywordStage:
    """``find`` gives the hits of each document; spans are code points of the raw text."""

    schema: pa.Schema = KEYWORD

    def __init__(self, engine: KeywordEngine) -> None:
        self._engine = engine

    def find(self, documents: pa.RecordBatch) -> pa.RecordBatch:
        null, text = _large_string(documents.column("text"))
        _, starts, values = text.buffers()
        # Arrow leaves both buffers out, or empty, where there is nothing to hold.
        offsets = (
            np.frombuffer(starts, np.int64)[text.offset :][: len(text) + 1] if len(text) else np.zeros(1, np.int64)
        )
        data = memoryview(values or b"")
        rows = documents.column("row") if "row" in documents.schema.names else None
        found = [self._piece(data, offsets, lo, hi, rows) for lo, hi in _pieces(offsets)]
        hits = _Hits(*(np.concatenate([getattr(part, name) for part in found] or [_NONE]) for name in _Hits.__slots__))
        total = np.bincount(hits.document, minlength=len(text)).astype(np.uint32)
        if len(total) and total.max() > KEPT:
            hits = hits.take(_kept(hits, total))
        return _findings(hits, total, null)

    def _piece(self, data: memoryview, offsets: Ints, lo: int, hi: int, rows: pa.Array | None) -> _Hits:
        """Hits of documents *lo* to *hi*."""
        utf8 = bytes(data[offsets[lo] : offsets[hi]])
        try:
            folded = fold(utf8)
        except UnicodeDecodeError as error:
            which = lo + int(np.searchsorted(offsets[lo : hi + 1] - offsets[lo], error.start, "right")) - 1
            row = rows[which].as_py() if rows is not None else which
            raise DataError(f"row {row}: its text is not valid UTF-8; the reading must mark it undecodable.") from None
        matches = self._engine.find(folded.utf8)
        if not len(matches):
            return _NO_HITS
        borders = raw_offsets(utf8, offsets[lo : hi + 1] - offsets[lo])
        return _hits(folded, matches.literal, matches.start, matches.end, borders, lo)


_NONE = np.zeros(0, np.int64)
_NO_HITS = _Hits(_NONE, _NONE, _NONE, _NONE, _NONE)


def _large_string(text: pa.Array) -> tuple[npt.NDArray[np.bool_], pa.Array]:
    """Which texts are null, and all as ``large_string`` with nothing in null slots (Arrow allows any bytes there)."""
    if text.type != pa.large_string():
        text = text.cast(pa.large_string())
    null = text.is_null().to_numpy(zero_copy_only=False)
    return null, text.fill_null("") if text.null_count else text


def _pieces(offsets: Ints) -> Iterator[tuple[int, int]]:
    """Runs of whole documents of about ``_PIECE`` bytes; a longer document is a piece of its own."""
    lo, last = 0, len(offsets) - 1
    while lo < last:
        hi = int(np.searchsorted(offsets, offsets[lo] + _PIECE, "right")) - 1
        hi = min(max(hi, lo + 1), last)
        yield lo, hi
        lo = hi


def _hits(folded: Folded, literal: Ints, start: Ints, end: Ints, borders: Ints, first: int) -> _Hits:
    """Matches as hits: within one document, in its raw code points, sorted, with the flags of their edges."""
    ends = folded.characters(np.concatenate([start, end]))
    start, end = ends[: len(start)], ends[len(start) :]
    places = folded.places(borders)
    document = np.searchsorted(places, start, "right") - 1
    within = end <= places[document + 1]
    literal, start, end, document = literal[within], start[within], end[within], document[within]
    before = (start > places[document]) & is_word(folded.codes[np.maximum(start - 1, 0)])
    after = (end < places[document + 1]) & is_word(folded.codes[np.minimum(end, len(folded.codes) - 1)])
    edges = before.astype(np.int64) | (after.astype(np.int64) << 1)
    raw_start, raw_end = folded.raw(start, end)
    hits = _Hits(document + first, literal, raw_start - borders[document], raw_end - borders[document], edges)
    return hits.take(np.lexsort((hits.literal, hits.end, hits.start, hits.document)))


def _kept(hits: _Hits, total: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
    """Which hits stay where a document has more than ``KEPT``."""
    position = np.arange(len(hits.document))
    by_literal = np.lexsort((position, hits.literal, hits.document))
    document, literal = hits.document[by_literal], hits.literal[by_literal]
    again = np.zeros(len(position), np.bool_)
    again[by_literal[1:]] = (document[1:] == document[:-1]) & (literal[1:] == literal[:-1])
    order = np.lexsort((position, again, hits.document))
    begins = np.concatenate([[0], np.cumsum(total, dtype=np.int64)])
    rank = np.empty(len(position), np.int64)
    rank[order] = position - begins[hits.document]
    return np.asarray(rank < KEPT)


def _findings(hits: _Hits, total: npt.NDArray[np.uint32], null: npt.NDArray[np.bool_]) -> pa.RecordBatch:
    offsets = np.zeros(len(null) + 1, np.int32)
    np.cumsum(np.bincount(hits.document, minlength=len(null)), out=offsets[1:])
    columns = (hits.literal, hits.start, hits.end, hits.edges)
    arrays = [pa.array(column, kind.type) for column, kind in zip(columns, HIT, strict=True)]
    values = pa.StructArray.from_arrays(arrays, fields=list(HIT))
    lists = pa.ListArray.from_arrays(pa.array(offsets), values, type=pa.list_(HIT), mask=pa.array(null))
    return pa.record_batch([lists, pa.array(total, mask=null)], schema=KEYWORD)
