"""Who may start now on a host, and why the others wait: pure decisions over tickets.

A ticket is one attempt that waits on this host or runs on it. Tickets of one priority are served in their order, across
users. A later one may start before an earlier one only with what the earlier one does not need: it never delays it.
"""

from __future__ import annotations

from typing import Dict, Iterable, List, NamedTuple, Optional, Tuple, Union


class ResourceDemand(NamedTuple):
    """What a job asks for beside its slot; 0 and "" ask for nothing. Memory in bytes, `gpu_memory` of each GPU."""

    cpu: int = 0
    memory: int = 0
    gpus: int = 0
    gpu_name: str = ""
    gpu_memory: int = 0


class Card(NamedTuple):
    """One GPU. `used`: a process computes on it now, of dstack's or of anybody's."""

    number: int
    name: str
    memory: int
    used: bool = False


class Capacity(NamedTuple):
    """What the host gives in all. `shares` jobs may have one GPU at a time."""

    slots: int
    cpu: int
    memory: int
    cards: Tuple[Card, ...] = ()
    shares: int = 1


class Ticket(NamedTuple):
    """One attempt in the queue. `gpus` are those that it was given, None while it waits. `order` sorts by age."""

    order: str
    demand: ResourceDemand
    priority: int = 0
    gpus: Optional[Tuple[int, ...]] = None
    title: str = ""
    user: str = ""


Decision = Union[Tuple[int, ...], str]
"""The GPUs of a ticket that may start (often none), or in words why it waits."""


class _Free:
    """What is left of a capacity."""

    def __init__(self, capacity: Capacity) -> None:
        self.slots, self.cpu, self.memory = capacity.slots, capacity.cpu, capacity.memory
        self._shares = capacity.shares
        self._cards = capacity.cards
        self._jobs_by_card: Dict[int, int] = {card.number: 0 for card in capacity.cards}

    def give(self, ticket: Ticket) -> None:
        """A running ticket has its share."""
        self.slots -= 1
        self._subtract(ticket.demand)
        for index in ticket.gpus or ():
            self._jobs_by_card[index] = self._jobs_by_card.get(index, 0) + 1

    def reserve(self, demand: ResourceDemand) -> None:
        """As much as there is of what an earlier ticket waits for is kept for it.

        A slot only if it could start now: what else it waits for comes from a job that ends, and a slot with it.
        """
        if not self.missing_resource(demand):
            self.slots -= 1
        self._subtract(demand)
        for index in self.fitting_cards(demand)[: demand.gpus]:
            self._jobs_by_card[index] += 1

    def _subtract(self, demand: ResourceDemand) -> None:
        self.cpu -= demand.cpu
        self.memory -= demand.memory

    def fitting_cards(self, demand: ResourceDemand) -> List[int]:
        """GPUs that could be given now, those that are shared already first.

        One that computes although nobody was given it is in the hands of somebody outside.
        """
        found = [
            card.number
            for card in self._cards
            if card_fits(card, demand)
            and self._jobs_by_card[card.number] < self._shares
            and not (card.used and not self._jobs_by_card[card.number])
        ]
        return sorted(found, key=lambda index: (-self._jobs_by_card[index], index))

    def missing_resource(self, demand: ResourceDemand) -> str:
        """What there is too little of now; empty when all is there."""
        if self.slots < 1:
            return "no slot is free"
        if demand.cpu > self.cpu:
            return "%d of %d cores are free" % (max(0, self.cpu), demand.cpu)
        if demand.memory > self.memory:
            return "%d of %d MB of memory are free" % (max(0, self.memory) // 10**6, demand.memory // 10**6)
        if demand.gpus > len(self.fitting_cards(demand)):
            return "%d of %d GPUs are free" % (len(self.fitting_cards(demand)), demand.gpus)
        return ""


def card_fits(card: Card, demand: ResourceDemand) -> bool:
    """Whether the GPU is of the kind that was asked for."""
    return demand.gpu_name.lower() in card.name.lower() and card.memory >= demand.gpu_memory


def impossibility(capacity: Capacity, demand: ResourceDemand) -> str:
    """Why a demand can never be met, however idle the host is; empty when it can."""
    if demand.cpu > capacity.cpu:
        return "this host has %d cores, %d are asked for" % (capacity.cpu, demand.cpu)
    if demand.memory > capacity.memory:
        return "this host has %d MB of memory, %d are asked for" % (
            capacity.memory // 10**6,
            demand.memory // 10**6,
        )
    count = sum(card_fits(card, demand) for card in capacity.cards)
    if demand.gpus > count:
        return "this host has %d fitting GPUs, %d are asked for" % (count, demand.gpus)
    return ""


def decide(capacity: Capacity, tickets: Iterable[Ticket], mine: Ticket) -> Decision:
    """Whether `mine`, which waits, may start beside `tickets`, all the others of the host.

    Where there is room for several that are equal, the oldest is still the first to start.
    """
    free = _Free(capacity)
    waiting = []
    for ticket in tickets:
        if ticket.gpus is not None:
            free.give(ticket)
        elif _rank(ticket) < _rank(mine) and not impossibility(capacity, ticket.demand):
            waiting.append(ticket)
    missing_resource = free.missing_resource(mine.demand)
    equal = any(ticket.demand == mine.demand and ticket.priority == mine.priority for ticket in waiting)
    for ticket in sorted(waiting, key=_rank):
        free.reserve(ticket.demand)
    if not equal and not free.missing_resource(mine.demand):
        return tuple(sorted(free.fitting_cards(mine.demand)[: mine.demand.gpus]))
    if missing_resource:
        return missing_resource
    first = min(waiting, key=_rank)
    return "behind %s of %s" % (first.title or "another job", first.user or "another user")


def _rank(ticket: Ticket) -> Tuple[int, str]:
    return -ticket.priority, ticket.order
