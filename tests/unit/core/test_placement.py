"""Where a job goes: every coordinator of a run comes to the same order, without asking anybody."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dstack.core.placement import TURN_S, Candidate, Peer, RunLoad, no_host_reason, rank, turn
from dstack.model import Gpu, Host, HostName, JobSpec, Resources
from tests.support.records import specs
from tests.support.records.peers import facts_of, peer

JOBS = st.text("abcdef0123456789", min_size=1, max_size=8)
IMAGE = "python:3.11-slim"
PLAIN = specs.spec(artifacts=())


def turns(
    job: str,
    peers: list[Peer],
    inputs: dict[str, int],
    *,
    spec: JobSpec = PLAIN,
    running: dict[str, int] | None = None,
) -> dict[str, float]:
    standing = RunLoad(inputs=inputs, running=running or {})
    return {each.name: turn(spec, peers, standing, job=job, me=each.name) for each in peers}


@given(JOBS, st.integers(1, 6), *[st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 3))] * 2)
def test_each_host_has_a_turn_of_its_own_and_all_agree(
    job: str, count: int, inputs: dict[str, int], running: dict[str, int]
) -> None:
    peers = [peer(name) for name in "abcdef"[:count]]
    first = turns(job, peers, inputs, running=running)
    assert sorted(first.values()) == [TURN_S * rank for rank in range(count)]
    assert turns(job, peers[::-1], inputs, running=running) == first, "the order in which they are listed says nothing"


@given(JOBS)
def test_the_host_that_made_most_of_the_inputs_comes_first(job: str) -> None:
    peers = [peer("a", images=(IMAGE,)), peer("b"), peer("c")]
    found = turns(job, peers, {"b": 2, "c": 1}, spec=specs.spec(image=IMAGE), running={"b": 3})
    assert (found["b"], found["c"], found["a"]) == (0.0, TURN_S, 2 * TURN_S)


@given(JOBS)
def test_of_equal_inputs_the_host_that_has_the_image_comes_first(job: str) -> None:
    peers = [peer("a", images=("other:1",)), peer("b", images=("other:1", IMAGE))]
    assert turns(job, peers, {}, spec=specs.spec(image=IMAGE), running={"b": 1})["b"] == 0.0


@given(JOBS)
def test_the_host_with_the_least_of_the_run_for_its_slots_comes_next(job: str) -> None:
    peers = [peer("a", slots=1), peer("b", slots=4), peer("c", slots=2)]
    found = turns(job, peers, {}, running={"a": 1, "b": 1, "c": 1})
    assert (found["b"], found["c"], found["a"]) == (0.0, TURN_S, 2 * TURN_S)


def test_a_host_that_can_never_run_it_is_waited_for_by_nobody() -> None:
    peers = [peer("a"), peer("b", gpus=1), peer("c")]
    standing = RunLoad(inputs={})
    assert turn(specs.spec(resources=Resources(gpu=Gpu(count=1))), peers, standing, job="j", me="b") == 0.0
    peers = [peer("a", docker=False), peer("b"), peer("c", docker=False)]
    assert turn(specs.spec(image=IMAGE), peers, standing, job="j", me="b") == 0.0


def test_equal_jobs_spread_over_the_hosts() -> None:
    peers = [peer(name) for name in "abc"]
    firsts = Counter(
        min(found, key=found.__getitem__) for found in (turns(f"job-{number}", peers, {}) for number in range(300))
    )
    assert min(firsts.values()) > 60, firsts


def test_without_peers_nobody_is_waited_for() -> None:
    assert turn(PLAIN, [], RunLoad(inputs={}), job="j", me="a") == 0.0


def candidate(name: str, *, docker: bool = True, **values: Any) -> Candidate:
    return Candidate(host=Host(name=HostName(name), slots=4), facts=facts_of(docker=docker), **values)


def test_a_coordinator_of_many_hosts_goes_by_free_slots_inputs_image_and_load() -> None:
    hosts = [
        candidate("full", busy=4, inputs=9, has_image=True),
        candidate("loaded", busy=2),
        candidate("empty"),
        candidate("image", busy=2, has_image=True),
        candidate("inputs", busy=3, inputs=1),
        candidate("no-docker", docker=False, inputs=2),
    ]
    assert rank(specs.spec(image=IMAGE), hosts) == ("inputs", "image", "empty", "loaded", "full")


def test_a_job_with_an_image_needs_a_host_with_docker() -> None:
    facts = {"a": facts_of(docker=False), "b": facts_of(docker=False)}
    why = no_host_reason(specs.spec(image=IMAGE), facts)
    assert str(why).count("has no Docker") == 2
    assert no_host_reason(PLAIN, facts) is None
    assert no_host_reason(specs.spec(image=IMAGE), {**facts, "c": facts_of()}) is None
