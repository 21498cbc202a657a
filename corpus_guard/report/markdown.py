"""
``report.json`` as Markdown, for merge requests and diffs: the same order as the page, without pictures, shorter tables.

Strings from outside are escaped so that no viewer makes links, images, HTML or headings of them; names of the corpus
stand as code, which also keeps hosting sites from making mentions of them.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from corpus_guard.report.render import (
    MARKS,
    TITLES,
    in_the_way,
    number,
    results,
    sections_of,
    share,
    short,
    shown,
    verdict,
)

_MOST = 50
_NOT_KNOWN = "*not known*"


def markdown(report: dict[str, Any]) -> str:
    """The report. *report*: what ``report.json`` holds."""
    report = shown(report)
    head = verdict(report)
    lines = [
        f"# {TITLES[report['job']]}: {prose(report['run'])}",
        f"{prose(report['policy']['title'])} · as of {prose(report['as_of'])} · {prose(report['tool'])}",
        f"## {head['mark']} {prose(head['word'])}".replace("  ", " "),
        prose(report["conclusion"]["sentence"]) + _clause(report["conclusion"]["clause"]),
    ]
    lines += [f"> {prose(notice)}" for notice in report["policy"]["notices"]]
    lines += _provisions(report)
    lines += _corpus(report["corpus"])
    writers = {
        "accounting": _accounting,
        "sources": _sources,
        "risks": _risks,
        "stages": _stages,
        "manual": _manual,
        "technical": _technical,
        "library": _library,
        "classifier": _classifier,
    }
    for name in sections_of(report):
        lines += writers[name](report)
    if report["limits"]:
        lines += ["## What this report does not claim", _list(prose(limit) for limit in report["limits"])]
    digests = {"policy": report["policy"]["digest"], "manifest": report["corpus"]["manifest"], **report["digests"]}
    lines += ["## What it rests on", _facts([(prose(name), _digest(digest)) for name, digest in digests.items()])]
    return "\n\n".join(line for line in lines if line) + "\n"


def prose(text: str) -> str:
    """*text* with every character escaped that Markdown, GitHub's or GitLab's, could read as markup."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("@", "&#64;")
    text = re.sub(r"([\\`*_\[\]#|~$]|:(?=//)|(?<=www)\.)", r"\\\1", text, flags=re.IGNORECASE)
    return re.sub(r"^(\s*)([-+]|\d+[.)])(?=\s|$)", lambda found: f"{found[1]}{found[2][:-1]}\\{found[2][-1]}", text)


def code(text: str | None) -> str:
    """A name as code; ``null`` and the empty name are words. What would end the code or the cell is a visible mark."""
    if text is None:
        return "*(null)*"
    if not text.strip():
        return "*(empty)*"
    return "`" + text.replace("`", "⟨U+0060⟩").replace("|", "⟨U+007C⟩") + "`"


def _known(value: Any) -> str:
    return _NOT_KNOWN if value is None else prose(number(value))


def _digest(value: str | None) -> str:
    return _NOT_KNOWN if value is None else code(value)


def _of(rate: dict[str, Any] | None, unknown: str = _NOT_KNOWN) -> str:
    if rate is None:
        return unknown
    counts = f"{number(rate['numerator'])} of {number(rate['denominator'])}"
    return counts if rate["percent"] is None else f"{rate['percent']} ({counts})"


def _clause(clause: str | None) -> str:
    return f" ({prose(clause)})" if clause else ""


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A heading that ends in ``:`` is a column of numbers."""
    lines = ["| " + " | ".join(name.rstrip(":") for name in header) + " |"]
    lines.append("|" + "|".join("--:" if name.endswith(":") else "---" for name in header) + "|")
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def _list(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _facts(facts: Sequence[tuple[str, str]]) -> str:
    return _list(f"{name}: {value}" for name, value in facts)


def _cut(shown_rows: int, total: int, where: str) -> str:
    return f"*{number(shown_rows)} of {number(total)} are shown; {where} has more.*" if total > shown_rows else ""


def _result(word: str) -> str:
    return f"{MARKS[word]} {word}"


def _conforms(value: bool | None) -> str:
    return _NOT_KNOWN if value is None else _result("conforms" if value else "does not conform")


def _missing(title: str, what: str) -> list[str]:
    return [f"## {title}", f"*Not known: {what}*"]


def _provisions(report: dict[str, Any]) -> list[str]:
    if not report["provisions"]:
        return []
    lines = [
        "## Provision by provision",
        " · ".join(f"{_result(result)}: {count}" for result, count in results(report)),
    ]
    failing, open = in_the_way(report, "does not conform"), in_the_way(report, "needs evidence")
    if failing or open:
        items = [f"{prose(row['clause'])} {prose(row['sentence'])}" for row in failing]
        if open:
            clauses = ", ".join(dict.fromkeys(prose(row["clause"]) for row in open))
            items.append(f"{len(open)} binding provisions need evidence: {clauses}")
        lines += ["**What stands in the way**", _list(items)]
    rows = [
        (
            prose(row["clause"]),
            prose(row["level"]),
            _result(row["result"]),
            prose(row["sentence"]) + (" " + _of(row["rates"][0]) if len(row["rates"]) == 1 else ""),
            code(row["rule"]),
        )
        for row in report["provisions"]
    ]
    return [*lines, _table(("Clause", "Level", "Result", "What was found", "Rule"), rows)]


def _corpus(corpus: dict[str, Any]) -> list[str]:
    names = {
        "documents": "Documents read",
        "rows": "Rows in the footers",
        "characters": "Characters",
        "shards": "Shards",
        "sources": "Sources",
        "duplicate_ids": "Ids that occur more than once",
        "phase": "Phase",
        "failed_shards": "Shards that could not be read",
        "failed_rows": "Rows that could not be read",
    }
    lines = ["## The corpus", _facts([(name, _known(corpus[key])) for key, name in names.items()])]
    failed = corpus["failed"]
    if failed:
        rows = [
            (code(row["shard"]), "unknown" if row["rows"] is None else number(row["rows"]), prose(row["error"]))
            for row in failed[:_MOST]
        ]
        lines += [_table(("Could not be read", "Rows:", "Why"), rows), _cut(len(rows), len(failed), "report.json")]
    return lines


def _accounting(report: dict[str, Any]) -> list[str]:
    title = "Where every document went"
    if report["accounting"] is None:
        return _missing(title, "the filter has not been applied yet.")
    counts = report["accounting"]["documents"]
    names = ("read", "quarantined", "removed_document", "removed_source", "removed_blocked", "clean")
    lines = [
        f"## {title}",
        _table(("", "Documents:"), [(name.replace("_", ": "), number(counts[name])) for name in names]),
    ]
    if report["retention"]:
        rows = [(prose(row["step"]), _of(row["documents"])) for row in report["retention"]]
        lines.append(_table(("Left after", "Of what was read"), rows))
    if report["accounting"]["balanced"]:
        return [*lines, "The sum comes out, shard by shard."]
    wrong = ", ".join(code(name) for name in report["accounting"]["unbalanced"][:20])
    return [*lines, f"**✗ The sum does not come out.** {wrong}"]


def _sources(report: dict[str, Any]) -> list[str]:
    sources = report["sources"]
    if sources is None:
        return _missing("Sources", "the sources have not been assessed yet.")
    rows = [
        (
            code(row["source"]),
            _result(row["decision"]),
            _of(row["share"]),
            _NOT_KNOWN if row["lower"] is None else f"{share(row['lower'])} – {share(row['upper'])}",
            prose(" ".join([row["reason"], *row["top_risks"]])),
        )
        for row in sources["worst"][:_MOST]
    ]
    counts = " · ".join(f"{_result(word)}: {number(sources[word])}" for word in ("keep", "exclude", "hold"))
    return [
        "## Sources",
        f"{number(sources['total'])} sources. {counts}. Excluded is a source over {short(sources['limit']['percent'])}"
        f"{_clause(sources['limit']['clause'])}; what decides is {prose(sources['decide'])}.",
        _table(("Source", "Decision", "Share", "Between", "Why"), rows),
        _cut(len(rows), sources["total"], "sources.parquet"),
    ]


def _risks(report: dict[str, Any]) -> list[str]:
    if report["risks"] is None:
        return _missing("Risks found", "the documents have not been judged yet.")
    return ["## Risks found", _risk_table([row for row in report["risks"] if row["documents"]], len(report["risks"]))]


def _risk_table(rows: Sequence[dict[str, Any]], of: int) -> str:
    if not rows:
        return f"None of the {of} risks was found."
    cells = [
        (prose(row["risk"]), prose(row["en"]), prose(row["zh"]), number(row["documents"]), _known(row["sources"]))
        for row in rows
    ]
    return _table(("Risk", "Name", "", "Documents:", "Sources:"), cells)


def _stages(report: dict[str, Any]) -> list[str]:
    stages = report["stages"]
    if stages is None:
        return _missing("How it was looked at", "no stage has run yet.")
    rows = [
        (prose(row["name"]), prose(row["kind"]), _of(row["looked_at"]), code(row["digest"])) for row in stages["ran"]
    ]
    facts = [
        ("Found by keywords alone", _known(stages["only_keyword"])),
        ("Found by a classifier alone", _known(stages["only_classifier"])),
        ("Found by both", _known(stages["both"])),
        ("Waiting for a person", _known(stages["review"])),
    ]
    return ["## How it was looked at", _table(("Stage", "Kind", "Looked at", "Digest"), rows), _facts(facts)]


def _minimum(check: dict[str, Any]) -> str:
    minimum = check["minimum"]
    return f", at least {short(minimum['percent'])}{_clause(minimum['clause'])}" if minimum else ""


def _draw(check: dict[str, Any]) -> list[tuple[str, str]]:
    names = {"population": "Population", "required": "To be drawn, at least", "drawn": "Drawn"}
    return [(name, _known(check[key])) for key, name in names.items()]


def _attempts(attempts: Sequence[dict[str, Any]]) -> str:
    rows = [(number(row["number"]), number(row["size"]), prose(row["reason"]), _digest(row["ids"])) for row in attempts]
    return _table(("Draw:", "Drawn:", "Why it was drawn", "Hash of the ids"), rows) if rows else ""


def _manual(report: dict[str, Any]) -> list[str]:
    title, manual = "The check by people", report["manual"]
    if manual is None:
        return _missing(title, "no sample has been drawn for people yet.")
    interval = manual["interval"]
    bounds = f"{share(interval['lower'])} – {share(interval['upper'])}" if interval else _NOT_KNOWN
    facts = [
        ("Result", _conforms(manual["conforms"])),
        ("Qualified", _of(manual["qualified"]) + _minimum(manual)),
        ("Between", bounds),
        *_draw(manual),
        ("Read by people", _known(manual["read"])),
        ("Agreement where two read", _of(manual["agreement"])),
    ]
    found = [row for row in manual["by_risk"] if row["documents"]]
    lines = [f"## {title}", _facts(facts), _attempts(manual["attempts"])]
    return [*lines, _risk_table(found, len(manual["by_risk"]))] if found else lines


def _technical(report: dict[str, Any]) -> list[str]:
    title, technical = "The check by tools", report["technical"]
    if technical is None:
        return _missing(title, "no technical sample has been drawn yet.")
    facts = [("Result", _conforms(technical["conforms"]) + _minimum(technical)), *_draw(technical)]
    rows = [
        ("before filtering", _of(technical["before"])),
        ("after filtering, same detectors (near 100 % by construction)", _of(technical["after"])),
        ("after filtering, independent set-up", _of(technical["evaluation"], "*not measured*")),
    ]
    lines = [f"## {title}", _facts(facts), _table(("Qualified, of the sample", "Rate"), rows)]
    if technical["integrity"]:
        again, equal = (technical["integrity"][key] for key in ("rescanned", "equal"))
        broken = "" if again == equal else " **✗ The store is not intact.**"
        lines.append(f"{number(again)} documents were scanned again; {number(equal)} gave the stored findings.{broken}")
    return [*lines, _attempts(technical["attempts"])]


def _library(report: dict[str, Any]) -> list[str]:
    library = report["library"]
    if library is None:
        return _missing("Keyword library", "no keyword library took part.")
    names = {"total": "Terms", "required": "At least", "newest_change": "Newest change", "too_long": "Too long"}
    facts = [("Library", " ".join(prose(library[key]) for key in ("id", "version") if library[key]))]
    facts += [(name, _known(library[key])) for key, name in names.items()]
    rows = [[prose(row["risk"]), *(_known(row[key]) for key in ("terms", "effective"))] for row in library["risks"]]
    lines = ["## Keyword library", _facts([*facts, ("Digest", code(library["digest"]))])]
    return [*lines, _table(("Risk", "Terms:", "Effective:"), rows)] if rows else lines


def _classifier(report: dict[str, Any]) -> list[str]:
    classifier = report["classifier"]
    if classifier is None or not classifier["models"]:
        return _missing("Classification models", "no classification model took part.")
    models = [
        (prose(row["name"]), prose(", ".join(row["languages"])), _known(row["licence"]), code(row["digest"]))
        for row in classifier["models"]
    ]
    cells = [
        (prose(row["risk"]), "; ".join(_cell(cell) for cell in row["models"]) or "none")
        for row in classifier["coverage"]
    ]
    lines = ["## Classification models", _table(("Model", "Languages", "Licence", "Digest"), models)]
    return [*lines, _table(("Risk", "Models with labelled positives"), cells)] if cells else lines


def _cell(cell: dict[str, Any]) -> str:
    return f"{prose(cell['model'])}: {_known(cell['positives'])} positives, {prose(cell['status'])}"
