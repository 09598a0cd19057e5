"""The image of the test hosts: built once for each state of its files, whoever asks first."""

from __future__ import annotations

import fcntl
import gc
import hashlib
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import docker  # type: ignore[import-untyped]
from docker.errors import DockerException, ImageNotFound  # type: ignore[import-untyped]

FOLDER = Path(__file__).parent
FILES = ("Dockerfile", "sshd_config", "start.sh")


class EngineMissing(Exception):
    """There is no Docker engine that answers."""


def engine() -> docker.DockerClient:
    """A client of the Docker engine; raises EngineMissing when none answers."""
    reason = ""
    with warnings.catch_warnings():
        # Where no engine answers docker-py leaves its sockets open, which pytest would count against the test.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            client = docker.from_env(timeout=120)
            client.ping()
            return client
        except DockerException as error:
            reason = str(error)
        gc.collect()
    raise EngineMissing(reason)


def build(client: docker.DockerClient) -> str:
    """The tag of the host image, built if the engine lacks it; sessions that run at once build it once."""
    return _built(client, "dstack-test-host", FILES)


def build_with_docker(client: docker.DockerClient) -> str:
    """The same with a Docker client inside."""
    base = build(client)
    return _built(client, "dstack-test-docker-host", (*FILES, "Dockerfile.docker"), base=base)


def _built(client: docker.DockerClient, name: str, files: Sequence[str], *, base: str = "") -> str:
    """By the engine's API, whose builder is the classic one, so that no buildx is needed."""
    content = hashlib.sha256(b"".join((FOLDER / file).read_bytes() for file in files)).hexdigest()[:16]
    tag = f"{name}:{content}"
    given = {"dockerfile": "Dockerfile.docker", "buildargs": {"BASE": base}} if base else {}
    with (Path(tempfile.gettempdir()) / f"{name}-{content}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            client.images.get(tag)
        except ImageNotFound:
            client.images.build(path=str(FOLDER), tag=tag, rm=True, forcerm=True, **given)
    return tag
