"""
Everything a run needs, made once at the top and handed down: config, policy, stages, folders, executor.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, Literal

from corpus_guard.config import ClassifierUse, Config
from corpus_guard.errors import UsageError
from corpus_guard.executors.seam import Executor
from corpus_guard.findings import Recipe
from corpus_guard.places import Place
from corpus_guard.policy import Policy, load_policy
from corpus_guard.progress import Quiet, Tell
from corpus_guard.shards import Reading
from corpus_guard.sources.blacklist import Blacklist, load_blacklist
from corpus_guard.sources.register import Register, load_register
from corpus_guard.store import RunFolder, Store
from corpus_guard.verdicts import JudgingRules, load_labels


@dataclass(frozen=True)
class Setup:
    """What decides a run's results. Two runs with equal ``identity`` over equal shards give equal files."""

    config: Config
    policy: Policy
    reading: Reading
    recipes: tuple[Recipe, ...]
    evaluation: tuple[Recipe, ...] | None = None
    register: Register | None = None
    blacklist: Blacklist | None = None
    job: str = "filter"

    @property
    def blacklisted(self) -> frozenset[str]:
        return self.blacklist.current() if self.blacklist else frozenset()

    @property
    def rules(self) -> JudgingRules:
        return JudgingRules(
            all_mask=self.policy.all,
            illegal_mask=self.policy.illegal,
            review_counts_as_unqualified=self.policy.review_counts_as_unqualified,
        )

    def identity(self) -> dict[str, str]:
        """The parts a run folder is bound to, by name."""
        config = self.config
        found = {
            "job": self.job,
            "policy": self.policy.digest,
            "reading": self.reading.digest,
            "source decisions": _digest([config.sources.decide, config.corpus.phase, sorted(self.blacklisted)]),
            "labels": _digest([Place.of(path, config.base).read_bytes().hex() for path in config.labels]),
            "stages": _digest([[r.name, r.digest, r.judging_digest] for r in self.recipes]),
        }
        if self.evaluation is not None:
            found["evaluation"] = _digest([[r.name, r.digest] for r in self.evaluation])
        return found

    @classmethod
    def of(
        cls,
        config: Config,
        *,
        job: str = "filter",
        stages: tuple[Recipe, ...] | None = None,
        evaluation: tuple[Recipe, ...] | None = None,
    ) -> "Setup":
        """
        Read policy, library, models, register and blacklist; all faults of a file at once.

        *stages* and *evaluation* replace those of the config: the way in for a stage of one's own.
        """
        policy = load_policy(config.policy)
        if job == "spot-check" and config.spot_check is not None:
            policy = policy.raised(config.spot_check.manual, config.spot_check.technical)
        if config.screens:
            named = ", ".join(use.screen for use in config.screens)
            raise UsageError(f"screens: {named} cannot run, this version has no screens yet; leave 'screens: []'.")
        load_labels(config.labels)  # their faults now, not hours later in a worker
        register, blacklist = config.sources.register, config.sources.blacklist
        if evaluation is None and config.evaluation is not None:
            evaluation = recipes(config.evaluation.library, config.evaluation.engine, config.evaluation.classifiers)
        columns = config.corpus.columns
        return cls(
            config=config,
            policy=policy,
            reading=Reading(
                text=columns.text,
                id=columns.id,
                source=columns.source,
                url=columns.url,
                dataset=columns.dataset,
                language=columns.language,
                kind=columns.kind,
                origin=columns.origin,
                licence=columns.licence,
                collected_at=columns.collected_at,
            ),
            recipes=_recipes_of(config) if stages is None else stages,
            evaluation=evaluation,
            register=load_register(register) if register else None,
            blacklist=load_blacklist(blacklist) if blacklist else None,
            job=job,
        )


def _recipes_of(config: Config) -> tuple[Recipe, ...]:
    library = config.keywords.library if config.keywords else None
    return recipes(library, config.keywords.engine if config.keywords else "auto", config.classifiers)


def recipes(
    library: str | None, engine: Literal["auto", "hyperscan", "pyahocorasick"], classifiers: tuple[ClassifierUse, ...]
) -> tuple[Recipe, ...]:
    """The stages a config names. Loads no model: only digests and rules."""
    made: list[Recipe] = []
    if library:
        from corpus_guard.keywords.stage import KeywordRecipe

        made.append(KeywordRecipe(library, engine))
    if classifiers:
        from corpus_guard.classifiers.recipe import recipe

        made += [recipe(c.model, device=c.device, batch_tokens=c.batch_tokens) for c in classifiers]
    names = [r.name for r in made]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"classifiers: {', '.join(twice)} named more than once; give each stage once.")
    return tuple(made)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=False, sort_keys=True).encode()).hexdigest()


@dataclass
class Run:
    """One run in hand: what decides it, where it writes, who works, who is told."""

    setup: Setup
    folder: RunFolder
    store: Store
    as_of: date
    tell: Tell = field(default_factory=Quiet)
    given: Executor | None = None
    _executor: Executor | None = None

    @property
    def executor(self) -> Executor:
        """Made when first needed: a run that finds everything done starts no cluster."""
        if self._executor is None:
            self._executor = self.given or make_executor(self.setup)
        return self._executor

    def close(self) -> None:
        if self._executor is not None and self.given is None:
            self._executor.close()
        self._executor = None


def make_executor(setup: Setup) -> Executor:
    """The executor the config names."""
    wanted = setup.config.executor
    if wanted.kind == "local":
        from corpus_guard.executors.local import LocalExecutor

        return LocalExecutor(workers=wanted.workers, unit_timeout=wanted.unit_timeout, attempts=wanted.attempts)
    from corpus_guard.executors.ray import RayExecutor

    return RayExecutor(
        address=wanted.address,
        namespace=wanted.namespace,
        cpu_workers=wanted.cpu.workers,
        cpu_num_cpus=wanted.cpu.num_cpus,
        gpu_workers=wanted.gpu.workers,
        gpu_num_gpus=wanted.gpu.num_gpus,
        gpu_num_cpus=wanted.gpu.num_cpus,
        in_flight=wanted.in_flight,
        attempts=wanted.attempts,
        unit_timeout=wanted.unit_timeout,
        infrastructure_budget=wanted.infrastructure_budget,
    )


@contextmanager
def open_run(
    setup: Setup,
    *,
    tell: Tell | None = None,
    executor: Executor | None = None,
    today: date | None = None,
    write: bool = True,
) -> Iterator[Run]:
    """
    The run folder, held and bound to *setup*; with *write* false, looked at only.

    The date on which entries expire is that of the first start, kept in ``run.json``: resuming
    tomorrow gives what finishing today would have given. Raises ``UsageError`` where the folder cannot be written, is
    held by another driver, belongs to another decision, or would put restricted text where a trainer reads.
    """
    config = setup.config
    folder = RunFolder(Place.of(config.run), Place.of(config.restricted))
    store = Store(Place.of(config.store))
    tell = tell or Quiet()
    if not write:
        yield Run(setup, folder, store, _date_of(folder, today), tell, executor)
        return
    for notice in setup.policy.notices:
        tell.line(notice)
    folder.open()
    with folder.lock():
        if not folder.manifest.exists():  # nothing was planned yet: a config mended after a first try is no other run
            folder.identity.delete()
        as_of = folder.bind(setup.identity(), today or datetime.now(UTC).date())
        for place in (folder.run, folder.restricted):
            place.sweep(keep=store.place)  # others may be writing to the store
        run = Run(setup, folder, store, as_of, tell, executor)
        try:
            yield run
        finally:
            run.close()


def _date_of(folder: RunFolder, today: date | None) -> date:
    if folder.identity.exists():
        return date.fromisoformat(json.loads(folder.identity.read_bytes())["as_of"])
    return today or datetime.now(UTC).date()
