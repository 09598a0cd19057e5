"""Fixtures of the hostile tier: those of real hosts, as the system tests have them."""

from __future__ import annotations

from tests.system.conftest import client_key, docker_engine, farm

__all__ = ["client_key", "docker_engine", "farm"]
