"""
One result for each provision of a policy, from one body of evidence (9.1 b), and the conclusion (9.1 d).

A result is ``conforms``, ``does not conform``, ``not applicable`` or, where evidence is missing, ``needs evidence``:
nothing is guessed. Each verb of a policy is one function here; none knows an edition.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from corpus_guard.policy import Policy, Rule, SampleRule, SourceRule, plain
from corpus_guard.report.evidence import Evidence, SampleEvidence, SourceEvidence
from corpus_guard.report.model import Conclusion, ProvisionResult, Rate, Result
from corpus_guard.taxonomy import codes_of

CONFORMS: Result = "conforms"
FAILS: Result = "does not conform"
NOT_APPLICABLE: Result = "not applicable"
OPEN: Result = "needs evidence"

Standing = Literal["pass", "fail", "advisory", "not applicable", "open"]


@dataclass(frozen=True, slots=True)
class Assessment:
    """All provisions of a policy in its order, and the conclusion over those that count."""

    provisions: tuple[ProvisionResult, ...]
    conclusion: Conclusion
    failed: tuple[str, ...]
    """Rules that count for the conclusion and do not conform."""
    open: tuple[str, ...]
    """Rules that count for the conclusion and need evidence."""
    evaluation_valid: bool | None
    """Whether the tools meet the numbers of their chapter, recommended ones too (R-22); ``None`` while not known."""

    def __getitem__(self, rule: str) -> ProvisionResult:
        for row in self.provisions:
            if row.rule == rule:
                return row
        raise KeyError(rule)


def evaluate(policy: Policy, evidence: Evidence) -> Assessment:
    """Hold *evidence* against every rule of *policy*."""
    answers: dict[str, _Answer] = {}
    for rule in policy.rules:
        _answer(rule, policy, evidence, answers)
    rows = tuple(_row(rule, answers[rule.id], policy) for rule in policy.rules)
    counting = [rule for rule in policy.rules if counts(policy, rule)]
    failed = tuple(rule.id for rule in counting if answers[rule.id].result == FAILS)
    open_ = tuple(rule.id for rule in counting if answers[rule.id].result == OPEN)
    met = sum(answers[rule.id].result == CONFORMS for rule in counting)
    conclusion = _conclusion(policy, len(counting), met, failed, open_)
    return Assessment(rows, conclusion, failed, open_, _evaluation_valid(policy, answers))


def counts(policy: Policy, rule: Rule) -> bool:
    """Whether *rule* enters the conclusion: recommended provisions do not (9.1 d), nor what is evidence for others."""
    return rule.level in policy.conclusion.levels and rule.id not in policy.conclusion.leaves_out


def standing(policy: Policy, row: ProvisionResult) -> Standing:
    """How much a result weighs: what a binding rule does not meet is a fail, what another does not meet an advice."""
    if row.result == FAILS:
        return "fail" if row.level in policy.conclusion.levels else "advisory"
    return {CONFORMS: "pass", NOT_APPLICABLE: "not applicable"}.get(row.result, "open")  # type: ignore[return-value]


@dataclass(frozen=True, slots=True)
class _Answer:
    result: Result
    sentence: str
    rates: tuple[Rate, ...] = ()
    numbers: Mapping[str, Any] | None = None


def _row(rule: Rule, answer: _Answer, policy: Policy) -> ProvisionResult:
    sentence = answer.sentence
    if answer.result == FAILS and rule.level not in policy.conclusion.levels:
        sentence += f" Advisory: the provision is at level '{rule.level}'."
    return ProvisionResult(
        rule=rule.id,
        clause=policy.clause(rule),
        level=rule.level,
        result=answer.result,
        sentence=sentence,
        rates=answer.rates,
        numbers=dict(answer.numbers or {}),
    )


def _answer(rule: Rule, policy: Policy, evidence: Evidence, answers: dict[str, _Answer]) -> _Answer:
    if rule.id not in answers:
        others = {
            id: _answer(policy.rule(id), policy, evidence, answers)
            for argument in ("rules", "also", "shown_by")
            for id in rule.arguments.get(argument) or ()
        }
        answer = _VERBS[rule.check](_Question(rule, policy, evidence, others))
        statement = evidence.statements.get(rule.id)
        if answer.result == OPEN and statement is not None and rule.check not in _MEASURED:
            told = f"{statement.by} states on {statement.on}: {statement.reason}"
            answer = _Answer(statement.result, told.rstrip(".") + ".", (), {"stated": True})
        answers[rule.id] = answer
    return answers[rule.id]


@dataclass(frozen=True, slots=True)
class _Question:
    rule: Rule
    policy: Policy
    evidence: Evidence
    others: Mapping[str, _Answer]

    def rate(self, numerator: int, denominator: int) -> tuple[Rate, ...]:
        return (Rate(numerator, denominator, self.clause),)

    @property
    def clause(self) -> str:
        return self.policy.clause(self.rule)

    @property
    def text_only(self) -> bool:
        return self.evidence.modalities == ("text",)


# Sources


def _source_ratio(q: _Question) -> _Answer:
    rule = SourceRule.of(q.rule)
    known = q.evidence.sources or {}
    phases = ("post_collection", "pre_collection") if rule.phase == "any" else (rule.phase,)
    found = next((known[phase] for phase in phases if phase in known), None)
    when = {"pre_collection": "before collection", "post_collection": "after collection"}.get(rule.phase, "")
    if found is None:
        return _Answer(OPEN, f"No assessment of sources {when or 'before or after collection'} is known.")
    answer = _sources(q, rule, found)
    census = known.get("post_collection")
    if rule.phase == "pre_collection" and answer.result == CONFORMS and census is not None and census.over_used:
        told = f"{_n(census.over_used, 'source')} over {plain(rule.limit)} {_be(census.over_used)} still used"
        told += ", whatever was found before collection."
        return _Answer(FAILS, told, q.rate(census.over_used, census.sources))
    return answer


def _sources(q: _Question, rule: SourceRule, found: SourceEvidence) -> _Answer:
    limit = plain(rule.limit)
    rates = q.rate(found.over, found.sources)
    if found.worst is not None:
        rates += q.rate(*found.worst)
    numbers = {"limit": limit, "over": found.over, "used": found.over_used, "held": found.held}
    if found.over_used:
        used = f"{found.over_used:,} of {_n(found.sources, 'source')}"
        return _Answer(FAILS, f"{used} {_be(found.over_used)} over {limit} and still used.", rates, numbers)
    if found.sources == 0:
        return _Answer(OPEN, "The corpus names no source and has no document of any; there is nothing to assess.")
    if found.assessed < found.sources:
        missing = found.sources - found.assessed
        told = f"{missing:,} of {_n(found.sources, 'source')} {_be(missing)} not assessed."
        return _Answer(OPEN, told, rates, numbers)
    held = f", {found.held:,} held until more is known" if found.held else ""
    none_over = f"none is over {limit}" if not found.over else f"{found.over:,} over {limit} {_be(found.over)} kept out"
    return _Answer(CONFORMS, f"{_n(found.sources, 'source')} assessed: {none_over}{held}.", rates, numbers)


def _denylist(q: _Question) -> _Answer:
    name = q.rule["list"]
    found = (q.evidence.denylists or {}).get(name)
    told = {"blocked_by_law": "list of blocked information", "source_blacklist": "blacklist of sources"}[name]
    if found is None:
        return _Answer(OPEN, f"No {told} was given.")
    numbers = {"entries": found.entries, "matched": found.matched, "used": found.used}
    if found.used:
        return _Answer(FAILS, f"{_n(found.used, 'document')} on the {told} {_be(found.used)} still used.", (), numbers)
    return _Answer(CONFORMS, f"{_n(found.matched, 'document')} on the {told} found, none used.", (), numbers)


def _min_sources(q: _Question) -> _Answer:
    by: tuple[str, ...] = q.rule["by"]
    least: int = q.rule["min"]
    known = q.evidence.sources_by or {}
    cells = known.get(by)
    if cells is None and "modality" in by and q.text_only:
        # One modality: counting by language and modality is counting by language.
        cells = known.get(tuple(name for name in by if name != "modality"))
    named = " and ".join(by)
    if not cells:
        return _Answer(OPEN, f"How many sources there are by {named} is not known.")
    told_cells = {"/".join(str(value) for value in cell): n for cell, n in cells.items() if None not in cell}
    thin = sorted(cell for cell, n in told_cells.items() if n < least)
    numbers = {"least": least, "cells": len(told_cells), "thin": len(thin)}
    if thin:
        rates = q.rate(len(thin), len(cells))
        return _Answer(FAILS, f"Fewer than {_n(least, 'source')} for {_some(thin)}.", rates, numbers)
    unknown = sum(n for cell, n in cells.items() if None in cell)
    if unknown:
        return _Answer(OPEN, f"{named.capitalize()} of {_n(unknown, 'source')} {_be(unknown)} not known.", (), numbers)
    return _Answer(CONFORMS, f"At least {_n(least, 'source')} for each of {len(cells):,} by {named}.", (), numbers)


def _report_share(q: _Question) -> _Answer:
    by = q.rule["by"]
    shares = (q.evidence.shares or {}).get(by)
    total = sum((shares or {}).values())
    if not shares or not total:
        return _Answer(OPEN, f"Documents by {by} are not known.")
    unknown = shares.get(None, 0)
    named = {value: n for value, n in shares.items() if value is not None and n}
    told = ", ".join(f"{value} {n:,}" for value, n in sorted(named.items()))
    rates = tuple(Rate(n, total, q.clause) for _, n in sorted(named.items()))
    limit: Fraction | None = q.rule["max"]
    if limit is not None:
        part = shares.get(q.rule["of"], 0)
        if part * limit.denominator > limit.numerator * total:
            over = f"{part:,} of {_n(total, 'document')}"
            return _Answer(FAILS, f"{over} are {q.rule['of']}, over {plain(limit)}.", rates)
    if unknown:
        return _Answer(OPEN, f"The {by} of {unknown:,} of {_n(total, 'document')} is not known.", rates)
    if len(named) == 1:
        result = FAILS if q.rule["unconditional"] else NOT_APPLICABLE
        return _Answer(result, f"All {_n(total, 'document')} have one {by}, so nothing is mixed: {told}.", rates)
    paper = q.rule["evidence"]
    if paper is not None and not (q.evidence.documents or {}).get(paper):
        return _Answer(OPEN, f"By {by}: {told}; the reasons for the mix ({paper}) are not on record.", rates)
    return _Answer(CONFORMS, f"By {by}: {told}; the reasons for the mix are on record.", rates)


def _document(q: _Question) -> _Answer:
    return _documents_of_sources(q) if q.rule.kinds else _papers(q)


def _papers(q: _Question) -> _Answer:
    known = q.evidence.documents or {}
    absent = [need for need in q.rule["needs"] if known.get(need) is False]
    unknown = [need for need in q.rule["needs"] if need not in known]
    if absent:
        return _Answer(FAILS, f"Stated as missing: {', '.join(absent)}.")
    if unknown:
        return _Answer(OPEN, f"Not on record: {', '.join(unknown)}.")
    return _Answer(CONFORMS, f"On record: {', '.join(q.rule['needs'])}.")


def _documents_of_sources(q: _Question) -> _Answer:
    kinds = " or ".join(q.rule.kinds)
    applies = _applies(q)
    if isinstance(applies, _Answer):
        return applies
    register = q.evidence.register
    assert register is not None
    expired, missing, worst = [], [], applies
    for need in q.rule["needs"]:
        valid = sum(register.valid.get(kind, {}).get(need, 0) for kind in q.rule.kinds)
        old = sum(register.expired.get(kind, {}).get(need, 0) for kind in q.rule.kinds)
        worst = min(worst, valid)
        if old:
            expired.append(f"{need} ({old:,})")
        elif valid < applies:
            missing.append(f"{need} ({applies - valid:,})")
    sources = f"{_n(applies, 'source')} of kind {kinds}"
    rates = q.rate(worst, applies)
    if expired:
        return _Answer(FAILS, f"Of {sources}, some have papers that expired: {', '.join(expired)}.", rates)
    if missing:
        return _Answer(OPEN, f"Of {sources}, some have no {', no '.join(missing)} on record.", rates)
    if register.unregistered:
        return _Answer(OPEN, _unregistered(register.unregistered, kinds), rates)
    return _Answer(CONFORMS, f"{sources}: all have {', '.join(q.rule['needs'])} on record.", rates)


def _applies(q: _Question) -> "int | _Answer":
    """How many sources are of the kinds the rule speaks of; an answer where that settles it."""
    register = q.evidence.register
    kinds = " or ".join(q.rule.kinds)
    if register is None:
        return _Answer(OPEN, f"There is no register of sources, so which are {kinds} is not known.")
    sources = sum(register.kinds.get(kind, 0) for kind in q.rule.kinds)
    if sources:
        return sources
    if register.unregistered:
        return _Answer(OPEN, _unregistered(register.unregistered, kinds))
    return _Answer(NOT_APPLICABLE, f"No source is of kind {kinds}.")


def _unregistered(sources: int, kinds: str) -> str:
    return f"The kind of {_n(sources, 'source')} is not known; {'it' if sources == 1 else 'they'} may be {kinds}."


# Content


def _stages_ran(q: _Question) -> _Answer:
    if q.rule.kinds:
        applies = _applies(q)
        if isinstance(applies, _Answer):
            return applies
    if q.rule["per_modality"]:
        modalities = q.evidence.modalities
        if modalities is None:
            return _Answer(OPEN, "Which modalities the corpus holds is not known; only text is looked at here.")
        if other := sorted(set(modalities) - {"text"}):
            return _Answer(FAILS, f"Only text is looked at; {', '.join(other)} was not assessed.")
    shown = _shown(q)
    stages = q.evidence.stages or {}
    least: Fraction = q.rule["coverage"]
    short, unknown, told, rates = [], [], [], []
    for stage in q.rule["coverage_of"]:
        found = stages.get(stage)
        if found is None or not found.documents:
            unknown.append(stage)
            continue
        told.append(f"{stage} looked at {found.looked_at:,} of {_n(found.documents, 'document')}")
        rates.append(Rate(found.looked_at, found.documents, q.clause))
        if found.looked_at * least.denominator < least.numerator * found.documents:
            short.append(stage)
    if q.rule["stages_are"] == "examples" and len(short) + len(unknown) < len(q.rule["coverage_of"]):
        short, unknown = [], []
    numbers = {"coverage": plain(least)}
    if short:
        return _Answer(FAILS, f"{_join(told)}; {plain(least)} is asked for.", tuple(rates), numbers)
    if q.evidence.balanced is False:
        return _Answer(FAILS, "Documents read are not documents clean, removed and quarantined.", tuple(rates), numbers)
    if shown.result == FAILS:
        return _Answer(FAILS, shown.sentence, tuple(rates), numbers)
    missing = [f"{', '.join(unknown)} did not run or its coverage is not known"] if unknown else []
    if "manual" in q.rule["stages"] and q.rule["stages_are"] == "all":
        manual = q.evidence.manual
        if manual is None or not manual.judged:
            missing.append("people have not read a sample")
        else:
            told.append(f"people read {_n(manual.judged, 'document')}")
    if q.evidence.balanced is None:
        missing.append("the accounts of the run are not known")
    if shown.result == OPEN:
        missing.append(shown.sentence.rstrip("."))
    if missing:
        return _Answer(OPEN, f"{_join([*told, *missing])}.", tuple(rates), numbers)
    return _Answer(CONFORMS, f"{_join(told)}.", tuple(rates), numbers)


def _shown(q: _Question) -> _Answer:
    """What the rules that are evidence for this one say together (R-23)."""
    shown = {id: q.others[id].result for id in q.rule["shown_by"]}
    if failed := [id for id, result in shown.items() if result == FAILS]:
        return _Answer(FAILS, f"Its evidence does not conform: {', '.join(_named(q, failed))}.")
    if open_ := [id for id, result in shown.items() if result == OPEN]:
        return _Answer(OPEN, f"its evidence is open: {', '.join(_named(q, open_))}.")
    return _Answer(CONFORMS, "")


def _pi_basis(q: _Question) -> _Answer:
    found = q.evidence.personal
    if found is None:
        return _Answer(OPEN, "Documents were not screened for personal information.")
    not_in_text = ("biometric",) if q.text_only else ()  # a corpus of text holds no faces
    classes = [name for name in q.rule["classes"] if name in found.found or name not in not_in_text]
    rates = q.rate(found.screened, found.documents)
    bare = {name: found.without_basis.get(name, 0) for name in classes if found.found.get(name)}
    told = ", ".join(f"{name} in {_n(found.found[name], 'document')}" for name in classes if name in found.found)
    if any(bare.values()):
        without = ", ".join(f"{name} ({n:,})" for name, n in bare.items() if n)
        return _Answer(OPEN, f"{told}; sources without consent or another lawful basis on record: {without}.", rates)
    if unknown := [name for name in classes if name not in found.found]:
        return _Answer(OPEN, f"Not screened for: {', '.join(unknown)}.", rates)
    if found.screened < found.documents:
        return _Answer(OPEN, f"{found.screened:,} of {_n(found.documents, 'document')} were screened: {told}.", rates)
    if not any(found.found[name] for name in classes):
        return _Answer(NOT_APPLICABLE, f"No personal information in {_n(found.documents, 'document')}.", rates)
    return _Answer(CONFORMS, f"{told}; each source of it has consent or another lawful basis on record.", rates)


def _export(q: _Question) -> _Answer:
    told = q.rule["format"].replace("_", " ")
    if q.evidence.exports is None or q.rule["format"] not in q.evidence.exports:
        return _Answer(OPEN, f"The export '{told}' has not been written.")
    return _Answer(CONFORMS, f"The export '{told}' has been written.")


# Keyword library and classification models


def _library_count(q: _Question) -> _Answer:
    least: int = q.rule["min"]
    group = q.rule["each_in"]
    library = q.evidence.library
    if group is None:
        if library is None or library.total is None:
            return _Answer(OPEN, "No keyword library is known.")
        told = f"{_n(library.total, 'distinct entry', 'distinct entries')}; not less than {least:,} is asked for."
        numbers = {"entries": library.total, "least": least}
        return _Answer(CONFORMS if library.total >= least else FAILS, told, (), numbers)
    if library is None or library.per_risk is None:
        return _Answer(OPEN, "How many keywords there are for each risk is not known.")
    risks = [code for code in codes_of(q.policy.all) if code.startswith(group + ".")]
    few = [code for code in risks if library.per_risk.get(code, 0) < least]
    numbers = {"risks": len(risks), "short": len(few), "least": least}
    rates = q.rate(len(risks) - len(few), len(risks))
    if few:
        short = f"{len(few)} of {len(risks)} risks of {group} have fewer than {least:,}"
        told = _some([f"{code} ({library.per_risk.get(code, 0):,})" for code in few])
        return _Answer(FAILS, f"{short}: {told}.", rates, numbers)
    return _Answer(CONFORMS, f"All {len(risks)} risks of {group} have at least {least:,} entries.", rates, numbers)


def _library_cover(q: _Question) -> _Answer:
    library = q.evidence.library
    risks = q.policy.sets[q.rule["risks"]].codes
    if library is None or library.per_risk is None:
        return _Answer(OPEN, "Which risks the keyword library covers is not known.")
    bare = [code for code in risks if not library.per_risk.get(code)]
    rates = q.rate(len(risks) - len(bare), len(risks))
    if bare:
        return _Answer(FAILS, f"{len(bare)} of {len(risks)} risks have no keyword: {_some(bare)}.", rates)
    return _Answer(CONFORMS, f"All {len(risks)} risks have keywords.", rates)


def _library_age(q: _Question) -> _Answer:
    most: int = q.rule["max_days"]
    library, as_of = q.evidence.library, q.evidence.as_of
    if library is None or library.newest_change is None or as_of is None:
        return _Answer(OPEN, "When the keyword library was last changed is not known.")
    age = (as_of - library.newest_change).days
    numbers = {"days": age, "most": most}
    if age < 0:
        told = f"The keyword library says it was changed on {library.newest_change}, after {as_of}; correct its dates."
        return _Answer(OPEN, told, (), numbers)
    told = f"The keyword library was last changed {_n(age, 'day')} before {as_of}; at most {most:,} are asked for"
    if age > most:
        return _Answer(FAILS, told + ".", (), numbers)
    gap = library.largest_gap_days
    if gap is not None and gap > most:
        return _Answer(FAILS, f"{told}, and {gap:,} days passed between two changes.", (), numbers | {"gap": gap})
    return _Answer(CONFORMS, told + ".", (), numbers)


def _entry_length(q: _Question) -> _Answer:
    library = q.evidence.library
    limit = f"{q.rule['max_han']} Chinese characters or {q.rule['max_words']} words"
    if library is None or library.too_long is None:
        return _Answer(OPEN, "How long the keywords are is not known.")
    numbers = {"too_long": library.too_long}
    if library.too_long:
        told = _n(library.too_long, "entry", "entries")
        return _Answer(FAILS, f"{told} {'is' if library.too_long == 1 else 'are'} longer than {limit}.", (), numbers)
    return _Answer(CONFORMS, f"No entry is longer than {limit}.", (), numbers)


def _classifier_cover(q: _Question) -> _Answer:
    risks = q.policy.sets[q.rule["risks"]].codes
    least: int = q.rule["min_positive"]
    detectors = q.evidence.detectors
    if detectors is None:
        return _Answer(OPEN, "Which risks the classification models cover is not known.")
    none, unproven = [], []
    for code in risks:
        found = [detector for detector in detectors.get(code, ()) if detector.on and not detector.candidate]
        if not found:
            none.append(code)
        elif not any(d.status == "usable" and (d.positives or 0) >= least for d in found):
            unproven.append(code)
    covered = len(risks) - len(none) - len(unproven)
    rates = q.rate(covered, len(risks))
    numbers = {"without": len(none), "unproven": len(unproven), "positives": least}
    if not none and not unproven:
        told = f"All {len(risks)} risks have a detector evaluated on at least {_n(least, 'positive')}."
        return _Answer(CONFORMS, told, rates, numbers)
    gaps = []
    if none:
        gaps.append(f"no detector for {_some(none)}")
    if unproven:
        gaps.append(f"no usable evaluation on {_n(least, 'positive')} for {_some(unproven)}")
    return _Answer(FAILS, f"{covered} of {len(risks)} risks are covered: {'; '.join(gaps)}.", rates, numbers)


# Samples, and rules over rules


def _sample_rate(q: _Question) -> _Answer:
    by = q.rule["by"]
    found = q.evidence.manual if by == "manual" else q.evidence.technical
    if found is None or found.population is None or found.drawn is None:
        return _Answer(OPEN, f"No {by} sample has been drawn.")
    if not found.population:
        return _Answer(OPEN, "The corpus has no document to draw from.")
    answer = _sample(q, SampleRule.of(q.rule), found)
    note = f" {found.note}" if found.note else ""
    return _Answer(answer.result, answer.sentence + note, answer.rates, answer.numbers)


def _sample(q: _Question, rule: SampleRule, found: SampleEvidence) -> _Answer:
    population, drawn = found.population or 0, found.drawn or 0
    needed = rule.size(population)
    least = plain(rule.min)
    numbers: dict[str, Any] = {"population": population, "drawn": drawn, "needed": needed, "least": least}
    if found.attempts is not None:
        numbers["attempts"] = found.attempts
    size = f"{drawn:,} of {_n(population, 'document')} drawn"
    if rule.min_items and population < rule.min_items:
        size += f" (the corpus is smaller than {rule.min_items:,})"
    if drawn < needed:
        return _Answer(FAILS, f"{size}; {needed:,} are needed.", q.rate(drawn, population), numbers)
    judged, good = found.judged, found.good
    if judged is None or good is None:
        technical = q.rule["by"] == "technical"
        told = "how many qualify was not measured independently" if technical else "not read yet"
        return _Answer(OPEN, f"{size}; {told}.", (), numbers)
    rates = q.rate(good, judged)
    told = f"{size}; {good:,} of {judged:,} qualified, at least {least} asked for"
    if judged < drawn:
        if not rule.met(good + drawn - judged, drawn):
            return _Answer(FAILS, f"{told}; the {drawn - judged:,} left cannot change that.", rates, numbers)
        return _Answer(OPEN, f"{told}; {drawn - judged:,} are left.", rates, numbers)
    return _Answer(CONFORMS if rule.met(good, judged) else FAILS, told + ".", rates, numbers)


def _all_of(q: _Question) -> _Answer:
    results = {id: q.others[id].result for id in q.rule["rules"]}
    flagged = [id for id in q.rule["also"] if q.others[id].result == FAILS]
    flag = f" Recommended, and not met: {', '.join(_named(q, flagged))}." if flagged else ""
    numbers = {"evaluation_valid": _valid(q.rule, q.others)}
    if failed := [id for id, result in results.items() if result == FAILS]:
        return _Answer(FAILS, f"Not met: {', '.join(_named(q, failed))}.{flag}", (), numbers)
    if open_ := [id for id, result in results.items() if result == OPEN]:
        return _Answer(OPEN, f"Evidence is missing for {', '.join(_named(q, open_))}.{flag}", (), numbers)
    return _Answer(CONFORMS, f"Met: {', '.join(_named(q, results))}.{flag}", (), numbers)


def _valid(rule: Rule, answers: Mapping[str, _Answer]) -> bool | None:
    results = {answers[id].result for id in (*rule["rules"], *rule["also"])}
    return False if FAILS in results else None if OPEN in results else True


def _evaluation_valid(policy: Policy, answers: Mapping[str, _Answer]) -> bool | None:
    found = {_valid(rule, answers) for rule in policy.rules if rule.check == "all_of"}
    return False if False in found else None if None in found or not found else True


_VERBS: dict[str, Callable[[_Question], _Answer]] = {
    "source_ratio": _source_ratio,
    "sample_rate": _sample_rate,
    "library_count": _library_count,
    "library_cover": _library_cover,
    "library_age": _library_age,
    "entry_length": _entry_length,
    "classifier_cover": _classifier_cover,
    "stages_ran": _stages_ran,
    "denylist": _denylist,
    "min_sources": _min_sources,
    "report_share": _report_share,
    "document": _document,
    "pi_basis": _pi_basis,
    "export": _export,
    "all_of": _all_of,
}
_MEASURED = (
    "sample_rate", "library_count", "library_cover", "library_age", "entry_length", "classifier_cover",
    "export", "all_of",
)  # fmt: skip
"""What is counted here and cannot be stated instead."""


# The conclusion


def _conclusion(policy: Policy, counting: int, met: int, failed: tuple[str, ...], open_: tuple[str, ...]) -> Conclusion:
    """
    9.1 d): all that count conform, some do not, none does. What is open is waited for, unless it cannot matter:
    where some conform and some do not, no further evidence changes "partially".
    """
    clause = policy.conclusion.clause
    if not policy.conclusion.values:
        told = f"{len(failed)} of {counting} that bind do not conform, {len(open_)} need evidence"
        return Conclusion(
            None, f"This edition asks for a result per provision, not for an overall one: {told}.", clause
        )
    levels = " or ".join(policy.conclusion.levels)
    told = f"{counting} provisions at level {levels} count"
    left = f", {len(open_)} need evidence ({_some(list(open_))})" if open_ else ""
    wrong = f": {len(failed)} do not conform ({_some(list(failed))})" if failed else ""
    if failed and met:
        return Conclusion("partially_met", f"{told}{wrong}{left}.", clause)
    if open_ or not (met or failed):
        return Conclusion(None, f"No conclusion yet: {told}{wrong}{left}.", clause)
    if failed:
        return Conclusion("not_met", f"{told}, and none that applies conforms.", clause)
    return Conclusion("fully_met", f"{told}, and all conform or do not apply.", clause)


# Words


def _n(count: int, one: str, many: str | None = None) -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def _be(count: int) -> str:
    return "is" if count == 1 else "are"


def _join(parts: Iterable[str]) -> str:
    told = "; ".join(part for part in parts if part)
    return told[:1].upper() + told[1:]


def _some(items: list[str], most: int = 8) -> str:
    """Up to *most* of *items*, and how many more."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def _named(q: _Question, ids: Iterable[str]) -> list[str]:
    return [f"{id} ({q.policy.clause(q.policy.rule(id))})" for id in ids]
