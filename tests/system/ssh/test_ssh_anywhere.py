"""The least that must hold of SSH on any machine: in a container, else against this machine's own sshd."""

from __future__ import annotations

import asyncio

import pytest

from dstack.adapters.ssh.known_hosts import ChangedKeyError, UnknownKeyError
from dstack.errors import HostUnreachableError
from tests.support.hosts.dialling import greet
from tests.support.hosts.farm import TestHost
from tests.support.hosts.home import Home
from tests.support.hosts.local_sshd import LocalHost

pytestmark = pytest.mark.timeout(120)


def test_a_confirmed_host_is_reached_and_no_other(any_host: TestHost | LocalHost, ssh_home: Home) -> None:
    """Unconfirmed, confirmed, changed, gone: each has its own outcome, and only the second starts anything."""
    ssh_home.add("gpu", any_host)
    with pytest.raises(UnknownKeyError):
        asyncio.run(greet("gpu"))
    assert any_host.sessions() == 0
    ssh_home.trust(any_host)
    assert b"word" in asyncio.run(greet("gpu"))
    assert any_host.sessions() == 1
    any_host.swap_host_key()
    with pytest.raises(ChangedKeyError):
        asyncio.run(greet("gpu"))
    assert any_host.sessions() == 1
    any_host.kill()
    with pytest.raises(HostUnreachableError):
        asyncio.run(greet("gpu"))
