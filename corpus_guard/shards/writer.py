"""Parquet out: equal rows give equal bytes, however they were handed over."""

import os
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from corpus_guard.places import Place
from corpus_guard.shards.columns import SLICE_BYTES, is_list, row_bytes


def table_bytes(table: pa.Table, metadata: dict[str, str] | None = None) -> pa.Buffer:
    """*table* as a Parquet file: equal tables give equal bytes, however they are chunked."""
    if metadata is not None:
        table = table.replace_schema_metadata(dict(sorted(metadata.items())))
    sink = pa.BufferOutputStream()
    pq.write_table(table.combine_chunks(), sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue()


class ShardWriter:
    """
    Writes one shard in the input's own schema; it appears whole when the ``with`` block ends well, else never.

    Row groups depend on the rows alone, not on how they were handed over: equal rows give equal bytes.
    """

    def __init__(
        self, place: Place, schema: pa.Schema, group_bytes: int = 2 * SLICE_BYTES, group_rows: int = 1 << 20
    ) -> None:
        self.place = place
        self.schema = schema
        self.rows = 0
        self._limits = group_bytes, group_rows
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0
        self._waiting_bytes = 0
        self._scratch = place.scratch()
        self._writer: Any = pq.ParquetWriter(
            self._scratch,
            schema,
            compression="zstd",
            write_page_checksum=True,
            # older writers call the items of a list otherwise; theirs keep their names
            use_compliant_nested_type=all(_items_are_elements(of) for of in schema.types),
        )

    def write(self, table: pa.Table) -> None:
        """Append *table*, which has the columns and types of the schema."""
        if table.schema.names != self.schema.names or table.schema.types != self.schema.types:
            raise ValueError(f"the table's columns {table.schema.names} are not those of {self.place.uri}")
        table = pa.Table.from_arrays(table.columns, schema=self.schema)
        self.rows += table.num_rows
        for batch in table.to_batches():
            self._take(batch)

    def _take(self, batch: pa.RecordBatch) -> None:
        group_bytes, group_rows = self._limits
        ends = np.cumsum(sum((row_bytes(column) for column in batch.columns), np.zeros(batch.num_rows, np.int64)))
        lo = 0
        while lo < batch.num_rows:
            before = int(ends[lo - 1]) if lo else 0
            room = group_bytes - self._waiting_bytes
            hi = int(np.searchsorted(ends, before + room, side="right"))
            hi = max(hi, lo + (0 if self._waiting_rows else 1))
            hi = min(hi, lo + group_rows - self._waiting_rows)
            if hi > lo:
                self._waiting.append(pa.Table.from_batches([batch.slice(lo, hi - lo)]))
                self._waiting_rows += hi - lo
                self._waiting_bytes += int(ends[hi - 1]) - before
            if hi < batch.num_rows:
                self._flush()
            lo = hi

    def _flush(self) -> None:
        if self._waiting_rows:
            table = pa.concat_tables(self._waiting).combine_chunks()
            self._writer.write_table(table, row_group_size=self._waiting_rows)
        self._waiting, self._waiting_rows, self._waiting_bytes = [], 0, 0

    def close(self) -> None:
        """Publish the shard."""
        self._flush()
        self._writer.close()
        self.place.adopt(self._scratch)

    def discard(self) -> None:
        """Forget what was written."""
        self._waiting = []
        try:
            self._writer.close()
        finally:
            os.unlink(self._scratch)

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()


def _items_are_elements(of: pa.DataType) -> bool:
    if pa.types.is_map(of):
        return _items_are_elements(of.key_type) and _items_are_elements(of.item_type)
    if is_list(of):
        return of.value_field.name == "element" and _items_are_elements(of.value_type)
    return not pa.types.is_struct(of) or all(_items_are_elements(of.field(i).type) for i in range(of.num_fields))
