"""
``assess``: every source's share and decision, from the counts of its documents as collected (5.1 a).
"""

import pyarrow as pa

from corpus_guard.errors import UsageError
from corpus_guard.shards import table_bytes
from corpus_guard.sources.assess import AssessingRules, write_csv
from corpus_guard.sources.assess import assess as decide_sources
from corpus_guard.sources.tally import by
from corpus_guard.steps.outcomes import Judged
from corpus_guard.steps.setup import Run


def assess(run: Run, judged: Judged, total: pa.Table) -> pa.Table:
    """Every source's share and decision, from the counts of the documents as collected."""
    setup = run.setup
    asked = setup.policy.source_rule(setup.config.corpus.phase)
    if asked is None:
        raise UsageError(f"policy {setup.policy.id}: has no source_ratio rule, so sources cannot be decided; add one.")
    rule = AssessingRules(asked.limit, phase=setup.config.corpus.phase, decide=setup.config.sources.decide)
    unknown: dict[str, int] = {}
    for one in (*judged.damage, *judged.unread):
        unknown[one["shard"]] = unknown.get(one["shard"], 0) + one["rows"]
    sources = decide_sources(by(total, "source"), rule, setup.register, setup.blacklist, unknown)
    run.folder.sources.put(table_bytes(sources))
    run.folder.sources_csv.put(write_csv(sources))
    return sources
