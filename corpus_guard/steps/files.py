"""
How steps read and write what they hand on: whole files, put once, equal content giving equal bytes.
"""

import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from corpus_guard.places import Place


def read_parquet(place: Place, columns: list[str] | None = None) -> pa.Table:
    # without threads: those that still hold on to Python's memory when the command ends would abort it
    with place.open_input() as file:
        return pq.ParquetFile(file).read(columns, use_threads=False)


def read_note(place: Place, key: str) -> str | None:
    """One metadata value of a Parquet file's footer, without reading its columns."""
    with place.open_input() as file:
        metadata = pq.read_metadata(file).metadata or {}
    value = metadata.get(key.encode())
    return value.decode() if value is not None else None


def put_json(place: Place, value: Any) -> None:
    place.put(json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True).encode() + b"\n")


def read_json(place: Place) -> Any:
    return json.loads(place.read_bytes())
