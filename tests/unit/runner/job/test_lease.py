"""A runner whose coordinator falls silent, as that of a laptop with its lid shut: it keeps no slot, and ends no job."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dstack import wire
from dstack.adapters.runner.client import RunnerClient
from dstack.adapters.runner.local import open_local
from dstack.adapters.runner.zipapp import bootstrap_source, runner_zipapp
from dstack.errors import HostUnreachableError
from dstack.model import Host as Entry
from dstack.model import HostName
from tests.support.runners.client import Refused, until
from tests.support.runners.host import Host


def test_a_silence_frees_what_is_held_and_waited_for_and_leaves_the_job(host: Host) -> None:
    silent, other = host.connect(), host.connect()
    running = host.start(silent, "while [ ! -e $HOME/gate-of-nobody ]; do sleep 0.05; done", slots=2)
    held, waiting = host.nonce(), host.nonce()
    silent.call("hold", nonce=held, slots=2)
    silent.ask("hold", nonce=waiting, slots=2)
    silent.call("hello", lease=1)
    silent.process.wait(timeout=30)
    for nonce in (held, waiting):
        until(lambda nonce=nonce: host.state(other, nonce) == "unknown", "it is held no more")  # type: ignore[misc]
        assert other.call("verdict", nonce=nonce) == {"verdict": "refused"}
    assert host.state(other, running) == "running"
    other.call("hold", nonce=host.nonce(), slots=2)
    other.call("stop", nonce=running, grace=1, abort=False)


@pytest.mark.parametrize("lease", [0, -1, 1.5, 10**400, True, "1", None, [1]])
def test_what_is_no_lease_ends_nothing(host: Host, lease: object) -> None:
    client = host.connect()
    with pytest.raises(Refused, match="hello: field 'lease' must be a whole number from 1 to 86400"):
        client.call("hello", lease=lease)
    with pytest.raises(Exception, match="timed out"):
        client.process.wait(timeout=1.5)
    assert client.call("hello")["wire"] == wire.WIRE_VERSION


def opened(host: Host) -> RunnerClient:
    zipapp = runner_zipapp()
    place = Entry(name=HostName("here"), dir=str(host.root))
    return RunnerClient(
        "here",
        lambda: open_local(place, host.python),
        zipapp=zipapp,
        bootstrap=bootstrap_source(),
        directory=str(host.root),
    )


@pytest.mark.parametrize("beats", [True, False])
def test_a_coordinator_that_asks_for_nothing_beats(host: Host, monkeypatch: pytest.MonkeyPatch, beats: bool) -> None:
    monkeypatch.setattr(wire, "LEASE_S", 2)
    monkeypatch.setattr(wire, "LEASE_BEAT_S", 0.3 if beats else 60.0)
    Path(host.root).mkdir(exist_ok=True)

    async def scene() -> None:
        client = opened(host)
        try:
            await client.connect()
            await client.facts()
            await asyncio.sleep(3.5)
            await client.ended_coordinators([])
        finally:
            await client.close()

    if beats:
        asyncio.run(scene())
    else:
        with pytest.raises(HostUnreachableError):
            asyncio.run(scene())
