"""Fixtures that several test modules share."""

pytest_plugins = ["tests.ray_cluster"]
