"""
What is known of a corpus, a run and its tools, as far as provisions ask for it.

Everything may be missing: ``None`` means not known, and a provision that needs it needs evidence. Counts are integers;
shares are made of them where they are judged. Holds no corpus text.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Literal, Protocol

from corpus_guard.policy import SourceRule


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceEvidence:
    """
    The assessment of all sources in one phase: how many there are, were assessed, are over the limit, are used anyway.

    ``over_used`` counts sources over the limit whose decision is ``keep``; ``held`` those kept out until more is known.
    ``worst``: (illegal, documents) of the source with the largest share.
    """

    sources: int
    assessed: int
    over: int
    over_used: int
    held: int = 0
    worst: tuple[int, int] | None = None

    @classmethod
    def of(cls, rows: Iterable[tuple[int, int, str]], rule: SourceRule, sources: int | None = None) -> "SourceEvidence":
        """
        From (illegal, documents, decision) of each assessed source, held against *rule*.

        *sources*: how many there are, where some were not assessed.
        """
        assessed = over = over_used = held = 0
        worst: tuple[int, int] | None = None
        for illegal, documents, decision in rows:
            assessed += 1
            held += decision == "hold"
            if rule.over(illegal, documents):
                over += 1
                over_used += decision == "keep"
            if documents and (worst is None or illegal * worst[1] > worst[0] * documents):
                worst = (illegal, documents)
        total = assessed if sources is None else sources
        return cls(sources=total, assessed=assessed, over=over, over_used=over_used, held=held, worst=worst)


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleEvidence:
    """
    A sample. ``judged`` and ``good`` count drawn documents that are settled, and those of them that qualify.

    For the technical sample these are the figures of the independent set-up; without one they are ``None``. ``note`` is
    a sentence a reader should have beside the result.
    """

    population: int | None = None
    drawn: int | None = None
    judged: int | None = None
    good: int | None = None
    attempts: int | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryEvidence:
    """
    The keyword library as counted on the run's date (R-24: distinct after normalising).

    ``too_long``: entries over the usual length. ``largest_gap_days``: between two changes of its log.
    """

    total: int | None = None
    per_risk: Mapping[str, int] | None = None
    too_long: int | None = None
    newest_change: date | None = None
    largest_gap_days: int | None = None


class Detecting(Protocol):
    """What one model has to say of one risk; ``classifiers.coverage.Covered`` is one."""

    @property
    def model(self) -> str: ...
    @property
    def positives(self) -> int | None: ...
    @property
    def status(self) -> str: ...
    @property
    def on(self) -> bool: ...
    @property
    def candidate(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Detector:
    """
    A detector of one risk. ``positives``: labelled documents with the risk it was evaluated on. ``status``: usable,
    weak or no data. ``on``: it has a threshold. ``candidate``: only a broader label points to the risk: no coverage.
    """

    model: str
    positives: int | None = None
    status: str = "no data"
    on: bool = True
    candidate: bool = False


@dataclass(frozen=True, slots=True)
class StageEvidence:
    """
    At how many documents a stage looked, of how many it should have.

    ``documents`` leaves out the quarantined (never clean, accounted for apart) and those of blacklisted sources, which
    are removed unseen.
    """

    looked_at: int
    documents: int


@dataclass(frozen=True, slots=True)
class DenylistEvidence:
    """A list of what must not be used: its entries, documents that match it, and those of them still in use."""

    entries: int
    matched: int
    used: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterEvidence:
    """
    What the register of sources holds, counted in sources.

    ``kinds``: kind to number of sources. ``unregistered``: sources of the corpus whose kind nobody stated. ``valid``
    and ``expired``: kind to document to number of sources that have it.
    """

    kinds: Mapping[str, int]
    unregistered: int = 0
    valid: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    expired: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonalEvidence:
    """
    Personal information: documents with each class (``personal``, ``sensitive``, ``biometric``), of those screened, and
    sources that have some without a stated basis.
    """

    screened: int
    documents: int
    found: Mapping[str, int]
    without_basis: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Statement:
    """
    What a named person states of a provision that nothing here can measure (9.1 b), with the reason or the proof.

    It fills in for missing papers and never for a measurement: samples, library and models are not stated but counted.
    """

    result: Literal["conforms", "does not conform", "not applicable"]
    reason: str
    by: str
    on: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """
    One body of evidence, to be held against any edition.

    ``sources``: phase to assessment. ``detectors``: risk to detectors; an empty mapping says that there is none.
    ``stages``: stage (``policy.STAGES``) to coverage; ``balanced``: whether read = clean + removed + quarantined.
    ``sources_by``: attributes such as ``("language",)`` to their values to number of sources, ``None`` for a value
    nobody knows. ``shares``: attribute to value to number of documents. ``documents``: the operator's own papers by
    name, true or false. ``exports``: formats written. ``modalities``: what the corpus holds, all of it.
    """

    as_of: date | None = None
    modalities: tuple[str, ...] | None = None
    sources: Mapping[str, SourceEvidence] | None = None
    manual: SampleEvidence | None = None
    technical: SampleEvidence | None = None
    library: LibraryEvidence | None = None
    detectors: Mapping[str, Sequence[Detecting]] | None = None
    stages: Mapping[str, StageEvidence] | None = None
    balanced: bool | None = None
    denylists: Mapping[str, DenylistEvidence] | None = None
    sources_by: Mapping[tuple[str, ...], Mapping[tuple[str | None, ...], int]] | None = None
    shares: Mapping[str, Mapping[str | None, int]] | None = None
    register: RegisterEvidence | None = None
    documents: Mapping[str, bool] | None = None
    personal: PersonalEvidence | None = None
    exports: frozenset[str] | None = None
    statements: Mapping[str, Statement] = field(default_factory=dict)
