"""
Random samples that do not depend on shard order, on retries, or on the number of workers.

Every document gets a rank: the keyed BLAKE2b hash of its id. The smallest ranks are the sample, so samples of parts
can be drawn apart and then together: ``draw(draw(a) + draw(b)) == draw(a + b)``. Documents of equal ids, and so of
equal ranks, are ordered by (shard digest, row, copy): one unit of a draw is one row. The key follows from what is
sampled; nobody picks it. Draws only; says nothing about how documents are judged, or what a rate then means.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpus_guard.errors import UsageError
from corpus_guard.yamlfile import Faults, shown

Ranks = npt.NDArray[np.uint64]
Flags = npt.NDArray[np.bool_]
Histogram = npt.NDArray[np.int64]


# --- ranks -----------------------------------------------------------------------------------------------------------


def ranks(ids: pa.Array | pa.ChunkedArray, key: bytes, purpose: str) -> Ranks:
    """
    The rank of each id: ``blake2b(id, key=key, person=purpose, digest_size=8)`` as a big-endian number.

    *ids*: strings or bytes without nulls; *key*: at most 64 bytes; of *purpose* the first 16 bytes of its UTF-8 count.
    Equal to ``hashlib`` to the bit, and faster: ids are hashed side by side in NumPy columns.
    """
    found: Ranks = _hashes(ids, key, purpose, 1)[0]
    return found


def _hashes(ids: pa.Array | pa.ChunkedArray, key: bytes, purpose: str, lanes: int) -> Ranks:
    """BLAKE2b digests of ``8 * lanes`` bytes, as big-endian numbers: ``uint64[lanes, ids]``."""
    chunks = ids.chunks if isinstance(ids, pa.ChunkedArray) else [ids]
    empty = np.zeros((lanes, 0), np.uint64)
    return np.concatenate([empty, *(_digests(ids, key, purpose.encode()[:16], lanes) for ids in chunks)], axis=1)


_BLOCK = 128  # bytes; a longer id takes several compressions, and hashlib does each in a quarter of our time
_SIDE_BY_SIDE = 16384  # ids in one column: less pays more for calls, more falls out of the second-level cache
_FEW = 1500  # what hashlib does in the time of one compression, however few ids are in it

_ALL = 0xFFFFFFFFFFFFFFFF
_IV = (
    0x6A09E667F3BCC908,
    0xBB67AE8584CAA73B,
    0x3C6EF372FE94F82B,
    0xA54FF53A5F1D36F1,
    0x510E527FADE682D1,
    0x9B05688C2B3E6C1F,
    0x1F83D9ABFB41BD6B,
    0x5BE0CD19137E2179,
)
_SIGMA = (
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
    (14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3),
    (11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4),
    (7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8),
    (9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13),
    (2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9),
    (12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11),
    (13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10),
    (6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5),
    (10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0),
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
    (14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3),
)
_LANES = (
    (0, 4, 8, 12),
    (1, 5, 9, 13),
    (2, 6, 10, 14),
    (3, 7, 11, 15),
    (0, 5, 10, 15),
    (1, 6, 11, 12),
    (2, 7, 8, 13),
    (3, 4, 9, 14),
)


def _digests(ids: pa.Array, key: bytes, person: bytes, lanes: int) -> Ranks:
    if ids.null_count:
        raise ValueError("a null has no rank; ids are never null (a row without one is <shard digest12>#<row>)")
    if len(key) > 64:
        raise ValueError("a key has at most 64 bytes")
    values = ids.cast(pa.large_binary())
    lengths = np.asarray(pc.binary_length(values))
    # A key fills a block of its own unless nothing follows it: an empty id is another case.
    fit = (lengths <= _BLOCK) & (lengths >= (1 if key else 0))
    if np.count_nonzero(fit) < _FEW:
        return _one_by_one(values, key, person, lanes)
    if fit.all():
        return _side_by_side(values, key, person, lanes)
    result = np.empty((lanes, len(values)), np.uint64)
    result[:, fit] = _side_by_side(values.filter(pa.array(fit)), key, person, lanes)
    result[:, ~fit] = _one_by_one(values.filter(pa.array(~fit)), key, person, lanes)
    return result


def _one_by_one(values: pa.Array, key: bytes, person: bytes, lanes: int) -> Ranks:
    size = 8 * lanes
    digests = [hashlib.blake2b(id, digest_size=size, key=key, person=person).digest() for id in values.to_pylist()]
    return np.frombuffer(b"".join(digests), ">u8").astype(np.uint64).reshape(-1, lanes).T


def _side_by_side(values: pa.Array, key: bytes, person: bytes, lanes: int) -> Ranks:
    """Digests of ids of at most one block each: one compression, after that of the key's block, which they share."""
    _, offset_buffer, data = values.buffers()
    offsets = np.frombuffer(offset_buffer, np.int64, len(values) + 1, values.offset * 8)
    start = _start(key, person, lanes)
    result = np.empty((lanes, len(values)), np.uint64)
    for lo in range(0, len(values), _SIDE_BY_SIDE):
        ends = offsets[lo : lo + _SIDE_BY_SIDE + 1]
        lengths = np.diff(ends)
        hashed = (lengths + (_BLOCK if key else 0)).astype(np.uint64)
        state = _compress([np.full(len(lengths), h, np.uint64) for h in start], _words(data, ends), hashed, last=True)
        for lane in range(lanes):
            result[lane, lo : lo + _SIDE_BY_SIDE] = state[lane].byteswap()
    return result


def _start(key: bytes, person: bytes, lanes: int) -> list[int]:
    """The state before the first byte of an id: parameters and, if there is a key, its block."""
    parameters = bytes([8 * lanes, len(key), 1, 1]) + bytes(44) + person.ljust(16, b"\0")
    state = [iv ^ int.from_bytes(parameters[8 * i : 8 * i + 8], "little") for i, iv in enumerate(_IV)]
    if not key:
        return state
    block = key.ljust(_BLOCK, b"\0")
    words = [np.array([int.from_bytes(block[8 * i : 8 * i + 8], "little")], np.uint64) for i in range(16)]
    columns = _compress([np.array([h], np.uint64) for h in state], words, np.array([_BLOCK], np.uint64), last=False)
    return [int(column[0]) for column in columns]


def _words(data: pa.Buffer | None, ends: npt.NDArray[np.int64]) -> list[Ranks | None]:
    """The 16 message words of ids lying end to end, zero beyond each end; ``None`` for a word that is zero in all."""
    low, high = int(ends[0]), int(ends[-1])
    starts, lengths = ends[:-1] - low, np.diff(ends)
    words: list[Ranks | None] = [None] * 16
    if data is None or low == high:
        return words
    near = np.zeros(high - low + 8, np.uint8)
    near[:-8] = np.frombuffer(data, np.uint8, high - low, low)
    at_each_byte = np.ndarray((high - low + 1,), "<u8", near, strides=(1,))
    for i in range(-(-int(lengths.max()) // 8)):
        word = at_each_byte[np.minimum(starts + 8 * i, high - low)].astype(np.uint64)
        # Bits of the next id are shifted out; a shift by all 64 would do nothing, so words past the end are cleared.
        beyond = 64 - 8 * np.clip(lengths - 8 * i, 0, 8)
        if beyond.any():
            shift = (beyond & 63).astype(np.uint64)
            word = np.where(beyond == 64, np.uint64(0), word << shift >> shift)
        words[i] = word
    return words


def _compress(state: list[Ranks], words: Sequence[Ranks | None], hashed: Ranks, *, last: bool) -> list[Ranks]:
    """BLAKE2b's compression function F (RFC 7693, 3.2) on columns: one element per id."""
    n = len(hashed)
    v = [column.copy() for column in state] + [np.full(n, iv, np.uint64) for iv in _IV]
    v[12] ^= hashed
    if last:
        v[14] ^= np.uint64(_ALL)
    turned = np.empty(n, np.uint64)
    for sigma in _SIGMA:
        for i, (a, b, c, d) in enumerate(_LANES):
            _mix(v[a], v[b], v[c], v[d], words[sigma[2 * i]], words[sigma[2 * i + 1]], turned)
    return [h ^ v[i] ^ v[i + 8] for i, h in enumerate(state)]


_R32, _R24, _R16, _R63 = ((np.uint64(r), np.uint64(64 - r)) for r in (32, 24, 16, 63))


def _mix(a: Ranks, b: Ranks, c: Ranks, d: Ranks, x: Ranks | None, y: Ranks | None, turned: Ranks) -> None:
    """The mixing function G, in place; *turned* is scratch."""
    a += b
    if x is not None:
        a += x
    d ^= a
    _turn(d, _R32, turned)
    c += d
    b ^= c
    _turn(b, _R24, turned)
    a += b
    if y is not None:
        a += y
    d ^= a
    _turn(d, _R16, turned)
    c += d
    b ^= c
    _turn(b, _R63, turned)


def _turn(column: Ranks, by: tuple[np.uint64, np.uint64], turned: Ranks) -> None:
    np.left_shift(column, by[1], out=turned)
    np.right_shift(column, by[0], out=column)
    column |= turned


def draw_key(manifest_hash: str, policy_digest: str, purpose: str, attempt: int) -> bytes:
    """The key of a draw (32 bytes): it follows from the corpus, the policy, the purpose and how often it was drawn."""
    parts = ("corpus_guard/draw/v1", manifest_hash, policy_digest, purpose, str(attempt))
    framed = b"".join(len(part.encode()).to_bytes(8, "big") + part.encode() for part in parts)
    return hashlib.sha256(framed).digest()


# --- a sample of fixed size: the k smallest --------------------------------------------------------------------------

ORDER = ("rank", "digest", "row", "copy")
"""The order of a draw. ``digest`` is the shard's or a prefix of it; ``copy`` tells shards of equal digest apart."""


def candidates(table: pa.Table, ranks: Ranks, k: int) -> pa.Table:
    """
    The *k* documents of *table* that come first in ``ORDER``, in it, with their ``rank`` as first column.

    *table* has ``digest``, ``row``, ``copy`` and whatever else a sample shall carry (``id``, unit, ...).
    """
    if k < table.num_rows:
        # Everything up to the k-th rank: ties at the edge stay in until the whole order is looked at.
        rows = np.flatnonzero(ranks <= np.partition(ranks, k - 1)[k - 1]) if k > 0 else np.zeros(0, np.int64)
        table, ranks = table.take(pa.array(rows)), ranks[rows]
    return smallest(table.add_column(0, pa.field("rank", pa.uint64(), nullable=False), pa.array(ranks, pa.uint64())), k)


def smallest(table: pa.Table, k: int) -> pa.Table:
    """The first *k* rows of *table* in ``ORDER``, in it."""
    order = pc.sort_indices(table, sort_keys=[(name, "ascending") for name in ORDER])
    return table.take(order[: max(k, 0)]).combine_chunks()


def merge(tables: Sequence[pa.Table], k: int) -> pa.Table:
    """The draw of *k* over the draws of parts: the same as one draw over everything."""
    return smallest(pa.concat_tables(tables), k)


def draw_size(population: int, share: Fraction = Fraction(0), least: int = 0) -> int:
    """How many to draw: *least* and *share* of the population, rounded up, or everything there is."""
    return min(population, max(least, -(-population * share.numerator // share.denominator)))


# --- a share of the whole: one exact cut, membership is a predicate --------------------------------------------------

_BITS = 12
BUCKETS = 1 << _BITS

# The order of a draw as digits, first the most significant: 64 bits of rank, 48 of digest, 48 of row, 24 of copy.
_DIGITS: tuple[tuple[str, int, int], ...] = (
    *(("rank", shift, _BITS) for shift in (52, 40, 28, 16, 4)),
    ("rank", 0, 4),
    *(("digest", shift, _BITS) for shift in (36, 24, 12, 0)),
    *(("row", shift, _BITS) for shift in (36, 24, 12, 0)),
    *(("copy", shift, _BITS) for shift in (12, 0)),
)


@dataclass(frozen=True, slots=True)
class Cut:
    """
    The last member of a draw; everything up to it in ``ORDER`` is a member. ``digest`` is the first 12 hex digits
    of the shard's. ``Cut.none()`` has no members, ``Cut.all()`` has every document.
    """

    rank: int
    digest: str
    row: int
    copy: int

    @classmethod
    def none(cls) -> "Cut":
        return cls(0, "", -1, 0)

    @classmethod
    def all(cls) -> "Cut":
        return cls(_ALL, "f" * 12, (1 << 48) - 1, (1 << 24) - 1)

    def contains(self, ranks: Ranks, digest: str, rows: npt.NDArray[np.int64], copy: int) -> Flags:
        """Which rows of one shard are members; *digest* and *copy* are the shard's."""
        mine = digest[:12]
        if mine == self.digest:
            tie = rows < self.row if copy > self.copy else rows <= self.row
        else:
            tie = np.full(len(rows), mine < self.digest)
        inside: Flags = (ranks < np.uint64(self.rank)) | ((ranks == np.uint64(self.rank)) & tie)
        return inside


@dataclass(frozen=True, slots=True)
class Window:
    """
    Where the cut is known to fall: the leading digits that are fixed, and how many documents inside are members.

    Workers count documents by the next digit (``histogram``); the driver adds the counts and narrows the window.
    After one round it holds about a 4096th of all documents: usually few enough to pick the cut from them directly
    (``members``, ``pick``). Equal ids in any number only take more rounds.
    """

    need: int
    digits: tuple[int, ...] = ()

    def members(self, ranks: Ranks, digest: str, rows: npt.NDArray[np.int64], copy: int) -> Flags:
        """Which rows of one shard lie in the window."""
        inside = np.ones(len(rows), bool)
        for level, digit in enumerate(self.digits):
            inside &= _digit(level, ranks, digest, rows, copy) == digit
        return inside

    def histogram(self, ranks: Ranks, digest: str, rows: npt.NDArray[np.int64], copy: int) -> Histogram:
        """How many rows of one shard fall on each value of the next digit: ``int64[4096]``, to be added up."""
        inside = self.members(ranks, digest, rows, copy)
        values = _digit(len(self.digits), ranks, digest, rows, copy)[inside]
        return np.bincount(values.astype(np.int64), minlength=BUCKETS).astype(np.int64)

    def narrow(self, histogram: Histogram) -> "Window | Cut":
        """The window one digit further, by the sum of all histograms; or the cut itself once it is certain."""
        if self.need <= 0:
            return Cut.none()
        below = np.cumsum(histogram)
        if below[-1] < self.need:
            raise ValueError(f"{self.need} documents were asked for and the histograms count only {below[-1]}")
        digit = int(np.searchsorted(below, self.need))
        digits = (*self.digits, digit)
        rest = self.need - int(below[digit] - histogram[digit])
        if rest == histogram[digit] or len(digits) == len(_DIGITS):
            return _last(digits)
        return Window(rest, digits)

    def pick(self, table: pa.Table) -> Cut:
        """The cut, out of all documents in the window (columns ``ORDER``)."""
        if self.need <= 0:
            return Cut.none()
        if table.num_rows < self.need:
            raise ValueError(f"{self.need} documents were asked for and the window holds only {table.num_rows}")
        last = smallest(table, self.need).slice(self.need - 1).select(list(ORDER)).to_pylist()[0]
        return Cut(last["rank"], last["digest"][:12], last["row"], last["copy"])


def histogram(ranks: Ranks, bits: int = _BITS) -> Histogram:
    """How many *ranks* fall into each of ``2**bits`` equal ranges: a first look, without shard and row."""
    return np.bincount((ranks >> np.uint64(64 - bits)).astype(np.int64), minlength=1 << bits).astype(np.int64)


def _digit(level: int, ranks: Ranks, digest: str, rows: npt.NDArray[np.int64], copy: int) -> Ranks:
    """One digit of every row's place in the order."""
    name, shift, width = _DIGITS[level]
    if name == "rank":
        value = ranks
    elif name == "row":
        value = rows.astype(np.uint64)
    else:
        value = np.full(len(rows), int(digest[:12], 16) if name == "digest" else copy, np.uint64)
    return value >> np.uint64(shift) & np.uint64((1 << width) - 1)


def _last(digits: tuple[int, ...]) -> Cut:
    """The last document there could be under *digits*."""
    value = dict.fromkeys(("rank", "digest", "row", "copy"), 0)
    for level, (name, shift, width) in enumerate(_DIGITS):
        value[name] |= (digits[level] if level < len(digits) else (1 << width) - 1) << shift
    return Cut(value["rank"], f"{value['digest']:012x}", value["row"], value["copy"])


# --- the ledger ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """
    A hash of a set of ids that adds up over parts, whatever their order: how many, and the sums of the four quarters
    of their BLAKE2b hashes. It tells whether two draws are the same; it is no proof against somebody who chooses ids.
    """

    count: int = 0
    lanes: tuple[int, int, int, int] = (0, 0, 0, 0)

    @classmethod
    def of(cls, ids: pa.Array | pa.ChunkedArray) -> "Fingerprint":
        a, b, c, d = (int(lane.sum(dtype=np.uint64)) for lane in _hashes(ids, b"", "fingerprint", 4))
        return cls(len(ids), (a, b, c, d))

    def __add__(self, other: "Fingerprint") -> "Fingerprint":
        a, b, c, d = ((x + y) & _ALL for x, y in zip(self.lanes, other.lanes, strict=True))
        return Fingerprint(self.count + other.count, (a, b, c, d))

    @property
    def hex(self) -> str:
        return hashlib.sha256(repr((self.count, self.lanes)).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class DrawRecord:
    """One line of ``draws.jsonl``: what was drawn from what, under which key, and the hash of the ids that came out."""

    purpose: str
    population: int
    size: int
    key: str
    manifest: str
    policy: str
    attempt: int
    reason: str
    ids: str

    @property
    def line(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False, sort_keys=True) + "\n"


def read_draws(content: bytes, name: str) -> list[DrawRecord]:
    """The draws of a ledger, oldest first; ``UsageError`` names every broken line. *name* stands in messages."""
    faults = Faults(name)
    draws = []
    kinds = {field.name: field.type for field in fields(DrawRecord)}
    for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), 1):
        if not line.strip():
            continue
        try:
            data = json.loads(line)
        except ValueError:
            faults.add_line(number, "is no JSON; the ledger is only appended to: restore the line.")
            continue
        wrong = [key for key, kind in kinds.items() if not isinstance(data, dict) or type(data.get(key)) is not kind]
        if wrong:
            faults.add_line(number, f"lacks {', '.join(wrong)}; the ledger is only appended to: restore the line.")
            continue
        key = draw_key(data["manifest"], data["policy"], data["purpose"], data["attempt"]).hex()
        if data["key"] != key:
            faults.add_line(number, f"key {shown(data['key'], 16)} is not that of its manifest, policy and attempt.")
            continue
        draws.append(DrawRecord(**{name: data[name] for name in kinds}))
    faults.stop()
    return draws


def next_attempt(draws: Iterable[DrawRecord], manifest: str, policy: str, purpose: str, reason: str) -> int:
    """
    The number of the next draw, from 1. Drawing again from an unchanged corpus under an unchanged policy makes a pass
    more likely by itself, so it needs a *reason*, which stays in the ledger and in the report (R-14).
    """
    same = [draw.attempt for draw in draws if (draw.manifest, draw.policy, draw.purpose) == (manifest, policy, purpose)]
    if same and not reason.strip():
        raise UsageError(
            f"The {purpose} sample of this corpus was drawn {len(same)} time{'s' if len(same) > 1 else ''} already; "
            "use that draw, or give a reason to draw again: all draws stay in the report."
        )
    return max(same, default=0) + 1
