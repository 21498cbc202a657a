"""
What keyword findings mean: borders, exceptions, combinations, expiry and levels, from the findings alone.

Works on columns of hits; no text, no Python loop over documents. A changed rule is a new opinion, never
a new scan.
"""

from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpus_guard.findings import Opinion
from corpus_guard.keywords.library import LEVELS, Combination, Library
from corpus_guard.taxonomy import BIT, CODES

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

_BEFORE, _AFTER = 1, 2
_STRIDE = 1 << 33
"""Offsets of a document lie below 2^32: document * stride + offset puts all documents on one line, in order."""


class Hits(NamedTuple):
    """Hits of literals, sorted by document and start; spans on one line for all documents."""

    document: Ints
    literal: Ints
    start: Ints
    end: Ints
    edges: Ints

    def take(self, which: Flags) -> "Hits":
        return Hits(*(column[which] for column in self))


@dataclass(frozen=True, slots=True)
class Evidence:
    """
    What counts: entry (or, from ``len(library)`` on, combination), document and span in code points.

    In no particular order.
    """

    document: Ints
    entry: Ints
    start: Ints
    end: Ints


class KeywordReader:
    """Reads findings of the stage made from *library*, as of a date."""

    def __init__(self, library: Library, as_of: date) -> None:
        self._library = library
        self._in_force = library.in_force(as_of)
        self._combinations = [
            (len(library) + i, combination)
            for i, combination in enumerate(library.combinations)
            if combination.active and (combination.expires is None or as_of <= combination.expires)
        ]
        self._exceptions = {
            scope: np.array(sorted({e.literal for e in library.exceptions if e.scope == scope}), np.int64)
            for scope in sorted({e.scope for e in library.exceptions})
        }
        by_literal = np.argsort(library.literal, kind="stable")
        by_literal = by_literal[self._in_force[by_literal]]
        counts = np.bincount(library.literal[by_literal], minlength=len(library.literals))
        self._entries = by_literal
        self._first = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        risks = [*library.risk.tolist(), *(BIT[c.risk] for c in library.combinations)]
        levels = [*library.level.tolist(), *(LEVELS.index(c.level) for c in library.combinations)]
        self._masks = np.left_shift(np.uint32(1), np.array(risks, np.uint32))
        self._levels = np.array(levels, np.int64)

    def opinion(self, findings: pa.Table) -> Opinion:
        evidence = self.evidence(findings)
        opinion = Opinion.none(len(findings))
        masks, levels = self._masks[evidence.entry], self._levels[evidence.entry]
        for level, into in zip(LEVELS, (opinion.weak, opinion.needs, opinion.sure), strict=True):
            of_level = levels == LEVELS.index(level)
            np.bitwise_or.at(into, evidence.document[of_level], masks[of_level])
        return opinion

    def explain(self, findings: pa.Table) -> list[list[str]]:
        evidence = self.evidence(findings)
        told: list[list[str]] = [[] for _ in range(len(findings))]
        for i in np.lexsort((evidence.entry, evidence.end, evidence.start, evidence.document)).tolist():
            told[int(evidence.document[i])].append(
                f"keywords {self._name(int(evidence.entry[i]))} {evidence.start[i]}-{evidence.end[i]}"
            )
        return told

    def _name(self, entry: int) -> str:
        library = self._library
        level, risk = LEVELS[self._levels[entry]], CODES[int(self._masks[entry]).bit_length() - 1]
        id = library.ids[entry] if entry < len(library) else library.combinations[entry - len(library)].id
        return f"{id} {level} {risk}"

    def evidence(self, findings: pa.Table) -> Evidence:
        """All entries and combinations that count in *findings*, with where."""
        hits = _hits(findings)
        hits = hits.take(~self._covered(hits, ""))
        which, entry = self._expand(hits)
        of_hit = Hits(*(column[which] for column in hits))
        counts = self._at_borders(of_hit, self._library.left[entry], self._library.right[entry])
        for scope in self._exceptions:
            if scope:
                counts &= ~(self._scoped(entry, scope) & self._covered(hits, scope)[which])
        found = [(of_hit.document[counts], entry[counts], of_hit.start[counts], of_hit.end[counts])]
        if self._combinations:
            library = self._library
            operands = hits.take(
                self._at_borders(hits, library.literal_left[hits.literal], library.literal_right[hits.literal])
            )
            found += [_together(operands, combination, index) for index, combination in self._combinations]
        document, entries, start, end = (np.concatenate(column) for column in zip(*found, strict=True))
        return Evidence(document, entries, start - document * _STRIDE, end - document * _STRIDE)

    def _expand(self, hits: Hits) -> tuple[Ints, Ints]:
        """One row per hit and entry in force: a literal may stand for several entries or, as an exception, for none."""
        first, after = self._first[hits.literal], self._first[hits.literal + 1]
        count = after - first
        which = np.repeat(np.arange(len(count)), count)
        within = np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)
        return which, self._entries[first[which] + within]

    @staticmethod
    def _at_borders(hits: Hits, left: Flags, right: Flags) -> Flags:
        inside_left = left & (hits.edges & _BEFORE != 0)
        inside_right = right & (hits.edges & _AFTER != 0)
        return np.asarray(~(inside_left | inside_right))

    def _scoped(self, entry: Ints, scope: str) -> Flags:
        if scope in BIT:
            return np.asarray(self._library.risk[entry] == BIT[scope])
        return np.asarray(np.array([id == scope for id in self._library.ids])[entry])

    def _covered(self, hits: Hits, scope: str) -> Flags:
        """Which hits lie inside a longer hit of an exception of *scope*."""
        literals = self._exceptions.get(scope)
        if literals is None or not len(hits.literal):
            return np.zeros(len(hits.literal), np.bool_)
        of_scope = np.zeros(len(self._library.literals), np.bool_)
        of_scope[literals] = True
        longer = hits.take(of_scope[hits.literal])
        if not len(longer.start):
            return np.zeros(len(hits.literal), np.bool_)
        # Hits are sorted by start, and ends of earlier documents lie below this one: the furthest end so far decides.
        furthest = np.maximum.accumulate(longer.end)
        last = np.searchsorted(longer.start, hits.start, "right") - 1
        return np.asarray((last >= 0) & (furthest[np.maximum(last, 0)] >= hits.end) & ~of_scope[hits.literal])


def _hits(findings: pa.Table) -> Hits:
    lists = findings.column("hits")
    lists = pa.concat_arrays(lists.chunks) if lists.num_chunks else pa.array([], lists.type)
    lengths = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    values = lists.flatten()
    document = np.repeat(np.arange(len(lists), dtype=np.int64), lengths)
    literal, start, end, edges = (
        values.field(name).to_numpy(zero_copy_only=False).astype(np.int64)
        for name in ("entry", "start", "end", "edges")
    )
    return Hits(document, literal, start + document * _STRIDE, end + document * _STRIDE, edges)


def _together(hits: Hits, combination: Combination, index: int) -> tuple[Ints, Ints, Ints, Ints]:
    """
    The first place in each document where *combination* holds: (document, *index*, start, end).

    It holds where a stretch of at most ``window`` characters holds a whole hit of every group, unless a hit of
    ``none`` lies whole between ``window`` characters before the end and ``window`` after the start of that stretch.
    """
    groups = [hits.take(np.isin(hits.literal, group)) for group in combination.all]
    window = _STRIDE - 1 if combination.window is None else combination.window
    starts = np.sort(np.concatenate([group.start for group in groups]))
    document = starts // _STRIDE
    since = starts if combination.window is not None else document * _STRIDE
    limit = np.minimum(since + window, document * _STRIDE + _STRIDE - 1)
    end = np.zeros(len(starts), np.int64)
    for group in groups:
        end = np.maximum(end, _first_end(group, since))
    holds = end <= limit
    starts, end, document, limit = starts[holds], end[holds], document[holds], limit[holds]
    unwanted = hits.take(np.isin(hits.literal, combination.none))
    if len(unwanted.start):
        reach = np.maximum(end - window, document * _STRIDE)
        free = _first_end(unwanted, reach) > limit
        starts, end, document = starts[free], end[free], document[free]
    document, first = np.unique(document, return_index=True)
    return document, np.full(len(document), index, np.int64), starts[first], end[first]


def _first_end(hits: Hits, start: Ints) -> Ints:
    """The smallest end of a hit that begins at or after each *start*; beyond every document where there is none."""
    beyond = np.iinfo(np.int64).max
    ends = np.minimum.accumulate(hits.end[::-1])[::-1] if len(hits.end) else hits.end
    return np.append(ends, beyond)[np.searchsorted(hits.start, start)]
