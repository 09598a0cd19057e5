"""How long a host has been silent: only as long as it was asked."""

from __future__ import annotations

import pytest

from dstack.app.hosts.silence import ASKING_GAP_S, Silences
from dstack.app.protocol.lease import SILENCE_S
from dstack.model import Nonce

ATTEMPT = Nonce("n")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def asked(silences: Silences, clock: Clock, *gaps: float) -> float:
    """Seconds of silence after a vain question, and one more after each gap."""
    silences.note_no_answer(ATTEMPT, "no route")
    for gap in gaps:
        clock.now += gap
        silences.note_no_answer(ATTEMPT, "no route")
    return silences.of(ATTEMPT)[0]


def test_a_silence_lasts_from_the_first_vain_question_to_the_last(clock: Clock) -> None:
    assert asked(Silences(clock), clock, 1.0, 2.0, 30.0) == 33.0


def test_the_first_vain_question_is_no_silence(clock: Clock) -> None:
    assert asked(Silences(clock), clock) == 0.0


def test_a_time_in_which_nothing_was_asked_is_none(clock: Clock) -> None:
    """The process was stopped for an hour: two questions around that do not make a host lost."""
    assert asked(Silences(clock), clock, 3600.0) == ASKING_GAP_S < SILENCE_S
    assert asked(Silences(clock), clock, 3600.0, 1.0) < SILENCE_S


def test_an_answer_ends_it(clock: Clock) -> None:
    silences = Silences(clock)
    asked(silences, clock, 30.0)
    silences.note_answer(ATTEMPT)
    assert silences.of(ATTEMPT)[0] == 0.0
    assert silences.beginnings() == {}


def test_only_a_new_reason_is_news(clock: Clock) -> None:
    silences = Silences(clock)
    assert [silences.note_no_answer(ATTEMPT, why) for why in ("no route", "no route", "refused")] == [True, False, True]
