"""
``verify``: do the files of a finished run hold together? ``sources check``: do its decisions hold to the policy?

Reads what the steps wrote, and changes nothing. Rows are counted from footers; no text is read.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from corpus_guard.errors import CorpusGuardError, EvidenceMissing, UsageError
from corpus_guard.places import Place, one_line
from corpus_guard.sampling import DrawRecord, Fingerprint, read_draws
from corpus_guard.shards import Shard, manifest_hash, read_manifest
from corpus_guard.sources.assess import DECISIONS, KEEP, percent
from corpus_guard.sources.tally import by
from corpus_guard.steps.apply import FATES
from corpus_guard.steps.files import read_json, read_parquet
from corpus_guard.steps.judge import tallies
from corpus_guard.steps.report import finished
from corpus_guard.steps.setup import Run

SHOWN = 20
"""So many faults are told to people; programs get all."""


@dataclass
class Verified:
    """What was looked at and found in order, and every fault, in sentences."""

    checked: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def summary(self) -> dict[str, Any]:
        return {"ok": not self.faults, "faults": self.faults, "checked": self.checked}

    @property
    def lines(self) -> list[str]:
        more = [f"       and {len(self.faults) - SHOWN:,} more faults (--json tells all)"]
        return [
            *(f"ok     {sentence}" for sentence in self.checked),
            *(f"WRONG  {fault}" for fault in self.faults[:SHOWN]),
            *(more if len(self.faults) > SHOWN else []),
        ]

    def look(self, faults: Iterable[str], fine: str) -> None:
        """One check: its faults, or *fine* where it has none. A missing or damaged file is a fault too."""
        found: list[str] = []
        try:
            found.extend(faults)
        except FileNotFoundError as error:
            found.append(f"{one_line(error)}.")
        except (CorpusGuardError, ValueError, KeyError, TypeError, OSError, pa.ArrowException) as error:
            found.extend(str(error).splitlines() if isinstance(error, CorpusGuardError) else [one_line(error)])
        self.faults += found
        if not found:
            self.checked.append(fine)


def verify(run: Run) -> Verified:
    """
    Hold the files of *run* against each other.

    ``UsageError`` where no run was started, ``EvidenceMissing`` where it is not finished.
    """
    folder = run.folder
    if not folder.identity.exists():
        raise UsageError(f"{folder.run.uri}: no run was started here; corpus-guard run starts one.")
    place = folder.reports / "report.json"
    if not place.exists():
        raise EvidenceMissing(f"{folder.run.uri}: is not finished; run the same command again, then verify it.")
    report = read_json(place)
    bound = read_json(folder.identity)["identity"]
    shards, bad = read_manifest(folder.manifest)
    found = Verified()
    found.look(
        _report(run, report, shards), f"report and manifest fit: {len(shards):,} shards, {len(bad):,} unreadable"
    )
    if report["sources"]:
        found.look(_decisions(run, report), f"decisions fit the report: {report['sources']['total']:,} sources")
    if report["accounting"]:
        statuses: list[dict[str, Any]] = []
        found.look(_accounting(run, report, shards, statuses), "every row is accounted for, in all and in each shard")
        counts = {fate: sum(status[fate] for status in statuses) for fate in FATES} if statuses else {}
        found.look(
            _written(run, statuses),
            f"{len(statuses):,} clean shards with {counts.get('clean', 0):,} rows, as accounted, and none beside them",
        )
    if report["technical"] or report["manual"]:
        found.look(_samples(run, report, bound, shards), "samples are those of the ledger, and its keys follow")
    twice = (report["technical"] or {}).get("integrity")
    if twice:
        found.look(_integrity(twice), f"{twice['rescanned']:,} documents scanned again gave what the store holds")
    return found


def _report(run: Run, report: dict[str, Any], shards: Sequence[Shard]) -> Iterator[str]:
    if manifest_hash(shards) != report["corpus"]["manifest"]:
        yield "The report is of another manifest than the one in the run folder."
    if report["corpus"]["rows"] != sum(shard.rows for shard in shards):
        yield f"The report counts {report['corpus']['rows']:,} rows, the manifest {sum(s.rows for s in shards):,}."
    if finished(run) is None:
        yield "People settled more of the sample since the report was written; run corpus-guard report."


def _decisions(run: Run, report: dict[str, Any]) -> Iterator[str]:
    decisions = read_parquet(run.folder.sources, columns=["decision"]).column("decision").to_pylist()
    for decision in DECISIONS:
        told, counted = report["sources"][decision], decisions.count(decision)
        if told != counted:
            yield f"The report tells of {told:,} sources with decision {decision}, sources.parquet has {counted:,}."


def _accounting(
    run: Run, report: dict[str, Any], shards: Sequence[Shard], statuses: list[dict[str, Any]]
) -> Iterator[str]:
    """Faults of the accounts; the account of every shard goes to *statuses*."""
    accounting = read_json(run.folder.accounting)
    if not accounting["balanced"]:
        yield "accounting.json says that the run does not balance."
    for key in ("documents", "balanced"):
        if accounting[key] != report["accounting"][key]:
            yield f"The report's accounting differs from accounting.json in {key}."
    root = run.folder.run / "accounting"
    with ThreadPoolExecutor(16) as threads:
        statuses += threads.map(lambda name: read_json(root / name), sorted(root.names(".json")))
    known = {status["shard"]: status for status in statuses}
    for shard in shards:
        status = known.pop(shard.name, None)
        if status is None:
            yield f"Shard {shard.name} has no account in accounting/."
        elif (told := sum(status[fate] for fate in FATES)) != shard.rows:
            yield f"Shard {shard.name} has {shard.rows:,} rows, {told:,} are accounted for."
    for name in sorted(known):
        yield f"accounting/ has an account of {name}, which is no shard of this run."
    if len({status["decisions"] for status in statuses}) > 1:
        yield "Shards were written under different decisions on sources."
    totals = {fate: sum(status[fate] for status in statuses) for fate in FATES}
    unread = totals.pop("unread")
    totals["read"] = sum(shard.rows for shard in shards) - unread
    for fate, count in totals.items():
        if accounting["documents"][fate] != count:
            yield (
                f"accounting.json counts {accounting['documents'][fate]:,} documents {fate.replace('_', ' ')}, "
                f"its shards {count:,}."
            )


def _written(run: Run, statuses: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Shards that are missing, damaged, of another length than accounted, or strangers."""
    folder = run.folder
    wanted: list[tuple[str, Place, int]] = []
    for status in statuses:
        name = status["shard"]
        removed = status["removed_document"] + status["removed_source"] + status["removed_blocked"]
        wanted += [
            ("clean", folder.clean(name), status["clean"]),
            ("removed", folder.removed(name), removed),
            ("quarantined", folder.quarantined(name), status["quarantined"]),
        ]
    with ThreadPoolExecutor(32) as threads:
        for (kind, place, rows), found in zip(wanted, threads.map(lambda one: _rows(one[1]), wanted), strict=True):
            if isinstance(found, str):
                yield f"The {kind} shard {place.uri} {found}."
            elif found != rows:
                yield f"The {kind} shard {place.uri} has {found:,} rows, {rows:,} are accounted for."
    written = {f"{status['shard']}.parquet" for status in statuses}
    for name in sorted(set(folder.all_clean.names()) - written):
        yield f"{(folder.all_clean / name).uri} was not written by this run; a trainer would read it."


def _rows(place: Place) -> int | str:
    """How many rows a shard has by its footer, or what is wrong with it."""
    try:
        with place.open_input() as file:
            return int(pq.ParquetFile(file).metadata.num_rows)
    except FileNotFoundError:
        return "is missing"
    except (CorpusGuardError, pa.ArrowException, OSError) as error:
        return f"cannot be read ({one_line(error)})"


def _samples(run: Run, report: dict[str, Any], bound: dict[str, str], shards: Sequence[Shard]) -> Iterator[str]:
    folder = run.folder
    ledger = read_draws(folder.draws.read_bytes(), folder.draws.uri)  # refuses keys that do not follow
    manifest = manifest_hash(shards)
    drawn = {
        "manual": Fingerprint.of(read_parquet(folder.manual_sample, columns=["id"]).column("id")),
        "technical": reduce(add, _technical(run, shards), Fingerprint()),
    }
    for purpose, sample in drawn.items():
        mine = [record for record in ledger if record.purpose == purpose]
        if not mine:
            yield f"The ledger has no {purpose} draw."
            continue
        attempts: dict[tuple[str, str], list[int]] = {}
        for record in mine:
            attempts.setdefault((record.manifest, record.policy), []).append(record.attempt)
        for numbers in attempts.values():
            if numbers != list(range(1, len(numbers) + 1)):
                yield f"The ledger's {purpose} draws are numbered {', '.join(map(str, numbers))}; one is missing."
        yield from _drawn(purpose, mine[-1], sample, report, bound, manifest)


def _drawn(
    purpose: str, last: DrawRecord, sample: Fingerprint, report: dict[str, Any], bound: dict[str, str], manifest: str
) -> Iterator[str]:
    if last.manifest != manifest:
        yield f"The last {purpose} draw was made from another manifest."
    if last.policy != bound["policy"]:
        yield f"The last {purpose} draw was made under another policy."
    if (sample.count, sample.hex) != (last.size, last.ids):
        yield f"The {purpose} sample is not the one the ledger names ({sample.count:,} ids, {last.size:,} drawn)."
    if report[purpose]["drawn"] != last.size:
        yield f"The report tells of a {purpose} sample of {report[purpose]['drawn']:,}, the ledger of {last.size:,}."


def _technical(run: Run, shards: Sequence[Shard]) -> Iterator[Fingerprint]:
    def of(shard: Shard) -> Fingerprint:
        return Fingerprint.of(read_parquet(run.folder.technical_sample(shard.name), columns=["id"]).column("id"))

    with ThreadPoolExecutor(16) as threads:
        yield from threads.map(of, shards)


def _integrity(looked: dict[str, int]) -> Iterator[str]:
    if differ := looked["rescanned"] - looked["equal"]:
        yield (
            f"{differ:,} of {looked['rescanned']:,} documents that were scanned again gave other findings than "
            "the store holds; scan into a new store."
        )


# Decisions against the policy


def check_sources(run: Run) -> Verified:
    """
    Hold the decisions of *run* to the policy and blacklist of its setup. ``EvidenceMissing`` where there are none yet.
    """
    folder, policy, phase = run.folder, run.setup.policy, run.setup.config.corpus.phase
    if not folder.sources.exists():
        raise EvidenceMissing(
            f"{folder.run.uri}: has assessed no sources yet; corpus-guard run or sources assess does."
        )
    rule = policy.source_rule(phase)
    if rule is None:
        raise UsageError(f"policy {policy.id}: has no source_ratio rule, so nothing limits sources; name another one.")
    limit = percent(rule.limit.numerator, rule.limit.denominator)
    table = read_parquet(folder.sources, columns=["source", "illegal", "documents", "decision"])
    rows = list(zip(*(column.to_pylist() for column in table.columns), strict=True))
    found = Verified()
    over = [
        f"Source {_name(source)} is over {limit} and still used: {illegal:,} of {documents:,} documents "
        f"({percent(illegal, documents, rule.limit)})."
        for source, illegal, documents, decision in rows
        if decision == KEEP and rule.over(illegal, documents)
    ]
    found.look(over, f"no source over {limit} is used ({policy.id}, {rule.clause})")
    undecided = [f"Source {_name(row[0])} has no decision." for row in rows if row[3] not in DECISIONS]
    known = {row[0] for row in rows}
    counted = by(tallies(folder), "source").column("source").to_pylist()
    undecided += [
        f"Source {_name(source)} has documents and was not assessed." for source in counted if source not in known
    ]
    decisions = [row[3] for row in rows]
    counts = ", ".join(f"{decisions.count(decision):,} {decision}" for decision in DECISIONS)
    found.look(undecided, f"every source is decided: {counts}")
    if run.setup.blacklist is not None:
        listed = run.setup.blacklisted
        used = [
            f"Source {_name(row[0])} is on the blacklist and still used."
            for row in rows
            if row[0] in listed and row[3] == KEEP
        ]
        found.look(used, f"none of the {len(listed):,} sources on the blacklist is used")
    return found


def _name(source: str | None) -> str:
    return "(null)" if source is None else source
