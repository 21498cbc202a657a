"""
Which sources may be used: the decision at the limit (5.1 a), source by source, with its reason.

A source is excluded *over* the limit, by integers; exactly at it, it stays. It is on hold while rows of its own that
could not be judged might carry it over. What stands beside the decision (bounds, corrected share, ``thin``) informs.

What the bounds mean. Counts of the collected corpus are a census of what the detectors flagged: they have no sampling
error, and small sources need no minimum (R-9). ``lower`` and ``upper`` (one-sided, exact, 95 %) then tell what the next
documents of the same source may bring: evidence for the blacklist and for people, not for this run. In phase
``pre_collection`` the tally is a sample, and the bounds are those of the source itself. ``decide: assured`` adds
``hold`` where the source is not shown to be at or under the limit: in a sample by ``upper``; in either phase by the
share corrected for the detector's measured error, where that is known.
"""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpus_guard.sources.blacklist import Blacklist
from corpus_guard.sources.register import Register
from corpus_guard.sources.tally import RISK_COLUMNS, by
from corpus_guard.statistics import CONFIDENCE, clopper_pearson, hypergeometric, rogan_gladen, smallest_showing
from corpus_guard.taxonomy import CODES

KEEP, EXCLUDE, HOLD = "keep", "exclude", "hold"
DECISIONS = (KEEP, EXCLUDE, HOLD)

Phase = Literal["pre_collection", "post_collection"]
Decide = Literal["point", "assured"]
Counts = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

SOURCES = pa.schema(
    [
        ("source", pa.string()),
        ("documents", pa.int64()),
        ("characters", pa.int64()),
        ("illegal", pa.int64()),
        ("share", pa.float64()),
        ("share_by_characters", pa.float64()),
        ("lower", pa.float64()),
        ("upper", pa.float64()),
        ("corrected", pa.float64()),
        ("unjudged", pa.int64()),
        ("decision", pa.string()),
        ("thin", pa.bool_()),
        ("reason", pa.string()),
        ("phase", pa.string()),
        ("top_risks", pa.list_(pa.string())),
    ]
)
"""
One row per source, sorted by name, the null source last. ``share`` is ``illegal / documents``; it is null where
documents were skipped. ``corrected``: the share without the detectors' measured errors; null where those are not known.
``unjudged`` counts rows that no verdict exists for and that might be illegal. ``thin``: too few documents for the
bounds to say on which side of the limit the source lies. ``top_risks``: codes, the most frequent first.

The schema's metadata has ``unknown_rows`` (rows of unknown source that could not be read) and ``unknown_could_carry``
(how many kept sources would be over the limit, each for itself, if all those rows were illegal and its own).
"""


@dataclass(frozen=True, slots=True)
class AssessingRules:
    """
    What decides sources: the policy's limit (a source strictly over it is out), and how a run reads it.

    ``sensitivity``, ``specificity``: the detectors' measured errors over all illegal risks, where they are known.
    """

    limit: Fraction
    phase: Phase = "post_collection"
    decide: Decide = "point"
    sensitivity: float | None = None
    specificity: float | None = None


def assess(
    tally: pa.Table,
    rule: AssessingRules,
    register: Register | None = None,
    blacklist: Blacklist | None = None,
    unknown_rows: Mapping[str, int] | None = None,
) -> pa.Table:
    """
    Decide every source of *tally* (any tally; it is collapsed to sources), as ``SOURCES``.

    *unknown_rows*: by shard, rows that could not be read and whose source nobody knows. They hold no source, for they
    would hold every one; they are counted in the metadata.
    """
    sources = by(tally, "source")
    names = sources.column("source").to_pylist()
    n, characters, illegal = (_numbers(sources, name) for name in ("documents", "characters", "illegal"))
    skipped = _numbers(sources, "skipped")
    unjudged = _numbers(sources, "unjudged") + skipped
    lower, upper = _bounds(n, illegal, unjudged, names, rule, register)
    share = np.divide(illegal, n, out=np.zeros(len(n)), where=n > 0)

    over = _over(illegal, n, rule)
    could = _over(illegal + unjudged, n, rule)
    limit = float(rule.limit)
    bound = upper if rule.phase == "pre_collection" else np.divide(illegal + unjudged, n, out=share.copy(), where=n > 0)
    corrected_share, corrected_bound = _corrected(share, rule), _corrected(bound, rule)
    unsure = (bound > limit) | (np.nan_to_num(corrected_bound) > limit)
    on_list = blacklist.current() if blacklist else frozenset()
    listed = np.array([name in on_list for name in names], bool)
    decision = np.select([listed | over, could | (unsure if rule.decide == "assured" else False)], [1, 2], 0)

    total_unknown = sum((unknown_rows or {}).values())
    carried = (decision == 0) & _over(illegal + unjudged + total_unknown, n + total_unknown, rule)
    told = [blacklist.reason(name) if blacklist and name in on_list else None for name in names]
    facts = (n, illegal, unjudged, skipped, over, could, unsure, bound, corrected_bound)
    reasons = [_reason(rule, *row) for row in zip(told, *(column.tolist() for column in facts), strict=True)]
    known = skipped == 0
    columns = [
        sources.column("source"),
        n,
        characters,
        illegal,
        _where(known & (n > 0), share),
        _where(known & (characters > 0), np.divide(_numbers(sources, "illegal_characters"), np.maximum(characters, 1))),
        _where(known, lower),
        _where(known, upper),
        _where(known & (n > 0), corrected_share),
        unjudged,
        pa.array(DECISIONS).take(pa.array(decision)),
        (lower <= limit) & (upper > limit),
        reasons,
        pa.array([rule.phase]).take(pa.array(np.zeros(len(names), np.int64))),
        _top_risks(sources),
    ]
    metadata = {"unknown_rows": str(total_unknown), "unknown_could_carry": str(np.count_nonzero(carried))}
    return pa.table(columns, schema=SOURCES).replace_schema_metadata(metadata)


def _over(bad: Counts, n: Counts, rule: AssessingRules) -> Flags:
    """``statistics.over_limit`` on columns: integers, without overflow."""
    top, bottom = rule.limit.numerator, rule.limit.denominator
    if len(n) and max(int(n.max()), int(bad.max())) * max(top, bottom) >= 1 << 62:
        bad, n = bad.astype(object), n.astype(object)
    left, right = bad * bottom, n * top
    return np.asarray(left > right, dtype=np.bool_)


def _bounds(
    n: Counts,
    illegal: Counts,
    unjudged: Counts,
    names: list[str | None],
    rule: AssessingRules,
    register: Register | None,
) -> tuple[Any, Any]:
    """One-sided bounds of the share; of few different counts, computed once each. A known size makes them narrower."""
    keys, which = np.unique(np.stack([n, illegal, illegal + unjudged], axis=1), axis=0, return_inverse=True)
    lower = clopper_pearson(keys[:, 1], keys[:, 0], CONFIDENCE, "lower")[0][which.reshape(-1)]
    upper = clopper_pearson(keys[:, 2], keys[:, 0], CONFIDENCE, "upper")[1][which.reshape(-1)]
    if rule.phase == "pre_collection" and register:
        for i, name in enumerate(names):
            size = register.size(name)
            if size and size >= n[i] > 0:
                most = int(illegal[i] + unjudged[i])
                lower[i] = hypergeometric(int(illegal[i]), int(n[i]), size, CONFIDENCE, "lower")[0] / size
                upper[i] = hypergeometric(most, int(n[i]), size, CONFIDENCE, "upper")[1] / size
    return lower, upper


def _corrected(share: Any, rule: AssessingRules) -> Any:
    if rule.sensitivity is None or rule.specificity is None:
        return np.full(len(share), np.nan)
    return rogan_gladen(share, rule.sensitivity, rule.specificity)


def _reason(
    rule: AssessingRules,
    listed: str | None,
    n: int,
    illegal: int,
    unjudged: int,
    skipped: int,
    over: bool,
    could: bool,
    unsure: bool,
    bound: float,
    corrected: float,
) -> str:
    """One sentence, with the counts."""
    limit = percent(rule.limit.numerator, rule.limit.denominator)
    if listed is not None:
        rest = f"; {skipped:,} of {n:,} documents were not looked at" if skipped else ""
        return f"On the blacklist: {listed.rstrip('.')}{rest}."
    counts = f"{illegal:,} of {n:,} documents are illegal ({percent(illegal, n, rule.limit)})"
    if over:
        return f"{counts}, over the limit of {limit}."
    if could:
        return f"{counts}; with the {unjudged:,} that could not be judged it could be over the limit of {limit}."
    if rule.decide == "point" or not unsure:
        return f"{counts}, not over the limit of {limit}."
    if not bound > rule.limit:
        measured = f"corrected for the detectors' errors it could be {100 * corrected:.2f} %"
        return f"{counts}; {measured}, over the limit of {limit}."
    shown = f"the {100 * CONFIDENCE:.0f} % bound is {100 * bound:.2f} %, over the limit of {limit}"
    if not rule.limit:
        return f"{counts}; {shown}."
    more = smallest_showing(illegal + unjudged, rule.limit) - n
    return f"{counts}; {shown}; {more:,} more documents, all of them fine, would show that it is not."


def percent(part: int, whole: int, limit: Fraction | None = None) -> str:
    """``5.1 %``: exact where two digits are enough, else rounded to two, and to more before it would show *limit*."""
    if not whole:
        return "none to count"
    digits = 0
    while True:
        shown, rest = divmod(part * 10 ** (digits + 2), whole)
        rounded = shown + (2 * rest >= whole)
        at_limit = limit is not None and rounded * limit.denominator == limit.numerator * 10 ** (digits + 2)
        if not rest or (digits >= 2 and not at_limit):
            whole_part, decimals = divmod(rounded, 10**digits)
            return f"{whole_part}.{decimals:0{digits}d} %" if digits else f"{whole_part} %"
        digits += 1


def _top_risks(sources: pa.Table, most: int = 3) -> pa.Array:
    """The codes that most documents of each source have."""
    counts = np.stack([_numbers(sources, name) for name in RISK_COLUMNS[: len(CODES)]], axis=1)
    order = np.argsort(-counts, axis=1, kind="stable")[:, :most]
    present = np.take_along_axis(counts, order, axis=1) > 0
    offsets = np.concatenate([[0], np.cumsum(present.sum(axis=1))])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(CODES).take(pa.array(order[present])))


def _numbers(table: pa.Table, name: str) -> Counts:
    return np.asarray(table.column(name)).astype(np.int64)


def _where(known: Flags, values: Any) -> pa.Array:
    return pa.array(values, pa.float64(), mask=~known | np.isnan(values))


# --- the table as CSV ------------------------------------------------------------------------------------------------

CSV_ROWS = 10_000

_FORMULA = tuple("=+-@\t\r\n＝＋－＠")
_NULL = "(null)"


def write_csv(sources: pa.Table, rows: int = CSV_ROWS) -> bytes:
    """
    The *rows* worst sources as CSV for people: UTF-8 with a byte order mark, excluded ones first, then by share.

    The null source is ``(null)``. Text that a spreadsheet would run as a formula, or that already looks guarded, gets
    an apostrophe in front; control and direction characters are spelled out. Numbers are left as they are.
    """
    rank = pc.index_in(sources.column("decision"), value_set=pa.array([EXCLUDE, HOLD, KEEP]))
    keyed = sources.append_column("_order", rank)
    order = pc.sort_indices(
        keyed, sort_keys=[("_order", "ascending"), ("share", "descending"), ("source", "ascending")]
    )
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(sources.column_names)
    for row in sources.take(order[:rows]).to_pylist():
        writer.writerow([_NULL if k == "source" and v is None else csv_cell(v) for k, v in row.items()])
    return b"\xef\xbb\xbf" + out.getvalue().encode("utf-8", "backslashreplace")


def csv_cell(value: Any) -> str:
    """*value* as a cell that no spreadsheet runs: see ``write_csv``."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    text = " ".join(value) if isinstance(value, list) else str(value)
    guard = "'" if text.lstrip().startswith(_FORMULA) or text.startswith((*_FORMULA, "'")) or text == _NULL else ""
    shown = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)
    return guard + (shown if len(shown) <= _CELL else shown[:_CELL] + " … (cut)")


_CELL = 32_000  # a spreadsheet cell holds 32,767 characters
