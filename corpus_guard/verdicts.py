"""
What the policy makes of a document's findings: the verdict.

Judging is a function of columns: opinions of stages (bit masks over the risks), the sets of risks that the
policy declares, and settled verdicts of people. No text, no model, no threshold: those are behind the opinions.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from corpus_guard.errors import DataError, UsageError
from corpus_guard.findings import EMPTY, FAILED, OK, SKIPPED, STATES, UNDECODABLE, Masks, Opinion
from corpus_guard.taxonomy import BIT, codes_of, mask_of
from corpus_guard.yamlfile import Faults, shown

VERDICTS = pa.schema(
    [
        ("row", pa.int64()),
        ("id", pa.string()),
        ("source", pa.string()),
        ("qualified", pa.bool_()),
        ("illegal", pa.bool_()),
        ("risks", pa.list_(pa.string())),
        ("by", pa.list_(pa.string())),
        ("status", pa.string()),
        ("loss", pa.string()),
    ]
)
"""
One row per document, in order. ``qualified`` and ``illegal`` are null where nobody judged; ``risks`` then is empty.
``risks`` holds codes, and ``unresolved:A.2.a,A.2.b`` where a broader label was found and no single risk of it.
``by`` names the stages that made it so (``person`` for a settled verdict); under status ``review`` the stages that ask.
``loss`` says why a document is quarantined, and is null elsewhere.
"""

QUALIFIED, UNQUALIFIED, REVIEW, QUARANTINED = "ok", "unqualified", "review", "quarantined"
STATUSES = (QUALIFIED, UNQUALIFIED, REVIEW, QUARANTINED)

UNREAD = "failed: reading"
"""``loss`` of a row that could not be read at all."""

UNRESOLVED = "unresolved:"
"""Begins an entry of ``risks`` that lists candidates."""

PERSON = "person"
"""Stands in ``by`` where people settled the verdict."""

_OK, _EMPTY, _UNDECODABLE, _FAILED, _SKIPPED = (STATES.index(s) for s in (OK, EMPTY, UNDECODABLE, FAILED, SKIPPED))

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class JudgingRules:
    """
    What of a policy judges documents: the risks a qualified document has none of (3.4), the risks that make one
    illegal or unhealthy (3.6), and whether a ``review`` hit without support already counts.
    """

    all_mask: int
    illegal_mask: int
    review_counts_as_unqualified: bool = False


@dataclass(frozen=True, slots=True)
class Labels:
    """Settled verdicts of people, by document id: the risks they found, as a mask; 0 is *qualified*."""

    ids: pa.Array
    masks: Masks

    def of(self, ids: pa.Array) -> tuple[Flags, Masks]:
        """Which of *ids* people settled, and with which risks."""
        at = pc.index_in(ids, value_set=self.ids, skip_nulls=True)
        known = np.asarray(at.is_valid())
        masks = np.zeros(len(ids), np.uint32)
        masks[known] = self.masks[np.asarray(at.drop_null())]
        return known, masks


def judge(
    documents: pa.Table,
    opinions: Mapping[str, Opinion | None],
    rules: JudgingRules,
    labels: Labels | None,
    states: Mapping[str, pa.Array],
) -> pa.Table:
    """
    The verdicts of *documents* (``findings.DOCUMENTS``), as ``VERDICTS``, row by row (design section 7).

    *opinions* and *states*: what each stage says of the same rows; an opinion ``None`` is a stage whose findings
    are missing, and its documents stay unjudged. A document has a risk if any stage is sure of it, or if one stage
    needs support for it and any stage gives it. Candidates that no found risk explains make it unqualified, and
    illegal only if every candidate is. Risks outside ``rules.all_mask`` are ignored.

    A person's verdict wins over every stage, missing and failed ones included; it cannot make up for a text that
    could not be read. Labels go by id: documents with equal ids share one.
    """
    n = documents.num_rows
    for name, opinion in opinions.items():
        columns = (opinion.sure, opinion.needs, opinion.supports, opinion.unresolved) if opinion else ()
        lengths = {len(column) for column in (*columns, *([states[name]] if name in states else []))} - {n}
        if lengths:
            raise DataError(
                f"Findings of stage {name} have {max(lengths)} rows for {n} documents; scan the unit again."
            )

    ids = _array(documents, "id")
    loss, losses = _losses(_array(documents, "state"), opinions, states, n)
    settled, found = labels.of(ids) if labels else (np.zeros(n, bool), np.zeros(n, np.uint32))
    settled &= (loss == 0) | (loss >= len(_FIXED_LOSSES))  # a failed stage a person makes up for, not a failed reading
    loss[settled] = 0
    judged = loss == 0

    seen = {name: opinion for name, opinion in opinions.items() if opinion is not None}
    risks, review, candidates = _risks(seen, rules, judged & ~settled, n)
    risks = np.where(settled, found & np.uint32(rules.all_mask), risks)

    outside = np.uint32(~rules.illegal_mask & 0xFFFFFFFF)
    illegal = (risks & np.uint32(rules.illegal_mask)) != 0
    for mask in candidates.values():
        illegal |= (mask != 0) & ((mask & outside) == 0)
    # From here on candidates are shown: only those the policy knows. Those it does not have been weighed above.
    candidates = {name: mask & np.uint32(rules.all_mask) for name, mask in candidates.items()}
    unqualified = risks != 0
    for mask in candidates.values():
        unqualified |= mask != 0

    status = np.select([~judged, unqualified, review != 0], [3, 1, 2], 0)
    return pa.table(
        [
            _array(documents, "row"),
            ids,
            _array(documents, "source"),
            pa.array(~unqualified, mask=~judged),
            pa.array(illegal, mask=~judged),
            _lists([risks, *candidates.values()], _entries),
            _by(seen, rules, risks, review, candidates, settled),
            pa.array(STATUSES).take(pa.array(status)),
            losses.take(pa.array(loss)),
        ],
        schema=VERDICTS,
    )


_FIXED_LOSSES = (None, EMPTY, UNDECODABLE, UNREAD, SKIPPED)


def _losses(
    reading: pa.Array, opinions: Mapping[str, Opinion | None], states: Mapping[str, pa.Array], n: int
) -> tuple[npt.NDArray[np.int64], pa.Array]:
    """Why each document stays unjudged: an index into the array of reasons, 0 where nothing is in the way."""
    read = _codes(reading)
    failed = np.zeros(n, np.uint64)  # one bit per stage
    skipped = read == _SKIPPED
    for i, name in enumerate(opinions):
        bit = np.uint64(1 << i)
        if opinions[name] is None:
            failed |= bit
        if name in states:
            state = _codes(states[name])
            # A stage that found a text empty which the reading did not has seen another text: not judged.
            failed[(state != _OK) & (state != _SKIPPED)] |= bit
            skipped |= state == _SKIPPED
    names = list(opinions)
    loss = np.zeros(n, np.int64)
    hit = np.flatnonzero(failed)
    kinds, which = np.unique(failed[hit], return_inverse=True)
    loss[hit] = len(_FIXED_LOSSES) + which
    reasons = ["failed: " + ", ".join(name for i, name in enumerate(names) if int(kind) >> i & 1) for kind in kinds]
    loss[skipped] = _FIXED_LOSSES.index(SKIPPED)
    for code, reason in ((_EMPTY, EMPTY), (_UNDECODABLE, UNDECODABLE), (_FAILED, UNREAD), (-1, UNREAD)):
        loss[read == code] = _FIXED_LOSSES.index(reason)
    return loss, pa.array([*_FIXED_LOSSES, *reasons], pa.string())


def _risks(
    seen: Mapping[str, Opinion], rules: JudgingRules, where: Flags, n: int
) -> tuple[Masks, Masks, dict[str, Masks]]:
    """Risks by all stages together; risks that wait for review; candidates by stage that no risk explains."""
    sure, needs, supports = (np.zeros(n, np.uint32) for _ in range(3))
    for opinion in seen.values():
        sure |= opinion.sure
        needs |= opinion.needs
        supports |= opinion.supports
    known: Masks = np.where(where, np.uint32(rules.all_mask), np.uint32(0))
    risks: Masks = (sure | needs if rules.review_counts_as_unqualified else sure | (needs & supports)) & known
    review: Masks = needs & known & ~risks
    candidates: dict[str, Masks] = {}
    for name, opinion in seen.items():
        open_ = (opinion.unresolved & known != 0) & (opinion.unresolved & risks == 0)
        if open_.any():
            candidates[name] = np.where(open_, opinion.unresolved, np.uint32(0))
    return risks, review, candidates


def _by(
    seen: Mapping[str, Opinion],
    rules: JudgingRules,
    risks: Masks,
    review: Masks,
    candidates: Mapping[str, Masks],
    settled: Flags,
) -> pa.Array:
    """Names of the stages a verdict rests on: those that are sure, and both sides of a need that met support."""
    needs, supports = np.zeros_like(risks), np.zeros_like(risks)
    for opinion in seen.values():
        needs |= opinion.needs
        supports |= opinion.supports
    counts = risks if rules.review_counts_as_unqualified else risks & supports
    asks = np.where(risks == 0, review, np.uint32(0))
    for mask in candidates.values():
        asks[mask != 0] = 0
    made = np.zeros(len(risks), np.uint64)
    for i, (name, opinion) in enumerate(seen.items()):
        part = (opinion.sure & risks) | (opinion.needs & (counts | asks)) | (opinion.supports & needs & risks)
        if name in candidates:
            part |= candidates[name]
        made[part != 0] |= np.uint64(1 << i)
    made[settled] = np.uint64(1 << len(seen))
    names = [*seen, PERSON]
    return _lists([made], lambda key: [name for i, name in enumerate(names) if key[0] >> i & 1])


def _entries(masks: tuple[int, ...]) -> list[str]:
    """Codes of the first mask, then one entry for each different set of candidates."""
    risks, *candidates = masks
    return [*codes_of(risks), *dict.fromkeys(UNRESOLVED + ",".join(codes_of(mask)) for mask in candidates if mask)]


def _lists(columns: Sequence[npt.NDArray[Any]], entries: Any) -> pa.Array:
    """One list per row: *entries* of the row's values, made once for each different combination."""
    n = len(columns[0])
    any_set = columns[0] != 0
    for column in columns[1:]:
        any_set |= column != 0
    rows = np.flatnonzero(any_set)
    distinct, which = np.unique(np.stack([column[rows] for column in columns], axis=1), axis=0, return_inverse=True)
    values = [[], *(entries(tuple(int(v) for v in key)) for key in distinct)]
    at = np.zeros(n, np.int32)
    at[rows] = which.reshape(-1) + 1
    return pa.array(values, pa.list_(pa.string())).take(pa.array(at))


def _array(table: pa.Table, name: str) -> pa.Array:
    return _whole(table.column(name)).cast(VERDICTS.field(name).type if name in VERDICTS.names else pa.string())


def _whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _codes(states: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Index into ``STATES``; -1 for a null or a word that is none of them."""
    at = pc.index_in(_whole(states).cast(pa.string()), value_set=pa.array(STATES))
    return np.asarray(at.fill_null(-1)).astype(np.int64)


LABEL_VERDICTS = ("qualified", "unqualified")


def load_labels(
    paths: Iterable[str | Path], read: Callable[[str], bytes] = lambda path: Path(path).read_bytes()
) -> Labels:
    """
    Settled verdicts of people out of Parquet files with the columns ``id``, ``verdict`` (``qualified``,
    ``unqualified``) and ``risks`` (list of codes); other columns are left alone. A file listed later wins over an
    earlier one. *read*: how to get at a file that is not local. ``UsageError`` names every fault of every file.
    """
    masks: dict[str, int] = {}
    faults: list[str] = []
    for path in paths:
        try:
            masks.update(_read_labels(path, read))
        except UsageError as error:
            faults.append(str(error))
    if faults:
        raise UsageError("\n".join(faults))
    return Labels(pa.array(list(masks), pa.string()), np.fromiter(masks.values(), np.uint32, len(masks)))


def _read_labels(path: str | Path, read: Callable[[str], bytes]) -> dict[str, int]:
    try:
        table = pq.read_table(pa.BufferReader(read(str(path))))
    except (OSError, pa.ArrowException) as error:
        told = "there is no such file" if isinstance(error, FileNotFoundError) else "cannot be read as Parquet"
        raise UsageError(f"{path}: {told}; labels are a Parquet file with the columns id, verdict, risks.") from None
    missing = [name for name in ("id", "verdict", "risks") if name not in table.column_names]
    if missing:
        raise UsageError(f"{path}: no column {', '.join(missing)}; labels have the columns id, verdict, risks.")
    if not _is_list_of_text(table.schema.field("risks").type):
        kind = table.schema.field("risks").type
        raise UsageError(f"{path}: column risks is {kind}; it must be a list of risk codes.")
    faults = Faults(str(path))
    masks: dict[str, int] = {}
    columns = (table.column(name).to_pylist() for name in ("id", "verdict", "risks"))
    for row, (id, verdict, risks) in enumerate(zip(*columns, strict=True)):
        at = f"row {row}"
        if id is None:
            faults.add_line(0, f"{at}: has no id.")
            continue
        at = f"{at} (id {shown(id)})"
        unknown = [code for code in risks or () if code not in BIT]
        if verdict not in LABEL_VERDICTS:
            faults.add_line(0, f"{at}: verdict '{shown(verdict)}' is not settled; it must be qualified or unqualified.")
        elif unknown:
            faults.add_line(0, f"{at}: {', '.join(shown(code) for code in unknown)} is no risk of Appendix A.")
        elif verdict == "qualified" and risks:
            faults.add_line(0, f"{at}: is qualified and has risks; remove one of the two.")
        elif verdict == "unqualified" and not risks:
            faults.add_line(0, f"{at}: is unqualified without a risk; name at least one.")
        elif masks.setdefault(str(id), mask_of(risks or ())) != mask_of(risks or ()):
            faults.add_line(0, f"{at}: is settled twice, differently; keep one verdict.")
    if len(faults.found) > _FAULTS_TOLD:
        more = len(faults.found) - _FAULTS_TOLD
        faults.found[_FAULTS_TOLD:] = [(0, f"and {more} more rows with faults.")]
    faults.stop()
    return masks


_FAULTS_TOLD = 100


def _is_list_of_text(type: pa.DataType) -> bool:
    if not (pa.types.is_list(type) or pa.types.is_large_list(type)):
        return False
    return type.value_type in (pa.string(), pa.large_string(), pa.null())
