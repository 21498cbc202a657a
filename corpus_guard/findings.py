"""
What stages see, as Arrow columns: schemas, and the two things a way of looking has to offer.

A *recipe* is small, picklable and knows its digest; workers call ``build()`` and get the *stage*,
which looks at text. Later, and without any text or model, the recipe's ``reader()`` turns stored
findings into an ``Opinion``: bit masks over the 31 risks. Looking is expensive and done once;
opinions are cheap and depend on thresholds, levels, exceptions and the date.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Masks = npt.NDArray[np.uint32]
"""One bit mask over ``taxonomy.RISKS`` per document."""

OK, EMPTY, UNDECODABLE, FAILED, SKIPPED = "ok", "empty", "undecodable", "failed", "skipped"
"""
States of a row: looked at; null or blank text; not valid UTF-8; could not be read, or its stage
failed on it; of a blacklisted source and therefore not looked at.
"""
STATES = (OK, EMPTY, UNDECODABLE, FAILED, SKIPPED)

BATCH = pa.schema(
    [
        ("row", pa.int64()),
        ("state", pa.string()),
        ("text", pa.large_string()),
        ("id", pa.string()),
        ("source", pa.string()),
        ("url", pa.string()),
        ("dataset", pa.string()),
        ("language", pa.string()),
        ("kind", pa.string()),
        ("origin", pa.string()),
        ("licence", pa.string()),
        ("collected_at", pa.string()),
        ("characters", pa.int64()),
        ("bytes", pa.int64()),
    ]
)
"""
A slice of documents as stages get it. ``row`` counts from 0 within the shard. ``text`` is null
unless ``state`` is ``ok``. ``id`` and ``source`` are null where the corpus has none (an id is then
``<shard digest12>#<row>``, made by the reader; a null source is a source of its own).
``characters`` counts code points, ``bytes`` UTF-8 bytes of the text.
"""

DOCUMENTS = pa.schema([field for field in BATCH if field.name not in ("text", "url", "collected_at")])
"""Findings of the reading itself: who each row is. Written once per unit and way of reading, shared by all stages."""

HIT = pa.struct([("entry", pa.uint32()), ("start", pa.uint32()), ("end", pa.uint32()), ("edges", pa.uint8())])
"""
One keyword match. ``entry`` indexes the sorted literals of the keyword stage's digest; ``start``
and ``end`` are code points of the raw text; ``edges`` bit 0 (bit 1) is set where the character
before (after) the match is a letter or digit of a script that separates words, so that word
boundaries can be decided, and changed, without the text.
"""

KEYWORD = pa.schema([("hits", pa.list_(HIT)), ("hits_total", pa.uint32())])


def classifier_schema(labels: Sequence[str]) -> pa.Schema:
    """Columns of a classifier's findings: raw pooled scores of every label (names in the metadata), the strongest."""
    return pa.schema(
        [
            ("scores", pa.list_(pa.float16(), len(labels))),
            ("window", pa.uint32()),
            ("tokens", pa.uint32()),
            ("inclusion_probability", pa.float32()),
        ],
        {"labels": json.dumps(list(labels), ensure_ascii=False)},
    )


class Stage(Protocol):
    """
    A way of looking, alive in one worker: documents in, findings out, nothing decided.

    ``find`` gets a ``BATCH`` and returns a record batch with exactly one row per document, in
    order, and the columns of ``schema`` (no ``row``, no ``state``: the executor's scan adds them).
    Rows whose text is null get null findings. ``find`` must not depend on how documents are cut into batches.
    """

    schema: pa.Schema

    def find(self, documents: pa.RecordBatch) -> pa.RecordBatch: ...


@dataclass(frozen=True, slots=True)
class Opinion:
    """
    What one stage's findings say of each of *n* documents, as masks over the risks (design section 7).

    ``sure``: enough alone (a ``block`` hit, a score at or over the upper threshold).
    ``needs``: only with support (a ``review`` hit).
    ``supports``: a score at or over the lower threshold; makes another stage's ``needs`` count.
    ``unresolved``: candidates of a broader label over its threshold: some risk, not known which.
    ``weak``: recorded, decides nothing.
    """

    sure: Masks
    needs: Masks
    supports: Masks
    unresolved: Masks
    weak: Masks

    @classmethod
    def none(cls, n: int) -> "Opinion":
        """No stage said anything about *n* documents."""
        return cls(*(np.zeros(n, np.uint32) for _ in range(5)))


class Reader(Protocol):
    """Makes opinions out of stored findings; needs neither text nor model."""

    def opinion(self, findings: pa.Table) -> Opinion: ...

    def explain(self, findings: pa.Table) -> list[list[str]]:
        """
        Per document, short reasons for a person, without corpus text: ``keywords k-00123 block A.1.h 14-18``,
        ``ngram-screen A.1.h 0.971 >= 0.950 window 3``. Called for few documents only.
        """
        ...


class Recipe(Protocol):
    """
    How to make a stage: small, picklable, built from paths and digests, never from live automata or models.

    ``name`` is unique in a run (``keywords``, ``ngram-screen``, ...). ``digest`` (64 hex) changes exactly
    when findings could change. ``device``: ``gpu`` recipes run in the executor's second pool.
    """

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> Literal["keyword", "classifier", "screen"]: ...

    @property
    def digest(self) -> str: ...

    @property
    def judging_digest(self) -> str:
        """64 hex; changes when opinions could change though findings do not (levels, thresholds, calibration)."""
        ...

    @property
    def device(self) -> Literal["cpu", "gpu"]: ...

    def build(self) -> Stage: ...

    def reader(self, *, as_of: date, thresholds: dict[str, tuple[float, float]]) -> Reader:
        """
        *as_of*: the date of the run (expiry of entries). *thresholds*: the policy's own
        ``risk -> (upper, lower)``, which win over the model's.
        """
        ...
