"""
``doctor``: looks for what would stop a run, or make its result worth less, before it costs a night.

Each check is one line: fine, worth knowing, or wrong with what to do.
"""

import importlib.metadata
import importlib.util
import json
import os
import shutil
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from corpus_guard import __version__
from corpus_guard.errors import CorpusGuardError

EXTRAS = {
    "ray": ("ray",),
    "models": ("torch", "transformers"),
    "screens": ("datasketch", "langdetect"),
    "review": ("fastapi",),
}
LOW_DISK = 5 << 30
LOOKED_INTO = 3
"""So many shards are looked into; a run names every one that is damaged."""


@dataclass(frozen=True)
class Check:
    """``verdict``: ``ok``, ``note`` or ``wrong``."""

    name: str
    verdict: str
    text: str

    @property
    def bad(self) -> bool:
        return self.verdict == "wrong"

    @property
    def line(self) -> str:
        return f"{ {'ok': 'ok   ', 'note': 'note ', 'wrong': 'WRONG'}[self.verdict] } {self.name:14} {self.text}"

    @property
    def record(self) -> dict[str, Any]:
        return {"name": self.name, "verdict": self.verdict, "text": self.text}


def examine(config: Path | None) -> list[Check]:
    """Check the installation, and with *config* what that run needs."""
    found = [
        Check(
            "python",
            "ok" if sys.version_info >= (3, 11) else "wrong",
            f"{sys.version.split()[0]}, corpus_guard {__version__}",
        ),
        *_packages(),
        *_extras(),
        _engine(),
        _gpu(),
        _clock(),
    ]
    if config is not None:
        found += _config(config)
    return found


def _packages() -> list[Check]:
    found = []
    for name in ("pyarrow", "numpy", "pyahocorasick"):
        try:
            found.append(Check(name, "ok", importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            found.append(Check(name, "wrong", "not installed; pip install corpus-guard installs it"))
    return found


def _extras() -> list[Check]:
    found = []
    for extra, modules in EXTRAS.items():
        missing = [module for module in modules if importlib.util.find_spec(module) is None]
        text = (
            f"{', '.join(missing)} not installed; pip install 'corpus-guard[{extra}]' if you need it"
            if missing
            else "installed"
        )
        found.append(Check(f"[{extra}]", "note" if missing else "ok", text))
    return found


def _engine() -> Check:
    from corpus_guard.keywords.engine import open_engine

    try:
        name = open_engine("auto", [b"probe"]).name
    except CorpusGuardError as error:
        return Check("keywords", "wrong", str(error))
    if name == "pyahocorasick":
        text = (
            "hyperscan is not here or failed its self-test; keywords run on pyahocorasick, slower, with equal findings"
        )
        return Check("keywords", "note", text)
    return Check("keywords", "ok", f"{name} {importlib.metadata.version(name)}, self-test passed")


def _gpu() -> Check:
    nodes = [
        name
        for name in (os.listdir("/dev") if os.path.isdir("/dev") else [])
        if name.startswith("nvidia") and name[6:].isdigit()
    ]
    if nodes:
        return Check("gpu", "ok", f"{len(nodes)} NVIDIA devices")
    return Check("gpu", "note", "none here; models run on the CPU, or on the GPU nodes of a Ray cluster")


def _clock() -> Check:
    year = datetime.now(UTC).year
    return Check(
        "clock",
        "ok" if year >= 2025 else "wrong",
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC; expiry of keywords goes by it",
    )


def _config(path: Path) -> list[Check]:
    from corpus_guard.config import load_config
    from corpus_guard.steps.setup import Setup

    try:
        config = load_config(path, env=os.environ)
    except CorpusGuardError as error:
        return [Check("config", "wrong", fault) for fault in str(error).splitlines()]
    found = [Check("config", "ok", str(path))]
    bound = _bound(config)
    reading = None
    try:
        setup = Setup.of(config, job=bound.get("job", "filter"))
    except CorpusGuardError as error:
        found += [Check("setup", "wrong", fault) for fault in str(error).splitlines()]
    else:
        found.append(Check("policy", "ok", f"{setup.policy.id}: {setup.policy.title}"))
        found += [Check("policy", "note", notice) for notice in setup.policy.notices]
        found += [_stage(recipe) for recipe in setup.recipes]
        found += _run(config, setup, bound)
        reading = setup.reading
    corpus, size = _corpus(config, reading)
    found.append(corpus)
    if config.executor.kind == "ray":
        found += _ray()
    for name, uri, most in (
        ("run", config.run, size),
        ("store", config.store, size),
        ("restricted", config.restricted, 0),
    ):
        found.append(_folder(name, uri, most))
    return found


def _corpus(config: Any, reading: Any) -> tuple[Check, int]:
    """The shards there are, the first of them looked into; and how many bytes they have."""
    from corpus_guard.shards import check_reading, find_shards, read_footers

    try:
        files = find_shards(config.corpus.shards, config.base)
        size = sum(file.size for file in files)
        shards, bad = read_footers(files[:LOOKED_INTO], cache=())
        if bad:
            return Check("corpus", "wrong", f"{bad[0].path}: cannot be read as Parquet ({bad[0].error})"), size
        if reading is not None:
            check_reading(shards, reading)
    except CorpusGuardError as error:
        return Check("corpus", "wrong", str(error).replace("\n", " ")), 0
    rows = sum(shard.rows for shard in shards)
    text = f"{len(files):,} shards, {size / 2**20:,.0f} MiB; the first {len(shards):,} can be read, with {rows:,} rows"
    return Check("corpus", "ok", text), size


def _stage(recipe: Any) -> Check:
    model = getattr(recipe, "model", None)
    if model is not None and not model.is_ngram and importlib.util.find_spec("torch") is None:
        return Check("stage", "wrong", f"{recipe.name} needs torch; pip install 'corpus-guard[models]'")
    return Check("stage", "ok", f"{recipe.name} {recipe.digest[:12]}")


def _bound(config: Any) -> dict[str, str]:
    """What the run folder was begun with; nothing where there is none yet."""
    from corpus_guard.places import Place

    try:
        return dict(json.loads((Place.of(config.run) / "run.json").read_bytes())["identity"])
    except (CorpusGuardError, OSError, ValueError, KeyError, TypeError):
        return {}


def _run(config: Any, setup: Any, bound: dict[str, str]) -> list[Check]:
    """Whether the run folder belongs to this decision."""
    if not bound:
        return []
    now = setup.identity()
    differs = sorted(part for part in bound.keys() | now.keys() if bound.get(part) != now.get(part))
    if differs:
        text = f"{config.run}: was begun with other {', '.join(differs)}; a run never changes, choose another run name"
        return [Check("run", "wrong", text)]
    return []


def _ray() -> list[Check]:
    if importlib.util.find_spec("ray") is None:
        return [Check("ray", "wrong", "not installed; pip install 'corpus-guard[ray]'")]
    if os.environ.get("RAY_AUTH_MODE") == "token":
        return [Check("ray", "ok", f"{importlib.metadata.version('ray')}, with tokens")]
    text = "without RAY_AUTH_MODE=token whoever reaches the cluster's ports runs code on it; keep them closed"
    return [Check("ray", "note", text)]


def _folder(name: str, uri: str, most: int) -> Check:
    """Whether a folder can be written; *most*: as much as may come into it."""
    from corpus_guard.places import Place

    try:
        place = Place.of(uri)
        if not place.is_local:
            return Check(name, "ok", place.uri if place.exists() else f"{place.uri}, nothing there yet")
        path = Path(place.path)
        while not os.path.lexists(path):
            path = path.parent
        if not path.is_dir() or not os.access(path, os.W_OK | os.X_OK):
            text = f"{place.path} cannot be written; choose another folder or change its owner"
            return Check(name, "wrong", text)
        free = shutil.disk_usage(path).free
    except (CorpusGuardError, OSError) as error:
        return Check(name, "wrong", f"{uri}: {error}")
    text = f"{place.path}, {free / 2**30:,.1f} GiB free"
    if free > max(LOW_DISK, most):
        return Check(name, "ok", text)
    return Check(name, "note", f"{text}: little for a corpus of {most / 2**30:,.1f} GiB" if most else f"{text}: little")
