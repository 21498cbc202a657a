"""The recipes in pipelines/, submitted to a real Ray head with ``ray job submit``."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.corpora import digests, documents, write_shards

ROOT = Path(__file__).parents[1]

pytestmark = [
    pytest.mark.drill,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra 'ray' is not installed"),
]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def head() -> Iterator[dict[str, str]]:
    """A Ray head on this machine, without token authentication; gone at the end."""
    port, dashboard = free_port(), free_port()
    env = os.environ | {"RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(ROOT)}
    start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={port}"]
    start += ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", "--num-cpus=4", "--disable-usage-stats"]
    # the agent that takes jobs has a fixed port by default, and another cluster on this machine may hold it
    start += [f"--dashboard-agent-listen-port={free_port()}", f"--ray-client-server-port={free_port()}"]
    # a process group of its own: `ray stop` would end every cluster on this machine, not only ours
    process = subprocess.Popen(
        start, env=env, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(dashboard)
        yield env | {"RAY_ADDRESS": f"127.0.0.1:{port}", "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}"}
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


def wait_for(port: int, seconds: float = 120) -> None:
    """Until somebody listens on *port*."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with socket.socket() as caller:
            if caller.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.5)
    raise TimeoutError(f"nobody listens on port {port}")


@pytest.mark.parametrize("recipe", ["filter_corpus", "assess_sources", "spot_check"])
def test_a_recipe_runs_as_a_ray_job_and_gives_what_one_process_gives(
    head: dict[str, str], tmp_path: Path, recipe: str
) -> None:
    corpus = write_shards(tmp_path / "data", documents("a", 200) + documents("b", 50))
    wanted = {
        "corpus": {"shards": str(corpus), "columns": {"id": "id", "text": "text", "source": "source"}},
        "classifiers": [],
    }
    local = wanted | {"run": str(tmp_path / "local" / "run")}
    (tmp_path / "local.yaml").write_text(yaml.safe_dump(local), encoding="utf-8")
    executor = {"kind": "ray", "address": "auto", "cpu": {"workers": 2}}
    (tmp_path / "ray.yaml").write_text(
        yaml.safe_dump(wanted | {"run": str(tmp_path / "ray" / "run"), "executor": executor}), encoding="utf-8"
    )
    script = str(ROOT / "pipelines" / f"{recipe}.py")

    subprocess.run([sys.executable, script, str(tmp_path / "local.yaml")], check=True, cwd=ROOT, timeout=300)
    submit = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit"]
    job = [*submit, f"--address={head['RAY_API_SERVER_ADDRESS']}", "--", sys.executable, script]
    done = subprocess.run(
        [*job, str(tmp_path / "ray.yaml")], env=head, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False
    )

    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert digests(tmp_path / "ray") == digests(tmp_path / "local")
