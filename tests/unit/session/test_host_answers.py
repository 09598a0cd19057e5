"""Answers of several hosts to one question."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from dstack.errors import HostUnreachableError
from dstack.model import Host, HostName
from dstack.ports import RunnerPort
from dstack.session import host_answers
from dstack.session.host_answers import ask_each
from dstack.session.hosts import HostOpener

HOSTS = [Host(name=HostName(name)) for name in ("fast", "slow", "gone")]


class Opener:
    """Opens runners of all hosts but one, and counts the open ones."""

    def __init__(self, session: Any) -> None:
        session.opener = self
        self.open_runners = 0
        self.closed = False

    async def open(self, host: Host) -> Any:
        if host.name == "gone":
            raise HostUnreachableError(host.name, "no route")
        self.open_runners += 1
        return SimpleNamespace(close=self._close_runner)

    async def _close_runner(self) -> None:
        self.open_runners -= 1

    async def close(self) -> None:
        self.closed = True


def test_a_host_without_an_answer_holds_up_no_other_and_all_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_answers, "HostOpener", Opener)
    session: Any = SimpleNamespace()
    unanswered: list[HostName] = []
    first_answer = asyncio.Event()
    seen: list[list[HostName]] = []

    async def question(host: Host, runner: RunnerPort, opener: HostOpener) -> str:
        if host.name == "slow":
            await first_answer.wait()
            seen.append(list(unanswered))
        else:
            asyncio.get_running_loop().call_later(0.01, first_answer.set)
        return f"{host.name} has it"

    answers = asyncio.run(ask_each(session, HOSTS, question, unanswered=unanswered))
    assert [(each.host.name, each.value, str(each.error or "")) for each in answers] == [
        ("fast", "fast has it", ""),
        ("slow", "slow has it", ""),
        ("gone", None, "gone: no route"),
    ]
    assert seen == [["slow"]]
    assert unanswered == []
    assert (session.opener.open_runners, session.opener.closed) == (0, True)
