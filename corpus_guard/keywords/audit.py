"""
What a library holds, counted the way a standard asks: entries in all and per risk, their lengths, their age.

Counts facts only; whether they are enough is the policy's to say (8.1 of TC260-003).
"""

import unicodedata
from dataclasses import dataclass
from datetime import date

import numpy as np

from corpus_guard.keywords.engine import Pyahocorasick
from corpus_guard.keywords.library import LEVELS, Flags, Ints, Library
from corpus_guard.taxonomy import CODES, RISKS
from corpus_guard.text.normalise import is_word

HAN_LIMIT, WORD_LIMIT = 10, 5
"""Longer entries are unusual, not wrong (October 2023 draft, 9.1 a)."""


@dataclass(frozen=True, slots=True)
class LibraryFacts:
    """
    A library on a day. Only entries in force on that day are counted.

    ``nominal``: lines. ``total``: terms distinct after normalisation, whatever their risks. ``per_risk``: the same
    within each of the 31 risks; ``effective_per_risk``: of these, terms that find something no shorter
    entry of the risk, of the same level or a stronger one, finds already. ``too_long``: (risk, entry id).
    ``newest_change``: from the change log, else from the entries; not later than the day; ``None`` where unknown.
    """

    id: str
    version: str
    digest: str
    nominal: int
    total: int
    effective: int
    per_risk: dict[str, int]
    effective_per_risk: dict[str, int]
    per_level: dict[str, int]
    too_long: tuple[tuple[str, str], ...]
    newest_change: date | None
    combinations: int
    exceptions: int

    @property
    def covered(self) -> tuple[str, ...]:
        """Risks with at least one entry in force."""
        return tuple(code for code, count in self.per_risk.items() if count)


def audit(library: Library, as_of: date, han: int = HAN_LIMIT, words: int = WORD_LIMIT) -> LibraryFacts:
    """Count *library* as it is on *as_of*; *han* and *words*: the length a policy calls usual."""
    in_force = np.flatnonzero(library.in_force(as_of))
    pairs = np.unique(np.stack([library.risk[in_force], library.literal[in_force]], axis=1), axis=0)
    shadowed = _shadowed(library, in_force)
    free = in_force[~shadowed]
    effective = np.unique(np.stack([library.risk[free], library.literal[free]], axis=1), axis=0)
    return LibraryFacts(
        id=library.id,
        version=library.version,
        digest=library.digest,
        nominal=len(in_force),
        total=len(np.unique(library.literal[in_force])),
        effective=len(np.unique(library.literal[free])),
        per_risk=_per_risk(pairs[:, 0]),
        effective_per_risk=_per_risk(effective[:, 0]),
        per_level={level: int((library.level[in_force] == i).sum()) for i, level in enumerate(LEVELS)},
        too_long=tuple(
            (CODES[library.risk[i]], library.ids[i])
            for i in in_force.tolist()
            if too_long(library.literals[library.literal[i]], han, words)
        ),
        newest_change=_newest(library, as_of),
        combinations=sum(c.active and (c.expires is None or as_of <= c.expires) for c in library.combinations),
        exceptions=len(library.exceptions),
    )


def too_long(term: str, han_limit: int = HAN_LIMIT, word_limit: int = WORD_LIMIT) -> bool:
    """
    Over so many Chinese characters or over so many words of another language.

    In a mixed term each is counted for itself: Han characters here, stretches of letters and digits there.
    """
    han = sum(unicodedata.name(char, "").startswith("CJK") for char in term)
    apart = "".join(" " if unicodedata.name(char, "").startswith("CJK") else char for char in term)
    words = sum(any(char.isalnum() for char in word) for word in apart.split())
    return han > han_limit or words > word_limit


def _per_risk(risks: Ints) -> dict[str, int]:
    return dict(zip(CODES, np.bincount(risks, minlength=len(RISKS)).tolist(), strict=True))


def _newest(library: Library, as_of: date) -> date | None:
    logged = [change.date for change in library.changes if change.date <= as_of]
    added = library.added[library.added <= np.datetime64(as_of)]
    if logged:
        return max(logged)
    newest: date | None = added.max().item() if len(added) else None
    return newest


def _shadowed(library: Library, in_force: Ints) -> Flags:
    """
    Which of these entries find nothing that a shorter one of their risk does not find.

    The shorter one must be of the same level or a stronger one, and where it lies inside the longer one its
    own word borders must hold whatever surrounds the longer one.
    """
    literals = np.unique(library.literal[in_force])
    texts = [library.literals[i] for i in literals]
    encoded = [text.encode() for text in texts]
    # A line break is never in a normalised text: nothing matches across two of them.
    buffer = b"\n".join(encoded)
    starts = np.concatenate([[0], np.cumsum([len(text) + 1 for text in encoded])]).astype(np.int64)
    found = Pyahocorasick(encoded).find(buffer)
    longer = np.searchsorted(starts, found.start, "right") - 1
    inner = longer != found.literal
    short, longer, start, end = found.literal[inner], longer[inner], found.start[inner], found.end[inner]
    codes = np.frombuffer(buffer.decode().encode("utf-32-le"), np.uint32)
    character = np.cumsum((np.frombuffer(buffer, np.uint8) & 0xC0) != 0x80)  # of the byte, counted from 1
    at_left, at_right = start == starts[longer], end == starts[longer + 1] - 1
    before = is_word(codes[np.maximum(character[start] - 2, 0)]) & ~at_left
    after = is_word(codes[np.minimum(character[end - 1], len(codes) - 1)]) & ~at_right
    by_literal: dict[int, list[int]] = {}
    for entry in in_force.tolist():
        by_literal.setdefault(int(library.literal[entry]), []).append(entry)
    hidden: set[int] = set()
    for i in range(len(short)):
        for one in by_literal[int(literals[longer[i]])]:
            for other in by_literal[int(literals[short[i]])]:
                left = not library.left[other] or (library.left[one] if at_left[i] else not before[i])
                right = not library.right[other] or (library.right[one] if at_right[i] else not after[i])
                same_risk = library.risk[one] == library.risk[other]
                if same_risk and library.level[other] >= library.level[one] and left and right:
                    hidden.add(one)
    return np.isin(in_force, sorted(hidden))
