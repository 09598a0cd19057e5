"""Hosts that cannot be opened: whatever the reason is, it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from dstack.app.hosts.fleet import Fleet
from dstack.core.format.records import Claim, Coordinator
from dstack.errors import DamagedObjectError, DstackError, HostKeyError, HostUnreachableError, NoHostError
from dstack.model import Host, HostName, RunId, RunName
from dstack.ports import RunnerPort


def fleet(failures: Mapping[str, BaseException]) -> Fleet:
    async def open_runner(host: Host) -> RunnerPort:
        raise failures[host.name]

    return Fleet(tuple(Host(name=HostName(name)) for name in failures), open_runner)


def connected(failures: Mapping[str, BaseException]) -> DstackError:
    with pytest.raises(DstackError) as caught:
        asyncio.run(fleet(failures).connect())
    return caught.value


def test_an_error_that_nobody_foresaw_is_listed_with_its_kind_and_text() -> None:
    error = connected({
        "gpu-1": OSError(24, "Too many open files"),
        "gpu-2": KeyError("slots"),
        "gpu-3": HostUnreachableError("gpu-3", "no route"),
    })  # fmt: skip
    assert isinstance(error, NoHostError)
    assert str(error) == (
        "none of the hosts can be used:\n"
        "  gpu-1: OSError: [Errno 24] Too many open files\n"
        "  gpu-2: KeyError: 'slots'\n"
        "  gpu-3: no route"
    )


def test_of_a_single_host_it_says_what_to_do_about_it() -> None:
    error = connected({"gpu-1": RuntimeError("what\nis this")})
    assert str(error) == "gpu-1: RuntimeError: what is this"
    assert error.hint == "report this"


def test_one_without_a_text_is_its_kind() -> None:
    assert str(connected({"gpu-1": TimeoutError()})) == "gpu-1: TimeoutError"


def test_an_unconfirmed_key_still_comes_first() -> None:
    assert isinstance(connected({"a": ValueError("x"), "b": HostKeyError("b: its key is new")}), HostKeyError)


def test_who_asks_for_the_host_may_try_again_and_the_cause_stays() -> None:
    async def scene() -> None:
        link = fleet({"gpu-1": ValueError("odd")}).links["gpu-1"]
        with pytest.raises(HostUnreachableError, match="gpu-1: ValueError: odd") as caught:
            await link.reach()
        assert link.error is caught.value
        assert isinstance(caught.value.__cause__, ValueError)

    asyncio.run(scene())


def test_being_told_to_end_is_no_error_of_the_host() -> None:
    async def scene() -> None:
        begun = asyncio.Event()

        async def open_runner(host: Host) -> RunnerPort:
            begun.set()
            await asyncio.Event().wait()
            raise AssertionError("it waits")

        hosts = Fleet((Host(name=HostName("gpu-1")),), open_runner)
        connecting = asyncio.create_task(hosts.connect())
        await begun.wait()
        await hosts.close()
        connecting.cancel()
        await asyncio.gather(connecting, return_exceptions=True)
        assert hosts.links["gpu-1"].error is None

    asyncio.run(scene())


@pytest.mark.parametrize("address", [{}, {"name": 7}, {"name": "h", "port": "22"}, {"name": ["h"]}])
def test_a_claim_that_does_not_say_where_its_host_is_is_damaged(address: Mapping[str, object]) -> None:
    me = Coordinator(id="c", user="u", machine="m", boot_id="b", pid=1, lock="/x")
    claim = Claim(
        nonce="n", run=RunId("r"), run_name=RunName("calm-hawk-4"), host="gpu-1", address=address, boot_id="b",
        coordinator=me,
    )  # fmt: skip
    with pytest.raises(DamagedObjectError, match="claim of calm-hawk-4 on gpu-1"):
        fleet({}).link_of(claim)
