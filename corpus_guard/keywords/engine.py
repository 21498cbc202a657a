"""
Finding literals in normalised UTF-8: every occurrence of every literal, overlapping ones too.

Two engines with identical answers: pyahocorasick over the bytes seen as latin-1 text (the reference;
children of a node are searched linearly, and bytes keep nodes narrow: several times faster than over Chinese ``str``),
and Hyperscan's literal mode where it can be imported and proves itself at start. An automaton is built
in the process that uses it and never pickled (pickling leaks in one, is impossible in the other).
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Literal, Protocol

import ahocorasick
import numpy as np
import numpy.typing as npt

from corpus_guard.errors import CorpusGuardError, UsageError

EngineName = Literal["auto", "hyperscan", "pyahocorasick"]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Matches:
    """Matches in one buffer, in no particular order: which literal, and its span in bytes."""

    literal: Ints
    start: Ints
    end: Ints

    def __len__(self) -> int:
        return len(self.literal)


class KeywordEngine(Protocol):
    """
    ``find`` gives all overlapping matches in a buffer of valid normalised UTF-8. Not to be pickled.

    The buffer may hold several documents; a match may then run across two of them, and the caller,
    who knows the borders, drops it.
    """

    name: str

    def find(self, utf8: bytes) -> Matches: ...


def _matches(literals: list[int], ends: list[int], lengths: Ints) -> Matches:
    which = np.array(literals, np.int64)
    end = np.array(ends, np.int64)
    return Matches(which, end - lengths[which], end)


class Pyahocorasick:
    """The reference. *literals* are distinct and not empty."""

    name = "pyahocorasick"

    def __init__(self, literals: Sequence[bytes]) -> None:
        self._lengths = np.array([len(literal) for literal in literals], np.int64)
        self._automaton = ahocorasick.Automaton()
        for index, literal in enumerate(literals):
            self._automaton.add_word(literal.decode("latin-1"), index)
        self._automaton.make_automaton()

    def find(self, utf8: bytes) -> Matches:
        found = list(self._automaton.iter(utf8.decode("latin-1"))) if len(self._lengths) else []
        return _matches([index for _, index in found], [last + 1 for last, _ in found], self._lengths)


class Hyperscan:
    """
    Hyperscan in literal block mode: one scan over the buffer, ends from the library, starts from lengths.

    Vectored mode missed matches up to 0.7.29 and ends beyond 4 GB were cut up to 0.8.1: block mode, 0.8.2 or later.
    Scratch space must not be shared by threads: each thread has its own.
    """

    name = "hyperscan"

    def __init__(self, literals: Sequence[bytes]) -> None:
        import hyperscan

        version = metadata.version("hyperscan")
        if tuple(int(part) for part in version.split(".")[:3]) < (0, 8, 2):
            raise CorpusGuardError(f"hyperscan {version} is installed, 0.8.2 or later is needed")
        self._lengths = np.array([len(literal) for literal in literals], np.int64)
        self._database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
        if literals:
            self._database.compile(
                expressions=list(literals),
                ids=list(range(len(literals))),
                elements=len(literals),
                flags=0,
                literal=True,
            )
        self._new_scratch = hyperscan.Scratch
        self._of_thread = threading.local()

    def find(self, utf8: bytes) -> Matches:
        literals: list[int] = []
        ends: list[int] = []
        if not utf8 or not len(self._lengths):
            return _matches(literals, ends, self._lengths)
        scratch = getattr(self._of_thread, "scratch", None)
        if scratch is None:
            scratch = self._of_thread.scratch = self._new_scratch(self._database)

        def note(literal: int, _start: int, end: int, _flags: int, _context: object) -> None:
            literals.append(literal)
            ends.append(end)

        self._database.scan(utf8, match_event_handler=note, scratch=scratch)
        return _matches(literals, ends, self._lengths)


def proves_itself(engine: KeywordEngine, reference: KeywordEngine, literals: Sequence[bytes]) -> bool:
    """
    Whether *engine* finds what *reference* finds in a buffer made of the literals themselves.

    Each literal stands alone, doubled, cut short and after its neighbour, so nested and overlapping matches
    are among them; long libraries are sampled evenly.
    """
    some = list(literals[:: max(1, len(literals) // 2000)])
    pieces = (a + a + a[:-1] + b" " + a + b for a, b in zip(some, some[1:] + some[:1], strict=True))
    buffer = b"|".join(pieces)
    answers = []
    for one in (engine, reference):
        found = one.find(buffer)
        answers.append(sorted(zip(found.literal.tolist(), found.start.tolist(), found.end.tolist(), strict=True)))
    return answers[0] == answers[1]


def open_engine(name: str, literals: Sequence[bytes]) -> KeywordEngine:
    """
    The engine called *name*; ``auto``: Hyperscan where it imports and proves itself, else the reference.

    Asked for by name, Hyperscan that cannot be used is a ``UsageError``, never a silent replacement.
    """
    if name not in ("auto", "hyperscan", "pyahocorasick"):
        raise UsageError(f"unknown keyword engine '{name}'; there are auto, hyperscan and pyahocorasick.")
    reference = Pyahocorasick(literals)
    if name == "pyahocorasick":
        return reference
    try:
        fast = Hyperscan(literals)
        why = None if proves_itself(fast, reference, literals) else "its matches differ from the reference"
    except ImportError:
        why = "it is not installed"
    except Exception as error:  # whatever the library raises, the reference can do the work
        why = str(error) or type(error).__name__
    if why is None:
        return fast
    if name == "hyperscan":
        raise UsageError(f"the keyword engine 'hyperscan' cannot be used ({why}); choose auto or pyahocorasick.")
    return reference
