"""
``doctor``: looks for what would stop a run, or make its result worth less, before it costs a night.

Each check is one line: fine, worth knowing, or wrong with what to do.
"""

import importlib.metadata
import importlib.util
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
        return f"{ {'ok': 'ok   ', 'note': 'note ', 'wrong': 'WRONG'}[self.verdict] } {self.name:12} {self.text}"

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
    if importlib.util.find_spec("hyperscan") is None:
        return Check(
            "keywords",
            "note",
            "hyperscan is not installed; keywords run on pyahocorasick, slower and with equal findings",
        )
    return Check("keywords", "ok", f"hyperscan {importlib.metadata.version('hyperscan')}")


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
    from corpus_guard.places import Place
    from corpus_guard.steps.setup import Setup

    try:
        config = load_config(path, env=os.environ)
    except CorpusGuardError as error:
        return [Check("config", "wrong", str(error))]
    found = [Check("config", "ok", str(path))]
    try:
        setup = Setup.of(config)
    except CorpusGuardError as error:
        return [*found, Check("setup", "wrong", str(error))]
    found.append(Check("policy", "ok", f"{setup.policy.id}: {setup.policy.title}"))
    found += [Check("policy", "note", notice) for notice in setup.policy.notices]
    found += [Check("stage", "ok", f"{recipe.name} {recipe.digest[:12]}") for recipe in setup.recipes]
    for name, uri in (("run", config.run), ("store", config.store), ("restricted", config.restricted)):
        place = Place.of(uri)
        found.append(_folder(name, place) if place.is_local else Check(name, "ok", place.uri))
    return found


def _folder(name: str, place: Any) -> Check:
    path = Path(place.path)
    while not path.exists():
        path = path.parent
    if not os.access(path, os.W_OK):
        return Check(name, "wrong", f"{place.path} cannot be written; choose another folder or change its owner")
    free = shutil.disk_usage(path).free
    text = f"{place.path}, {free / 2**30:.1f} GiB free"
    return Check(name, "ok" if free > LOW_DISK else "note", text if free > LOW_DISK else text + ": little for a corpus")
