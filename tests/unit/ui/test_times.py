"""Times for people: right where clocks agree, silent where they cannot both be right, and never a traceback."""

from __future__ import annotations

import json
from itertools import count

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dstack.adapters.process_identity import new_run_id
from dstack.app.queries.run_views import JobView, RunView
from dstack.core.format.identifiers import is_run_id
from dstack.core.time_spans import CLOCK_SKEW_S, LONGEST_SPAN_S, seconds_between
from dstack.model import JobStatus, RunName, RunStatus, WorkflowName
from dstack.runner.base.stopwatch import Stopwatch
from dstack.ui.jsonout import moment, runs_json
from dstack.ui.times import age_text, ago_text, clock_text, duration_text, silence_text, since_text

YEARS = 20 * 365.25 * 86400
NOW = 1_795_830_000.0
CLOCKS = st.one_of(st.floats(), st.floats(0, 4e9), st.sampled_from([0.0, -1.0, NOW, NOW - YEARS, NOW + YEARS, 1e18]))


@given(CLOCKS, CLOCKS)
@example(NOW, NOW + YEARS)
@example(NOW, NOW - YEARS)
def test_no_clock_makes_a_traceback_or_a_duration_that_nothing_takes(began: float, now: float) -> None:
    passed = seconds_between(began, now)
    assert passed is None or 0.0 <= passed <= LONGEST_SPAN_S
    assert (since_text(began, now) == "-") == (passed is None)
    for text in (ago_text(began, now), age_text(began, now), clock_text("%Y-%m-%d %H:%M:%S", began)):
        assert text.isprintable()
        assert text
    assert duration_text(now)
    assert moment(began).endswith("Z")


@given(CLOCKS, CLOCKS, CLOCKS)
def test_a_run_is_shown_whatever_its_clocks_said(submitted: float, started: float, now: float) -> None:
    job = JobView(workflow=WorkflowName("w"), status=JobStatus.RUNNING, started=started)
    run = new_run_id(1.0)
    view = RunView(
        id=run, run=RunName("r"), workflow=WorkflowName("w"), status=RunStatus.RUNNING, user="u",
        submitted=submitted, jobs=(job,),
    )  # fmt: skip
    took = view.took(now)
    assert took is None or 0.0 <= took <= LONGEST_SPAN_S
    json.loads(runs_json([view]))


@given(st.floats(-1e15, 1e15))
@example(-1.0)
@example(0.0)
@example(1e12)
def test_every_clock_gives_the_id_of_a_run(now: float) -> None:
    assert is_run_id(new_run_id(now))


@pytest.mark.parametrize(
    ("silent", "words"), [(12, "for 12 s"), (300, "for 5 min"), (7200, "for 2 h"), (86400 * 2, "for 2 days")]
)
def test_a_silence_is_told_by_its_length(silent: float, words: str) -> None:
    assert silence_text("alice@laptop", NOW - silent, NOW) == f"no sign of alice@laptop {words}"


def test_a_long_silence_is_told_by_its_date() -> None:
    assert silence_text("a", NOW - YEARS, NOW) == f"no sign of a since {clock_text('%Y-%m-%d', NOW - YEARS)}"


def test_clocks_that_agree_are_believed() -> None:
    assert seconds_between(NOW, NOW + 5) == 5
    assert seconds_between(NOW, NOW - CLOCK_SKEW_S / 2) == 0
    assert since_text(NOW, NOW + 65) == "1:05"
    assert ago_text(NOW + YEARS, NOW) == clock_text("%Y-%m-%d", NOW + YEARS)
    assert age_text(NOW + YEARS, NOW) == clock_text("%Y-%m-%d", NOW + YEARS)


@given(st.lists(st.floats(0, 4e9), min_size=1), st.floats(0, 1e6))
def test_the_clock_of_a_host_may_jump_while_a_job_runs(clock: list[float], runs: float) -> None:
    ticks = count()
    times = iter([*clock, *[0.0] * 9])
    watch = Stopwatch(wall=lambda: next(times), even=lambda: 7.0 + runs * next(ticks))
    assert watch.began == clock[0]
    assert watch.now() - watch.began == pytest.approx(runs, abs=1e-3)
