"""
Counts of verdicts, by source, language, kind and origin. Tallies add up: order and grouping change nothing.

Counts documents *as collected*: every copy, before anything is removed, with null, blank and undecodable texts
among them (5.1 a). A row that could not be read at all has no known source and is in no tally; ``unread`` counts it.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpus_guard.sampling import ranks
from corpus_guard.taxonomy import CODES
from corpus_guard.verdicts import PERSON, QUARANTINED, REVIEW, UNQUALIFIED, UNREAD, UNRESOLVED

KEYS = ("source", "language", "kind", "origin")

COUNTS = (
    "documents",
    "characters",
    "bytes",
    "illegal",
    "illegal_characters",
    "unqualified",
    "review",
    "unjudged",
    "blank",
    "skipped",
    "only_keyword",
    "only_classifier",
    "both",
)
"""
``illegal``, ``unqualified``, ``review``: documents with that verdict. ``unjudged``: a stage failed or is missing, or
the text could not be read. ``blank``: null, blank or undecodable text. ``skipped``: of a blacklisted source, not looked
at. ``only_keyword``, ``only_classifier``, ``both``: unqualified documents by the kinds of stages that made them so.
"""


def risk_column(code: str) -> str:
    """The column that counts documents with the risk *code*: ``risk_A_1_a``; ``risk_unresolved`` for ``unresolved``."""
    return "risk_" + code.replace(".", "_")


RISK_COLUMNS = (*(risk_column(code) for code in CODES), "risk_unresolved")
"""A document counts once in each risk it has: these columns do not add up to ``unqualified`` (R-18)."""

TALLY = pa.schema([(key, pa.string()) for key in KEYS] + [(name, pa.int64()) for name in (*COUNTS, *RISK_COLUMNS)])

Counts = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


def unread(documents: pa.Table, verdicts: pa.Table) -> int:
    """How many rows could not be read and name no source: they may belong to any."""
    return int(_unknown(documents, verdicts).sum())


def tally(documents: pa.Table, verdicts: pa.Table, kinds: Mapping[str, str] | None = None) -> pa.Table:
    """
    Count *verdicts* of *documents* (same rows, same order) as ``TALLY``, sorted by key.

    *kinds*: ``keyword``, ``classifier`` or ``screen`` by stage name, as the recipes have it. Without it
    ``keywords`` is taken for the keyword stage and every other one for a classifier.
    """
    known = ~_unknown(documents, verdicts)
    if not known.all():
        documents, verdicts = documents.filter(pa.array(known)), verdicts.filter(pa.array(known))
    status, loss = _whole(verdicts, "status"), _whole(verdicts, "loss")
    characters, nbytes = _numbers(documents, "characters"), _numbers(documents, "bytes")
    illegal = _flags(_whole(verdicts, "illegal"))
    unqualified = _flags(pc.equal(status, UNQUALIFIED))
    skipped = _flags(pc.equal(loss, "skipped"))
    blank = _flags(pc.is_in(loss, pa.array(["empty", "undecodable"])))
    lost = _flags(pc.equal(status, QUARANTINED))
    keyword, classifier = _made_by(_whole(verdicts, "by"), kinds)
    columns = {
        "documents": np.ones(documents.num_rows, np.int64),
        "characters": characters,
        "bytes": nbytes,
        "illegal": illegal,
        "illegal_characters": np.where(illegal, characters, 0),
        "unqualified": unqualified,
        "review": _flags(pc.equal(status, REVIEW)),
        "unjudged": lost & ~skipped & ~blank,
        "blank": blank,
        "skipped": skipped,
        "only_keyword": unqualified & keyword & ~classifier,
        "only_classifier": unqualified & classifier & ~keyword,
        "both": unqualified & keyword & classifier,
    }
    group, keys = _groups([_whole(documents, key) for key in KEYS])
    n = keys.num_rows
    sums = [_sum(group, columns[name], n) for name in COUNTS]
    risks = _risk_counts(_whole(verdicts, "risks"), group, n)
    return _sorted(pa.table([*keys.columns, *sums, *risks], schema=TALLY))


def add(tables: Sequence[pa.Table]) -> pa.Table:
    """The sum of tallies, sorted by key: ``add([add([a, b]), c]) == add([c, a, b])``. Of none: a tally without rows."""
    return _collapse(pa.concat_tables([TALLY.empty_table(), *(table.cast(TALLY) for table in tables)]), KEYS)


def by(table: pa.Table, *keys: str) -> pa.Table:
    """A tally collapsed to *keys* (``by(t, "source")``), with its other counts summed and sorted by them."""
    return _collapse(table, keys)


def partition(table: pa.Table, parts: int) -> list[pa.Table]:
    """A tally cut into *parts* so that a source is in the same part whichever tally it came from: reduce them apart."""
    if parts == 1:
        return [table]
    at = ranks(pc.fill_null(_whole(table, "source"), ""), b"", "partition") % np.uint64(parts)
    return [table.filter(pa.array(at == part)) for part in range(parts)]


def _unknown(documents: pa.Table, verdicts: pa.Table) -> Flags:
    return _flags(pc.and_(pc.equal(_whole(verdicts, "loss"), UNREAD), _whole(documents, "source").is_null()))


def _made_by(by: pa.Array, kinds: Mapping[str, str] | None) -> tuple[Flags, Flags]:
    """Whether a keyword stage, and whether a classifier, is among the stages of each document."""
    names = pc.unique(by.flatten()).to_pylist()
    if kinds is None:
        kinds = {name: "keyword" if name == "keywords" else "classifier" for name in names if name != PERSON}
    of, values = pc.list_parent_indices(by), by.flatten()
    found = []
    for kind in ("keyword", "classifier"):
        mine = pa.array([name for name in names if kinds.get(name) == kind], pa.string())
        hit = np.zeros(len(by), bool)
        hit[np.asarray(of.filter(pc.is_in(values, mine)))] = True
        found.append(hit)
    return found[0], found[1]


def _risk_counts(risks: pa.Array, group: Counts, n: int) -> list[Counts]:
    """Documents of each group with each risk, and with candidates only, in the order of ``RISK_COLUMNS``."""
    width = len(RISK_COLUMNS)
    document, values = np.asarray(pc.list_parent_indices(risks)).astype(np.int64), risks.flatten()
    risk = np.asarray(pc.index_in(values, value_set=pa.array(CODES)).fill_null(-1)).astype(np.int64)
    risk[_flags(pc.starts_with(values, UNRESOLVED))] = width - 1
    # Several sets of candidates, or a code twice, are one document all the same.
    pairs = np.unique(document[risk >= 0] * width + risk[risk >= 0])
    counts = np.bincount(group[pairs // width] * width + pairs % width, minlength=n * width)
    return list(counts.reshape(n, width).T)


def _groups(columns: Sequence[pa.Array]) -> tuple[Counts, pa.Table]:
    """The number of each row's combination of values (nulls are values), and the combinations."""
    n = len(columns[0])
    group, first = np.zeros(n, np.int64), np.zeros(min(n, 1), np.int64)
    for column in columns:
        encoded = column.dictionary_encode(null_encoding="encode")
        codes = np.asarray(encoded.indices).astype(np.int64)
        combined = group * max(len(encoded.dictionary), 1) + codes
        _, first, group = np.unique(combined, return_index=True, return_inverse=True)
    return group, pa.table(list(columns), names=list(KEYS)).take(pa.array(first))


def _sum(group: Counts, values: npt.NDArray[np.generic], n: int) -> Counts:
    sums = np.zeros(n, np.int64)
    np.add.at(sums, group, values.astype(np.int64))
    return sums


def _collapse(table: pa.Table, keys: Sequence[str]) -> pa.Table:
    names = [name for name in table.column_names if name not in KEYS]
    schema = pa.schema([TALLY.field(name) for name in (*keys, *names)])
    summed = table.group_by(list(keys), use_threads=False).aggregate([(name, "sum") for name in names])
    return _sorted(summed.select([*keys, *(f"{name}_sum" for name in names)]).rename_columns(schema.names).cast(schema))


def _sorted(table: pa.Table) -> pa.Table:
    keys = [(name, "ascending") for name in table.column_names if name in KEYS]
    return table.take(pc.sort_indices(table, sort_keys=keys)).combine_chunks()


def _whole(table: pa.Table, name: str) -> pa.Array:
    column = table.column(name)
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _numbers(table: pa.Table, name: str) -> Counts:
    return np.asarray(_whole(table, name).fill_null(0)).astype(np.int64)


def _flags(values: pa.Array) -> Flags:
    return np.asarray(values.fill_null(False), dtype=np.bool_)
