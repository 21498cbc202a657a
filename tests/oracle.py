"""
A stage that knows the truth: it reads labels by document id, so counting and deciding can be tested exactly.
"""

import csv
import gzip
import hashlib
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from corpus_guard.findings import Opinion
from corpus_guard.taxonomy import mask_of

SCHEMA = pa.schema([("mask", pa.uint32())])


@dataclass(frozen=True)
class OracleRecipe:
    """Labels from a gzipped or plain CSV with the columns ``id`` and ``risk``; an id that is not in it has no risk."""

    path: str
    name: str = "oracle"
    kind: Literal["classifier"] = "classifier"
    device: Literal["cpu", "gpu"] = "cpu"
    digest: str = field(init=False)
    judging_digest: str = "0" * 64

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", hashlib.sha256(Path(self.path).read_bytes()).hexdigest())

    def build(self) -> "Oracle":
        return Oracle(self.path)

    def reader(self, *, as_of: date, thresholds: dict[str, tuple[float, float]]) -> "OracleReader":
        return OracleReader()


class Oracle:
    schema = SCHEMA

    def __init__(self, path: str) -> None:
        opened = gzip.open(path, "rt", encoding="utf-8") if path.endswith(".gz") else open(path, encoding="utf-8")
        with opened as file:
            rows = [(row["id"], row["risk"]) for row in csv.DictReader(file) if row.get("is_risk", "True") == "True"]
        self.masks = {id: mask_of(risk.split("|")) for id, risk in rows if risk}

    def find(self, documents: pa.RecordBatch) -> pa.RecordBatch:
        masks = [self.masks.get(id, 0) for id in documents.column("id").to_pylist()]
        return pa.RecordBatch.from_arrays([pa.array(masks, pa.uint32())], schema=SCHEMA)


class OracleReader:
    def opinion(self, findings: pa.Table) -> Opinion:
        none = Opinion.none(findings.num_rows)
        sure = np.asarray(findings.column("mask").fill_null(0)).astype(np.uint32)
        return Opinion(sure, none.needs, none.supports, none.unresolved, none.weak)

    def explain(self, findings: pa.Table) -> list[list[str]]:
        return [[f"oracle {mask:#x}"] if mask else [] for mask in findings.column("mask").to_pylist()]
