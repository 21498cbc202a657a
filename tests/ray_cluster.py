"""One small Ray cluster for all tests that need one; starting it takes seconds."""

import os
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Any]:
    """The ``ray`` module, connected to a cluster with four CPUs and a GPU, all only logical, for the whole session."""
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    if ray.is_initialized():
        pytest.fail("A test has left a Ray cluster behind.")
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    ray.init(
        address="local",
        num_cpus=4,
        num_gpus=1,
        object_store_memory=200_000_000,
        include_dashboard=False,
        logging_level="warning",
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": root}},  # workers import tests.sample_jobs
    )
    yield ray
    ray.shutdown()
