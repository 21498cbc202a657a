"""
What a report says, as values: the structure of ``report.json``, from which every other form is drawn.

A section that a job does not have (a spot check filters nothing) is ``None``; a number nobody knows is ``None`` too and
is printed as "not known". Nothing here measures or decides; ``steps`` fills it in. The JSON Schema beside the templates
is made from these classes: ``python -m corpus_guard.report.model > corpus_guard/report/templates/report.schema.json``.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from typing import Any, Literal

from corpus_guard import __version__
from corpus_guard.taxonomy import RISKS

SCHEMA_VERSION = "1"

LISTED = 500
"""How many sources, failed shards and the like a report lists; the tables of the run have them all."""

Job = Literal["filter", "sources", "spot-check"]
Decision = Literal["keep", "exclude", "hold"]
Result = Literal["conforms", "does not conform", "not applicable", "needs evidence"]
Level = Literal["shall", "should", "generally", "reference"]


def percent(numerator: int, denominator: int) -> str | None:
    """
    The share as text, two decimals, computed in integers; ``None`` of nothing.

    More decimals where two would show a round figure that it is not: 959,999 of 1,000,000 is "95.9999 %", since
    "96.00 %" would seem to reach a limit it misses.
    """
    if denominator <= 0:
        return None
    share = Fraction(100 * int(numerator), int(denominator))
    for digits in range(2, 20):
        scaled = int(share * 10**digits + Fraction(1, 2))  # half up, as people round
        shown = Fraction(scaled, 10**digits)
        if shown == share or (10 * shown).denominator != 1:
            break
    return f"{scaled // 10**digits}.{scaled % 10**digits:0{digits}d} %"


@dataclass(frozen=True, slots=True)
class Rate:
    """A share that never stands without its two counts and the clause that asks for it."""

    numerator: int
    denominator: int
    clause: str | None = None
    percent: str | None = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "percent", percent(self.numerator, self.denominator))


@dataclass(frozen=True, slots=True)
class Interval:
    """Bounds of a share (0 to 1) at a confidence, both sides together."""

    lower: float
    upper: float
    confidence: float = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyFacts:
    """``notices``: what a reader has to know of the edition (superseded, text not verified, ...)."""

    id: str
    title: str
    digest: str
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FailedShard:
    """A shard, or row groups of one, that could not be read. ``rows`` is ``None`` where even the footer is lost."""

    shard: str
    error: str
    rows: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """``rows`` as the footers say; ``documents`` as read. ``failed`` lists at most ``LISTED`` of ``failed_shards``."""

    manifest: str | None = None
    phase: str | None = None
    shards: int | None = None
    rows: int | None = None
    documents: int | None = None
    characters: int | None = None
    sources: int | None = None
    duplicate_ids: int | None = None
    failed_shards: int | None = None
    failed_rows: int | None = None
    failed: tuple[FailedShard, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentCounts:
    """read = clean + removed + quarantined, in documents. ``hold`` counts as ``removed_source``."""

    read: int
    clean: int
    removed_document: int
    removed_source: int
    removed_blocked: int
    quarantined: int

    @property
    def balanced(self) -> bool:
        removed = self.removed_document + self.removed_source + self.removed_blocked
        return self.read == self.clean + removed + self.quarantined


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounting:
    """The same as ``accounting.json``. ``unbalanced`` names shards whose sum does not come out."""

    documents: DocumentCounts
    shards: Mapping[str, int]
    balanced: bool
    unbalanced: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRow:
    """One source. ``source`` is ``None`` for documents that name none; bounds and ``corrected`` are shares, 0 to 1."""

    source: str | None
    documents: int
    illegal: int
    share: Rate
    lower: float | None = None
    upper: float | None = None
    corrected: float | None = None
    unjudged: int | None = None
    decision: Decision
    thin: bool | None = None
    reason: str = ""
    top_risks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """
    ``limit``: the share over which a source is excluded, with its clause. ``worst``: at most ``LISTED`` of ``total``.
    ``decide``: ``point`` or ``assured``.
    """

    total: int
    keep: int
    exclude: int
    hold: int
    limit: Rate
    decide: str
    phase: str | None = None
    thin: int | None = None
    worst: tuple[SourceRow, ...] = ()


@dataclass(frozen=True, slots=True)
class RiskCount:
    """Documents and sources with one risk. A document with two risks counts in both rows, so rows do not add up."""

    risk: str
    en: str
    zh: str
    documents: int
    sources: int | None = None


@dataclass(frozen=True, slots=True)
class RetentionStep:
    """What was left after a step, of all that was read."""

    step: str
    documents: Rate


@dataclass(frozen=True, slots=True, kw_only=True)
class StageFacts:
    """A way of looking, and at how many of the documents it looked."""

    name: str
    kind: str
    digest: str
    looked_at: Rate | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """What ran, and which of the two ways found the documents that have a risk."""

    ran: tuple[StageFacts, ...] = ()
    only_keyword: int | None = None
    only_classifier: int | None = None
    both: int | None = None
    only_other: int | None = None
    review: int | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One line of the ledger of draws. ``ids``: hash of the drawn ids."""

    number: int
    size: int
    reason: str
    ids: str | None = None


@dataclass(frozen=True, slots=True)
class Integrity:
    """Documents of the sample that were scanned again, and how many gave the stored findings."""

    rescanned: int
    equal: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Technical:
    """
    The check by tools. ``before`` filtering; ``after`` with the filter's own detectors, which is near 100 % by
    construction; ``evaluation`` with an independent set-up, ``None`` when it was not measured.
    ``minimum``: the rate to reach.
    """

    population: int | None = None
    required: int | None = None
    drawn: int | None = None
    minimum: Rate | None = None
    before: Rate | None = None
    after: Rate | None = None
    evaluation: Rate | None = None
    evaluation_stages: tuple[StageFacts, ...] = ()
    by_risk: tuple[RiskCount, ...] = ()
    integrity: Integrity | None = None
    attempts: tuple[Attempt, ...] = ()
    conforms: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Manual:
    """The check by people. ``qualified`` is ``None`` until all drawn is settled; ``by_risk``: found by people."""

    population: int | None = None
    required: int | None = None
    drawn: int | None = None
    read: int | None = None
    people: int | None = None
    minimum: Rate | None = None
    qualified: Rate | None = None
    interval: Interval | None = None
    agreement: Rate | None = None
    by_risk: tuple[RiskCount, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    conforms: bool | None = None


@dataclass(frozen=True, slots=True)
class LibraryCount:
    """Terms of one risk: distinct, effective (not implied by a shorter one), and the minimum where there is one."""

    risk: str
    terms: int
    effective: int | None = None
    required: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """The keyword library. ``newest_change``: ISO date, by which its age is counted."""

    id: str
    version: str | None = None
    digest: str
    engine: str | None = None
    total: int | None = None
    required: int | None = None
    newest_change: str | None = None
    too_long: int | None = None
    risks: tuple[LibraryCount, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """A classifier that took part."""

    name: str
    digest: str
    licence: str | None = None
    languages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverageCell:
    """How one model's evaluation covers one risk. ``status``: usable, weak or no data."""

    model: str
    positives: int | None
    status: str


@dataclass(frozen=True, slots=True)
class RiskCoverage:
    risk: str
    models: tuple[CoverageCell, ...] = ()


@dataclass(frozen=True, slots=True)
class Classifier:
    """Models, and per risk what is known of how well they find it. A risk without a cell has no detector."""

    models: tuple[ModelFacts, ...] = ()
    coverage: tuple[RiskCoverage, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvisionResult:
    """One provision of the policy: what came out, in a sentence, with the rates or counts it rests on."""

    rule: str
    clause: str
    level: Level
    result: Result
    sentence: str
    rates: tuple[Rate, ...] = ()
    numbers: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Conclusion:
    """The overall result: ``value`` is ``None`` where the edition knows results per provision only."""

    value: str | None
    sentence: str
    clause: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """
    Everything a report says. ``as_of``: the date in ``run.json``. ``digests``: name to digest of what it rests on.
    """

    job: Job
    run: str
    as_of: str
    policy: PolicyFacts
    corpus: Corpus
    conclusion: Conclusion
    provisions: tuple[ProvisionResult, ...] = ()
    accounting: Accounting | None = None
    retention: tuple[RetentionStep, ...] | None = None
    sources: Sources | None = None
    risks: tuple[RiskCount, ...] | None = None
    stages: Stages | None = None
    technical: Technical | None = None
    manual: Manual | None = None
    library: Library | None = None
    classifier: Classifier | None = None
    limits: tuple[str, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict)
    tool: str = f"corpus_guard {__version__}"
    schema_version: str = SCHEMA_VERSION


UNRESOLVED = "unresolved"
"""The risk of a document that only a broader label found: some risk of several, not known which."""


def risk_counts(
    documents: Mapping[str, int],
    sources: Mapping[str, int] | None = None,
    *,
    names: Mapping[str, tuple[str, str]] | None = None,
) -> tuple[RiskCount, ...]:
    """
    Rows for all 31 risks in the order of Appendix A (zeros too: "none found" is a result), ``unresolved`` last if any.

    *names*: code to (English, Chinese) where the policy words a risk differently from the taxonomy.
    """
    names = names or {}
    rows = []
    for risk in RISKS:
        en, zh = names.get(risk.code, (risk.en, risk.zh))
        found_in = None if sources is None else sources.get(risk.code, 0)
        rows.append(RiskCount(risk.code, en, zh, documents.get(risk.code, 0), found_in))
    if documents.get(UNRESOLVED):
        found_in = None if sources is None else sources.get(UNRESOLVED, 0)
        rows.append(RiskCount(UNRESOLVED, "One of several risks", "多项风险之一", documents[UNRESOLVED], found_in))
    return tuple(rows)


def retention_of(documents: DocumentCounts) -> tuple[RetentionStep, ...]:
    """The way from what was read to what is clean, step by step."""
    quarantine = documents.read - documents.quarantined
    unqualified = quarantine - documents.removed_document
    clean = unqualified - documents.removed_source - documents.removed_blocked
    left = [
        ("read", documents.read),
        ("after quarantine", quarantine),
        ("after removal of documents", unqualified),
        ("after removal of sources (clean)", clean),
    ]
    return tuple(RetentionStep(step, Rate(count, documents.read)) for step, count in left)


def worst_sources(
    rows: Iterable[Mapping[str, Any]], clause: str | None, *, listed: int = LISTED
) -> tuple[SourceRow, ...]:
    """
    The *listed* sources with the largest illegal share, excluded and held ones first.

    *rows*: mappings with the columns of the ``sources`` table (``Table.to_pylist()`` of its worst part will do).
    """
    order = {"exclude": 0, "hold": 1, "keep": 2}

    def rank(row: Mapping[str, Any]) -> tuple[int, Fraction, int, str]:
        share = Fraction(row["illegal"], max(row["documents"], 1))
        return order[row["decision"]], -share, -row["documents"], row["source"] or ""

    return tuple(_source_row(row, clause) for row in sorted(rows, key=rank)[:listed])


def _source_row(row: Mapping[str, Any], clause: str | None) -> SourceRow:
    top = row.get("top_risks") or ()
    return SourceRow(
        source=row["source"],
        documents=row["documents"],
        illegal=row["illegal"],
        share=Rate(row["illegal"], row["documents"] if row.get("share", 0) is not None else 0, clause),
        lower=row.get("lower"),
        upper=row.get("upper"),
        corrected=row.get("corrected"),
        unjudged=row.get("unjudged"),
        decision=row["decision"],
        thin=row.get("thin"),
        reason=row.get("reason") or "",
        top_risks=tuple(top.split()) if isinstance(top, str) else tuple(top),
    )


def as_json(report: Report) -> dict[str, Any]:
    """The report as plain JSON values."""
    plain: dict[str, Any] = json.loads(dump(report))
    return plain


def dump(report: Report) -> bytes:
    """
    ``report.json``: UTF-8, sorted keys, the same bytes for the same report.

    Bytes of a file name that are not UTF-8 stand as JSON escapes; a number that is not finite is an error.
    """
    text = json.dumps(asdict(report), ensure_ascii=False, sort_keys=True, indent=1, allow_nan=False, default=_plain)
    return text.encode("utf-8", "backslashreplace") + b"\n"


def _plain(value: Any) -> int | float | str:
    """NumPy's numbers, which counts often are."""
    if hasattr(value, "item"):
        number: int | float | str = value.item()
        return number
    raise TypeError(f"a report holds plain values, not {type(value).__name__}.")


def schema() -> dict[str, Any]:
    """The JSON Schema of ``report.json``: every key present, no other key."""
    from pydantic import TypeAdapter

    made: dict[str, Any] = TypeAdapter(Report).json_schema(mode="serialization")
    made["$defs"]["Rate"]["properties"]["percent"] = {"anyOf": [{"type": "string"}, {"type": "null"}]}
    for part in (made, *made["$defs"].values()):
        part["required"] = sorted(part["properties"])
        part["additionalProperties"] = False
        for one in part["properties"].values():
            one.pop("default", None)
            one.pop("title", None)
    made["properties"]["schema_version"] = {"const": SCHEMA_VERSION}
    made["title"] = "report.json of corpus_guard"
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}


if __name__ == "__main__":
    print(json.dumps(schema(), indent=1, sort_keys=True, ensure_ascii=False))
