"""Jobs that only silent hosts might run: whom they wait for, for how long, and in which words."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.app.hosts import silent_host_wait
from dstack.app.hosts.fleet import Fleet
from dstack.app.hosts.silent_host_wait import Prospects
from dstack.core.placement import AwayHost, Prospect, misfit, only_chances, prospect
from dstack.errors import HostKeyError, HostUnreachableError, NoHostError
from dstack.model import Host, HostFacts, HostName
from tests.support.records.specs import FACTS, spec
from tests.support.runners.answering import BARE, LARGE, WAITS, WITH_GPU, Answering

SMALL = spec("small")
LIMIT = 120.0

# -- the decision ---------------------------------------------------------------------------------


NEAR = {"near": FACTS}


def judged(away: Mapping[str, AwayHost], present: Mapping[str, HostFacts] = NEAR) -> Prospect:
    found = prospect(LARGE, present, away, limit=LIMIT)
    assert found is not None
    return found


def test_a_host_that_never_answered_is_waited_for_until_the_limit_and_no_longer() -> None:
    assert judged({"far": AwayHost(why="far: no route", seconds=LIMIT - 1)}) == Prospect(note=WAITS)
    assert judged({"far": AwayHost(seconds=LIMIT - 1)}).note.startswith(
        "waits for far, which has not answered yet; no other "
    )
    over = Prospect(note=WAITS, refusal=f"{BARE}; far: no route, tried for 120 s")
    assert judged({"far": AwayHost(why="far: no route", seconds=LIMIT)}) == over
    assert judged({"far": AwayHost(why="far: no route", seconds=10**6)}) == over, (
        "a text that counts on is shown each second"
    )


def test_a_host_that_could_run_the_job_when_it_answered_is_waited_for_however_long() -> None:
    able = AwayHost(why="far: no route", seconds=10**6, facts=WITH_GPU)
    assert judged({"far": able}) == Prospect(note=WAITS, likely=True)
    both = judged({"far": able, "gone": AwayHost(why="gone: no route", seconds=10**6)})
    assert (both.note.partition(";")[0], both.refusal) == ("waits for far, gone, which cannot be reached", "")


def test_a_host_that_could_not_run_the_job_when_it_answered_is_not_waited_for() -> None:
    why = f"far has 0 fitting GPUs, 1 are asked for; {BARE}"
    assert judged({"far": AwayHost(facts=FACTS)}) == Prospect(note=f"no host can run it: {why}", refusal=why)


def test_a_host_that_answered_and_cannot_be_used_is_not_waited_for() -> None:
    why = f"{BARE}; the key of far is new"
    assert judged({"far": AwayHost(why="the key of far is new", refused=True)}).refusal == why


def test_while_no_host_answers_the_fault_may_be_this_machine_s() -> None:
    """A laptop without a network reaches nobody: that ends nothing."""
    found = judged({"far": AwayHost(why="far: no route", seconds=10**6)}, present={})
    assert found == Prospect(note="waits for far, which cannot be reached")


def test_a_host_that_answered_once_and_cannot_run_the_job_is_no_reason_to_wait_once_it_is_silent_too() -> None:
    gone = AwayHost(why="near: no route", seconds=10.0, facts=FACTS)
    over = Prospect(note=WAITS, refusal=f"{BARE}; far: no route, tried for 120 s")
    assert judged({"near": gone, "far": AwayHost(why="far: no route", seconds=LIMIT)}, present={}) == over
    assert judged({"near": gone, "far": AwayHost(why="far: no route", seconds=LIMIT - 1)}, present={}) == Prospect(
        note=WAITS
    )
    assert judged({"near": gone}, present={}).refusal == BARE


@pytest.mark.parametrize(("count", "rest"), [(3, ""), (4, "; and 1 more, tried for 120 s"), (50, "; and 47 more")])
def test_of_many_silent_hosts_three_are_named_with_their_reasons(count: int, rest: str) -> None:
    away = {f"h{number:02}": AwayHost(why=f"h{number:02}: no route", seconds=LIMIT) for number in range(count)}
    told = judged(away).refusal
    named = "; ".join(f"h{number:02}: no route, tried for 120 s" for number in range(3))
    assert told.startswith(f"{BARE}; {named}{rest}")
    assert told.count("no route") == 3
    assert len(told) < 250


def test_the_last_host_to_be_tried_decides() -> None:
    assert judged({"far": AwayHost(seconds=LIMIT), "new": AwayHost(seconds=3.0)}).refusal == ""


facts = st.sampled_from((FACTS, WITH_GPU))
hosts = st.dictionaries(st.sampled_from("abc"), facts)
silent = st.dictionaries(
    st.sampled_from("xyz"),
    st.builds(AwayHost, seconds=st.floats(0, 300), facts=st.none() | facts, refused=st.booleans(), why=st.just("why")),
)


@given(hosts, silent)
def test_a_job_is_given_up_only_where_no_host_ever_showed_that_it_can_run_it(
    present: Mapping[str, HostFacts], away: Mapping[str, AwayHost]
) -> None:
    found = prospect(LARGE, present, away, limit=LIMIT)
    answers = [*present.values(), *(host.facts for host in away.values() if host.facts is not None)]
    able = any(misfit(LARGE, each) is None for each in answers)
    patient = any(host.facts is None and not host.refused and host.seconds < LIMIT for host in away.values())
    assert (found is None) == any(misfit(LARGE, each) is None for each in present.values())
    if found is not None:
        given_up = bool(answers) and not able and not patient
        assert bool(found.refusal) == given_up, "else a host is waited for, or the fault may be this machine's"
        assert all(name in found.note for name in present), "each host that answers is named, with the reason"


@given(hosts, st.dictionaries(st.sampled_from("xyz"), st.none() | facts))
def test_a_silent_host_counts_where_nothing_else_can_run_a_job(
    present: Mapping[str, HostFacts], away: Mapping[str, HostFacts | None]
) -> None:
    found = only_chances((SMALL, LARGE), present, away)
    assert all(misfit(LARGE, each) is not None for each in present.values()) or not found
    if present and any(misfit(LARGE, each) is None for each in present.values()):
        return
    able = {name for name, each in away.items() if each is None or misfit(LARGE, each) is None}
    assert able <= set(found) if present else set(away) == set(found), "an absent host may run what it may run"


# -- on a fleet -----------------------------------------------------------------------------------


class Lab:
    """A fleet of `near`, which has no GPU, and `far`, which does not answer unless `answer` is set."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.answer: HostFacts | None = None
        self.near = True
        """Whether `near` answers."""
        self.error: Exception = HostUnreachableError("far", "no route")
        self.heard: list[str] = []
        self.gate = asyncio.Event()
        """Closed for as long as `far` takes its time."""
        self.gate.set()
        self.fleet = Fleet((Host(name=HostName("near")), Host(name=HostName("far"))), self._open)
        self.prospects = Prospects(self.fleet, limit=LIMIT, clock=lambda: self.now)

    async def _open(self, host: Host) -> Any:
        if host.name == "near" and self.near:
            return Answering(FACTS)
        await self.gate.wait()
        if self.answer is None:
            raise self.error
        return Answering(self.answer)

    def play(self, scene: Callable[[], Any]) -> Any:
        async def whole() -> Any:
            await self.fleet.connect()
            if self.gate.is_set():
                await self.fleet.wait_for_tries(10.0)
            try:
                async with asyncio.timeout(30):
                    return await scene()
            finally:
                await self.fleet.close()

        return asyncio.run(whole())


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silent_host_wait, "PROSPECT_PAUSE_S", 0.01)


@pytest.fixture
def lab() -> Lab:
    return Lab()


def test_a_job_without_a_host_is_refused_after_the_limit_and_said_once(lab: Lab) -> None:
    def tell(text: str) -> None:
        lab.heard.append(text)

    async def scene() -> None:
        waiting = asyncio.create_task(lab.prospects.require_all((SMALL, LARGE), tell))
        for _ in range(30):
            await asyncio.sleep(0.01)
            lab.now += 3.9
        assert not waiting.done(), "its time is not over"
        while not waiting.done():
            lab.now += 5
            await asyncio.sleep(0.01)
        with pytest.raises(NoHostError) as caught:
            await waiting
        assert str(caught.value) == f"no host can run large: {BARE}; far: no route, tried for 120 s"
        assert "hosts check" in (caught.value.hint or "")

    lab.play(scene)
    assert lab.heard == [f"large {WAITS}; given up after 120 s"]


def test_a_host_that_comes_back_in_time_gets_the_job(lab: Lab) -> None:
    async def scene() -> None:
        waiting = asyncio.create_task(lab.prospects.require_all((LARGE,), lab.heard.append))
        while not lab.heard:
            await asyncio.sleep(0.01)
        lab.answer = WITH_GPU
        await waiting
        assert lab.prospects.of(LARGE) is None

    lab.play(scene)


def test_a_host_that_comes_back_without_what_is_asked_for_ends_the_wait(lab: Lab) -> None:
    async def scene() -> None:
        waiting = asyncio.create_task(lab.prospects.require_all((LARGE,), lab.heard.append))
        while not lab.heard:
            await asyncio.sleep(0.01)
        lab.answer = FACTS
        with pytest.raises(NoHostError, match="far has 0 fitting GPUs, 1 are asked for; near has") as caught:
            await waiting
        assert "resources:" in (caught.value.hint or "")

    lab.play(scene)


def test_a_host_whose_key_is_not_confirmed_is_named_at_once(lab: Lab) -> None:
    lab.error = HostKeyError("the key of far is new")

    async def scene() -> None:
        with pytest.raises(NoHostError, match="the key of far is new"):
            await lab.prospects.require_all((LARGE,), lab.heard.append)

    lab.play(scene)
    assert lab.heard == []


def test_jobs_that_a_host_can_run_wait_for_nobody(lab: Lab) -> None:
    async def scene() -> None:
        await lab.prospects.require_all((SMALL,), lab.heard.append)

    lab.play(scene)
    assert lab.heard == []


def test_a_host_that_was_lost_and_could_run_the_job_is_not_given_up(lab: Lab) -> None:
    lab.answer = WITH_GPU

    async def scene() -> Prospect | None:
        link = lab.fleet.links["far"]
        lab.answer = None
        await link.drop_runner((await link.reach()).runner)
        await lab.prospects.require_all((LARGE,), lab.heard.append)
        await lab.fleet.ready(10.0)
        await lab.fleet.wait_for_tries(10.0)
        found = None
        for _ in range(10):
            lab.now += 39
            found = lab.prospects.of(LARGE)
        return found

    assert lab.play(scene) == Prospect(note=WAITS, likely=True)


def test_a_job_is_given_up_although_the_host_that_answered_has_fallen_silent_too(lab: Lab) -> None:
    async def scene() -> None:
        waiting = asyncio.create_task(lab.prospects.require_all((LARGE,), lab.heard.append))
        while not lab.heard:
            await asyncio.sleep(0.01)
        link = lab.fleet.links["near"]
        lab.near = False
        await link.drop_runner((await link.reach()).runner)
        while not waiting.done():
            lab.now += 5
            await asyncio.sleep(0.01)
        with pytest.raises(NoHostError, match=f"{BARE}; far: no route, tried for 120 s"):
            await waiting

    lab.play(scene)
    assert lab.heard == [f"large {WAITS}; given up after 120 s"]


def test_a_host_that_is_merely_slow_is_not_called_unreachable(lab: Lab) -> None:
    lab.answer = WITH_GPU
    lab.gate.clear()

    async def scene() -> None:
        waiting = asyncio.create_task(lab.prospects.require_all((LARGE,), lab.heard.append))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        lab.gate.set()
        await waiting

    lab.play(scene)
    assert lab.heard == []
