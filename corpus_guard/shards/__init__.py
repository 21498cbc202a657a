"""
Parquet in and out: finding shards, their footers and digests, units of work, documents in slices.

A damaged part of a file costs the rows of that part, never the shard; memory is bounded by the
slice, not by the row group. Decides nothing about text and knows no stage, no policy and no run.
"""

from corpus_guard.shards.columns import SLICE_BYTES, Reading, row_bytes
from corpus_guard.shards.corpus import (
    MANIFEST,
    BadShard,
    Shard,
    ShardFile,
    find_shards,
    manifest_hash,
    read_footers,
    read_manifest,
    write_manifest,
)
from corpus_guard.shards.documents import check_reading, fetch_documents, locate, read_documents, registered_domains
from corpus_guard.shards.rowgroups import fetch_rows, read_schema, read_table
from corpus_guard.shards.units import Unit, plan_units
from corpus_guard.shards.writer import ShardWriter, table_bytes

__all__ = [
    "MANIFEST",
    "SLICE_BYTES",
    "BadShard",
    "Reading",
    "Shard",
    "ShardFile",
    "ShardWriter",
    "Unit",
    "check_reading",
    "fetch_documents",
    "fetch_rows",
    "find_shards",
    "locate",
    "manifest_hash",
    "plan_units",
    "read_documents",
    "read_footers",
    "read_manifest",
    "read_schema",
    "read_table",
    "registered_domains",
    "row_bytes",
    "table_bytes",
    "write_manifest",
]
