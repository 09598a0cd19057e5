"""Who may start now: nobody gets what another has, nobody is delayed by one who came later."""

from __future__ import annotations

import random

import pytest

from dstack.runner.queue.scheduler import Capacity, Card, ResourceDemand, Ticket, decide, impossibility

GB = 10**9
CARDS = tuple(Card(number, "NVIDIA A100", 40 * GB) for number in range(4))
HOST = Capacity(4, 16, 64 * GB, CARDS)


def waits(order: int, priority: int = 0, **demand: object) -> Ticket:
    return Ticket(f"{order:020d}", ResourceDemand(**demand), priority, None, f"job-{order}", "bob")  # type: ignore[arg-type]


def runs(order: int, *gpus: int, **demand: object) -> Ticket:
    return Ticket(f"{order:020d}", ResourceDemand(gpus=len(gpus), **demand), 0, gpus)  # type: ignore[arg-type]


def test_a_free_host_gives_at_once() -> None:
    assert decide(HOST, [], waits(1)) == ()
    assert decide(HOST, [], waits(1, gpus=2)) == (0, 1)


def test_nothing_is_given_twice() -> None:
    assert decide(HOST, [runs(1, 0, 2)], waits(2, gpus=2)) == (1, 3)
    assert decide(HOST, [runs(1, 0, 2)], waits(2, gpus=3)) == "2 of 3 GPUs are free"
    assert decide(HOST, [runs(1, cpu=10)], waits(2, cpu=8)) == "6 of 8 cores are free"
    assert decide(HOST, [runs(1, memory=60 * GB)], waits(2, memory=8 * GB)) == "4000 of 8000 MB of memory are free"
    assert decide(HOST, [runs(number) for number in range(4)], waits(9)) == "no slot is free"


def test_equal_jobs_are_served_in_their_order() -> None:
    running = [runs(number) for number in range(3)]
    assert decide(HOST, [*running, waits(5)], waits(6)) == "behind job-5 of bob"
    assert decide(HOST, [*running, waits(6)], waits(5)) == ()


def test_a_higher_priority_comes_first() -> None:
    running = [runs(number) for number in range(3)]
    assert decide(HOST, [*running, waits(5, priority=0)], waits(6, priority=1)) == ()
    assert decide(HOST, [*running, waits(6, priority=1)], waits(5)) == "behind job-6 of bob"


def test_a_small_job_fills_a_gap_and_never_delays_the_large_one_before_it() -> None:
    """The large one waits for four GPUs, of which two are free: they are kept for it, processors are not."""
    large = waits(5, gpus=4)
    assert decide(HOST, [runs(1, 0, 1), large], waits(6, gpus=1)) == "behind job-5 of bob"
    assert decide(HOST, [runs(1, 0, 1), large], waits(6, cpu=8)) == ()
    assert decide(HOST, [runs(1, 0, 1), waits(5, gpus=4, cpu=12)], waits(6, cpu=8)) == "behind job-5 of bob"


def test_what_can_never_start_holds_nobody_up() -> None:
    assert decide(HOST, [waits(1, gpus=9)], waits(2, gpus=4)) == (0, 1, 2, 3)
    assert impossibility(HOST, ResourceDemand(gpus=5)) == "this host has 4 fitting GPUs, 5 are asked for"
    assert impossibility(HOST, ResourceDemand(gpus=1, gpu_name="H100"))
    assert impossibility(HOST, ResourceDemand(gpus=1, gpu_memory=80 * GB))
    assert not impossibility(HOST, ResourceDemand(gpus=4, gpu_name="a100", cpu=16, memory=64 * GB))


def test_a_gpu_that_somebody_outside_uses_is_not_free() -> None:
    used = HOST._replace(cards=(CARDS[0]._replace(used=True), *CARDS[1:]))
    assert decide(used, [], waits(1, gpus=1)) == (1,)
    assert decide(used, [], waits(1, gpus=4)) == "3 of 4 GPUs are free"


def test_a_shared_gpu_is_given_as_often_as_it_has_shares() -> None:
    shared = HOST._replace(shares=2, cards=CARDS[:1])
    assert decide(shared, [runs(1, 0)], waits(2, gpus=1)) == (0,)
    busy = shared._replace(cards=(CARDS[0]._replace(used=True),))
    assert decide(busy, [runs(1, 0)], waits(2, gpus=1)) == (0,), "the process on it is the other share's"
    assert decide(shared, [runs(1, 0), runs(2, 0)], waits(3, gpus=1)) == "0 of 1 GPUs are free"


@pytest.mark.parametrize("seed", range(200))
def test_whatever_comes_and_goes_the_host_is_never_overbooked_and_everybody_is_served(seed: int) -> None:
    chance = random.Random(seed)
    tickets: list[Ticket] = []
    for order in range(30):
        demand = {"gpus": chance.choice((0, 0, 1, 2, 4)), "cpu": chance.choice((0, 4, 16)), "memory": 0}
        tickets.append(waits(order, priority=chance.choice((0, 0, 1)), **demand))
    started: list[Ticket] = []
    for _ in range(10_000):
        if not any(ticket.gpus is None for ticket in tickets):
            break
        mine = chance.choice([ticket for ticket in tickets if ticket.gpus is None])
        others = [ticket for ticket in tickets if ticket is not mine]
        found = decide(HOST, others, mine)
        if isinstance(found, tuple):
            assert len(found) == mine.demand.gpus
            tickets[tickets.index(mine)] = mine._replace(gpus=found)
            started.append(mine)
        running = [ticket for ticket in tickets if ticket.gpus is not None]
        given = [number for ticket in running for number in ticket.gpus or ()]
        assert len(given) == len(set(given))
        assert len(running) <= HOST.slots
        assert sum(ticket.demand.cpu for ticket in running) <= HOST.cpu
        if running and chance.random() < 0.2:
            tickets.remove(chance.choice(running))
    assert len(started) == 30
    for kind in {(ticket.demand, ticket.priority) for ticket in started}:
        orders = [ticket.order for ticket in started if (ticket.demand, ticket.priority) == kind]
        assert orders == sorted(orders), "equal jobs start in the order of their tickets"
