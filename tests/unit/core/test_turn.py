"""Whose turn a job is: every coordinator of a run comes to the same order, without asking anybody."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from dstack.core.placement import TURN, Peer, turn
from dstack.model import Gpu, HostFacts, HostName, Resources

JOBS = st.text("abcdef0123456789", min_size=1, max_size=8)


def peer(name: str, *, cpus: int = 8, gpus: int = 0) -> Peer:
    facts = HostFacts(
        boot_id="b",
        hostname=name,
        user="alice",
        uid=1000,
        python="3.11.2",
        platform="linux-x86_64",
        cpus=cpus,
        memory=1 << 34,
        gpus=(Gpu(count=gpus, name="A100"),) if gpus else (),
        git="2.39",
        docker=False,
        disk_free=1 << 40,
        dir="/home/alice/.dstack",
    )
    return Peer(name=HostName(name), facts=facts)


def turns(job: str, peers: list[Peer], inputs: dict[str, int], wanted: Resources = Resources()) -> dict[str, float]:
    return {each.name: turn(wanted, peers, inputs, job=job, me=each.name) for each in peers}


@given(JOBS, st.integers(1, 6), st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 3)))
def test_each_host_has_a_turn_of_its_own_and_all_agree(job: str, count: int, inputs: dict[str, int]) -> None:
    peers = [peer(name) for name in "abcdef"[:count]]
    first = turns(job, peers, inputs)
    assert sorted(first.values()) == [TURN * rank for rank in range(count)]
    assert turns(job, peers[::-1], inputs) == first, "the order in which the peers are listed does not matter"


@given(JOBS)
def test_the_host_that_made_most_of_the_inputs_comes_first(job: str) -> None:
    found = turns(job, [peer("a"), peer("b"), peer("c")], {"b": 2, "c": 1})
    assert (found["b"], found["c"], found["a"]) == (0.0, TURN, 2 * TURN)


def test_a_host_that_can_never_run_it_is_waited_for_by_nobody() -> None:
    wanted = Resources(gpu=Gpu(count=1))
    peers = [peer("a"), peer("b", gpus=1), peer("c")]
    assert turn(wanted, peers, {}, job="j", me="b") == 0.0


def test_equal_jobs_spread_over_the_hosts() -> None:
    peers = [peer(name) for name in "abc"]
    firsts = Counter(
        min(found, key=found.__getitem__) for found in (turns(f"job-{number}", peers, {}) for number in range(300))
    )
    assert min(firsts.values()) > 60, firsts


def test_without_peers_nobody_is_waited_for() -> None:
    assert turn(Resources(), [], {}, job="j", me="a") == 0.0
