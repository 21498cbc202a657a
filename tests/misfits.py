"""
A stage that goes wrong at one document for as long as a file says so. Workers import it, so it stays free of pytest.
"""

import os
import signal
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from corpus_guard.findings import Opinion

SCHEMA = pa.schema([("seen", pa.bool_())])


@dataclass(frozen=True)
class MisfitRecipe:
    """Finds nothing, ever. While *cause* exists, the document *victim* makes it do what *cause* says."""

    cause: str
    victim: str
    name: str = "misfit"
    kind: Literal["screen"] = "screen"
    device: Literal["cpu", "gpu"] = "cpu"
    digest: str = "5" * 64
    judging_digest: str = "0" * 64

    def build(self) -> "Misfit":
        return Misfit(self)

    def reader(self, *, as_of: date, thresholds: dict[str, tuple[float, float]]) -> "MisfitReader":
        return MisfitReader()


class Misfit:
    schema = SCHEMA

    def __init__(self, recipe: MisfitRecipe) -> None:
        self.recipe = recipe

    def find(self, documents: pa.RecordBatch) -> pa.RecordBatch:
        cause = Path(self.recipe.cause)
        if cause.exists() and pc.any(pc.equal(documents.column("id"), self.recipe.victim)).as_py():
            deed = cause.read_text()
            if deed == "kill once":
                cause.unlink()
            if deed.startswith("kill"):
                os.kill(os.getpid(), signal.SIGKILL)
            elif deed == "hang":
                time.sleep(600)
            raise ValueError(f"{self.recipe.name} does not like this document")
        return pa.RecordBatch.from_arrays([pa.repeat(True, documents.num_rows)], schema=SCHEMA)


class MisfitReader:
    def opinion(self, findings: pa.Table) -> Opinion:
        return Opinion.none(findings.num_rows)

    def explain(self, findings: pa.Table) -> list[list[str]]:
        return [[] for _ in range(findings.num_rows)]


