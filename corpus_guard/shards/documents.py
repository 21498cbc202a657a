"""
Documents: every row of a unit as text, state, id and source; where a hit lies in a row; documents by number.

Row groups, units and slices may be cut in any way: the documents are the same.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpus_guard import findings
from corpus_guard.errors import UsageError
from corpus_guard.shards.columns import (
    EACH,
    SLICE_BYTES,
    Column,
    Flags,
    Integers,
    Reading,
    find_column,
    flags,
    integers,
    is_text,
    listed,
    path_text,
    side_by_side,
    storage,
    struct_field,
    type_at,
)
from corpus_guard.shards.corpus import Shard
from corpus_guard.shards.rowgroups import SLICE_ROWS, OnDamage, Opened, Piece, Selection, cut, fetch
from corpus_guard.shards.units import Unit

# -- the columns of a reading -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Columns:
    """The columns of a reading in one shard."""

    text: tuple[Column, ...]
    fields: dict[str, Column] = field(default_factory=dict)

    @classmethod
    def of(cls, opened: Opened, reading: Reading) -> "_Columns":
        """Optional columns may be missing in a shard, texts in part; raises ``UsageError`` for the rest."""
        schema, where = opened.schema, opened.place.uri
        faults = _column_faults(schema, reading)
        if faults:
            raise UsageError(f"{where}: {' '.join(faults)}")
        texts = (find_column(schema, path) for path in reading.text)
        fields = {name: find_column(schema, path) for name, path in reading.fields.items()}
        return cls(
            tuple(column for column in texts if column is not None),
            {name: column for name, column in fields.items() if column is not None},
        )


def check_reading(shards: Sequence[Shard], reading: Reading) -> None:
    """
    Look whether *reading* fits the corpus, opening one shard of each schema.

    Raises ``UsageError`` with all faults: shards without any text column or with one that holds no
    text, and named columns that no shard has.
    """
    first_of: dict[str, Shard] = {}
    for shard in shards:
        first_of.setdefault(shard.schema, shard)
    faults = []
    seen: set[str] = set()
    names: set[str] = set()
    for shard in first_of.values():
        schema = Opened(shard).schema
        names.update(schema.names)
        seen.update(path for path in (*reading.text, *reading.fields.values()) if find_column(schema, path))
        faults += [f"{shard.path}: {fault}" for fault in _column_faults(schema, reading)]
    for path in (*reading.text, *reading.fields.values()):
        if shards and path not in seen:
            faults.append(f"No shard has a column '{path}'; the columns are {listed(names)}.")
    if faults:
        raise UsageError("\n".join(dict.fromkeys(faults)))


def _column_faults(schema: pa.Schema, reading: Reading) -> list[str]:
    faults = []
    found = [(path, column) for path in reading.text if (column := find_column(schema, path)) is not None]
    if not found:
        wanted = " or ".join(f"'{path}'" for path in reading.text)
        faults.append(f"No text column {wanted}; the columns are {listed(schema.names)}.")
    for path, column in found:
        if not is_text(of := type_at(schema, column)):
            faults.append(f"Column '{path}' is {of}, not text; name a column or path of strings.")
    for name, path in reading.fields.items():
        field_column = find_column(schema, path)
        if field_column is None:
            continue
        of = type_at(schema, field_column)
        if EACH in field_column.steps or pa.types.is_nested(of):
            faults.append(f"Column '{path}' is {of} and cannot be the {name}; name a column of single values.")
    return faults


# -- documents --------------------------------------------------------------------------------


def read_documents(
    unit: Unit | Shard,
    reading: Reading,
    slice_bytes: int = SLICE_BYTES,
    want_text: bool = True,
    on_damage: OnDamage | None = None,
) -> Iterator[pa.RecordBatch]:
    """
    Every row of *unit*, in order, as batches of ``findings.BATCH`` of at most *slice_bytes* of text.

    How rows are cut into row groups, units and slices changes no document. Columns have offset 0
    and nothing but their rows behind them. Without *want_text* the text is read and judged as
    empty or undecodable, and then left out. ``characters`` and ``bytes`` are 0 where ``state`` is
    not ``ok``. Raises ``UsageError`` if the shard has no text column, ``DataError`` if it changed
    since it was planned, ``TransientError`` if storage fails.
    """
    opened = Opened(unit)
    columns = _Columns.of(opened, reading)
    first, last = opened.groups_of(unit)
    everything = opened.select([*columns.text, *columns.fields.values()])
    for piece in opened.read(first, last, everything, slice_bytes):
        if piece.batch is not None:
            rows = np.arange(piece.row_lo, piece.row_lo + piece.rows, dtype=np.int64)
            yield from _documents(rows, piece.batch, opened, columns, everything, slice_bytes, want_text, reading)
            continue
        if on_damage is not None:
            on_damage(piece.group, piece.rows, piece.error)
        yield from _failed_documents(piece, opened, columns, slice_bytes, reading)


def fetch_documents(part: Unit | Shard, reading: Reading, rows: Integers) -> pa.Table:
    """The documents numbered *rows* (ascending), of ``findings.BATCH``, as ``read_documents`` gives them."""
    opened = Opened(part)
    columns = _Columns.of(opened, reading)
    what = opened.select([*columns.text, *columns.fields.values()])
    found = [
        documents
        for piece, batch, at in fetch(opened, rows, what)
        for documents in _documents(
            at + piece.row_lo, batch.take(pa.array(at)), opened, columns, what, SLICE_BYTES, True, reading
        )
    ]
    return pa.Table.from_batches(found, findings.BATCH)


def _failed_documents(
    lost: Piece, opened: Opened, columns: _Columns, slice_bytes: int, reading: Reading
) -> Iterator[pa.RecordBatch]:
    """Rows whose text is lost, with their id and source where these columns are sound."""
    who = opened.select(columns.fields.values())
    row, end = lost.row_lo, lost.row_lo + lost.rows
    for piece in opened.read(lost.group, lost.group + 1, who, slice_bytes, from_row=row, expected=True):
        for lo in range(0, piece.rows, SLICE_ROWS):
            n = min(SLICE_ROWS, piece.rows - lo)
            batch = None if piece.batch is None else piece.batch.slice(lo, n)
            yield _batch(
                np.arange(piece.row_lo + lo, piece.row_lo + lo + n, dtype=np.int64),
                np.full(n, _CODES[findings.FAILED], np.int8),
                pa.nulls(n, pa.large_string()),
                _fields(batch, n, opened, columns, who, reading),
                opened.digest,
            )
        row += piece.rows
    assert row == end


_CODES = {state: code for code, state in enumerate(findings.STATES)}
_STATES = pa.array(findings.STATES, pa.string())


def _documents(
    rows: Integers,
    batch: pa.RecordBatch,
    opened: Opened,
    columns: _Columns,
    selection: Selection,
    slice_bytes: int,
    want_text: bool,
    reading: Reading,
) -> Iterator[pa.RecordBatch]:
    text, codes = _texts([path_text(batch.column(selection.tops.index(c.top)), c.steps) for c in columns.text])
    fields = _fields(batch, len(codes), opened, columns, selection, reading)
    whole = _batch(rows, codes, text, fields, opened.digest)
    parts = cut(whole, slice_bytes) if text.nbytes > slice_bytes else [whole]
    for part in parts:
        sound = len(parts) == 1 and all(column.offset == 0 for column in part.columns) and _starts_at_0(text)
        part = part if sound else _own(part)
        yield part if want_text else _without_text(part)


def _starts_at_0(text: pa.Array) -> bool:
    return not len(text) or int(_extents(text)[0][0]) == 0


def _own(batch: pa.RecordBatch) -> pa.RecordBatch:
    """*batch* with buffers of its own, so that a slice does not hold on to its neighbours."""
    return pa.RecordBatch.from_arrays([pa.concat_arrays([column]) for column in batch.columns], schema=batch.schema)


def _without_text(batch: pa.RecordBatch) -> pa.RecordBatch:
    index = findings.BATCH.get_field_index("text")
    return batch.set_column(index, findings.BATCH.field(index), pa.nulls(batch.num_rows, pa.large_string()))


def _batch(
    numbers: Integers, codes: npt.NDArray[np.int8], text: pa.Array, fields: dict[str, pa.Array], digest: str
) -> pa.RecordBatch:
    rows = pa.array(numbers)
    made = {
        **fields,
        "row": rows,
        "state": _STATES.take(pa.array(codes)),
        "text": text,
        "id": _ids(fields.get("id"), rows, digest),
        "characters": pc.fill_null(pc.utf8_length(text), 0),
        "bytes": pc.fill_null(pc.binary_length(text), 0),
    }
    nothing = pa.nulls(len(rows), pa.string())
    return pa.RecordBatch.from_arrays([made.get(name, nothing) for name in findings.BATCH.names], schema=findings.BATCH)


def _ids(given: pa.Array | None, rows: pa.Array, digest: str) -> pa.Array:
    if given is not None and given.null_count == 0:
        return given
    made = pc.binary_join_element_wise(f"{digest[:12]}#", rows.cast(pa.string()), "")
    return made if given is None else pc.coalesce(given, made)


def _fields(
    batch: pa.RecordBatch | None,
    n: int,
    opened: Opened,
    columns: _Columns,
    selection: Selection,
    reading: Reading,
) -> dict[str, pa.Array]:
    if batch is None:
        return {}
    fields = {}
    for name, column in columns.fields.items():
        values = batch.column(selection.tops.index(column.top))
        for step in column.steps:
            values = struct_field(values, step)
        fields[name] = _string(values)
    if reading.source is None and "url" in fields:
        fields["source"] = registered_domains(fields["url"])
    return fields


# -- texts ------------------------------------------------------------------------------------

# What shows nothing: white space, controls, and characters of no width (joiners, direction marks,
# fillers, variation selectors, tags). A text of these alone is blank.
_BLANK_RANGES = (
    (0x00, 0x20), (0x7F, 0xA0), (0xAD, 0xAD), (0x34F, 0x34F), (0x61C, 0x61C), (0x115F, 0x1160), (0x1680, 0x1680),
    (0x17B4, 0x17B5), (0x180B, 0x180F), (0x2000, 0x200F), (0x2028, 0x202F), (0x205F, 0x206F), (0x2800, 0x2800),
    (0x3000, 0x3000), (0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0), (0xFFF9, 0xFFFB),
    (0xE0001, 0xE0001), (0xE0020, 0xE007F), (0xE0100, 0xE01EF),
)  # fmt: skip

_BLANK = "".join(chr(c) for lo, hi in _BLANK_RANGES for c in range(lo, hi + 1))
_BLANK_FIRST_BYTES = np.isin(np.arange(256), sorted({c.encode()[0] for c in _BLANK}))


def _texts(parts: Sequence[pa.Array]) -> tuple[pa.Array, npt.NDArray[np.int8]]:
    """Joined texts as ``large_string``, null unless they are to be looked at, and the code of each row's state."""
    joined = parts[0] if len(parts) == 1 else side_by_side(parts)
    codes = np.full(len(joined), _CODES[findings.OK], np.int8)
    try:
        text = joined.cast(pa.large_string())
    except pa.ArrowInvalid:
        broken = _broken(joined)
        codes[broken] = _CODES[findings.UNDECODABLE]
        text = pc.if_else(pa.array(~broken), joined, pa.scalar(None, pa.large_binary())).cast(pa.large_string())
    blank = _blank(text)
    codes[blank & (codes == _CODES[findings.OK])] = _CODES[findings.EMPTY]
    if np.any(blank & flags(text.is_valid())):
        text = pc.if_else(pa.array(~blank), text, pa.scalar(None, pa.large_string()))
    return text, codes


def _broken(texts: pa.Array) -> Flags:
    """Which rows are not UTF-8: halves that cast are sound, so the search goes only where the faults are."""
    broken = np.zeros(len(texts), bool)
    open_parts = [(0, len(texts))]
    while open_parts:
        lo, hi = open_parts.pop()
        try:
            texts.slice(lo, hi - lo).cast(pa.large_string())
        except pa.ArrowInvalid:
            if hi - lo == 1:
                broken[lo] = True
            else:
                middle = (lo + hi) // 2
                open_parts += [(lo, middle), (middle, hi)]
    return broken


def _blank(text: pa.Array) -> Flags:
    """Null, empty, or nothing that shows. Only texts that begin with such a character are looked at."""
    data = text.buffers()[2]
    starts, ends = _extents(text)
    blank: Flags = (starts == ends) | ~flags(text.is_valid())
    if data is None:
        return blank
    first = np.zeros(len(text), np.uint8)
    first[~blank] = np.frombuffer(data, np.uint8)[starts[~blank]]
    [suspects] = np.nonzero(~blank & _BLANK_FIRST_BYTES[first])
    for characters in (4, 64, None):
        if not len(suspects):
            break
        candidates = text.take(pa.array(suspects))
        heads = candidates if characters is None else pc.utf8_slice_codeunits(candidates, 0, characters)
        left = integers(pc.binary_length(pc.utf8_ltrim(heads, _BLANK)), 0)
        suspects = suspects[left == 0]
    blank[suspects] = True
    return blank


def _extents(text: pa.Array) -> tuple[Integers, Integers]:
    if not len(text):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    offsets = np.frombuffer(text.buffers()[1], np.int64)[text.offset : text.offset + len(text) + 1]
    return offsets[:-1], offsets[1:]


# -- ids and sources --------------------------------------------------------------------------


def _string(values: pa.Array) -> pa.Array:
    """Any column of single values as ``string``; bytes that are not UTF-8 as ``0x`` and hex digits."""
    if isinstance(values.type, pa.BaseExtensionType) and pa.types.is_fixed_size_binary(values.type.storage_type):
        return _hex(values.storage.cast(pa.large_binary())).cast(pa.string())
    values = storage(values)
    if pa.types.is_dictionary(values.type):
        return _string(values.dictionary).take(values.indices)
    if not is_text(values.type):
        return values.cast(pa.string())
    if pa.types.is_string(values.type):
        try:
            values.validate(full=True)
            return values
        except pa.ArrowInvalid:
            pass
    raw = values.cast(pa.large_binary())
    try:
        return raw.cast(pa.large_string()).cast(pa.string())
    except pa.ArrowInvalid:
        broken = pa.array(_broken(raw))
        sound = pc.if_else(broken, pa.scalar(None, pa.large_binary()), raw).cast(pa.string())
        shown = _hex(pc.if_else(broken, raw, pa.scalar(None, pa.large_binary())))
        return pc.if_else(broken, pc.binary_join_element_wise("0x", shown.cast(pa.string()), ""), sound)


_HEX = np.frombuffer("".join(f"{byte:02x}" for byte in range(256)).encode(), np.uint8).reshape(256, 2)


def _hex(values: pa.Array) -> pa.Array:
    values = pa.concat_arrays([values])
    validity, offsets, data = values.buffers()
    if data is None:
        return values.cast(pa.large_string())
    digits = _HEX[np.frombuffer(data, np.uint8)].tobytes()
    ends = np.frombuffer(offsets, np.int64)[: len(values) + 1] * 2
    buffers = [validity, pa.py_buffer(ends), pa.py_buffer(digits)]
    return pa.Array.from_buffers(pa.large_string(), len(values), buffers, values.null_count)


_HOST = r"^\s*(?:(?:[A-Za-z][A-Za-z0-9+.\-]*:)?//)?(?:[^/?#@]*@)?(?P<host>\[[^\]/?#]*\]|[^/?#:@\s]+)"


def registered_domains(urls: pa.Array) -> pa.Array:
    """
    The registered domain of each URL (``bbc.co.uk`` of ``https://news.bbc.co.uk/x``), from tldextract's bundled list.

    An address without one (an IP address, ``localhost``) is its own source; without a host it is null.
    """
    hosts = pc.struct_field(pc.extract_regex(urls, _HOST), "host")
    packed = pc.utf8_lower(hosts).dictionary_encode()
    domains = [_registered_domain(host) for host in packed.dictionary.to_pylist()]
    return pa.array(domains, pa.string()).take(packed.indices)


@lru_cache(maxsize=1 << 17)
def _registered_domain(host: str) -> str | None:
    host = host.strip("[].")
    return _suffixes()(host).top_domain_under_public_suffix or host or None


@lru_cache(maxsize=1)  # the list is read once per process
def _suffixes() -> Any:
    import tldextract

    return tldextract.TLDExtract(cache_dir=None, suffix_list_urls=())


# -- where a hit lies -------------------------------------------------------------------------


def locate(row: pa.Table, reading: Reading, offset: int) -> tuple[str, int]:
    """
    Which field code point *offset* of the joined text falls in, and where in it.

    *row* is one row of the shard; fields are named ``title`` or ``messages[3].content``. The
    newline that joins two fields belongs to the first. Raises ``IndexError`` past the end.
    """
    start = 0
    for name, text in _named_parts(row, reading):
        if offset <= start + len(text):
            return name, offset - start
        start += len(text) + 1
    raise IndexError(f"offset {offset} lies past the end of the text")


def _named_parts(row: pa.Table, reading: Reading) -> Iterator[tuple[str, str]]:
    for path in reading.text:
        column = find_column(row.schema, path)
        if column is None:
            continue
        name = row.schema.names[column.top]
        for label, value in _walk(name, row.column(column.top)[0].as_py(), column.steps):
            if value is not None:
                yield label, value.decode() if isinstance(value, bytes) else value


def _walk(label: str, value: Any, steps: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if not steps or value is None:
        yield label, value
    elif steps[0] != EACH:
        yield from _walk(f"{label}.{steps[0]}", value[steps[0]], steps[1:])
    else:
        for i, item in enumerate(value):
            yield from _walk(f"{label}[{i}]", item[1] if isinstance(item, tuple) else item, steps[1:])
