"""
Keyword libraries: what one holds, whether it is enough for a policy, what it finds in a text.
"""

import sys
from dataclasses import replace
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import click

from corpus_guard.cli.frame import DAY, EXIT_GATE, Verbs, day_of, json_option, leave, policy_option, show
from corpus_guard.progress import plain
from corpus_guard.taxonomy import CODES

if TYPE_CHECKING:
    from corpus_guard.keywords.audit import LibraryFacts
    from corpus_guard.keywords.library import Library
    from corpus_guard.policy import Policy

VERBS = ("library_count", "library_cover", "library_age", "entry_length")
"""The provisions of a policy that speak of the library alone."""

library_argument = click.argument("library")
day_option = click.option(
    "--as-of", type=DAY, default=None, metavar="DAY", help="The day entries are counted on (today)."
)


@click.group(cls=Verbs)
def keywords() -> None:
    """Look at a keyword library: a shipped name or a folder."""


@keywords.command()
@library_argument
@policy_option
@day_option
@json_option
def check(library: str, policy: str, as_of: datetime | None, as_json: bool) -> None:
    """
    Hold a library to a policy.

    How many entries there are for each risk, how old and how long they are.

    Exit 3 where something binding is missed; what is only recommended is told and does not fail.

    \b
    corpus-guard keywords check starter
    corpus-guard keywords check keyword_libs/house --policy strict
    """
    from corpus_guard.keywords.audit import audit
    from corpus_guard.keywords.library import load_library
    from corpus_guard.policy import load_policy
    from corpus_guard.report.evidence import Evidence, LibraryEvidence
    from corpus_guard.report.provisions import evaluate, standing

    day = day_of(as_of)
    loaded = load_policy(policy)
    facts = audit(load_library(library), day)
    evidence = LibraryEvidence(
        total=facts.total,
        per_risk=facts.per_risk,
        too_long=len(facts.too_long),
        newest_change=facts.newest_change,
    )
    asked = replace(loaded, rules=tuple(rule for rule in loaded.rules if rule.check in VERBS))
    rows = evaluate(asked, Evidence(as_of=day, library=evidence)).provisions
    told = {row.rule: standing(loaded, row) for row in rows}
    least = _least(loaded)
    summary: dict[str, Any] = _facts(facts, day) | {
        "policy": loaded.id,
        "provisions": [
            {
                "rule": row.rule,
                "clause": row.clause,
                "level": row.level,
                "result": row.result,
                "sentence": row.sentence,
            }
            for row in rows
        ],
        "least": least,
        "ok": "fail" not in told.values(),
    }
    words = {"pass": "ok", "fail": "FAIL", "advisory": "advice", "open": "open", "not applicable": "n/a"}
    lines = [*_head(facts, day), f"policy   {loaded.id}: {loaded.title}"]
    wide = max((len(row.clause) for row in rows), default=0)
    lines += [f"{words[told[row.rule]]:7}  {row.clause:{wide}}  {row.level:9}  {row.sentence}" for row in rows]
    lines += ["", f"{'risk':6}  {'terms':>7}  {'effective':>9}  {'asked for':>9}"]
    for code in CODES:
        asked_for = least.get(code, 0)
        short = "  short" if facts.per_risk[code] < asked_for else ""
        number = f"{asked_for:,}" if asked_for else ""
        counts = f"{facts.per_risk[code]:7,}  {facts.effective_per_risk[code]:9,}"
        lines.append(f"{code:6}  {counts}  {number:>9}{short}".rstrip())
    show(summary, as_json, lines)
    leave(0 if summary["ok"] else EXIT_GATE)


def _least(policy: "Policy") -> dict[str, int]:
    """How many terms the policy asks for, risk by risk: a number for its group, else one where it must be covered."""
    least: dict[str, int] = {}
    for rule in policy.rules:
        if rule.check == "library_cover":
            codes, number = policy.sets[rule["risks"]].codes, 1
        elif rule.check == "library_count" and rule["each_in"]:
            codes, number = tuple(code for code in policy.sets["all"].codes if code[:3] == rule["each_in"]), rule["min"]
        else:
            continue
        least.update({code: max(number, least.get(code, 0)) for code in codes})
    return least


def _facts(facts: "LibraryFacts", day: date) -> dict[str, Any]:
    return {
        "library": facts.id,
        "version": facts.version,
        "digest": facts.digest,
        "as_of": day.isoformat(),
        "entries": facts.nominal,
        "terms": facts.total,
        "effective": facts.effective,
        "per_risk": facts.per_risk,
        "effective_per_risk": facts.effective_per_risk,
        "per_level": facts.per_level,
        "combinations": facts.combinations,
        "exceptions": facts.exceptions,
        "too_long": [{"risk": risk, "entry": entry} for risk, entry in facts.too_long],
        "newest_change": facts.newest_change.isoformat() if facts.newest_change else None,
    }


def _head(facts: "LibraryFacts", day: date) -> list[str]:
    age = "not known when last changed"
    if facts.newest_change:
        days = (day - facts.newest_change).days
        age = f"last changed {facts.newest_change}, {days:,} {'day' if days == 1 else 'days'} before {day}"
    return [
        f"library  {facts.id} {facts.version} {facts.digest[:12]}, {age}",
        f"terms    {facts.total:,} different ones in {facts.nominal:,} entries, {facts.effective:,} of them effective "
        f"(find what no shorter one finds); {facts.combinations:,} combinations, {facts.exceptions:,} exceptions",
    ]


@keywords.command()
@library_argument
@day_option
@json_option
def stats(library: str, as_of: datetime | None, as_json: bool) -> None:
    """
    What a library holds.

    Entries by risk and level, languages, lengths, and what expires next.

    \b
    corpus-guard keywords stats starter
    corpus-guard keywords stats keyword_libs/house --json
    """
    from collections import Counter

    import numpy as np

    from corpus_guard.keywords.audit import audit
    from corpus_guard.keywords.library import LEVELS, load_library

    day = day_of(as_of)
    loaded = load_library(library)
    facts = audit(loaded, day)
    in_force = loaded.in_force(day)
    at = np.flatnonzero(in_force).tolist()
    levels = {
        code: {
            level: int((in_force & (loaded.risk == i) & (loaded.level == n)).sum()) for n, level in enumerate(LEVELS)
        }
        for i, code in enumerate(CODES)
    }
    languages = Counter(loaded.languages[i] or "not stated" for i in at)
    lengths = sorted(len(loaded.literals[loaded.literal[i]]) for i in at)
    retired = int((~loaded.active).sum())
    expired = len(loaded) - len(at) - retired
    ends = loaded.expires[in_force & ~np.isnat(loaded.expires)]
    summary = _facts(facts, day) | {
        "levels": levels,
        "languages": dict(languages.most_common()),
        "characters": {"least": lengths[0], "median": lengths[len(lengths) // 2], "most": lengths[-1]}
        if lengths
        else None,
        "retired": retired,
        "expired": expired,
        "expire_later": len(ends),
        "next_expiry": str(ends.min()) if len(ends) else None,
        "licence": loaded.licence,
    }
    lines = [
        *_head(facts, day),
        f"licence  {loaded.licence or 'not stated'}",
        f"lang     {', '.join(f'{name} {count:,}' for name, count in languages.most_common())}",
        f"length   {lengths[0]:,} to {lengths[-1]:,} characters, half of them up to {lengths[len(lengths) // 2]:,}; "
        f"{len(facts.too_long):,} longer than usual"
        if lengths
        else "length   no entry is in force",
        f"life     {retired:,} retired, {expired:,} expired, {len(ends):,} will expire"
        + (f", the first on {ends.min()}" if len(ends) else ""),
        "",
        f"{'risk':6}" + "".join(f"{level:>9}" for level in reversed(LEVELS)) + f"{'terms':>9}{'effective':>11}",
    ]
    for code in CODES:
        counts = "".join(f"{levels[code][level]:9,}" for level in reversed(LEVELS))
        lines.append(f"{code:6}{counts}{facts.per_risk[code]:9,}{facts.effective_per_risk[code]:11,}")
    show(summary, as_json, lines)


@keywords.command()
@library_argument
@click.argument("text")
@day_option
@json_option
def test(library: str, text: str, as_of: datetime | None, as_json: bool) -> None:
    """
    Show what a library finds in a text.

    Where, and what of it counts. TEXT may be - for standard input.

    \b
    corpus-guard keywords test starter '我想代开发票'
    corpus-guard keywords test keyword_libs/house - < page.txt
    """
    import pyarrow as pa

    from corpus_guard.keywords.library import load_library
    from corpus_guard.keywords.rules import KeywordReader
    from corpus_guard.keywords.stage import KeywordRecipe

    day = day_of(as_of)
    if text == "-":
        text = sys.stdin.buffer.read().decode("utf-8", "replace")
    text = text.encode("utf-8", "replace").decode()
    loaded = load_library(library)
    documents = pa.record_batch({"text": pa.array([text], pa.large_string())})
    findings = pa.Table.from_batches([KeywordRecipe(library, "pyahocorasick").build().find(documents)])
    evidence = KeywordReader(loaded, day).evidence(findings)
    counting = set(zip(evidence.entry.tolist(), evidence.start.tolist(), evidence.end.tolist(), strict=True))
    hits = [
        hit for found in findings.column("hits").to_pylist()[0] or () for hit in _hits_of(loaded, found, counting, day)
    ]
    for number, start, end in sorted(counting):
        if number >= len(loaded):
            together = loaded.combinations[number - len(loaded)]
            hits.append(_hit(together.id, together.risk, together.level, start, end, "counts"))
    for hit in hits:
        hit["text"] = text[hit["start"] : hit["end"]]
    risks: dict[str, dict[str, int]] = {}
    for hit in hits:
        if hit["result"] == "counts":
            of_risk = risks.setdefault(hit["risk"], {})
            of_risk[hit["level"]] = of_risk.get(hit["level"], 0) + 1
    lines = [
        f"{hit['start']:>6}-{hit['end']:<6} {hit['risk']}  {hit['level']:6}  {hit['entry']:16}  "
        f"{_cut(hit['text'])}  {hit['result']}"
        for hit in hits
    ]
    lines += [f"{code}: {_meaning(levels)}" for code, levels in sorted(risks.items())]
    show({"hits": hits, "counting": risks, "characters": len(text)}, as_json, lines or ["nothing found"])


def _hits_of(library: "Library", found: dict[str, int], counting: set[tuple[int, int, int]], day: date) -> list[Any]:
    """A record for every entry the found literal stands for, and why it counts or not."""
    import numpy as np

    told = []
    for entry in np.flatnonzero(library.literal == found["entry"]).tolist():
        start, end = found["start"], found["end"]
        if (entry, start, end) in counting:
            result = "counts"
        elif not library.active[entry]:
            result = "does not count: the entry is retired"
        elif library.expires[entry] < np.datetime64(day):
            result = f"does not count: the entry expired after {library.expires[entry]}"
        elif (library.left[entry] and found["edges"] & 1) or (library.right[entry] and found["edges"] & 2):
            result = "does not count: a part of a longer word"
        else:
            result = "does not count: inside an exception"
        risk, level = CODES[int(library.risk[entry])], ("weak", "review", "block")[int(library.level[entry])]
        told.append(_hit(library.ids[entry], risk, level, start, end, result))
    return told


def _hit(entry: str, risk: str, level: str, start: int, end: int, result: str) -> dict[str, Any]:
    return {"entry": entry, "risk": risk, "level": level, "start": start, "end": end, "result": result}


def _meaning(levels: dict[str, int]) -> str:
    """What hits of one risk come to, keywords alone."""
    if levels.get("block"):
        return "the document has the risk (a block hit is evidence alone)"
    if levels.get("review"):
        return "with support of a classifier the document has the risk, without it goes to people"
    return "recorded; weak hits decide nothing"


def _cut(text: str, most: int = 60) -> str:
    shown = plain(text)
    return shown if len(shown) <= most else shown[: most - 1] + "…"
