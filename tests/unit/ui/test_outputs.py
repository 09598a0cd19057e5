"""Plans and JSON as they are printed."""

from __future__ import annotations

import io
import json

from dstack.app.queries.dry_run import Forecast, JobForecast
from dstack.app.queries.run_views import JobView, RunView
from dstack.errors import ConfigError, NoHostError, Problem
from dstack.model import JobStatus, RunId, RunName, RunStatus, WorkflowName
from dstack.ui.jsonout import error_json, run_json
from dstack.ui.plan import plan_text


def test_a_plan_names_what_becomes_of_each_job() -> None:
    fates = (
        JobForecast(
            workflow=WorkflowName("prepare"),
            fate=Forecast.REUSED,
            reason="as in a-1",
            reused_from=RunName("a-1"),
            host="h",
        ),
        JobForecast(workflow=WorkflowName("train"), fate=Forecast.RUNS, reason="no result yet"),
        JobForecast(workflow=WorkflowName("test"), fate=Forecast.WAITS, reason="waits for train"),
    )
    assert plan_text(fates, io.StringIO()) == (
        "WORKFLOW  PLAN      HOST  WHY\n"
        "prepare   reused    h     as in a-1\n"
        "train     will run  -     no result yet\n"
        "test      waits     -     waits for train\n"
        "\n3 jobs, 1 reused; nothing was run or recorded"
    )


def test_what_is_not_known_is_null() -> None:
    job = JobView(workflow=WorkflowName("w"), status=JobStatus.WAITING)
    view = RunView(
        id=RunId("1"),
        run=RunName("a-1"),
        workflow=WorkflowName("w"),
        status=RunStatus.RUNNING,
        user="alice",
        submitted=1_790_000_000.25,
        jobs=(job,),
    )
    assert json.loads(run_json(view)) == {
        "run": "a-1",
        "workflow": "w",
        "status": "running",
        "user": "alice",
        "submitted": "2026-09-21T14:13:20.250Z",
        "jobs": [
            {
                "workflow": "w",
                "status": "waiting",
                "host": None,
                "attempt": None,
                "fingerprint": None,
                "reused_from": None,
                "reason": None,
                "started": None,
                "ended": None,
                "unreachable_since": None,
                "sighting": None,
            }
        ],
        "machine": None,
        "ended": None,
        "looked_after_by": None,
        "stage": "waiting",
    }


def test_errors_have_their_code_and_their_problems() -> None:
    told = json.loads(error_json(NoHostError("nobody there", hint="try again")))
    assert told == {"error": {"message": "nobody there", "hint": "try again", "exit_code": 3}}
    told = json.loads(error_json(ConfigError([Problem(file="f", line=1, column=2, message="m")])))
    assert told["error"]["problems"] == [{"file": "f", "line": 1, "column": 2, "message": "m"}]
