"""
Row groups: read in slices, past damage, in order and none missing; and rows as tables of the shard's own schema.

A damaged part of a file costs the rows of that part, never the shard; memory is bounded by the
slice, not by the row group.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from corpus_guard.errors import DataError, UsageError
from corpus_guard.places import Place, one_line
from corpus_guard.shards.columns import (
    SLICE_BYTES,
    Column,
    Integers,
    binary,
    find_column,
    is_text,
    leaf_count,
    listed,
    pairs,
    row_bytes,
)
from corpus_guard.shards.corpus import READ_FAULTS, Shard, file_digest, footer_bytes, footer_metadata
from corpus_guard.shards.units import Unit

SLICE_ROWS = 65_536
_CRUMB_BYTES = 32 << 10

OnDamage = Callable[[int, int, str], None]
"""Told of each damaged part: its first row group, how many rows are lost, and why."""


# -- reading row groups -----------------------------------------------------------------------


class Piece(NamedTuple):
    """A slice of a shard as it was read, or, without ``batch``, how many rows could not be read and why."""

    row_lo: int
    rows: int
    batch: pa.RecordBatch | None
    group: int = -1
    error: str = ""


class Opened:
    """A shard open for reading, checked to be the one that was planned."""

    def __init__(self, part: Unit | Shard) -> None:
        self.place = Place.of(part.shard_path if isinstance(part, Unit) else part.path)
        self.digest = part.shard_digest if isinstance(part, Unit) else part.digest
        try:
            data = self.place.open_input()
        except FileNotFoundError as fault:
            raise DataError(f"{self.place.uri} is gone since the corpus was planned; plan again.") from fault
        try:
            with self.place.telling("read"):
                size = data.size()
                footer = footer_bytes(data, size)
            entry = None if self.place.is_local else self.place.entry()
            if file_digest(size, footer, entry.etag if entry else None) != self.digest:
                raise DataError(f"{self.place.uri} is not the file that was planned any more; plan again.")
            self.metadata, self.schema = footer_metadata(footer)
        finally:
            data.close()
        sizes = (self.metadata.row_group(i).num_rows for i in range(self.metadata.num_row_groups))
        self.starts: list[int] = [0, *accumulate(sizes)]

    def groups_of(self, part: Unit | Shard) -> tuple[int, int]:
        return (part.first_group, part.last_group) if isinstance(part, Unit) else (0, self.metadata.num_row_groups)

    def select(self, columns: Iterable[Column] | None) -> "Selection":
        """What has to be read for *columns* (none: all), given that Parquet selects by path and not by number."""
        paths = [self.metadata.schema.column(leaf).path for leaf in range(self.metadata.num_columns)]
        tops = [top for top, column in enumerate(self.schema) for _ in range(leaf_count(column.type))]
        if len(tops) != len(paths):
            raise DataError(f"{self.place.uri}: the stored Arrow schema does not fit the Parquet columns.")
        if columns is None:
            return Selection(None, list(range(len(paths))), list(range(len(self.schema))))
        wanted = dict.fromkeys(paths[leaf] for leaf in sorted({leaf for column in columns for leaf in column.leaves}))
        # a path stands for everything below it and for every column of that name; columns come as they are asked for
        leaves = [
            leaf for asked in wanted for leaf, path in enumerate(paths) if path == asked or path.startswith(f"{asked}.")
        ]
        leaves = list(dict.fromkeys(leaves))
        return Selection(list(wanted), leaves, list(dict.fromkeys(tops[leaf] for leaf in leaves)))

    def read(
        self, first: int, last: int, what: "Selection", slice_bytes: int, from_row: int = 0, expected: bool = False
    ) -> Iterator[Piece]:
        """Rows of the groups *first* to *last* in pieces of at most *slice_bytes*, in order, none missing."""
        return _merged(self._read(first, last, what, slice_bytes, from_row, expected), slice_bytes // 8)

    def _read(
        self, first: int, last: int, what: "Selection", slice_bytes: int, from_row: int, expected: bool
    ) -> Iterator[Piece]:
        """
        What fails is tried a second time from a fresh handle; what fails then is damage, and the
        rest of its row group is lost. *expected* damage is not tried again.
        """
        row, end = max(self.starts[first], from_row), self.starts[last]
        if not expected and row == self.starts[first]:
            try:
                for batch in self._batches(first, last, what, slice_bytes):
                    yield from self._pieces(row, batch, what, slice_bytes)
                    row += batch.num_rows
            except READ_FAULTS as fault:
                self._pass_on(fault, first, last)
        while row < end:
            group = next(g for g in range(first, last) if self.starts[g] <= row < self.starts[g + 1])
            error = "The row group ends before its last row."
            at = self.starts[group]
            faults: list[Exception] = []
            try:
                for batch in self._batches(
                    group, group + 1, what, slice_bytes, None if self.place.is_local else faults
                ):
                    fresh = batch.slice(min(max(row - at, 0), batch.num_rows))
                    at += batch.num_rows
                    if fresh.num_rows:
                        yield from self._pieces(row, fresh, what, slice_bytes)
                        row += fresh.num_rows
            except READ_FAULTS as fault:
                self._pass_on(fault, group, group + 1)
                for storage_fault in faults:
                    with self.place.telling("read"):
                        raise storage_fault from fault
                error = one_line(fault)
            if (lost := self.starts[group + 1] - row) > 0:
                yield Piece(row, lost, None, group, error)
                row += lost

    def _batches(
        self, first: int, last: int, what: "Selection", slice_bytes: int, watched: "list[Exception] | None" = None
    ) -> Iterator[pa.RecordBatch]:
        """Batches as Arrow decodes them. Faults of the storage itself are noted in *watched*."""
        groups = [g for g in range(first, last) if self.starts[g] < self.starts[g + 1]]
        if not groups or not what.leaves:
            return
        rows, guarded = self._batch_rows(groups, slice_bytes)
        # a store answers slowly whatever is asked: a small unit at once, a large one in large steps
        whole = not self.place.is_local and sum(self._bytes_of(g) for g in groups) <= 2 * slice_bytes
        with self.place.open_input() as data:
            file = pq.ParquetFile(
                data if watched is None else pa.PythonFile(_Watched(data, watched), mode="r"),
                metadata=self.metadata,
                read_dictionary=self._flat_texts(what) if guarded else [],
                pre_buffer=whole,
                buffer_size=0 if whole else (1 << 20 if self.place.is_local else 8 << 20),
                page_checksum_verification=True,
            )
            batches = file.iter_batches(batch_size=rows, row_groups=groups, columns=what.paths, use_threads=False)
            while True:
                try:
                    batch = next(batches, None)
                except READ_FAULTS:
                    raise
                except Exception:
                    with self.place.telling("read"):
                        raise
                if batch is None:
                    return
                for column in batch.columns:
                    if _has_dictionary(column.type):
                        _check_indices(column)
                if batch.num_rows:
                    yield batch

    def _rows_of(self, group: int) -> int:
        return self.starts[group + 1] - self.starts[group]

    def _bytes_of(self, group: int) -> int:
        # never ask for a column's own sizes: in damaged footers that ends the process (seen in pyarrow 26.0.1)
        return max(int(self.metadata.row_group(group).total_byte_size), 1)

    def _batch_rows(self, groups: list[int], slice_bytes: int) -> tuple[int, bool]:
        """
        How many rows to decode at a time, and whether texts have to be read as dictionaries for it.

        Ten thousand copies of one long text take a few kilobytes in a file. No value is larger than
        its row group, so some rows of a small group are safe; where these would be mere crumbs, the
        copies stay packed until they are cut.
        """
        # far below the limit: rows differ in length, long ones lie together, and small batches cost Arrow nothing
        usual = min(slice_bytes // 32 * self._rows_of(g) // self._bytes_of(g) for g in groups)
        small = [g for g in groups if self._bytes_of(g) <= (4 << 20) + 64 * self._rows_of(g)]
        if not small:
            return max(min(usual, SLICE_ROWS), 1), False
        safe = max(2 * slice_bytes // max(self._bytes_of(g) for g in small), 1)
        crumbs = any(
            safe < self._rows_of(g) and safe * self._bytes_of(g) < _CRUMB_BYTES * self._rows_of(g) for g in small
        )
        return (SLICE_ROWS if crumbs else max(min(usual, SLICE_ROWS, safe), 1)), crumbs

    def _flat_texts(self, what: "Selection") -> list[str]:
        paths = [self.metadata.schema.column(leaf).path for leaf in what.leaves]
        indices = [self.schema.get_field_index(path) for path in paths]
        return [path for path, i in zip(paths, indices, strict=True) if i >= 0 and is_text(self.schema.field(i).type)]

    def _pieces(self, row: int, batch: pa.RecordBatch, what: "Selection", slice_bytes: int) -> Iterator[Piece]:
        """*batch* cut to slices, its columns in their declared types."""
        for part in cut(batch, slice_bytes):
            yield Piece(row, part.num_rows, self._as_declared(part, what))
            row += part.num_rows

    def _as_declared(self, batch: pa.RecordBatch, what: "Selection") -> pa.RecordBatch:
        for i, column in enumerate(batch.columns):
            declared = self.schema.field(what.tops[i])
            if pa.types.is_dictionary(column.type) and not pa.types.is_dictionary(declared.type):
                batch = batch.set_column(i, declared, _decoded(column, declared.type))
        return batch

    def _pass_on(self, fault: Exception, first: int, last: int) -> None:
        """Raise *fault* again if it is no fault of the bytes read."""
        if isinstance(fault, FileNotFoundError):
            raise DataError(f"{self.place.uri} is gone since the corpus was planned; plan again.") from fault
        if isinstance(fault, MemoryError):
            asked = re.search(r"size (\d+)", str(fault))
            honest = max(sum(self.metadata.row_group(g).total_byte_size for g in range(first, last)), 1 << 30)
            # damaged lengths ask for memory that no machine has
            if asked is None or int(asked[1]) < 16 * honest:
                raise fault


class _Watched:
    """A file of which it is known afterwards whether the storage or the bytes were at fault."""

    def __init__(self, data: Any, faults: list[Exception]) -> None:
        self._data = data
        self._faults = faults
        self.closed = False

    def read(self, nbytes: int | None = None) -> bytes:
        try:
            return bytes(self._data.read(nbytes))
        except Exception as fault:
            self._faults.append(fault)
            raise

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._data.seek(offset, whence))

    def tell(self) -> int:
        return int(self._data.tell())

    def size(self) -> int:
        return int(self._data.size())

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


class Selection(NamedTuple):
    """Columns to read: their paths (none: all), Parquet leaves, and top-level columns in the order they come."""

    paths: list[str] | None
    leaves: list[int]
    tops: list[int]


def _merged(pieces: Iterator[Piece], enough: int) -> Iterator[Piece]:
    """Neighbouring small pieces as one: small row groups and guarded columns come in crumbs."""
    waiting: list[Piece] = []
    rows = nbytes = 0
    for piece in pieces:
        size = 0 if piece.batch is None else _decoded_bytes(piece.batch)
        if waiting and (piece.batch is None or nbytes + size > enough or rows + piece.rows > SLICE_ROWS):
            yield _as_one(waiting)
            waiting, rows, nbytes = [], 0, 0
        if piece.batch is None:
            yield piece
            continue
        waiting.append(piece)
        rows += piece.rows
        nbytes += size
    if waiting:
        yield _as_one(waiting)


def _as_one(pieces: list[Piece]) -> Piece:
    if len(pieces) == 1:
        return pieces[0]
    batches = [piece.batch for piece in pieces if piece.batch is not None]
    columns = [pa.concat_arrays([batch.column(i) for batch in batches]) for i in range(batches[0].num_columns)]
    rows = sum(piece.rows for piece in pieces)
    return Piece(pieces[0].row_lo, rows, pa.RecordBatch.from_arrays(columns, schema=batches[0].schema))


# -- slices -----------------------------------------------------------------------------------


def _decoded_bytes(batch: pa.RecordBatch) -> int:
    sizes = (row_bytes(column).sum() for column in batch.columns if pa.types.is_dictionary(column.type))
    return int(batch.nbytes) + int(sum(sizes))


def cut(batch: pa.RecordBatch, slice_bytes: int) -> list[pa.RecordBatch]:
    """*batch* in slices of at most *slice_bytes* decoded bytes or one row."""
    if batch.num_rows == 1 or _at_most(batch) <= slice_bytes:
        return [batch]
    ends = np.cumsum(sum(row_bytes(column) for column in batch.columns))
    return [batch.slice(lo, hi - lo) for lo, hi in _runs(ends, slice_bytes)]


def _at_most(batch: pa.RecordBatch) -> int:
    """Decoded bytes of *batch*, or more: cheap to tell, and nearly always enough to know that it need not be cut."""
    nbytes = int(batch.nbytes)
    for column in batch.columns:
        if pa.types.is_dictionary(column.type) and len(column.dictionary):
            nbytes += len(column) * int(row_bytes(column.dictionary).max())
    return nbytes


def _runs(ends: Integers, limit: int) -> Iterator[tuple[int, int]]:
    """Greedy cuts of rows whose sizes add up to *ends*: each run within *limit*, or a single row."""
    lo = 0
    while lo < len(ends):
        before = int(ends[lo - 1]) if lo else 0
        hi = max(int(np.searchsorted(ends, before + limit, side="right")), lo + 1)
        yield lo, hi
        lo = hi


# -- dictionaries -----------------------------------------------------------------------------


def _check_indices(array: pa.Array) -> None:
    """Arrow reads indices of damaged dictionaries without a look at them; what takes by them must not fail later."""
    of = array.type
    if pa.types.is_dictionary(of):
        bounds = pc.min_max(array.indices).as_py()
        if bounds["max"] is not None and not 0 <= bounds["min"] <= bounds["max"] < len(array.dictionary):
            raise pa.ArrowInvalid(f"Dictionary index {bounds['max']} of {len(array.dictionary)} values")
    elif pa.types.is_struct(of):
        for child in array.flatten():
            _check_indices(child)
    elif pa.types.is_nested(of) and _has_dictionary(of):
        _check_indices(array.cast(pairs(of)).flatten() if pa.types.is_map(of) else array.flatten())


def _has_dictionary(of: pa.DataType) -> bool:
    if pa.types.is_dictionary(of):
        return True
    return any(_has_dictionary(of.field(i).type) for i in range(of.num_fields)) if pa.types.is_nested(of) else False


def _decoded(array: pa.Array, declared: pa.DataType) -> pa.Array:
    """A dictionary column as its declared type; text bytes are taken over without a look at them."""
    values = binary(array.dictionary) if is_text(declared) else array.dictionary
    taken = values.take(array.indices)
    if pa.types.is_large_string(declared) or pa.types.is_string(declared):
        taken = taken if pa.types.is_large_string(declared) else taken.cast(pa.binary())
        return pa.Array.from_buffers(declared, len(taken), taken.buffers(), taken.null_count, taken.offset)
    return taken.cast(declared)


# -- tables -----------------------------------------------------------------------------------


def read_schema(part: Unit | Shard) -> pa.Schema:
    """The input's own schema, with its metadata."""
    return Opened(part).schema


def read_table(
    part: Unit | Shard, slice_bytes: int = SLICE_BYTES, on_damage: OnDamage | None = None
) -> Iterator[tuple[int, pa.Table]]:
    """
    All columns of *part* in slices of at most *slice_bytes*: (first row, table of the input's own schema).

    Damaged rows are left out: the next slice begins behind them, and *on_damage* is told.
    """
    opened = Opened(part)
    first, last = opened.groups_of(part)
    for piece in opened.read(first, last, opened.select(None), slice_bytes):
        if piece.batch is not None:
            yield piece.row_lo, pa.Table.from_arrays(piece.batch.columns, schema=opened.schema)
        elif on_damage is not None:
            on_damage(piece.group, piece.rows, piece.error)


def fetch_rows(part: Unit | Shard, rows: Integers, columns: Sequence[str] | None = None) -> pa.Table:
    """
    The rows numbered *rows* (ascending, from 0 within the shard), only these row groups read, slice by slice.

    *columns*: names of top-level columns (default: all). Raises ``DataError`` if one of the rows is damaged.
    """
    opened = Opened(part)
    wanted = None if columns is None else [_named_column(opened, name) for name in columns]
    what = opened.select(wanted)
    found = [batch.take(pa.array(at)) for _, batch, at in fetch(opened, rows, what)]
    schema = pa.schema([opened.schema.field(i) for i in what.tops], opened.schema.metadata)
    table = pa.Table.from_batches([pa.RecordBatch.from_arrays(batch.columns, schema=schema) for batch in found], schema)
    return table if wanted is None else table.select([what.tops.index(column.top) for column in wanted])


def _named_column(opened: Opened, name: str) -> Column:
    if name not in opened.schema.names:
        raise UsageError(f"{opened.place.uri}: no column '{name}'; the columns are {listed(opened.schema.names)}.")
    column = find_column(opened.schema, name)
    assert column is not None
    return column


def fetch(opened: Opened, rows: Integers, what: Selection) -> Iterator[tuple[Piece, pa.RecordBatch, Integers]]:
    """Pieces that hold some of *rows*, and where in them."""
    rows = np.asarray(rows, np.int64)
    if np.any(rows[1:] <= rows[:-1]) or (len(rows) and not 0 <= rows[0] <= rows[-1] < opened.starts[-1]):
        raise ValueError("rows must ascend and lie in the shard")
    for group, (lo, hi) in enumerate(zip(opened.starts, opened.starts[1:], strict=False)):
        here = rows[np.searchsorted(rows, lo) : np.searchsorted(rows, hi)]
        if not len(here):
            continue
        for piece in opened.read(group, group + 1, what, SLICE_BYTES):
            end = piece.row_lo + piece.rows
            at = here[(here >= piece.row_lo) & (here < end)] - piece.row_lo
            if len(at) and piece.batch is None:
                raise DataError(
                    f"{opened.place.uri}: row {piece.row_lo + int(at[0])} lies in a damaged part: {piece.error}"
                )
            if len(at) and piece.batch is not None:
                yield piece, piece.batch, at
            if end > here[-1]:
                break
