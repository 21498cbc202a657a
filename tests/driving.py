"""
The command as people start it: a process of its own that can be killed, and a config file for it.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-c", "from corpus_guard.cli import main; main()"]


def write_config(folder: Path, shards: Path | str | list[str], **keys: Any) -> Path:
    """A config with keywords alone, its run, store and restricted folder below *folder*."""
    folder.mkdir(parents=True, exist_ok=True)
    data: dict[str, Any] = {
        "corpus": {
            "shards": str(shards) if isinstance(shards, Path) else shards,
            "columns": {"id": "id", "text": "text", "source": "source"},
        },
        "run": "run",
        "store": "store",
        "keywords": {"library": "starter", "engine": "pyahocorasick"},
        "classifiers": [],
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(data | keys, allow_unicode=True), encoding="utf-8")
    return path


def command(verb: str, *arguments: str | Path) -> list[str]:
    """*verb* may be two words: ``sources assess``."""
    return [*COMMAND, *verb.split(), *map(str, arguments)]


def environment() -> dict[str, str]:
    return {**{k: v for k, v in os.environ.items() if not k.startswith("CORPUS_GUARD_")}, "PYTHONPATH": str(ROOT)}


def run_command(verb: str, *arguments: str | Path, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(verb, *arguments), capture_output=True, text=True, timeout=timeout, env=environment(), check=False
    )


def kill_when(moment: Callable[[], bool], verb: str, *arguments: str | Path, timeout: float = 240) -> bool:
    """Start the command and kill it, and only it, with SIGKILL once *moment* has come; whether it was still alive."""
    with subprocess.Popen(
        command(verb, *arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment()
    ) as driver:
        deadline = time.monotonic() + timeout
        while driver.poll() is None and not moment():
            if time.monotonic() > deadline:
                driver.kill()
                raise TimeoutError("the moment to kill the driver never came")
            time.sleep(0.001)
        driver.kill()
        return driver.wait() == -signal.SIGKILL


def files(*folders: Path) -> int:
    """How many finished files there are below *folders*."""
    found = 0
    for folder in folders:
        for _, _, names in os.walk(folder):
            found += sum(not name.startswith(".") for name in names)
    return found
