"""
Columns: which hold what, paths into nested ones, and the values found there.

The size of a row is a function of its value alone: how a file stores it changes no slice and no row group.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpus_guard.errors import UsageError

SLICE_BYTES = 64 << 20
"""Decoded bytes a slice holds at most; a longer document is a slice by itself."""

READING_VERSION = 1
"""Part of every reading's digest: raise it when the same columns would give other documents."""

Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


# -- which columns are what -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reading:
    """
    Which columns hold what. ``text`` names columns or paths; several are joined with a newline.

    A path goes into structs with ``.name`` and through lists and map values with ``[*]``:
    ``messages[*].content``. Null parts are left out of the joined text. A column whose whole name
    equals the path wins. Without ``source`` but with ``url``, the source is the registered domain.
    """

    text: tuple[str, ...] = ("text",)
    id: str | None = None
    source: str | None = None
    url: str | None = None
    dataset: str | None = None
    language: str | None = None
    kind: str | None = None
    origin: str | None = None
    licence: str | None = None
    collected_at: str | None = None

    def __post_init__(self) -> None:
        texts = (self.text,) if isinstance(self.text, str) else tuple(self.text)
        object.__setattr__(self, "text", texts)
        if not texts:
            raise UsageError("No text column is named; name at least one under corpus.columns.text.")

    @property
    def digest(self) -> str:
        """64 hex; changes exactly when documents could."""
        return hashlib.sha256(json.dumps([READING_VERSION, asdict(self)], sort_keys=True).encode()).hexdigest()

    @property
    def fields(self) -> dict[str, str]:
        """Column of each named field but the text."""
        return {name: path for name in _FIELDS if (path := getattr(self, name)) is not None}


_FIELDS = ("id", "source", "url", "dataset", "language", "kind", "origin", "licence", "collected_at")


# -- paths into a schema ----------------------------------------------------------------------

EACH = "[*]"
_STEP = re.compile(r"\[\*\]|\.?[^.\[\]]+")


class Column(NamedTuple):
    """A path found in a schema: the top-level column, the steps below it, and the Parquet leaves to read for it."""

    top: int
    steps: tuple[str, ...]
    leaves: tuple[int, ...]


def find_column(schema: pa.Schema, path: str) -> Column | None:
    if path in schema.names:
        index = schema.names.index(path)
        first = sum(leaf_count(schema.field(i).type) for i in range(index))
        return Column(index, (), tuple(range(first, first + leaf_count(schema.field(index).type))))
    steps = _STEP.findall(path)
    if "".join(steps) != path or len(steps) < 2 or steps[0] not in schema.names:
        return None
    index = schema.names.index(steps[0])
    first = sum(leaf_count(schema.field(i).type) for i in range(index))
    below = tuple(step.removeprefix(".") for step in steps[1:])
    found = schema.field(index).type
    keys: list[int] = []
    for step in below:
        entered = _enter(found, step)
        if entered is None:
            return None
        if pa.types.is_map(found):  # Arrow makes no map without its keys
            keys += range(first, first + entered[0])
        first += entered[0]
        found = entered[1]
    return Column(index, below, (*keys, *range(first, first + leaf_count(found))))


def _enter(of: pa.DataType, step: str) -> tuple[int, pa.DataType] | None:
    """One step into a type: how many leaves lie before, and what is there."""
    if isinstance(of, pa.BaseExtensionType):
        of = of.storage_type
    if step == EACH:
        if pa.types.is_map(of):
            return leaf_count(of.key_type), of.item_type
        return (0, of.value_type) if is_list(of) else None
    if not pa.types.is_struct(of) or (index := of.get_field_index(step)) < 0:
        return None
    return sum(leaf_count(of.field(i).type) for i in range(index)), of.field(index).type


def leaf_count(of: pa.DataType) -> int:
    if isinstance(of, pa.BaseExtensionType):
        return leaf_count(of.storage_type)
    if pa.types.is_struct(of):
        return sum(leaf_count(of.field(i).type) for i in range(of.num_fields))
    if pa.types.is_map(of):
        return leaf_count(of.key_type) + leaf_count(of.item_type)
    return leaf_count(of.value_type) if is_list(of) else 1


def is_list(of: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(of)
        or pa.types.is_large_list(of)
        or pa.types.is_fixed_size_list(of)
        or pa.types.is_list_view(of)
        or pa.types.is_large_list_view(of)
    )


def is_text(of: pa.DataType) -> bool:
    if isinstance(of, pa.BaseExtensionType):
        return is_text(of.storage_type)
    if pa.types.is_dictionary(of):
        return is_text(of.value_type)
    return bool(
        pa.types.is_string(of)
        or pa.types.is_large_string(of)
        or pa.types.is_string_view(of)
        or pa.types.is_binary(of)
        or pa.types.is_large_binary(of)
        or pa.types.is_binary_view(of)
        or pa.types.is_fixed_size_binary(of)
        or pa.types.is_null(of)
    )


def type_at(schema: pa.Schema, column: Column) -> pa.DataType:
    found = schema.field(column.top).type
    for step in column.steps:
        found = _enter(found, step)[1]  # type: ignore[index]  # the path was found in this schema
    return found


def listed(names: Iterable[str]) -> str:
    shown = [repr(name) for name in sorted(set(names))]
    return ", ".join(shown[:40]) + (f" and {len(shown) - 40} more" if len(shown) > 40 else "")


# -- the text of a path -----------------------------------------------------------------------


def path_text(values: pa.Array, steps: tuple[str, ...]) -> pa.Array:
    """The text of a path as ``large_binary``, one per row: what lists hold is joined with newlines, nulls left out."""
    n = len(values)
    rows: Integers | None = None
    for step in steps:
        if step != EACH:
            values = struct_field(values, step)
            continue
        values = storage(values)
        if pa.types.is_map(values.type):
            values = values.cast(pairs(values.type))
            lengths = _lengths(values)
            values = struct_field(values.flatten(), "value")
        else:
            lengths = _lengths(values)
            values = values.flatten()
        rows = np.repeat(np.arange(n, dtype=np.int64) if rows is None else rows, lengths)
    if rows is None:
        return binary(values)
    values = binary(values)
    return _join(values.drop_null(), rows[flags(values.is_valid())], n)


def side_by_side(parts: Sequence[pa.Array]) -> pa.Array:
    """Columns joined row by row with newlines, nulls left out."""
    # Arrow's own join with null_handling="skip" loses rows that are null throughout (seen in 26.0.1)
    n = len(parts[0])
    order = np.arange(len(parts) * n).reshape(len(parts), n).T.ravel()
    values = pa.concat_arrays(parts).take(pa.array(order))
    rows = np.repeat(np.arange(n, dtype=np.int64), len(parts))
    return _join(values.drop_null(), rows[flags(values.is_valid())], n)


def _join(values: pa.Array, rows: Integers, n: int) -> pa.Array:
    """*values* of equal *rows* (ascending) joined with newlines; rows without a value are null."""
    if not len(values):
        return pa.nulls(n, pa.large_binary())
    inner = np.append(rows[1:] == rows[:-1], False)
    ends = np.concatenate([[0], np.cumsum(inner)]).astype(np.int64)
    newlines = pa.Array.from_buffers(
        pa.large_binary(), len(inner), [None, pa.py_buffer(ends), pa.py_buffer(b"\n" * int(ends[-1]))]
    )
    joined = pc.binary_join_element_wise(values, newlines, pa.scalar(b"", pa.large_binary()))
    counts = np.bincount(rows, minlength=n)
    stops = np.concatenate([[0], np.cumsum(counts)])
    offsets = np.frombuffer(joined.buffers()[1], np.int64)[joined.offset :][stops]
    valid = np.packbits(counts > 0, bitorder="little")
    buffers = [pa.py_buffer(valid), pa.py_buffer(offsets), joined.buffers()[2]]
    return pa.Array.from_buffers(pa.large_binary(), n, buffers, int((counts == 0).sum()))


def struct_field(values: pa.Array, name: str) -> pa.Array:
    values = storage(values)
    return pc.struct_field(values, [values.type.get_field_index(name)])


def storage(values: pa.Array) -> pa.Array:
    return values.storage if isinstance(values.type, pa.BaseExtensionType) else values


def binary(values: pa.Array) -> pa.Array:
    """Any column of text as ``large_binary``, its bytes not looked at."""
    values = storage(values)
    if pa.types.is_dictionary(values.type):
        return binary(values.dictionary).take(values.indices)
    return values.cast(pa.large_binary())


# -- sizes and numbers ------------------------------------------------------------------------


def row_bytes(array: pa.Array) -> Integers:
    """
    Decoded bytes of each row of *array*: a function of the row's value alone, however it is stored.
    """
    of = array.type
    n = len(array)
    if isinstance(of, pa.BaseExtensionType):
        return row_bytes(array.storage)
    if pa.types.is_dictionary(of):
        sizes = np.append(row_bytes(array.dictionary), row_bytes(pa.nulls(1, of.value_type)))
        return sizes[integers(array.indices, len(sizes) - 1)]
    if pa.types.is_struct(of):
        return sum((row_bytes(child) for child in array.flatten()), np.zeros(n, np.int64))
    if pa.types.is_map(of):
        array = array.cast(pairs(of))
        of = array.type
    if is_list(of):
        lengths = _lengths(array)
        ends = np.concatenate([[0], np.cumsum(row_bytes(array.flatten()))])
        stops = np.cumsum(lengths)
        return np.asarray(ends[stops] - ends[stops - lengths] + 8, np.int64)
    if pa.types.is_fixed_size_binary(of):
        return np.full(n, of.byte_width, np.int64)
    if is_text(of) and not pa.types.is_null(of):
        return integers(pc.binary_length(binary(array)), 0) + 8
    return np.full(n, 0 if pa.types.is_null(of) else of.bit_width // 8, np.int64)


def integers(array: pa.Array, null: int) -> Integers:
    return np.asarray(pc.fill_null(array.cast(pa.int64()), null), np.int64)


def _lengths(lists: pa.Array) -> Integers:
    return integers(pc.list_value_length(lists), 0)


def flags(array: pa.Array) -> Flags:
    flags: Flags = np.asarray(array.to_numpy(zero_copy_only=False), bool)
    return flags


def pairs(of: pa.DataType) -> pa.DataType:
    return pa.list_(pa.struct([pa.field("key", of.key_type, False), pa.field("value", of.item_type)]))
