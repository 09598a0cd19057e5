"""Hosts as the coordinators of a run know one another."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dstack.core.placement import Peer
from dstack.model import Gpu, HostFacts, HostName
from tests.support.records import specs


def facts_of(*, cpus: int = 8, gpus: int = 0, docker: bool = True) -> HostFacts:
    cards = (Gpu(count=gpus, name="A100"),) if gpus else ()
    return replace(specs.LARGE_FACTS, cpus=cpus, gpus=cards, docker=docker)


def peer(name: str, *, slots: int = 1, images: tuple[str, ...] = (), **facts: Any) -> Peer:
    return Peer(name=HostName(name), facts=facts_of(**facts), slots=slots, images=images)
