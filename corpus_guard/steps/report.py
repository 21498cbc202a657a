"""
``report``: everything the steps left becomes one set of facts, held against the policy provision by provision.

``report.json`` is the truth; HTML, Markdown and tables are drawn from it. What is not known stays
null. The report is the last file of a run: where it is, the run is finished.
"""

import hashlib
from collections import Counter
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from corpus_guard.report import model
from corpus_guard.report.evidence import (
    DenylistEvidence,
    Evidence,
    LibraryEvidence,
    RegisterEvidence,
    SampleEvidence,
    SourceEvidence,
    StageEvidence,
)
from corpus_guard.report.provisions import evaluate
from corpus_guard.sampling import DrawRecord
from corpus_guard.shards import read_manifest
from corpus_guard.sources.register import Register
from corpus_guard.sources.tally import RISK_COLUMNS, by
from corpus_guard.statistics import clopper_pearson
from corpus_guard.steps.files import read_json
from corpus_guard.steps.outcomes import Checked, Facts, Result
from corpus_guard.steps.review import labels_of
from corpus_guard.steps.setup import Run
from corpus_guard.taxonomy import CODES


def write_report(run: Run, facts: Facts) -> dict[str, Any]:
    """Write ``reports/``; ``report.json`` last. Gives it as plain values."""
    from corpus_guard.report.markdown import markdown
    from corpus_guard.report.render import html
    from corpus_guard.report.tables import tables

    report = build(run, facts)
    plain = model.as_json(report)
    place = run.folder.run / "reports"
    for name, data in tables(plain).items():
        (place / "tables" / name).put(data)
    (place / "report.html").put(html(plain).encode())
    (place / "report.md").put(markdown(plain).encode())
    (place / "report.json").put(model.dump(report))
    return plain


def finished(run: Run) -> dict[str, Any] | None:
    """
    The report of a finished run; ``None`` while there is none, or where people have settled
    more of the sample since: then the report, and only it, is made again.
    """
    place = run.folder.run / "reports" / "report.json"
    if not place.exists():
        return None
    report: dict[str, Any] = read_json(place)
    if report["digests"].get("labels", "") != _labels_digest(run):
        return None
    return report


def build(run: Run, facts: Facts) -> model.Report:
    """All facts as a report, provisions and conclusion among them."""
    setup = run.setup
    policy = setup.policy
    labels = labels_of(run)
    models = _models(run)
    covered = _coverage(models)
    library = _library(run)
    evidence = _evidence(run, facts, labels, covered, library)
    assessment = evaluate(policy, evidence)
    failed = _failed(facts)
    rate = policy.source_rule(setup.config.corpus.phase)
    return model.Report(
        job=setup.job,  # type: ignore[arg-type]
        run=run.folder.run.name,
        as_of=run.as_of.isoformat(),
        policy=model.PolicyFacts(id=policy.id, title=policy.title, digest=policy.digest, notices=policy.notices),
        corpus=_corpus(run, facts, failed),
        conclusion=assessment.conclusion,
        provisions=assessment.provisions,
        accounting=_accounting(facts),
        retention=model.retention_of(_counts(facts.accounting)) if facts.accounting else None,
        sources=_sources(run, facts, rate),
        risks=_risks(facts.total, policy),
        stages=_stages(run, facts),
        technical=_technical(run, facts),
        manual=_manual(run, facts, labels),
        library=library,
        classifier=model.Classifier(
            tuple(
                model.ModelFacts(name=m.name, digest=recipe.digest, licence=m.licence, languages=tuple(m.languages))
                for recipe, m in models
            ),
            tuple(
                model.RiskCoverage(
                    code,
                    tuple(model.CoverageCell(model=c.model, positives=c.positives, status=c.status) for c in cells),
                )
                for code, cells in covered.items()
            ),
        )
        if models
        else None,
        limits=_limits(run, facts, covered, library),
        digests={
            "manifest": facts.plan.manifest,
            "policy": policy.digest,
            "reading": setup.reading.digest,
            "labels": _labels_digest(run),
            **{recipe.name: recipe.digest for recipe in setup.recipes},
        },
    )


def told(run: Run, report: dict[str, Any]) -> Result:
    """What the report says, in a dozen lines, and what decides the exit code."""
    from corpus_guard.report.render import short

    documents = (report["accounting"] or {}).get("documents")
    corpus, sources = report["corpus"], report["sources"]
    lines = [
        f"corpus      {corpus['shards']:,} shards, {_number(corpus['documents'])} documents "
        f"of {_number(corpus['sources'])} sources"
    ]
    if corpus["failed_shards"] or corpus["failed_rows"]:
        lines.append(
            f"failed      {corpus['failed_shards']:,} shards and {_number(corpus['failed_rows'])} rows of others "
            "could not be read or worked on; named in failed/ and in the report"
        )
    if documents:
        blocked = documents["removed_blocked"]
        unseen = f", {blocked:,} of blacklisted sources unseen" if blocked else ""
        removed = documents["removed_document"] + documents["removed_source"] + documents["removed_blocked"]
        lines.append(
            f"documents   {documents['clean']:,} clean, {removed:,} removed "
            f"({documents['removed_document']:,} themselves, {documents['removed_source']:,} with their source"
            f"{unseen}), "
            f"{documents['quarantined']:,} quarantined; balanced: {_yes(report['accounting']['balanced'])}"
        )
    if sources:
        lines.append(
            f"sources     {sources['keep']:,} kept, {sources['exclude']:,} excluded "
            f"over {short(sources['limit']['percent'])}, {sources['hold']:,} on hold"
        )
        for row in [row for row in sources["worst"] if row["decision"] != "keep"][:5]:
            lines.append(
                f"            {row['source'] or '(null)'}: {row['illegal']:,} of {row['documents']:,} "
                f"({row['share']['percent']}), {row['decision']}"
            )
    if report["job"] == "sources":
        lines += _to_confirm(run, sources)
    again = (report["technical"] or {}).get("integrity")
    if again and again["equal"] != again["rescanned"]:
        lines.append(
            f"integrity   {again['rescanned'] - again['equal']:,} of {again['rescanned']:,} documents gave "
            "other findings when scanned again than the store holds; use a new store"
        )
    for name, key in (("technical", "evaluation"), ("manual", "qualified")):
        check = report[name]
        if check and check["drawn"] is not None:
            found = check[key]
            says = (
                f"{found['numerator']:,} of {found['denominator']:,} qualified ({found['percent']})"
                if found
                else "not measured yet"
            )
            lines.append(f"{name:11} {check['drawn']:,} of {check['population']:,} drawn, {says}")
    verdict = report["conclusion"]["value"]
    lines.append(f"conclusion  {(verdict or 'per provision').replace('_', ' ')}: {report['conclusion']['sentence']}")
    place = run.folder.run / "reports" / "report.html"
    lines.append(f"report      {place.uri}")
    lost = _lost(run, corpus)
    if lost:
        lines.append(f"exit 5      {lost}")
    counting = [row["result"] for row in report["provisions"] if row["level"] == "shall"]
    conforms = False if "does not conform" in counting else None if "needs evidence" in counting else True
    if report["job"] == "sources":  # the question of this job is its sources
        conforms = not sources["exclude"] and not sources["hold"]
    summary = {
        "run": run.folder.run.uri,
        "report": place.uri,
        "corpus": {k: corpus[k] for k in ("shards", "rows", "documents", "failed_shards", "failed_rows")},
        "documents": documents,
        "sources": {k: sources[k] for k in ("total", "keep", "exclude", "hold")} if sources else None,
        "technical": _brief(report["technical"], "evaluation"),
        "manual": _brief(report["manual"], "qualified"),
        "conclusion": report["conclusion"]["value"],
        "too_much_failed": lost,
    }
    return Result(summary, lines, bool(lost), conforms)


def _to_confirm(run: Run, sources: dict[str, Any] | None) -> list[str]:
    """What a person has to decide: no count of an uncorrected detector puts a source on the blacklist by itself."""
    path = run.setup.config.sources.blacklist
    over = [row["source"] for row in (sources or {}).get("worst", ()) if row["decision"] == "exclude" and row["source"]]
    new = [source for source in over if source not in run.setup.blacklisted]
    if not path or not new:
        return []
    return [
        f"blacklist   {len(new):,} excluded sources are not on it; a named person confirms each:",
        *(
            f"            corpus-guard sources blacklist add {path} {source} --by NAME --reason ..."
            for source in new[:3]
        ),
    ]


def told_so_far(run: Run, facts: Facts, until: str) -> Result:
    """The end of a run that was asked for some steps only."""
    corpus = {
        "shards": len(facts.plan.shards),
        "rows": facts.plan.rows,
        "failed_shards": len(facts.plan.bad),
        "failed_rows": facts.failed_rows,
    }
    lost = _lost(run, corpus) if facts.judged else ""
    lines = [f"{until} done: {corpus['shards']:,} shards, {corpus['rows']:,} rows"]
    if facts.todo is not None:
        lines.append(f"scanned     {len(facts.todo.loads):,} units; the store had {facts.todo.done_units:,}")
    if facts.sources is not None:
        decisions = facts.sources.column("decision").to_pylist()
        lines.append("sources     " + ", ".join(f"{decisions.count(d):,} {d}" for d in ("keep", "exclude", "hold")))
    if lost:
        lines.append(f"exit 5      {lost}")
    return Result({"step": until, **corpus, "too_much_failed": lost}, lines, bool(lost))


def _lost(run: Run, corpus: dict[str, Any]) -> str:
    """A sentence where more failed than allowed, by rows, or by bytes for shards without footer; else nothing."""
    allowed = run.setup.config.max_failed_share
    rows, all_rows = corpus["failed_rows"] or 0, corpus["rows"] or 0
    shards, unreadable = read_manifest(run.folder.manifest)
    bad, total = sum(shard.size for shard in unreadable), sum(shard.size for shard in shards)
    over_rows = rows * allowed.denominator > allowed.numerator * all_rows
    over_bytes = bad * allowed.denominator > allowed.numerator * (total + bad)
    if not (over_rows or over_bytes):
        return ""
    parts = [
        f"{rows:,} of {all_rows:,} rows" if over_rows else "",
        f"{bad:,} of {total + bad:,} bytes in unreadable shards" if over_bytes else "",
    ]
    return (
        f"{' and '.join(part for part in parts if part)} failed, and max_failed_share is {float(allowed):g}; "
        "see failed/, mend or replace the shards and run corpus-guard retry, or raise max_failed_share."
    )


def _labels_digest(run: Run) -> str:
    return hashlib.sha256(run.folder.labels.read_bytes()).hexdigest() if run.folder.labels.exists() else ""


def _number(value: int | None) -> str:
    return "an unknown number of" if value is None else f"{value:,}"


def _yes(value: bool) -> str:
    return "yes" if value else "NO"


def _brief(check: dict[str, Any] | None, key: str) -> dict[str, Any] | None:
    return (
        None if check is None else {"population": check["population"], "drawn": check["drawn"], "qualified": check[key]}
    )


# Sections


def _failed(facts: Facts) -> tuple[model.FailedShard, ...]:
    found = [model.FailedShard(bad.path, bad.error, None) for bad in facts.plan.bad]
    if facts.judged:
        found += [
            model.FailedShard(f"{one['shard']} row group {one['group']}", one["error"], one["rows"])
            for one in facts.judged.damage
        ]
        found += [
            model.FailedShard(f"{one['shard']} rows {one['unit']}", "given up, see failed/", one["rows"])
            for one in facts.judged.unread
        ]
        found += [
            model.FailedShard(
                f"{one['shard']} rows {one['unit']}", f"no findings of {', '.join(one['stages'])}", one["rows"]
            )
            for one in facts.judged.incomplete
        ]
    found += [
        model.FailedShard(f"{one['shard']} rows {one['unit']}", f"judged, not written: {one['error']}", one["rows"])
        for one in facts.lost
    ]
    return tuple(found)


def _corpus(run: Run, facts: Facts, failed: tuple[model.FailedShard, ...]) -> model.Corpus:
    judged, total = facts.judged, facts.total
    sampled = run.setup.job == "spot-check"
    return model.Corpus(
        manifest=facts.plan.manifest,
        phase=run.setup.config.corpus.phase,
        shards=len(facts.plan.shards),
        rows=facts.plan.rows,
        documents=facts.plan.rows
        if judged is None or sampled
        else facts.plan.rows - judged.unread_rows - facts.lost_rows,
        characters=pc.sum(total.column("characters")).as_py() if total is not None else None,
        sources=by(total, "source").num_rows if total is not None else None,
        duplicate_ids=facts.drawn.duplicate_ids if facts.drawn else None,
        failed_shards=len(facts.plan.bad),
        failed_rows=facts.failed_rows or 0,
        failed=failed[: model.LISTED],
    )


def _counts(accounting: dict[str, Any]) -> model.DocumentCounts:
    return model.DocumentCounts(**accounting["documents"])


def _accounting(facts: Facts) -> model.Accounting | None:
    found = facts.accounting
    if found is None:
        return None
    return model.Accounting(
        documents=_counts(found),
        shards=found["shards"],
        balanced=found["balanced"],
        unbalanced=tuple(found["unbalanced"]),
    )


def _sources(run: Run, facts: Facts, rule: Any) -> model.Sources | None:
    if facts.sources is None or rule is None:
        return None
    decisions = facts.sources.column("decision").to_pylist()
    limit = rule.limit
    return model.Sources(
        total=len(decisions),
        keep=decisions.count("keep"),
        exclude=decisions.count("exclude"),
        hold=decisions.count("hold"),
        limit=model.Rate(limit.numerator, limit.denominator, rule.clause),
        decide=run.setup.config.sources.decide,
        phase=run.setup.config.corpus.phase,
        thin=pc.sum(facts.sources.column("thin")).as_py() or 0,
        worst=model.worst_sources(facts.sources.to_pylist(), rule.clause),
    )


def _risks(total: pa.Table | None, policy: Any) -> tuple[model.RiskCount, ...] | None:
    if total is None:
        return None
    names = {risk.code: (risk.en, risk.zh) for risk in policy.risks}
    documents, sources = _per_risk(total)
    return model.risk_counts(documents, sources, names=names)


def _per_risk(total: pa.Table) -> tuple[dict[str, int], dict[str, int]]:
    per_source = by(total, "source")
    documents = {
        code: pc.sum(per_source.column(column)).as_py() or 0
        for code, column in zip((*CODES, "unresolved"), RISK_COLUMNS, strict=True)
    }
    sources = {
        code: pc.sum(pc.greater(per_source.column(column), 0)).as_py() or 0
        for code, column in zip((*CODES, "unresolved"), RISK_COLUMNS, strict=True)
    }
    return documents, sources


def _sum(total: pa.Table, column: str) -> int:
    return int(pc.sum(total.column(column)).as_py() or 0)


def _judged_documents(total: pa.Table) -> int:
    return _sum(total, "documents") - _sum(total, "blank") - _sum(total, "skipped") - _sum(total, "unjudged")


def _stages(run: Run, facts: Facts) -> model.Stages | None:
    """What ran and found what; in a spot check, of the drawn documents."""
    total = facts.own.tally if facts.own else facts.total
    if total is None:
        return model.Stages(
            ran=tuple(model.StageFacts(name=r.name, kind=r.kind, digest=r.digest) for r in run.setup.recipes)
        )
    looked = model.Rate(_judged_documents(total), _judged_documents(total) + _sum(total, "unjudged"))
    return model.Stages(
        ran=tuple(
            model.StageFacts(name=r.name, kind=r.kind, digest=r.digest, looked_at=looked) for r in run.setup.recipes
        ),
        only_keyword=_sum(total, "only_keyword"),
        only_classifier=_sum(total, "only_classifier"),
        both=_sum(total, "both"),
        review=_sum(total, "review"),
    )


def _attempts(ledger: tuple[DrawRecord, ...], purpose: str) -> tuple[model.Attempt, ...]:
    return tuple(
        model.Attempt(record.attempt, record.size, record.reason, record.ids)
        for record in ledger
        if record.purpose == purpose
    )


def _good(checked: Checked) -> tuple[int, int]:
    """Qualified documents of a checked sample, and all of them: what could not be judged is not good."""
    drawn = _sum(checked.tally, "documents") + checked.judged.unread_rows
    return _judged_documents(checked.tally) - _sum(checked.tally, "unqualified"), drawn


def _technical(run: Run, facts: Facts) -> model.Technical | None:
    if facts.drawn is None:
        return None
    rule = run.setup.policy.technical
    filtered = run.setup.job == "filter"
    measured = facts.evaluated or facts.own
    good = _good(measured) if measured else None
    total = facts.total
    conforms = None if good is None else rule.met(*good)
    return model.Technical(
        population=facts.drawn.population,
        required=rule.size(facts.drawn.population),
        drawn=facts.drawn.technical,
        minimum=model.Rate(rule.min.numerator, rule.min.denominator, rule.clause),
        before=model.Rate(_judged_documents(total) - _sum(total, "unqualified"), _judged_documents(total), rule.clause)
        if total is not None
        else None,
        after=model.Rate(facts.drawn.technical, facts.drawn.technical, rule.clause) if filtered else None,
        evaluation=model.Rate(*good, rule.clause) if good else None,
        evaluation_stages=tuple(
            model.StageFacts(name=r.name, kind=r.kind, digest=r.digest) for r in (measured.stages if measured else ())
        ),
        by_risk=_risks(measured.tally, run.setup.policy) or () if measured else (),
        integrity=model.Integrity(
            facts.integrity["documents"], facts.integrity["documents"] - len(facts.integrity["differ"])
        )
        if facts.integrity
        else None,
        attempts=_attempts(facts.drawn.ledger, "technical"),
        conforms=conforms,
    )


def _manual(run: Run, facts: Facts, labels: pa.Table | None) -> model.Manual | None:
    if facts.drawn is None:
        return None
    rule = run.setup.policy.manual
    read = labels.num_rows if labels is not None else 0
    good = int(pc.sum(pc.equal(labels.column("verdict"), "qualified")).as_py() or 0) if labels is not None else 0
    whole = facts.drawn.manual > 0 and read == facts.drawn.manual
    people = (
        len(set(labels.column("annotator").to_pylist()) | set(labels.column("reviewer").to_pylist()))
        if labels is not None
        else None
    )
    interval = None
    if whole:
        lower, upper = clopper_pearson(good, read)
        interval = model.Interval(lower, upper)
    by_risk = {}
    if labels is not None:
        found = [risk for risks in labels.column("risks").to_pylist() for risk in risks]
        by_risk = {code: found.count(code) for code in CODES}
    return model.Manual(
        population=facts.drawn.population,
        required=rule.size(facts.drawn.population),
        drawn=facts.drawn.manual,
        read=read,
        people=people,
        minimum=model.Rate(rule.min.numerator, rule.min.denominator, rule.clause),
        qualified=model.Rate(good, read, rule.clause) if whole else None,
        interval=interval,
        by_risk=model.risk_counts(by_risk) if labels is not None else (),
        attempts=_attempts(facts.drawn.ledger, "manual"),
        conforms=rule.met(good, read) if whole else None,
    )


# Tools


def _models(run: Run) -> list[tuple[Any, Any]]:
    recipes = [recipe for recipe in run.setup.recipes if recipe.kind == "classifier" and hasattr(recipe, "model")]
    return [(recipe, recipe.model) for recipe in recipes]


def _coverage(models: list[tuple[Any, Any]]) -> dict[str, list[Any]]:
    if not models:
        return {}
    from corpus_guard.classifiers.coverage import coverage

    return dict(coverage(m for _, m in models))


def _library(run: Run) -> model.Library | None:
    keywords = run.setup.config.keywords
    recipe = next((r for r in run.setup.recipes if r.kind == "keyword" and hasattr(r, "library_path")), None)
    if recipe is None or keywords is None:
        return None
    from corpus_guard.keywords.audit import audit
    from corpus_guard.keywords.library import load_library

    facts = audit(load_library(recipe.library_path), run.as_of, **_usual_length(run))
    required = _required(run)
    return model.Library(
        id=facts.id,
        version=facts.version,
        digest=facts.digest,
        engine=keywords.engine,
        total=facts.total,
        required=required.get("total"),
        newest_change=facts.newest_change.isoformat() if facts.newest_change else None,
        too_long=len(facts.too_long),
        risks=tuple(
            model.LibraryCount(code, facts.per_risk[code], facts.effective_per_risk[code], required.get(code[:3]))
            for code in CODES
        ),
    )


def _usual_length(run: Run) -> dict[str, int]:
    """The length of entries the policy speaks of, if it does."""
    rules = [rule for rule in run.setup.policy.rules if rule.check == "entry_length"]
    return {"han": rules[0]["max_han"], "words": rules[0]["max_words"]} if rules else {}


def _required(run: Run) -> dict[str, int]:
    """The library minimums of the policy: of the total, and of each risk of a group."""
    found: dict[str, int] = {}
    for rule in run.setup.policy.rules:
        if rule.check == "library_count":
            found[rule.arguments.get("each_in") or "total"] = rule["min"]
    return found


def _limits(run: Run, facts: Facts, covered: dict[str, list[Any]], library: model.Library | None) -> tuple[str, ...]:
    """What this report does not claim."""
    found = ["This is engineering evidence, not legal advice; a named person concludes on each provision."]
    usable = {code for code, cells in covered.items() if any(c.on and c.status == "usable" for c in cells)}
    keywords = {row.risk for row in library.risks if row.terms} if library else set()
    if facts.total is not None or facts.own is not None:
        found.append(
            f"A classifier with usable evidence looked for {len(usable)} of {len(CODES)} risks "
            f"({', '.join(sorted(usable)) or 'none'}), keywords alone for {len(keywords - usable)}; "
            f"nothing looked for {', '.join(code for code in CODES if code not in usable | keywords) or 'no risk'}."
        )
    if facts.drawn and not facts.evaluated and run.setup.job == "filter":
        found.append(
            "The technical check was not measured: name an independent evaluation set-up in the config. "
            "The filter's own detectors pass their own output by construction."
        )
    if facts.drawn and run.setup.job == "spot-check":
        found.append("Only the drawn documents were scanned; shares of single sources are those of the sample.")
    if facts.plan.bad:
        found.append(f"{len(facts.plan.bad)} shards could not be read at all; nothing is known of their documents.")
    return tuple(found)


# Evidence for the provisions


def _evidence(
    run: Run, facts: Facts, labels: pa.Table | None, covered: dict[str, list[Any]], library: model.Library | None
) -> Evidence:
    total, register = facts.total, run.setup.register
    return Evidence(
        as_of=run.as_of,
        modalities=("text",),
        sources=_source_evidence(run, facts),
        manual=_manual_evidence(facts, labels),
        technical=_technical_evidence(facts),
        library=_library_evidence(run, library),
        detectors=covered if run.setup.recipes else None,
        stages=_stage_evidence(run, facts),
        balanced=facts.accounting["balanced"] if facts.accounting else None,
        denylists=_denylists(run, facts),
        sources_by=_sources_by(total),
        shares=_shares(total),
        register=_register_evidence(register, facts, run.as_of) if register else None,
        documents={name: paper.holds(run.as_of) for name, paper in register.operator.items()} if register else None,
    )


def _technical_evidence(facts: Facts) -> SampleEvidence | None:
    """
    The figures of the independent set-up; of the filter's own detectors only in a note: they pass what they left.

    A spot check has no filter: the config's stages are the set-up, and the note says on what condition.
    """
    drawn = facts.drawn
    if drawn is None:
        return None
    attempts = len([record for record in drawn.ledger if record.purpose == "technical"])
    measured = facts.evaluated or facts.own
    good, judged = _good(measured) if measured else (None, None)
    note = ""
    if facts.own and not facts.evaluated:
        note = "Independent only as far as the corpus was not filtered with the same stages."
    elif not measured:
        note = "Not measured: no evaluation set-up is named; the filter's own detectors find nothing in what they left."
    return SampleEvidence(
        population=drawn.population, drawn=drawn.technical, judged=judged, good=good, attempts=attempts, note=note
    )


def _manual_evidence(facts: Facts, labels: pa.Table | None) -> SampleEvidence | None:
    drawn = facts.drawn
    if drawn is None:
        return None
    attempts = len([record for record in drawn.ledger if record.purpose == "manual"])
    settled = labels.num_rows if labels is not None else None
    return SampleEvidence(
        population=drawn.population, drawn=drawn.manual, judged=settled, good=_qualified(labels), attempts=attempts
    )


def _qualified(labels: pa.Table | None) -> int | None:
    return None if labels is None else int(pc.sum(pc.equal(labels.column("verdict"), "qualified")).as_py() or 0)


def _stage_evidence(run: Run, facts: Facts) -> dict[str, StageEvidence] | None:
    """
    Documents that every stage looked at, counted by verdicts, of those used or removed, counted by shards written.
    """
    if facts.total is None or facts.accounting is None:
        return None
    counts = facts.accounting["documents"]
    asked = counts["read"] - counts["quarantined"] - _sum(facts.total, "skipped")
    looked = StageEvidence(_judged_documents(facts.total), asked)
    return {recipe.name if recipe.kind == "screen" else recipe.kind: looked for recipe in run.setup.recipes}


def _denylists(run: Run, facts: Facts) -> dict[str, DenylistEvidence] | None:
    """The blacklist of sources: its documents are never clean, so those still used are counted among the decisions."""
    blacklist = run.setup.blacklist
    if blacklist is None or facts.sources is None:
        return None
    rows = facts.sources.select(["source", "documents", "decision"]).to_pylist()
    listed = [row for row in rows if row["source"] in run.setup.blacklisted]
    used = sum(row["documents"] for row in listed if row["decision"] == "keep")
    matched = sum(row["documents"] for row in listed)
    return {"source_blacklist": DenylistEvidence(len(run.setup.blacklisted), matched, used)}


def _register_evidence(register: Register, facts: Facts, as_of: date) -> RegisterEvidence | None:
    """What the register says of the sources of this corpus, counted by kind."""
    if facts.sources is None:
        return None
    names = set(facts.sources.column("source").to_pylist())
    kinds: Counter[str] = Counter()
    valid: dict[str, Counter[str]] = {}
    expired: dict[str, Counter[str]] = {}
    for source in register.of_kinds((), among=names):
        if source.kind is None:
            continue
        kinds[source.kind] += 1
        for name, paper in source.documents.items():
            (valid if paper.holds(as_of) else expired).setdefault(source.kind, Counter())[name] += 1
    return RegisterEvidence(kinds=kinds, unregistered=len(names) - kinds.total(), valid=valid, expired=expired)


def _source_evidence(run: Run, facts: Facts) -> dict[str, SourceEvidence] | None:
    phase = run.setup.config.corpus.phase
    rule = run.setup.policy.source_rule(phase)
    if facts.sources is None or rule is None:
        return None
    rows = zip(*(facts.sources.column(c).to_pylist() for c in ("illegal", "documents", "decision")), strict=True)
    return {phase: SourceEvidence.of(rows, rule)}


def _library_evidence(run: Run, library: model.Library | None) -> LibraryEvidence | None:
    if library is None:
        return None
    newest = date.fromisoformat(library.newest_change) if library.newest_change else None
    return LibraryEvidence(
        total=library.total,
        per_risk={row.risk: row.terms for row in library.risks},
        too_long=library.too_long,
        newest_change=newest,
    )


def _sources_by(total: pa.Table | None) -> dict[tuple[str, ...], dict[tuple[str | None, ...], int]] | None:
    if total is None:
        return None
    cells = (
        by(total, "language", "source")
        .group_by("language")
        .aggregate([("source", "count", pc.CountOptions(mode="all"))])
    )
    return {("language",): {(row["language"],): row["source_count"] for row in cells.to_pylist()}}


def _shares(total: pa.Table | None) -> dict[str, dict[str | None, int]] | None:
    if total is None:
        return None
    return {
        key: {row[key]: row["documents"] for row in by(total, key).select([key, "documents"]).to_pylist()}
        for key in ("language", "kind", "origin")
    }
