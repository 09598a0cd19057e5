"""Which attempts may start now on a host, and why the others wait: pure decisions over tickets.

A ticket stands for one attempt that waits or runs on this host. Tickets of equal priority are served in order of age,
across users. A later ticket overtakes an earlier ticket only with resources that the earlier ticket does not need, and
never delays it.
"""

from __future__ import annotations

from typing import Dict, Iterable, List, NamedTuple, Optional, Tuple, Union


class ResourceDemand(NamedTuple):
    """The resources of a job beside the slot; 0 and "" ask for nothing. Memory in bytes, `gpu_memory` of each GPU."""

    cpu: int = 0
    memory: int = 0
    gpus: int = 0
    gpu_name: str = ""
    gpu_memory: int = 0


class Card(NamedTuple):
    """One GPU, with its memory in bytes. `used`: some process computes on the GPU now, of dstack or of any other
    program."""

    number: int
    name: str
    memory: int
    used: bool = False


class Capacity(NamedTuple):
    """All resources of the host. Up to `shares` jobs may use one GPU at a time. `cards` None: the GPUs are unknown, and
    every demand for GPUs counts as one that the host can meet."""

    slots: int
    cpu: int
    memory: int
    cards: Optional[Tuple[Card, ...]] = ()
    shares: int = 1


class Ticket(NamedTuple):
    """One attempt in the queue. `gpus` are the granted GPUs, None while waiting. `order` sorts by age."""

    order: str
    demand: ResourceDemand
    priority: int = 0
    gpus: Optional[Tuple[int, ...]] = None
    title: str = ""
    user: str = ""


Decision = Union[Tuple[int, ...], str]
"""The GPUs (often none) of a ticket that may start, or the reason for waiting in words."""


class _Free:
    """The free part of a capacity."""

    def __init__(self, capacity: Capacity) -> None:
        self.slots, self.cpu, self.memory = capacity.slots, capacity.cpu, capacity.memory
        self._shares = capacity.shares
        self._cards_known = capacity.cards is not None
        self._cards = capacity.cards or ()
        self._jobs_by_card: Dict[int, int] = {card.number: 0 for card in self._cards}

    def give(self, ticket: Ticket) -> None:
        """Take away the share of a running ticket."""
        self.slots -= 1
        self._subtract(ticket.demand)
        for index in ticket.gpus or ():
            self._jobs_by_card[index] = self._jobs_by_card.get(index, 0) + 1

    def reserve(self, demand: ResourceDemand) -> None:
        """Keep free resources for an earlier ticket that waits, as far as the host has them.

        A slot is kept only for a ticket that could start now: otherwise the missing resource comes from a job that
        ends, and a slot comes with it.
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
        """The numbers of free GPUs that fit the demand, shared GPUs first.

        A GPU that computes without a job of dstack belongs to some other program, and is not free.
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
        """In words, the resource that is too scarce now; empty when nothing is missing."""
        if self.slots < 1:
            return "no slot is free"
        if demand.cpu > self.cpu:
            return "%d of %d cores are free" % (max(0, self.cpu), demand.cpu)
        if demand.memory > self.memory:
            return "%d of %d MB of memory are free" % (max(0, self.memory) // 10**6, demand.memory // 10**6)
        if self._cards_known and demand.gpus > len(self.fitting_cards(demand)):
            return "%d of %d GPUs are free" % (len(self.fitting_cards(demand)), demand.gpus)
        return ""


def card_fits(card: Card, demand: ResourceDemand) -> bool:
    """Whether the GPU has the demanded name and memory."""
    return demand.gpu_name.lower() in card.name.lower() and card.memory >= demand.gpu_memory


def impossibility(capacity: Capacity, demand: ResourceDemand) -> str:
    """Why a demand can never be met, however idle the host is; empty for a demand that can be met."""
    if demand.cpu > capacity.cpu:
        return "this host has %d cores, %d are asked for" % (capacity.cpu, demand.cpu)
    if demand.memory > capacity.memory:
        return "this host has %d MB of memory, %d are asked for" % (
            capacity.memory // 10**6,
            demand.memory // 10**6,
        )
    if capacity.cards is None:
        return ""
    count = sum(card_fits(card, demand) for card in capacity.cards)
    if demand.gpus > count:
        return "this host has %d fitting GPUs, %d are asked for" % (count, demand.gpus)
    return ""


def decide(capacity: Capacity, tickets: Iterable[Ticket], mine: Ticket) -> Decision:
    """Whether the waiting ticket `mine` may start beside `tickets`, all the others of the host.

    Of several equal tickets with enough room for all, the oldest still starts first.
    """
    free = _Free(capacity)
    waiting = []
    for ticket in tickets:
        if ticket.gpus is not None:
            free.give(ticket)
        # A ticket that can never start here would otherwise hold up all behind it for ever.
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
