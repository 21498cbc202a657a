"""
One way of reading characters for corpus and library alike: case, width, compatibility forms, invisible characters.

A table takes each code point to the one that stands for it, or to nothing. On top of the table, runs of
white space count as one space, so that phrases survive line breaks and indentation. Every normalised
character knows the raw one it came from: spans are exact. Left out: folds that make two characters of one
(``ß``, ``㎏``) and, until the table has its lines, traditional to simplified Chinese.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

NORMALISER_VERSION = "1"
"""Stands in stage digests; raised whenever ``code_points.tsv`` or a rule here changes what a text becomes."""

_TABLE = Path(__file__).with_name("code_points.tsv")
_CODES = 0x110000
_SPACE = 0x20

Ints = npt.NDArray[np.int64]


@cache
def _tables() -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.bool_], bytes]:
    """Fold of every code point (0 deletes), whether it is a letter or digit of a word, and the fold of ASCII bytes."""
    folds = np.arange(_CODES, dtype=np.uint32)
    folds[0] = 0
    words = np.zeros(_CODES, np.bool_)
    for line in _TABLE.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        kind, first, last, *delta = line.split("\t")
        run = slice(int(first, 16), int(last, 16) + 1)
        if kind == "word":
            words[run] = True
        elif delta[0] == "x":
            folds[run] = 0
        else:
            folds[run] = np.arange(run.start, run.stop) + int(delta[0], 16)
    folds.setflags(write=False)
    words.setflags(write=False)
    return folds, words, folds[:128].astype(np.uint8).tobytes() + bytes(range(128, 256))


def is_word(codes: npt.NDArray[np.uint32] | npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Which code points are letters, digits or marks of a script that separates words (Latin, not Chinese)."""
    return _tables()[1].take(codes)


@dataclass(frozen=True, slots=True)
class Folded:
    """
    Several documents, normalised and joined without gaps.

    ``utf8``: the normalised text. ``codes``: its code points (``uint8`` where the text is ASCII).
    ``keep``: for each of them the index of its raw code point, or ``None`` where nothing was dropped.
    """

    utf8: bytes
    codes: npt.NDArray[np.uint32] | npt.NDArray[np.uint8]
    keep: Ints | None

    def characters(self, at: Ints) -> Ints:
        """Byte offsets in ``utf8`` (at character borders) as offsets in ``codes``."""
        return at if len(self.utf8) == len(self.codes) else _character_offsets(self.utf8, at)

    def places(self, raw: Ints) -> Ints:
        """Raw code point offsets, ascending, as offsets in ``codes``: how many kept ones lie before."""
        return raw if self.keep is None else np.searchsorted(self.keep, raw).astype(np.int64)

    def raw(self, start: Ints, end: Ints) -> tuple[Ints, Ints]:
        """Spans in ``codes`` as spans of raw code points, without dropped characters at their edges."""
        return (start, end) if self.keep is None else (self.keep[start], self.keep[end - 1] + 1)


def fold(utf8: bytes) -> Folded:
    """Normalise valid UTF-8; a ``UnicodeDecodeError`` where it is not."""
    folds, _, ascii_folds = _tables()
    codes: npt.NDArray[np.uint32] | npt.NDArray[np.uint8]
    if utf8.isascii():
        folded = utf8.translate(ascii_folds)
        codes = np.frombuffer(folded, np.uint8)
        if b"  " not in folded and b"\0" not in folded:
            return Folded(folded, codes, None)
    else:
        codes = folds.take(np.frombuffer(utf8.decode().encode("utf-32-le"), np.uint32))
    keep: Ints | None = None
    if not codes.all():
        keep = np.flatnonzero(codes)
        codes = codes[keep]
    space = codes == _SPACE
    repeated = np.flatnonzero(space[:-1] & space[1:])
    if len(repeated):
        stays = np.ones(len(codes), np.bool_)
        stays[repeated + 1] = False
        codes = codes[stays]
        keep = np.flatnonzero(stays) if keep is None else keep[stays]
    if codes.dtype == np.uint8:
        return Folded(codes.tobytes(), codes, keep)
    return Folded(codes.tobytes().decode("utf-32-le").encode(), codes, keep)


def raw_offsets(utf8: bytes, at: Ints) -> Ints:
    """Byte offsets of *utf8* (at character borders) as code point offsets."""
    return at if utf8.isascii() else _character_offsets(utf8, at)


def _character_offsets(utf8: bytes, at: Ints) -> Ints:
    # Positions of first bytes, searched: several times as fast here as a running count of them.
    firsts = np.flatnonzero((np.frombuffer(utf8, np.uint8) & 0xC0) != 0x80)
    return np.searchsorted(firsts, at).astype(np.int64)


def normalise(text: str) -> str:
    """*text* as entries and corpus are compared: ``normalise('ＫＴＶ\\u200b  包房') == 'ktv 包房'``."""
    return fold(text.encode()).utf8.decode()
