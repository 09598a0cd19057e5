"""Fixtures of the system tier: real sshd, in containers where there is a Docker engine."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lacking import is_required, missing
from tests.support.hosts.farm import Farm, TestHost
from tests.support.hosts.home import ClientKey, Home, make_key
from tests.support.hosts.image import EngineMissing, engine
from tests.support.hosts.local_sshd import LocalHost, SshdMissing


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "docker_engine" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.docker)


@pytest.fixture(scope="session")
def client_key(tmp_path_factory: pytest.TempPathFactory) -> ClientKey:
    """A fresh key pair of this session."""
    if shutil.which("ssh-keygen") is None:
        missing("openssh", "there is no ssh-keygen")
    return make_key(tmp_path_factory.mktemp("key") / "id_ed25519")


@pytest.fixture(scope="session")
def docker_engine() -> None:
    """Passes where a Docker engine answers, else skips; a failure with --require-docker."""
    try:
        engine().close()
    except EngineMissing as error:
        missing("docker", str(error))


@pytest.fixture
def farm(docker_engine: None, client_key: ClientKey) -> Iterator[Farm]:
    """Hosts of this one test."""
    made = Farm(public_key=client_key.public)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="session")
def session_farm(docker_engine: None, client_key: ClientKey) -> Iterator[Farm]:
    """Hosts that several tests share; only for tests that change nothing on them."""
    made = Farm(public_key=client_key.public)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def ssh_host(farm: Farm) -> TestHost:
    """One host of this test's own."""
    return farm.start()[0]


@pytest.fixture
def ssh_hosts(farm: Farm) -> Callable[[int], list[TestHost]]:
    """Start any number of hosts of this test's own."""
    return farm.start


@pytest.fixture(scope="session")
def shared_host(session_farm: Farm) -> TestHost:
    """One host for all tests of the session that leave it as it was."""
    return session_farm.start()[0]


@pytest.fixture
def any_host(client_key: ClientKey, tmp_path: Path) -> Iterator[TestHost | LocalHost]:
    """One host of this test's own: a container, or without an engine this machine's own sshd, else a skip."""
    try:
        made = Farm(public_key=client_key.public, client=engine())
    except EngineMissing as error:
        engine_trouble = str(error)
        if is_required("docker"):
            missing("docker", engine_trouble)
    else:
        try:
            yield made.start()[0]
        finally:
            made.close()
        return
    try:
        folder = tmp_path / "sshd"
        folder.mkdir(mode=0o700)
        local = LocalHost(folder, client_key.public)
    except SshdMissing as reason:
        missing("docker", f"{engine_trouble}; and {reason}")
    try:
        yield local
    finally:
        local.kill()


@pytest.fixture(scope="session")
def shared_pair(session_farm: Farm) -> tuple[TestHost, TestHost]:
    """A jump host and a host that only the jump host reaches; for tests that leave them as they were."""
    jump = session_farm.start()[0]
    return jump, session_farm.behind(jump)


@pytest.fixture
def ssh_home(tmp_path: Path, client_key: ClientKey, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home folder of this test's own, which is $HOME while it runs; no agent."""
    home = Home(tmp_path / "home", client_key)
    monkeypatch.setenv("HOME", str(home.path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return home
