"""Asks several hosts at once, for commands about the answers of hosts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TypeVar

from dstack.cli.progress_note import explain_wait
from dstack.core.placement import names_text
from dstack.model import Host, HostName
from dstack.session.host_answers import HostAnswer, Question, ask_each
from dstack.session.session import Session

T = TypeVar("T")


def ask_hosts(session: Session, hosts: Sequence[Host], question: Question[T]) -> list[HostAnswer[T]]:
    """The answers in the order of `hosts`; a terminal shows after a moment the hosts without an answer."""
    unanswered: list[HostName] = []
    with explain_wait(lambda: f"waiting for {names_text(unanswered) or 'the end'}"):
        return asyncio.run(ask_each(session, hosts, question, unanswered=unanswered))
