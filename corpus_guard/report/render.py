"""
``report.json`` as one HTML page: no script, nothing fetched, prints well, safe to open whatever the corpus contains.

Every form of the report is drawn from the JSON alone, so that it can be drawn again later and elsewhere. Strings of the
corpus (source names, shard names, errors) are hostile until shown: control, bidirectional and invisible characters
become visible marks, length is cut, and Jinja escapes the rest. Markdown is in markdown.py, CSV in tables.py.
"""

import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from corpus_guard.errors import UsageError
from corpus_guard.report import pictures
from corpus_guard.report.model import SCHEMA_VERSION

TITLES: Final = {
    "filter": "Filtered corpus",
    "sources": "Sources of a corpus",
    "spot-check": "Spot check of a corpus",
}

SECTIONS: Final = {
    "filter": (
        "accounting",
        "sources",
        "risks",
        "stages",
        "manual",
        "technical",
        "library",
        "classifier",
    ),
    "sources": ("sources", "risks", "stages", "library", "classifier"),
    "spot-check": ("stages", "manual", "technical", "library", "classifier"),
}
"""What each job has; a section it should have and does not is said to be missing, any other is shown if it is there."""

CONTENTS: Final = {
    "provisions": "Provisions",
    "corpus": "Corpus",
    "accounting": "Where documents went",
    "sources": "Sources",
    "risks": "Risks",
    "stages": "Stages",
    "manual": "Check by people",
    "technical": "Check by tools",
    "library": "Keywords",
    "classifier": "Models",
    "limits": "Not claimed",
    "digests": "Rests on",
}

MARKS: Final = {
    "conforms": "✓",
    "does not conform": "✗",
    "needs evidence": "?",
    "not applicable": "–",
    "keep": "✓",
    "exclude": "✗",
    "hold": "?",
}
TONES: Final = {
    "conforms": "good",
    "does not conform": "bad",
    "needs evidence": "open",
    "not applicable": "none",
    "keep": "good",
    "exclude": "bad",
    "hold": "open",
}

_TEMPLATES = Path(__file__).parent / "templates"
_MOST_OPEN, _MOST_FAILED = 25, 100
_CUTS = {"source": 100, "shard": 160, "error": 300, "reason": 240}
_CUT = 600


def visible(text: str, cut: int = _CUT) -> str:
    """
    *text* with every character that a reader would not see, or that moves others, as its code point; cut to *cut*.

    >>> visible("a\\u202eb")
    'a⟨U+202E⟩b'
    """
    made = text[:cut]
    if not made.isprintable():
        made = "".join(c if c.isprintable() else _mark(c) for c in made)
    return made if max(len(text), len(made)) <= cut else made[:cut] + "…"


def _mark(character: str) -> str:
    if unicodedata.category(character) == "Zs":  # no-break and wide spaces: seen as spaces, and common in names
        return " "
    return f"⟨U+{ord(character):04X}⟩"


def shown(report: dict[str, Any]) -> dict[str, Any]:
    """The report with all its strings made visible; refuses a report of another version of its structure."""
    version = report.get("schema_version")
    if version != SCHEMA_VERSION:
        raise UsageError(
            f"report.json has schema_version {version!r}, this version of corpus-guard draws {SCHEMA_VERSION!r}; "
            "run 'corpus-guard report' again."
        )
    made: dict[str, Any] = _visible(report, "")
    return made


def _visible(value: Any, key: str) -> Any:
    match value:
        case str():
            return visible(value, _CUTS.get(key, _CUT))
        case dict():
            return {visible(name): _visible(one, name) for name, one in value.items()}
        case list():
            return [_visible(one, key) for one in value]
        case _:
            return value


def sections_of(report: dict[str, Any]) -> list[str]:
    """The sections to show, in order: those the job has, and others that are filled in all the same."""
    wanted = SECTIONS[report["job"]]
    return [name for name in SECTIONS["filter"] if name in wanted or report[name] is not None]


def number(value: Any) -> str:
    """``12,345``; other values as they are."""
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def share(value: float | None) -> str:
    """A share between 0 and 1 as a percentage; not for figures that decide (those are exact rates)."""
    if value is None:
        return "not known"
    digits = 2
    while digits < 12 and value not in (0, 1) and round(value, digits + 2) in (0, 1):
        digits += 1
    return f"{100 * value:.{digits}f} %"


def short(percent: str) -> str:
    """A limit as people write it: ``5 %`` for ``5.00 %``."""
    figure, unit = percent.split(" ")
    return f"{figure.rstrip('0').rstrip('.')} {unit}"


def words(name: str) -> str:
    """A name of data as people read it: ``partially met`` for ``partially_met``."""
    return name.replace("_", " ")


def verdict(report: dict[str, Any]) -> dict[str, str]:
    """The word over everything, and its tone. Editions without an overall value are summed up by their provisions."""
    value = report["conclusion"]["value"]
    binding = [row["result"] for row in report["provisions"] if row["level"] == "shall"]
    if value is not None:
        word = words(value).capitalize()
        tone = {"Fully met": "good", "Partially met": "open", "Not met": "bad"}.get(word, "none")
    elif "does not conform" in binding:
        tone, word = "bad", "Does not conform"
    elif "needs evidence" in binding:
        tone, word = "open", "Evidence is missing"
    elif binding:
        tone, word = "good", "Conforms"
    else:
        tone, word = "none", "No conclusion"
    return {"tone": tone, "word": word, "mark": {"good": "✓", "bad": "✗"}.get(tone, "")}


def tiles(report: dict[str, Any]) -> list[dict[str, str | None]]:
    """The four figures a reader looks for first, by job."""
    made = []
    accounting, sources = report["accounting"], report["sources"]
    if report["job"] == "filter":
        figure = small = None
        if accounting:
            counts = accounting["documents"]
            left = next((step for step in reversed(report["retention"] or [])), None)
            figure = number(counts["clean"])
            small = f"of {number(counts['read'])} read" + (f", {left['documents']['percent']}" if left else "")
        made.append(_tile("Clean documents", figure, small))
    else:
        documents = report["corpus"]["documents"]
        made.append(_tile("Documents read", None if documents is None else number(documents), None))
    if report["job"] != "spot-check":
        figure = small = None
        if sources:
            limit = sources["limit"]
            figure = f"{number(sources['exclude'])} of {number(sources['total'])}"
            small = f"over {short(limit['percent'])}" + (f", {limit['clause']}" if limit["clause"] else "")
        made.append(_tile("Sources excluded", figure, small))
        if report["job"] == "sources":
            made.append(_tile("On hold", number(sources["hold"]) if sources else None, "not judged well enough"))
            thin = sources["thin"] if sources else None
            made.append(_tile("Thin", None if thin is None else number(thin), "too few documents for a sure decision"))
    if report["job"] != "sources":
        made.append(_rate_tile("Check by people", report["manual"], "qualified"))
        made.append(_rate_tile("Check by tools", report["technical"], "evaluation"))
    return made


def _tile(title: str, figure: str | None, small: str | None) -> dict[str, str | None]:
    return {"title": title, "figure": figure, "small": small}


def _rate_tile(title: str, check: dict[str, Any] | None, key: str) -> dict[str, str | None]:
    rate = check[key] if check else None
    minimum = check["minimum"] if check else None
    needs = (
        f"at least {short(minimum['percent'])}" + (f", {minimum['clause']}" if minimum["clause"] else "")
        if minimum
        else None
    )
    if rate is None:
        return _tile(title, None, needs)
    counts = f"{number(rate['numerator'])} of {number(rate['denominator'])}"
    return _tile(title, rate["percent"], counts + (f"; {needs}" if needs else ""))


def results(report: dict[str, Any]) -> list[tuple[str, int]]:
    """How many provisions came out how, in the order of ``MARKS``."""
    counts = Counter(row["result"] for row in report["provisions"])
    return [(result, counts[result]) for result in MARKS if counts[result]]


def in_the_way(report: dict[str, Any], result: str) -> list[dict[str, Any]]:
    """The binding provisions that came out as *result*."""
    return [row for row in report["provisions"] if row["level"] == "shall" and row["result"] == result]


def html(report: dict[str, Any]) -> str:
    """The page. *report*: what ``report.json`` holds. At most about 2 MB, whatever the corpus is like."""
    report = shown(report)
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        number=number, share=share, short=short, words=words, mark=MARKS.__getitem__, tone=TONES.__getitem__
    )
    sections = sections_of(report)
    present = {"provisions": report["provisions"], "corpus": True, "limits": report["limits"], "digests": True}
    drawn = {
        "retention": pictures.retention(report["retention"] or []),
        "sources": pictures.share_per_source(report["sources"]) if report["sources"] else None,
        "risks": pictures.documents_per_risk(report["risks"] or []),
    }
    return environment.get_template("report.html").render(
        report=report,
        job={"title": TITLES[report["job"]]},
        css=Markup((_TEMPLATES / "report.css").read_text(encoding="utf-8")),
        verdict=verdict(report),
        tiles=tiles(report),
        results=results(report),
        failing=in_the_way(report, "does not conform"),
        open=in_the_way(report, "needs evidence"),
        sections=sections,
        contents=[(id, title) for id, title in CONTENTS.items() if id in sections or present.get(id)],
        pictures={name: Markup(svg) if svg else None for name, svg in drawn.items()},
        names={row["risk"]: row["en"] for row in report["risks"] or []},
        most_open=_MOST_OPEN,
        most_failed=_MOST_FAILED,
    )
