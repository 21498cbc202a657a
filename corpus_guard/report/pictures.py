"""
Three pictures of a report as SVG: share per source, documents per risk, what was left after each step.

Text stays text (``svg.fonttype none``), so a browser picks a font that has Chinese and a reader can search. The same
report gives the same bytes. Names are data from outside: matplotlib escapes them, its own formulas (``$``) are off, and
control characters were made visible before (see render.py). The only module that imports matplotlib.
"""

import io
import re
import unicodedata
import warnings
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

SHOWN = 30
"""Sources in the picture; the table below it has more."""

_INK, _SOFT, _GRID = "#1f2933", "#616e7c", "#dde3ea"
_KEEP, _EXCLUDE, _HOLD, _BAR = "#1d7a6b", "#b3261e", "#b26a00", "#33658a"
_COLOUR = {"keep": _KEEP, "exclude": _EXCLUDE, "hold": _HOLD}
_MARKER = {"keep": "o", "exclude": "X", "hold": "D"}  # told apart in print without colour

_SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "text.usetex": False,
    "axes.formatter.use_mathtext": False,
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same on every machine
    "font.size": 9.0,
    "text.color": _INK,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _SOFT,
    "xtick.color": _SOFT,
    "ytick.color": _INK,
}

_WIDTH, _LEFT, _RIGHT = 9.2, 0.30, 0.845
_ROW = 0.25
"""Inches per row of a picture."""


def share_per_source(sources: dict[str, Any]) -> str | None:
    """Share and interval of the worst sources, with the limit; ``sources`` is that section of ``report.json``."""
    rows = [row for row in sources["worst"] if row["documents"]][:SHOWN]
    if not rows:
        return None
    limit = 100 * sources["limit"]["numerator"] / sources["limit"]["denominator"]
    with matplotlib.rc_context({**_SETTINGS, "svg.hashsalt": "share-per-source"}):
        figure, axes = _canvas(len(rows), above=0.42, below=0.5)
        for y, row in enumerate(rows):
            share = 100 * row["illegal"] / row["documents"]
            colour = _COLOUR[row["decision"]]
            if row["lower"] is not None and row["upper"] is not None:
                axes.hlines(y, 100 * row["lower"], 100 * row["upper"], color=colour, linewidth=1.4, alpha=0.55)
            axes.plot([share], [y], marker=_MARKER[row["decision"]], markersize=5.5, color=colour, linestyle="none")
            _note(axes, y, f"{row['illegal']:,} of {row['documents']:,}")
        axes.axvline(limit, color=_EXCLUDE, linewidth=1, linestyle=(0, (4, 3)))
        axes.text(limit, -0.9, f"limit {limit:g} %", color=_EXCLUDE, ha="center", va="bottom", fontsize=8)
        _names(axes, [_source_name(row["source"]) for row in rows])
        # From a few in a million to all of them: logarithmic, and linear near zero so that "none" has a place.
        ticks = (0.0, 0.1, 1.0, 5.0, 10.0, 50.0, 100.0)
        axes.set_xscale("symlog", linthresh=0.1, linscale=0.35)
        axes.set_xlim(-0.008, 115)
        axes.set_xticks(ticks, [f"{tick:g} %" for tick in ticks])
        axes.set_xticks([], minor=True)
        axes.set_xlabel("share of documents with an illegal or unhealthy risk; line: interval", fontsize=8)
        present = [decision for decision in _COLOUR if any(row["decision"] == decision for row in rows)]
        handles = [Line2D([], [], color=_COLOUR[d], marker=_MARKER[d], linestyle="none", label=d) for d in present]
        figure.legend(handles=handles, loc="upper right", ncols=3, frameon=False, fontsize=8, borderaxespad=0.2)
        return _svg(figure, "Illegal share of the worst sources, with intervals and the limit")


def documents_per_risk(risks: Sequence[dict[str, Any]]) -> str | None:
    """Documents per risk, most first; risks that nobody found are left to the table."""
    rows = sorted((row for row in risks if row["documents"]), key=lambda row: (-row["documents"], row["risk"]))
    if not rows:
        return None
    with matplotlib.rc_context({**_SETTINGS, "svg.hashsalt": "documents-per-risk"}):
        figure, axes = _canvas(len(rows), above=0.08, below=0.5)
        counts = [row["documents"] for row in rows]
        axes.barh(range(len(rows)), counts, height=0.62, color=_BAR, left=0)
        for y, count in enumerate(counts):
            _note(axes, y, f"{count:,}")
        _names(axes, [f"{row['risk']} {row['en']}" for row in rows])
        if max(counts) > 50 * min(counts):
            axes.set_xscale("symlog", linthresh=1, linscale=0.3)
            powers = [10**power for power in range(len(str(max(counts))))]
            axes.set_xticks([0, *powers], [f"{tick:,}" for tick in (0, *powers)])
            axes.set_xticks([], minor=True)
        axes.set_xlim(0, max(counts) * 1.05)
        axes.set_xlabel("documents (one with two risks counts in both rows)", fontsize=8)
        return _svg(figure, "Documents per risk")


def retention(steps: Sequence[dict[str, Any]]) -> str | None:
    """What was left after each step of the filter."""
    if not steps or not steps[0]["documents"]["denominator"]:
        return None
    with matplotlib.rc_context({**_SETTINGS, "svg.hashsalt": "retention"}):
        figure, axes = _canvas(len(steps), above=0.08, below=0.5, row=0.34)
        read = steps[0]["documents"]["denominator"]
        before = read
        for y, step in enumerate(steps):
            left = step["documents"]["numerator"]
            axes.barh(y, before, height=0.6, color=_EXCLUDE, alpha=0.28)
            axes.barh(y, left, height=0.6, color=_KEEP)
            _note(axes, y, f"{left:,}  ({step['documents']['percent']})")
            lost = before - left
            if lost and left > 0.15 * read:
                axes.text(left - 0.008 * read, y, f"− {lost:,}", color="white", ha="right", va="center", fontsize=8)
            elif lost:
                axes.text(before + 0.008 * read, y, f"− {lost:,}", color=_SOFT, va="center", fontsize=8)
            before = left
        _names(axes, [step["step"] for step in steps])
        axes.set_xlim(0, read * 1.005)
        ticks = [0.0, 0.25, 0.5, 0.75, 1.0]
        axes.set_xticks([read * tick for tick in ticks], [f"{100 * tick:g} %" for tick in ticks])
        axes.set_xlabel("documents left; pale: removed by this step", fontsize=8)
        return _svg(figure, "Documents left after each step")


def _canvas(rows: int, *, above: float, below: float, row: float = _ROW) -> tuple[Figure, Any]:
    """A figure with room for *rows* names on the left and numbers on the right; margins in inches above and below."""
    height = above + below + rows * row
    figure = Figure(figsize=(_WIDTH, height))
    FigureCanvasSVG(figure)
    axes = figure.add_axes((_LEFT, below / height, _RIGHT - _LEFT, rows * row / height))
    axes.set_ylim(rows - 0.5, -0.5)
    axes.grid(axis="x", color=_GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _names(axes: Any, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), [_fit(name) for name in names])


def _note(axes: Any, y: int, text: str) -> None:
    """A number beside the row, right of the axes."""
    axes.text(1.015, y, text, transform=axes.get_yaxis_transform(), va="center", fontsize=8, color=_SOFT)


def _source_name(source: str | None) -> str:
    return "(null)" if source is None else source or "(empty)"


def _fit(name: str, columns: int = 38) -> str:
    """As much of *name* as fits beside its row; a Chinese character takes two columns."""
    used = 0
    for i, character in enumerate(name):
        used += 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if used > columns:
            return name[: max(i - 1, 1)] + "…"
    return name


def _svg(figure: Figure, title: str) -> str:
    """
    The SVG element alone, to be inlined beside others: no header, date or creator, and nothing that reaches outside it.

    matplotlib's ids are dropped unless something refers to them, and its style sheet, which would style the page,
    becomes a style of the element.
    """
    out = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the browser draws the text and has the glyphs
        figure.savefig(out, format="svg", metadata={"Creator": None, "Date": None, "Format": None, "Type": None})
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    view = svg[svg.index('viewBox="') :].split('"', 2)[1]
    body = svg[svg.index(">") + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, count=1, flags=re.DOTALL)
    body = re.sub(r"<defs>\s*<style [^>]*>[^<]*</style>\s*</defs>", "", body, count=1)
    used = set(re.findall(r'(?:href="#|url\(#)([\w.-]+)', body))
    body = re.sub(r' id="([\w.-]+)"(?=[^<>]*>)', lambda found: found[0] if found[1] in used else "", body)
    style = "stroke-linejoin: round; stroke-linecap: butt"
    head = f'<svg viewBox="{view}" role="img" aria-label="{title}" style="{style}"><title>{title}</title>'
    return re.sub(r"\s*\n\s*", "\n", head + body).strip()
