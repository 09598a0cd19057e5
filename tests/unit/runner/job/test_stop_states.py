"""What a host says of an attempt of which only a container may be left."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dstack.runner.base.spool import Attempt
from dstack.runner.executors import docker as questions
from dstack.runner.job.stop import state, states
from dstack.wire import RUNNING, STARTED, VANISHED

GONE = "echo 'Error: No such object: dstack-x' >&2; exit 1"
DOWN = "echo 'Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?' >&2; exit 1"


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with a line for each question to a Docker that answers by the text of `answer` beside it."""
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text(f"#!/bin/sh\necho asked >> {tmp_path}/asked\n. {tmp_path}/answer\n")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{docker.parent}{os.pathsep}{os.environ['PATH']}")
    return tmp_path / "asked"


def contained(root: Path, number: int) -> Attempt:
    """A started attempt with a container, of which no process is left."""
    attempt = Attempt(str(root), f"{number:016d}")
    attempt.make()
    attempt.decide(STARTED)
    Path(attempt.container).mkdir()
    (Path(attempt.container) / "cid").touch()
    return attempt


@pytest.mark.parametrize(
    ("answer", "expected"), [("echo true", RUNNING), ("echo false", VANISHED), (GONE, VANISHED), (DOWN, RUNNING)]
)
def test_only_docker_can_say_that_a_container_does_not_run(
    tmp_path: Path, asked: Path, answer: str, expected: str
) -> None:
    (tmp_path / "answer").write_text(answer)
    assert state(contained(tmp_path, 1)) == expected
    assert asked.read_text() == "asked\n"


def test_a_docker_that_hangs_is_asked_once_for_all(
    tmp_path: Path, asked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions, "ANSWER_TIMEOUT_S", 0.5)
    (tmp_path / "answer").write_text("exec sleep 60")
    assert list(states([contained(tmp_path, number) for number in range(5)])) == [RUNNING] * 5
    assert asked.read_text() == "asked\n"
