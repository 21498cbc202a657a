"""
The way of the data, top to bottom: the three jobs, made of one module per step.

Every step can be interrupted anywhere and is done where its file is; the next start lists and does the
rest. Steps run on the driver and hand work to the run's executor; they see small records only.
"""

import hashlib
import json
from typing import Any

from corpus_guard.errors import UsageError
from corpus_guard.steps.apply import apply
from corpus_guard.steps.assess import assess
from corpus_guard.steps.check import check, integrity
from corpus_guard.steps.draw import draw
from corpus_guard.steps.judge import judge, tallies
from corpus_guard.steps.outcomes import Facts, Result
from corpus_guard.steps.plan import keep_plan, plan
from corpus_guard.steps.report import finished, told, told_so_far, write_report
from corpus_guard.steps.scan import name_bad_shards, scan
from corpus_guard.steps.setup import Run


def go_on(run: Run, again: bool = False) -> Result:
    """The job this run was begun with, from where it stands; *again*: though it is finished."""
    if run.setup.job == "sources":
        return assess_sources(run, again)
    if run.setup.job == "spot-check":
        return spot_check(run, again)
    return filter_corpus(run, again=again)


def filter_corpus(run: Run, until: str = "report", again: bool = False, redraw: str = "") -> Result:
    """
    The main job: plan, scan, judge, assess, apply, draw, check, report; up to *until*.

    A finished run is not touched: the same command tells again what came of it, unless *again*. *redraw*: the reason to
    draw both samples once more from unchanged documents; it stays in the ledger and in the report (R-14).
    """
    facts = Facts(plan(run))
    before = None if again or redraw else _finished(run, facts)
    if before is not None:
        return told(run, before)
    if _measure(run, facts, until):
        return told_so_far(run, facts, until)
    assert facts.sources is not None
    facts.accounting = apply(run, facts.plan, facts.sources)
    if until == "apply":
        return told_so_far(run, facts, until)
    facts.drawn = draw(run, facts.plan, "clean", _digest(facts.accounting, facts.plan.manifest), redraw)
    if until == "draw":
        return told_so_far(run, facts, until)
    facts.integrity = integrity(run, facts.plan)
    if run.setup.evaluation:
        facts.evaluated = check(run, facts.plan, facts.drawn, run.setup.evaluation)
    if until == "check":
        return told_so_far(run, facts, until)
    return told(run, write_report(run, facts))


def assess_sources(run: Run, again: bool = False) -> Result:
    """Plan, scan, judge, assess, report. Writes no shard."""
    facts = Facts(plan(run))
    before = None if again else _finished(run, facts)
    if before is not None:
        return told(run, before)
    _measure(run, facts, "report")
    return told(run, write_report(run, facts))


def _measure(run: Run, facts: Facts, until: str) -> bool:
    """Plan to assess: what both jobs begin with. True if *until* is among these steps."""
    keep_plan(run, facts.plan)
    facts.todo = scan(run, facts.plan)
    if until == "scan":
        return True
    facts.judged = judge(run, facts.plan)
    if until == "judge":
        return True
    facts.total = tallies(run.folder)
    facts.sources = assess(run, facts.judged, facts.total)
    return until == "assess"


def spot_check(run: Run, again: bool = False) -> Result:
    """
    Draw both samples from everything there is, scan only what was drawn, report. For any finished Parquet corpus.
    """
    facts = Facts(plan(run))
    before = None if again else _finished(run, facts)
    if before is not None:
        return told(run, before)
    keep_plan(run, facts.plan)
    name_bad_shards(run, facts.plan)
    facts.drawn = draw(run, facts.plan, "all", facts.plan.manifest)
    facts.own = check(run, facts.plan, facts.drawn, run.setup.recipes)
    facts.judged = facts.own.judged
    if run.setup.evaluation:
        facts.evaluated = check(run, facts.plan, facts.drawn, run.setup.evaluation)
    return told(run, write_report(run, facts))


def _finished(run: Run, facts: Facts) -> dict[str, Any] | None:
    """The report of a finished run; one whose shards have changed since is refused, not touched."""
    before = finished(run)
    if before is not None and before["corpus"]["manifest"] != facts.plan.manifest:
        raise UsageError(
            f"{run.folder.run.uri}: this run is finished, and the shards it was made of have changed since; "
            "choose another run name (run: ...). The store keeps what was scanned."
        )
    return before


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
