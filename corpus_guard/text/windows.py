"""
Where windows over a long document begin and end.

Counts whatever the caller counts (tokens, characters). Every unit of every document lies in at
least one window; nothing is ever cut off.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows of *size* units, a new one every *stride* units; the last one may be shorter. ``1 <= stride <= size``."""

    size: int
    stride: int

    def count(self, lengths: npt.ArrayLike) -> Ints:
        """Windows per document; a document without a single unit still has one, an empty one."""
        beyond = np.maximum(np.asarray(lengths, np.int64) - self.size, 0)
        return 1 + -(-beyond // self.stride)

    def cut(self, lengths: npt.ArrayLike) -> tuple[Ints, Ints, Ints]:
        """
        ``(document, start, end)`` of every window, in order; offsets count within the document.

        >>> [part.tolist() for part in Windows(4, 2).cut([3, 7])]
        [[0, 1, 1, 1], [0, 0, 2, 4], [3, 4, 6, 7]]
        """
        lengths = np.asarray(lengths, np.int64)
        count = self.count(lengths)
        document = np.repeat(np.arange(len(lengths), dtype=np.int64), count)
        first = np.cumsum(count) - count
        start = (np.arange(len(document), dtype=np.int64) - first[document]) * self.stride
        return document, start, np.minimum(start + self.size, lengths[document])
