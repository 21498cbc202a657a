"""
What an edition of the standard demands, plus our choices, as data.

A policy file names the three sets of risks, the rules with clause and level, and how the conclusion is drawn. It may
extend another and change it rule by rule. Every number of an edition stands in such a file and nowhere in code;
shares are exact fractions. This module reads and checks policies. What documents make of them is in ``verdicts``,
what a body of evidence makes of them in ``report.provisions``.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from corpus_guard.errors import UsageError
from corpus_guard.shipped import names, shipped
from corpus_guard.taxonomy import CODES, GROUPS, RISKS, Risk, codes_of, mask_of
from corpus_guard.yamlfile import KeyPath, Lines, near, read_yaml, shown

Level = Literal["shall", "should", "generally", "reference"]
LEVELS: tuple[Level, ...] = ("shall", "should", "generally", "reference")
PHASES = ("pre_collection", "post_collection")
KINDS = ("open", "self_collected", "commercial", "user_input", "synthetic", "other")
"""Kinds of sources, as 5.1 c) tells them apart: open-source, self-collected, commercial, user input; and two more."""

SETS = ("all", "illegal", "keyword")
STAGES = (
    "keyword", "classifier", "manual",
    "language", "personal_info", "blocklist", "near_duplicate", "copyright", "synthetic", "trade_secret",
)  # fmt: skip
"""Ways of looking a rule may ask for. Nothing ships for ``trade_secret``: it is an operator's own."""

DENYLISTS = ("blocked_by_law", "source_blacklist")
EXPORTS = ("eu_training_content_summary", "ca_ab2013", "regulator_pack")
PERSONAL = ("personal", "sensitive", "biometric")
BREACHES = ("do_not_collect", "do_not_train", "exclude", "blacklist")

_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}\Z")
_WORD = re.compile(r"[a-z][a-z0-9_]{0,99}\Z")
_PERCENT = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*%\Z")
_RATIO = re.compile(r"([0-9]+)/([1-9][0-9]*)\Z")


# Values


@dataclass(frozen=True, slots=True)
class Rule:
    """One provision: its clause, how binding it is, the verb that checks it and that verb's arguments."""

    id: str
    clause: str
    level: Level
    check: str
    arguments: dict[str, Any]
    kinds: tuple[str, ...] = ()
    """Kinds of sources the rule speaks of (``when``); empty for all."""
    on_breach: str | None = None
    note: str = ""

    def __getitem__(self, argument: str) -> Any:
        return self.arguments[argument]


@dataclass(frozen=True, slots=True)
class RiskSet:
    """A named set of risks as a bit mask over ``taxonomy.RISKS``, with the clause that defines it."""

    name: str
    mask: int
    clause: str
    note: str = ""

    @property
    def codes(self) -> tuple[str, ...]:
        return codes_of(self.mask)


@dataclass(frozen=True, slots=True)
class SourceRule:
    """The limit on a source's share of illegal documents, in exact integers."""

    rule: str
    clause: str
    level: Level
    phase: str
    limit: Fraction
    on_breach: str

    @classmethod
    def of(cls, rule: Rule) -> "SourceRule":
        """The limit in a rule that checks ``source_ratio``."""
        return cls(rule.id, rule.clause, rule.level, rule["phase"], rule["max"], rule.on_breach or "exclude")

    def over(self, illegal: int, documents: int) -> bool:
        """Strictly over the limit (R-2: a source exactly at the limit stays); a source without documents is not."""
        return illegal * self.limit.denominator > self.limit.numerator * documents


@dataclass(frozen=True, slots=True)
class SampleRule:
    """How large a sample has to be, and which share of it qualified, in exact integers."""

    rule: str
    clause: str
    level: Level
    min_items: int | None
    min_share: Fraction | None
    min: Fraction

    @classmethod
    def of(cls, rule: Rule) -> "SampleRule":
        """The sample in a rule that checks ``sample_rate``."""
        draw = rule["draw"]
        return cls(rule.id, rule.clause, rule.level, draw.get("min_items"), draw.get("min_share"), rule["min"])

    def size(self, population: int) -> int:
        """Documents to draw: rounded up (R-11); all of them where there are fewer than the minimum (R-12)."""
        share = self.min_share or Fraction(0)
        asked = -(-population * share.numerator // share.denominator)
        return min(population, max(asked, self.min_items or 0))

    def met(self, good: int, judged: int) -> bool:
        """Not less than the share; nothing judged meets nothing."""
        return judged > 0 and good * self.min.denominator >= self.min.numerator * judged


@dataclass(frozen=True, slots=True)
class Status:
    """What the text is, when it holds, and how far we have read it."""

    instrument: str = ""
    published: str | None = None
    in_force: str | None = None
    text: Literal["full", "partial", "not verified", "own"] = "own"
    superseded_by: str | None = None
    superseded_since: str | None = None


@dataclass(frozen=True, slots=True)
class Confirmation:
    """A named person compared one rule with the text of the standard."""

    by: str
    on: str
    clause: str


@dataclass(frozen=True, slots=True)
class ConclusionRule:
    """How the overall conclusion is drawn. No values: the edition gives results per provision only."""

    levels: tuple[Level, ...] = ("shall",)
    values: tuple[str, ...] = ()
    clause: str = ""
    leaves_out: tuple[str, ...] = ()
    """Rules that are evidence for others and no assessed provisions themselves (R-23)."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy with everything it extends resolved. Small, picklable, and known by its digest."""

    id: str
    title: str
    status: Status
    taxonomy: str
    risks: tuple[Risk, ...]
    sets: dict[str, RiskSet]
    readings: dict[str, str]
    thresholds: dict[str, tuple[float, float]]
    """``risk -> (upper, lower)``: win over those of the models."""
    review_counts_as_unqualified: bool
    rules: tuple[Rule, ...]
    conclusion: ConclusionRule
    confirmed: dict[str, Confirmation] = field(default_factory=dict)
    files: tuple[str, ...] = ()

    @property
    def all(self) -> int:
        """Mask of the risks no qualified document has (31)."""
        return self.sets["all"].mask

    @property
    def illegal(self) -> int:
        """Mask of the risks counted by the source rule (29)."""
        return self.sets["illegal"].mask

    @property
    def keyword(self) -> int:
        """Mask of the risks the keyword library must cover (17)."""
        return self.sets["keyword"].mask

    def rule(self, id: str) -> Rule:
        """The rule with this id; ``KeyError`` where there is none."""
        for rule in self.rules:
            if rule.id == id:
                return rule
        raise KeyError(id)

    def clause(self, rule: Rule) -> str:
        """The clause of *rule* to print: the confirmed one where a named person has confirmed it."""
        confirmed = self.confirmed.get(rule.id)
        return confirmed.clause if confirmed else rule.clause

    def source_rule(self, phase: str) -> SourceRule | None:
        """
        The strictest limit for sources in *phase*; a rule without phase holds in both.

        Where the edition has no rule for the phase (October 2023: one assessment serves), that of the other holds.
        """
        rules = [SourceRule.of(rule) for rule in self.rules if rule.check == "source_ratio"]
        fitting = [rule for rule in rules if rule.phase in (phase, "any")] or rules
        return min(fitting, key=lambda rule: rule.limit, default=None)

    @property
    def source(self) -> SourceRule:
        """The limit after collection: what may be trained on."""
        rule = self.source_rule("post_collection")
        if rule is None:
            raise UsageError(f"policy {self.id}: has no source_ratio rule, so sources cannot be decided; add one.")
        return rule

    @property
    def manual(self) -> SampleRule:
        """The sample people read (4,000 documents, 96 %)."""
        return self._sample("manual")

    @property
    def technical(self) -> SampleRule:
        """The technical sample (10 %, 98 %)."""
        return self._sample("technical")

    def _sample(self, by: str) -> SampleRule:
        for rule in self.rules:
            if rule.check == "sample_rate" and rule["by"] == by:
                return SampleRule.of(rule)
        raise UsageError(f"policy {self.id}: has no sample_rate rule by {by}, so no such sample can be drawn; add one.")

    def raised(self, manual: int | None = None, technical: Fraction | None = None) -> "Policy":
        """This policy with larger samples; ``UsageError`` where a number would be lowered."""
        policy = self
        for by, key, value in (("manual", "min_items", manual), ("technical", "min_share", technical)):
            if value is None:
                continue
            sample = policy._sample(by)
            asked = getattr(sample, key) or 0
            if value < asked:
                raise UsageError(
                    f"spot_check.{by}: {plain(value)} is less than the {plain(asked)} of policy {self.id} "
                    f"({sample.clause}); it can only be raised."
                )
            old = policy.rule(sample.rule)
            new = replace(old, arguments=old.arguments | {"draw": old["draw"] | {key: value}})
            policy = replace(policy, rules=tuple(new if rule is old else rule for rule in policy.rules))
        return policy

    @property
    def notices(self) -> tuple[str, ...]:
        """Lines that a run under this policy prints first: what supersedes it, what of it is not verified."""
        lines = []
        if self.status.superseded_by:
            since = self.status.superseded_since
            told = f"is in force since {since}" if since else "replaces this edition"
            lines.append(f"{self.status.superseded_by} {told}; this run judges by {self.title}.")
        if self.status.text in ("partial", "not verified"):
            lines.append(
                f"The text of {self.title} is not verified: {len(self.confirmed)} of {len(self.rules)} rules are "
                "confirmed by a named person (`corpus-guard policy verify` records a confirmation)."
            )
        return tuple(lines)

    @property
    def resolved(self) -> dict[str, Any]:
        """All of the policy as plain JSON values, in a fixed order; fractions as they are written in files."""
        return {
            "id": self.id,
            "title": self.title,
            "status": {name: getattr(self.status, name) for name in Status.__slots__},
            "confirmed": {
                rule: {"by": c.by, "on": c.on, "clause": c.clause} for rule, c in sorted(self.confirmed.items())
            },
            **self._deciding,
        }

    @property
    def _deciding(self) -> dict[str, Any]:
        return {
            "taxonomy": self.taxonomy,
            "risks": {risk.code: {"en": risk.en, "zh": risk.zh} for risk in self.risks},
            "risk_sets": {
                name: {"ids": list(self.sets[name].codes), "clause": self.sets[name].clause} for name in SETS
            },
            "readings": dict(sorted(self.readings.items())),
            "thresholds": {
                risk: {"upper": upper, "lower": lower} for risk, (upper, lower) in sorted(self.thresholds.items())
            },
            "rules": [
                {
                    "id": rule.id,
                    "clause": rule.clause,
                    "level": rule.level,
                    "check": rule.check,
                    "when": list(rule.kinds),
                    "on_breach": rule.on_breach,
                    **{name: _json(value) for name, value in sorted(rule.arguments.items())},
                }
                for rule in sorted(self.rules, key=lambda rule: rule.id)
            ],
            "conclusion": {
                "levels_that_count": list(self.conclusion.levels),
                "values": list(self.conclusion.values),
                "clause": self.conclusion.clause,
                "leaves_out": sorted(self.conclusion.leaves_out),
            },
        }

    @property
    def digest(self) -> str:
        """
        SHA-256 (64 hex) of what decides, after ``extends`` was resolved.

        Id, title, status, notes and confirmations are left out: correcting a title or confirming a rule does not make
        a run another one. The order and layout of files do not matter either.
        """
        canonical = json.dumps(self._deciding, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


def plain(value: Any) -> str:
    """A number as people write it: fractions as ``2.5%`` where that is exact, else ``1/3``; integers with commas."""
    if isinstance(value, Fraction):
        percent = value * 100
        for digits in range(7):
            scaled = percent * 10**digits
            if scaled.denominator == 1:
                whole, rest = divmod(scaled.numerator, 10**digits)
                return f"{whole}.{rest:0{digits}d}%" if digits else f"{whole}%"
        return f"{value.numerator}/{value.denominator}"
    return f"{value:,}"


def _json(value: Any) -> Any:
    if isinstance(value, Fraction):
        return plain(value)
    if isinstance(value, tuple):
        return [_json(item) for item in value]
    if isinstance(value, dict):
        return {key: _json(item) for key, item in sorted(value.items())}
    return value


# Readers of single values: they give the value, or raise ValueError with what it must be.


def share(value: Any) -> Fraction:
    """An exact share of one: ``"5%"``, ``"2.5%"``, ``"1/3"``, 0, 1, 0.05. ``ValueError`` says what it must be."""
    result = None
    if isinstance(value, str):
        if percent := _PERCENT.match(value.strip()):
            result = Fraction(percent[1]) / 100
        elif ratio := _RATIO.match(value.strip()):
            result = Fraction(int(ratio[1]), int(ratio[2]))
    elif isinstance(value, Fraction):
        result = value
    elif isinstance(value, int) and not isinstance(value, bool):
        result = Fraction(value)
    elif isinstance(value, float) and math.isfinite(value):
        result = Fraction(repr(value))  # as it was written: 0.05 is 1/20, not its binary neighbour
    if result is None or not 0 <= result <= 1:
        raise ValueError('must be a share from 0% to 100%, such as "5%"')
    return result


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError("must be a whole number, 0 or more")
    return value


def _positive(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError("must be a whole number, 1 or more")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be text")
    return value


def _word(value: Any) -> str:
    if not isinstance(value, str) or not _WORD.match(value):
        raise ValueError("must be a name of small letters, digits and underscores")
    return value


def _rule_id(value: Any) -> str:
    if not isinstance(value, str) or not _ID.match(value):
        raise ValueError("must be an id of small letters, digits, dots and hyphens")
    return value


def _day(value: Any) -> str:
    try:
        return date.fromisoformat(value).isoformat()
    except (TypeError, ValueError):
        raise ValueError("must be a date such as 2025-11-01") from None


def _one_of(*known: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in known or not isinstance(value, str):
            guess = near(value, known) if isinstance(value, str) else ""
            raise ValueError(f"is '{shown(value)}', must be {' or '.join(known)}{guess}")
        return value

    return read


def _list_of(read: Callable[[Any], Any], *, empty: bool = False) -> Callable[[Any], tuple[Any, ...]]:
    def read_list(value: Any) -> tuple[Any, ...]:
        items = value if isinstance(value, list) else [value]
        result = tuple(read(item) for item in items)
        if not result and not empty:
            raise ValueError("must name at least one")
        if len(set(result)) < len(result):
            raise ValueError("names one thing twice")
        return result

    return read_list


def _draw(value: Any) -> dict[str, Any]:
    readers: dict[str, Callable[[Any], Any]] = {"min_items": _positive, "min_share": share}
    if not isinstance(value, dict) or not value or not set(value) <= set(readers):
        raise ValueError("must be {min_items: ...}, {min_share: ...} or both")
    return {key: readers[key](item) for key, item in value.items()}


# The closed set of verbs


@dataclass(frozen=True, slots=True)
class _Argument:
    read: Callable[[Any], Any]
    default: Any = None
    required: bool = False


def _must(read: Callable[[Any], Any]) -> _Argument:
    return _Argument(read, required=True)


VERBS: dict[str, dict[str, _Argument]] = {
    "source_ratio": {
        "phase": _must(_one_of(*PHASES, "any")),
        "risks": _must(_one_of("illegal")),
        "max": _must(share),
    },
    "sample_rate": {
        "by": _must(_one_of("manual", "technical")),
        "draw": _must(_draw),
        "risks": _must(_one_of("all")),
        "min": _must(share),
    },
    "library_count": {"min": _must(_positive), "each_in": _Argument(_one_of(*GROUPS))},
    "library_cover": {"risks": _must(_one_of(*SETS))},
    "library_age": {"max_days": _must(_count)},
    "entry_length": {"max_han": _must(_positive), "max_words": _must(_positive)},
    # 200 labelled positives: reading R-27 of "completely cover"; a name in a list of labels is no coverage.
    "classifier_cover": {"risks": _must(_one_of(*SETS)), "min_positive": _Argument(_count, 200)},
    "stages_ran": {
        "stages": _must(_list_of(_one_of(*STAGES))),
        "coverage": _Argument(share, Fraction(1)),
        "coverage_of": _Argument(_list_of(_one_of(*STAGES))),
        "stages_are": _Argument(_one_of("all", "examples"), "all"),
        "per_modality": _Argument(_flag, False),
        "shown_by": _Argument(_list_of(_rule_id, empty=True), ()),
    },
    "denylist": {"list": _must(_one_of(*DENYLISTS))},
    "min_sources": {"by": _must(_list_of(_one_of("language", "modality", "kind", "origin"))), "min": _must(_positive)},
    "report_share": {
        "by": _must(_one_of("origin", "language", "kind")),
        "evidence": _Argument(_word),
        "unconditional": _Argument(_flag, False),
        "of": _Argument(_text),
        "max": _Argument(share),
    },
    "document": {"needs": _must(_list_of(_word))},
    "pi_basis": {
        "classes": _must(_list_of(_one_of(*PERSONAL))),
        "read_as": _Argument(_one_of("consent_or_other_lawful_basis"), "consent_or_other_lawful_basis"),
    },
    "export": {"format": _must(_one_of(*EXPORTS))},
    "all_of": {"rules": _must(_list_of(_rule_id)), "also": _Argument(_list_of(_rule_id, empty=True), ())},
}
"""Each verb with its arguments. A new edition is a file; only a new verb needs code, in ``report.provisions``."""

_COMMON = ("id", "clause", "level", "check", "when", "on_breach", "note")
_SPEAKS_OF_KINDS = ("document", "stages_ran", "pi_basis")

_READINGS: dict[str, dict[str, tuple[str, ...]]] = {
    # Where one value stands alone, nothing else is built: the file states the reading, the report prints it.
    "item": {"unit": ("document",), "long": ("any_window",)},
    "source": {"duplicates": ("each_copy",), "measured_on": ("as_collected",), "estimate": ("point",)},
    "verdict": {"review": ("kept", "unqualified")},
}
_MAPPINGS = ("status", "risk_overrides", "risk_sets", *_READINGS, "thresholds", "conclusion", "confirmed")
_TOP = (
    "kind", "schema", "id", "title", "status", "extends", "taxonomy", "risk_overrides", "risk_sets",
    "item", "source", "verdict", "thresholds", "drop", "rules", "conclusion", "confirmed",
)  # fmt: skip
_STATUS = ("instrument", "published", "in_force", "text", "superseded_by", "superseded_since")
_CONCLUSIONS = ("fully_met", "partially_met", "not_met")


# Loading


def load_policy(name_or_path: str | Path) -> Policy:
    """
    The policy shipped under a name, or the one in a file.

    ``UsageError`` tells all faults of the file and of those it extends at once, each with file, line, key and the
    nearest match.
    """
    path = find_policy(name_or_path)
    faults = _Faults()
    merged = _Merged(faults)
    for one in _chain(path, faults):
        merged.add(one)
    policy = _read(merged, faults)
    faults.stop()
    assert policy is not None
    return replace(policy, files=tuple(merged.files))


def confirm(path: Path, policy: Policy, rule: str, *, by: str, on: date, clause: str) -> Policy:
    """
    Record that a named person compared one rule with the text of the standard (``policy verify``).

    The record is a policy file of its own at *path*, which extends *policy* and adds nothing but confirmations; runs
    name it instead of the shipped one. Raises ``UsageError`` where there is no such rule, or where the file at *path*
    is something else. Returns the policy in that file.
    """
    known = [each.id for each in policy.rules]
    if rule not in known:
        raise UsageError(f"policy {policy.id}: has no rule '{shown(rule)}'{near(rule, known) or '.'}")
    if not by.strip() or not clause.strip():
        raise UsageError("A confirmation needs the name of a person and the clause as the text has it.")
    data: dict[str, Any] = {
        "kind": "policy",
        "schema": 1,
        "id": f"{policy.id}-confirmed",
        "title": policy.title,
        "extends": policy.id if shipped("policies", policy.id) else str(Path(policy.files[-1]).resolve()),
        "confirmed": {},
    }
    if path.exists():
        found, _ = read_yaml(path)
        if not isinstance(found, dict) or set(found) != set(data) or found["extends"] != data["extends"]:
            raise UsageError(f"{path}: is no record of confirmations of policy {policy.id}; name another file.")
        load_policy(path)  # refuses a record that was damaged
        data = found
    data["confirmed"][rule] = {"by": by, "on": on.isoformat(), "clause": clause}
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in data.items() if key != "confirmed"]
    lines.append("confirmed:")
    lines += [f"  {id}: {json.dumps(entry, ensure_ascii=False)}" for id, entry in sorted(data["confirmed"].items())]
    whole = path.with_name(path.name + ".part")
    whole.write_text("\n".join(lines) + "\n", encoding="utf-8")
    whole.replace(path)
    return load_policy(path)


def find_policy(name_or_path: str | Path, beside: Path | None = None) -> Path:
    """The file of a shipped name, or of a path (relative to *beside*); ``UsageError`` names the nearest."""
    text = str(name_or_path)
    looks_like_path = isinstance(name_or_path, Path) or "/" in text or "\\" in text or text.endswith((".yaml", ".yml"))
    if looks_like_path:
        path = (beside or Path()) / text
        if not path.is_file():
            raise UsageError(f"there is no policy file '{shown(path)}'.")
        return path
    found = shipped("policies", text)
    if found is None:
        known = names("policies")
        raise UsageError(
            f"there is no policy '{shown(text)}'{near(text, known) or '.'} Shipped are {', '.join(known)}; "
            "anything else is a path that ends in .yaml."
        )
    return found


class _Faults:
    """Faults of several files, told together: each place knows the file it came from."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, int, str]] = {}
        self._files: list[str] = []
        self.where: dict[KeyPath, tuple[str, int]] = {}

    def at(self, place: KeyPath, sentence: str) -> None:
        for end in range(len(place), -1, -1):
            if place[:end] in self.where:
                return self.told(*self.where[place[:end]], sentence)
        self.told(self._files[-1] if self._files else "policy", 0, sentence)

    def told(self, file: str, line: int, sentence: str) -> None:
        if file not in self._files:
            self._files.append(file)
        message = f"{file}:{line}: {sentence}" if line else f"{file}: {sentence}"
        self._found.setdefault(message, (self._files.index(file), line, message))

    def unknown(self, place: KeyPath, given: Iterable[str], known: Iterable[str]) -> None:
        known = list(known)
        for key in given:
            if key not in known:
                guess = near(key, known) or f"; known are {', '.join(known)}."
                self.at((*place, key), f"unknown key '{shown(key)}'{guess}")

    def stop(self) -> None:
        if self._found:
            raise UsageError("\n".join(message for _, _, message in sorted(self._found.values())))


@dataclass(frozen=True, slots=True)
class _File:
    name: str
    data: dict[str, Any]
    lines: Lines

    def line(self, *place: str | int) -> int:
        for end in range(len(place), -1, -1):
            if place[:end] in self.lines:
                return self.lines[place[:end]]
        return 0


def _chain(path: Path, faults: _Faults) -> list[_File]:
    """The file and all it extends, the first ancestor first."""
    chain: list[_File] = []
    seen: list[Path] = []
    while True:
        seen.append(path.resolve())
        data, lines = read_yaml(path)
        file = _File(str(path), data, lines)
        if not isinstance(data, dict):
            raise UsageError(f"{path}: must hold keys such as id, title and rules.")
        chain.insert(0, file)
        parent = data.get("extends")
        if parent is None:
            return chain
        try:
            if not isinstance(parent, str):
                raise UsageError("extends must name one policy.")
            path = find_policy(parent, beside=path.parent)
        except UsageError as error:
            raise UsageError(f"{file.name}:{file.line('extends')}: extends: {error}") from None
        if path.resolve() in seen:
            place = f"{file.name}:{file.line('extends')}"
            raise UsageError(f"{place}: extends '{shown(parent)}', which extends this file again.")


class _Merged:
    """What a file and its ancestors say together, and which line of which file says it."""

    def __init__(self, faults: _Faults) -> None:
        self.faults = faults
        self.files: list[str] = []
        self.single: dict[str, Any] = {}
        self.mappings: dict[str, dict[str, Any]] = {key: {} for key in _MAPPINGS}
        self.rules: dict[str, dict[str, Any]] = {}

    def add(self, file: _File) -> None:
        self.files.append(file.name)
        where = self.faults.where
        where[()] = (file.name, 0)
        for key in ("id", "title"):
            self.single.pop(key, None)  # a policy that extends another is another policy
            where.pop((key,), None)
        for key in file.data:
            if key not in _TOP:
                guess = near(key, _TOP) or f"; known are {', '.join(_TOP)}."
                self.faults.told(file.name, file.line(key), f"unknown key '{shown(key)}'{guess}")
        for key, value in file.data.items():
            if key in self.mappings:
                self._mapping(file, key, value)
            elif key in _TOP and key not in ("drop", "rules"):
                self.single[key] = value
                where[(key,)] = (file.name, file.line(key))
        self._drop(file)
        self._rules(file)

    def _mapping(self, file: _File, key: str, value: Any) -> None:
        if not isinstance(value, dict):
            self.faults.told(file.name, file.line(key), f"'{key}' must hold keys.")
            return
        if key == "status":
            self.mappings[key].clear()  # what is true of one text is not true of another
        self.mappings[key].update(value)
        for place, line in file.lines.items():
            if place[:1] == (key,):
                self.faults.where[place] = (file.name, line)

    def _drop(self, file: _File) -> None:
        drop = file.data.get("drop", [])
        if not isinstance(drop, list):
            self.faults.told(file.name, file.line("drop"), "'drop' must be a list of rule ids.")
            return
        for i, id in enumerate(drop):
            self.faults.where[("drop", str(id))] = (file.name, file.line("drop", i))
            if not isinstance(id, str) or self.rules.pop(id, None) is None:
                guess = near(str(id), self.rules) or "."
                self.faults.told(
                    file.name, file.line("drop", i), f"drops '{shown(id)}', which no extended policy has{guess}"
                )

    def _rules(self, file: _File) -> None:
        rules = file.data.get("rules", [])
        if not isinstance(rules, list):
            self.faults.told(file.name, file.line("rules"), "'rules' must be a list of rules.")
            return
        own: dict[str, int] = {}
        for i, rule in enumerate(rules):
            line = file.line("rules", i)
            if not isinstance(rule, dict):
                self.faults.told(file.name, line, "a rule must hold keys such as id, clause, level and check.")
                continue
            id = rule.get("id")
            if not isinstance(id, str) or not _ID.match(id):
                self.faults.told(file.name, line, "a rule needs an id of small letters, digits, dots and hyphens.")
                continue
            if id in own:
                self.faults.told(file.name, line, f"rule '{id}' stands twice, first in line {own[id]}; keep one.")
                continue
            own[id] = line
            self._rule(file, i, id, rule)

    def _rule(self, file: _File, i: int, id: str, rule: dict[str, Any]) -> None:
        old = self.rules.get(id, {})
        if "check" in rule and rule["check"] != old.get("check"):
            old = {key: value for key, value in old.items() if key in ("id", "clause", "level")}
        self.rules[id] = old | rule
        for place, line in file.lines.items():
            if place[:2] == ("rules", i):
                self.faults.where[("rules", id, *place[2:])] = (file.name, line)


def _read(merged: _Merged, faults: _Faults) -> Policy | None:
    single, mappings = merged.single, merged.mappings
    for key, expected in (("kind", "policy"), ("schema", 1), ("taxonomy", "appendix-a")):
        if single.get(key, expected) != expected:
            faults.at((key,), f"{key} must be {expected}.")
    id = _value(faults, ("id",), single.get("id"), _rule_id)
    title = _value(faults, ("title",), single.get("title"), _text)
    sets = _sets(mappings["risk_sets"], faults)
    readings = _readings(mappings, faults)
    rules = _rules(merged.rules, faults)
    for rule in rules:
        if rule.check == "library_count" and rule["each_in"] and sets and not _group(sets["all"].mask, rule["each_in"]):
            faults.at(("rules", rule.id, "each_in"), f"no risk of {rule['each_in']} is in the set 'all'.")
    policy = Policy(
        id=id or "",
        title=title or "",
        status=_status(mappings["status"], faults),
        taxonomy="appendix-a",
        risks=_risks(mappings["risk_overrides"], faults),
        sets=sets,
        readings=readings,
        thresholds=_thresholds(mappings["thresholds"], faults),
        review_counts_as_unqualified=readings.get("verdict.review") == "unqualified",
        rules=rules,
        conclusion=_conclusion(mappings["conclusion"], merged.rules, faults),
        confirmed=_confirmed(mappings["confirmed"], merged.rules, faults),
    )
    _references(policy, merged.rules, faults)
    return policy


def _value(faults: _Faults, place: KeyPath, value: Any, read: Callable[[Any], Any], default: Any = None) -> Any:
    """*value* as *read* gives it; else the fault is noted and *default* stands in."""
    name = place[-1]
    if value is None:
        faults.at(place, f"'{name}' is missing.")
        return default
    try:
        return read(value)
    except ValueError as error:
        told = str(error)
        faults.at(place, f"'{name}' {told}" + ("" if told.endswith("?") else "."))
        return default


def _risks(overrides: Mapping[str, Any], faults: _Faults) -> tuple[Risk, ...]:
    faults.unknown(("risk_overrides",), overrides, CODES)
    changed = {}
    for code, names_ in overrides.items():
        place = ("risk_overrides", code)
        if not isinstance(names_, dict):
            faults.at(place, f"'{shown(code)}' must be {{en: ..., zh: ...}}.")
            continue
        faults.unknown(place, names_, ("en", "zh"))
        told = {key: names_[key] for key in ("en", "zh") if key in names_}
        changed[code] = {key: _value(faults, (*place, key), text, _text) for key, text in told.items()}
    return tuple(replace(risk, **changed.get(risk.code, {})) for risk in RISKS)


def _sets(given: Mapping[str, Any], faults: _Faults) -> dict[str, RiskSet]:
    faults.unknown(("risk_sets",), given, SETS)
    sets = {}
    for name in SETS:
        place = ("risk_sets", name)
        entry = given.get(name)
        if not isinstance(entry, dict):
            faults.at(place, f"risk set '{name}' is missing; give its groups or ids, expect and clause.")
            continue
        faults.unknown(place, entry, ("groups", "ids", "without", "expect", "clause", "note"))
        codes: set[str] = set()
        for key, known in (("groups", GROUPS), ("ids", CODES), ("without", CODES)):
            items = _value(faults, (*place, key), entry.get(key, []), _list_of(_one_of(*known), empty=True), ())
            if key == "groups":
                codes |= {code for code in CODES if code[:3] in items}
            elif key == "ids":
                codes |= set(items)
            else:
                for code in items:
                    if code not in codes:
                        faults.at((*place, key), f"leaves out {code}, which is not in the set.")
                codes -= set(items)
        expect = _value(faults, (*place, "expect"), entry.get("expect"), _positive)
        clause = _value(faults, (*place, "clause"), entry.get("clause"), _text, "")
        if expect is not None and len(codes) != expect:
            faults.at((*place, "expect"), f"risk set '{name}' has {len(codes)} risks, {expect} are expected.")
        sets[name] = RiskSet(name, mask_of(codes), clause, str(entry.get("note", "")))
    if len(sets) < len(SETS):
        return {}
    for name in ("illegal", "keyword"):
        if extra := sets[name].mask & ~sets["all"].mask:
            faults.at(("risk_sets", name), f"risk set '{name}' has {', '.join(codes_of(extra))}, which 'all' has not.")
    return sets


def _group(mask: int, group: str) -> int:
    return mask & mask_of(code for code in CODES if code[:3] == group)


def _readings(mappings: Mapping[str, Mapping[str, Any]], faults: _Faults) -> dict[str, str]:
    result = {}
    for section, keys in _READINGS.items():
        given = mappings[section]
        faults.unknown((section,), given, keys)
        for key, values in keys.items():
            read = _one_of(*values)
            result[f"{section}.{key}"] = _value(faults, (section, key), given.get(key, values[0]), read, values[0])
    return result


def _status(given: Mapping[str, Any], faults: _Faults) -> Status:
    faults.unknown(("status",), given, _STATUS)
    readers = {
        "text": _one_of("full", "partial", "not verified", "own"),
        "published": _day, "in_force": _day, "superseded_since": _day,
    }  # fmt: skip
    return Status(
        **{
            key: _value(faults, ("status", key), value, readers.get(key, _text))
            for key, value in given.items()
            if key in _STATUS
        }
    )


def _thresholds(given: Mapping[str, Any], faults: _Faults) -> dict[str, tuple[float, float]]:
    faults.unknown(("thresholds",), given, CODES)
    result = {}
    for code, pair in given.items():
        place = ("thresholds", code)
        if not isinstance(pair, dict) or set(pair) != {"upper", "lower"}:
            faults.at(place, f"thresholds of '{shown(code)}' must be {{upper: ..., lower: ...}}.")
            continue
        upper, lower = (pair[key] for key in ("upper", "lower"))
        numbers = all(isinstance(x, int | float) and not isinstance(x, bool) and 0 <= x <= 1 for x in (upper, lower))
        if not numbers or lower > upper:
            faults.at(place, f"thresholds of '{shown(code)}' must be from 0 to 1, the lower not over the upper.")
            continue
        result[code] = (float(upper), float(lower))
    return result


def _rules(given: Mapping[str, dict[str, Any]], faults: _Faults) -> tuple[Rule, ...]:
    if not given:
        faults.at(("rules",), "a policy needs rules.")
    rules = (_rule(id, rule, faults) for id, rule in given.items())
    return tuple(rule for rule in rules if rule is not None)


def _rule(id: str, given: Mapping[str, Any], faults: _Faults) -> Rule | None:
    place: KeyPath = ("rules", id)
    check = _value(faults, (*place, "check"), given.get("check"), _one_of(*VERBS))
    level = _value(faults, (*place, "level"), given.get("level"), _one_of(*LEVELS))
    clause = _value(faults, (*place, "clause"), given.get("clause"), _text, "")
    if check is None:
        return None
    verb = VERBS[check]
    faults.unknown(place, given, (*_COMMON, *verb))
    arguments = {}
    for name, argument in verb.items():
        if given.get(name) is None:
            if argument.required:
                faults.at(place, f"rule '{id}': {check} needs '{name}'.")
                return None
            arguments[name] = argument.default
            continue
        value = _value(faults, (*place, name), given[name], argument.read)
        if value is None:
            return None
        arguments[name] = value
    if check == "stages_ran":
        stages = arguments["stages"]
        arguments["coverage_of"] = arguments["coverage_of"] or tuple(s for s in stages if s != "manual")
        for stage in set(arguments["coverage_of"]) - set(stages):
            faults.at((*place, "coverage_of"), f"rule '{id}': '{stage}' is not among its stages.")
    if check == "report_share" and (arguments["max"] is None) != (arguments["of"] is None):
        faults.at(place, f"rule '{id}': 'max' and 'of' are given together or not at all.")
    breach = given.get("on_breach")
    if breach is not None:
        breach = _value(faults, (*place, "on_breach"), breach, _one_of(*BREACHES))
    kinds = _kinds(id, check, given, faults)
    return Rule(id, clause, level or "shall", check, arguments, kinds, breach, str(given.get("note", "")))


def _kinds(id: str, check: str, given: Mapping[str, Any], faults: _Faults) -> tuple[str, ...]:
    when = given.get("when")
    if when is None:
        return ()
    place = ("rules", id, "when")
    if check not in _SPEAKS_OF_KINDS:
        faults.at(place, f"rule '{id}': 'when' has no meaning for {check}.")
        return ()
    if not isinstance(when, dict) or "kind" not in when:
        faults.at(place, f"rule '{id}': 'when' must be {{kind: ...}}.")
        return ()
    faults.unknown(place, when, ("kind",))
    return tuple(_value(faults, (*place, "kind"), when["kind"], _list_of(_one_of(*KINDS)), ()))


def _conclusion(given: Mapping[str, Any], rules: Iterable[str], faults: _Faults) -> ConclusionRule:
    faults.unknown(("conclusion",), given, ("levels_that_count", "values", "clause", "leaves_out"))

    def read(key: str, known: tuple[str, ...], default: tuple[str, ...]) -> tuple[Any, ...]:
        value = given.get(key, list(default))
        return tuple(_value(faults, ("conclusion", key), value, _list_of(_one_of(*known), empty=True), default))

    values = read("values", _CONCLUSIONS, ())
    if values and set(values) != set(_CONCLUSIONS):
        faults.at(("conclusion", "values"), f"'values' must be empty or {', '.join(_CONCLUSIONS)}.")
    return ConclusionRule(
        levels=read("levels_that_count", LEVELS, ("shall",)),
        values=values,
        clause=_value(faults, ("conclusion", "clause"), given.get("clause", "none"), _text, ""),
        leaves_out=read("leaves_out", tuple(rules), ()),
    )


def _confirmed(given: Mapping[str, Any], rules: Iterable[str], faults: _Faults) -> dict[str, Confirmation]:
    known = list(rules)
    result = {}
    for id, entry in given.items():
        place = ("confirmed", id)
        if id not in known:
            faults.at(place, f"confirms rule '{shown(id)}', which there is not{near(id, known) or '.'}")
            continue
        if not isinstance(entry, dict):
            faults.at(place, f"confirmation of '{id}' must be {{by: ..., on: ..., clause: ...}}.")
            continue
        faults.unknown(place, entry, ("by", "on", "clause"))
        readers: dict[str, Callable[[Any], str]] = {"by": _text, "on": _day, "clause": _text}
        fields = {key: _value(faults, (*place, key), entry.get(key), reader) for key, reader in readers.items()}
        result[id] = Confirmation(**fields)
    return result


def _references(policy: Policy, known: Iterable[str], faults: _Faults) -> None:
    """Rules that name other rules name existing ones, and never in a circle; one rule per sample."""
    known = list(known)
    named: dict[str, tuple[str, ...]] = {}
    for rule in policy.rules:
        for argument in ("rules", "also", "shown_by"):
            for other in rule.arguments.get(argument) or ():
                if other not in known and ("drop", other) in faults.where:
                    faults.at(("drop", other), f"drops '{other}', which rule '{rule.id}' names; change that rule too.")
                elif other not in known:
                    place: KeyPath = ("rules", rule.id, argument)
                    guess = near(other, known) or "."
                    faults.at(place, f"rule '{rule.id}': names rule '{shown(other)}', which there is not{guess}")
                named[rule.id] = (*named.get(rule.id, ()), other)
    for id in named:
        if _reaches(id, id, named, set()):
            faults.at(("rules", id), f"rule '{id}': names itself, directly or by another rule.")
    for by in ("manual", "technical"):
        same = [rule.id for rule in policy.rules if rule.check == "sample_rate" and rule["by"] == by]
        if len(same) > 1:
            faults.at(("rules", same[1]), f"rules {' and '.join(same)} both ask for the {by} sample; keep one.")


def _reaches(start: str, goal: str, named: Mapping[str, tuple[str, ...]], seen: set[str]) -> bool:
    for other in named.get(start, ()):
        if other == goal:
            return True
        if other not in seen:
            seen.add(other)
            if _reaches(other, goal, named, seen):
                return True
    return False
