"""`docs/reference/json.md`: the fields are those that `dstack.ui.jsonout` gives, the types those of real values."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from dstack.app.maintenance.disk_usage import SortWeight, Weights, WorkflowWeight
from dstack.app.queries.run_views import Caretakers, JobView, RunView
from dstack.core.lifecycle import ENDED_STATES, overall_status
from dstack.errors import ConfigError, Problem
from dstack.model import JobStatus, RunId, RunName, RunStatus, WorkflowName
from dstack.ui.jsonout import error_json, job_fields, run_fields, run_json, weights_json
from tests.docs.markdown import code, fenced, page, table

RUN = {
    "run": "Name of the run; what `show`, `logs`, `stop` take.",
    "workflow": "The workflow that was asked for.",
    "status": "See below.",
    "user": "Who started it.",
    "submitted": "When, ISO 8601 in UTC, by the clock of the machine that started it.",
    "jobs": "The jobs, each after those it depends on.",
    "machine": "The machine it was started on; with `user` the `user@machine` of `dstack ps`.",
    "ended": "When its last job ended, by the clock of that job's host.",
    "looked_after_by": "Who looks after it now, each as `user@machine`; an empty list: nobody, `dstack attach RUN` "
    "unless `dstack ps` says that hosts stand by. "
    "`null` once it is over, and from commands that do not ask.",
    "stage": "What `dstack ps` calls it while it is not over: `running` once a job of it has begun, before that "
    "`placed`, `queued` or `waiting`, as the job that is nearest to its beginning. `null` once it is over.",
}
JOB = {
    "workflow": "Its workflow.",
    "status": "See below.",
    "host": "Where its attempt runs or ran.",
    "attempt": "Number of its last attempt, from 1.",
    "fingerprint": "What its result depends on, as 64 hex digits.",
    "reused_from": "Name of the run whose result it is.",
    "reason": "Why it waits, failed or was stopped, in words.",
    "started": "When it started, by the clock of its host; of a reused job, when the job did that made the result.",
    "ended": "When it ended, likewise.",
    "unreachable_since": "Since when its host has not answered whoever looks after it, by that one's clock.",
    "sighting": "Of another account's attempt that nobody looks after: `alive`, `unseen`, `unknown` or `restarted`.",
}
WEIGHTS = {
    "bytes": "Of everything of the project.",
    "objects": "How many objects these are.",
    "used": "Bytes of jobs of runs that have not ended.",
    "unknown": "Objects that no dstack of this version writes.",
    "kinds": "By what they are, the biggest first.",
    "workflows": "By workflow, the biggest first; records of runs and code belong to none.",
}
KIND = {
    "what": "`artifacts`, `logs`, `records` or `code`.",
    "bytes": "All of it.",
    "objects": "How many objects.",
}
WORKFLOW = {
    "workflow": "Its name; empty where no record says it.",
    "bytes": "All that its jobs have in the bucket.",
    "artifacts": "Of these, artifacts.",
    "logs": "Of these, logs.",
    "results": "How many results can be reused.",
    "objects": "How many objects.",
}
ERROR = {
    "message": "What failed, and where.",
    "hint": "What to do next.",
    "exit_code": "As in [exit codes](exit-codes.md).",
    "problems": "Only when YAML files are wrong: all that is wrong with them.",
}
PROBLEM = {
    "file": "The file.",
    "line": "From 1.",
    "column": "From 1.",
    "message": "What is wrong.",
}


def json_page() -> str:
    """Raises AssertionError when a field has no meaning here, or a meaning no field."""
    full = replace(_view(_reused(), _failed()), ended=1_760_000_063.25)
    empty = replace(
        _view(JobView(workflow=WorkflowName("train"), status=JobStatus.WAITING)),
        caretakers=Caretakers(by=("alice@laptop",)),
    )
    told = [job_fields(job) for job in (*full.jobs, replace(_failed(), unreachable=1_760_000_003.5, sighting="unseen"))]
    job = {name: next(fields[name] for fields in told if fields[name] is not None) for name in told[0]}
    error = json.loads(error_json(ConfigError([Problem(file="f", line=1, column=1, message="m")], hint="h")))["error"]
    bare = json.loads(error_json(ConfigError([Problem(file="f", line=1, column=1, message="m")])))["error"]
    weights = json.loads(weights_json(_weights()))
    over = ", ".join(code(status.value) for status in JobStatus if status in ENDED_STATES)
    going = ", ".join(code(status.value) for status in JobStatus if status not in ENDED_STATES)
    return page(
        "JSON",
        "`dstack ps --json` prints a list of runs, newest first; `dstack show RUN --json`, `dstack run … --json` and "
        "`dstack attach … --json` print one run. Fields are added in later versions, never renamed. "
        "What cannot be said (yet) is `null`.",
        "## A run",
        _fields(RUN, run_fields(full), run_fields(empty)),
        f"`status` is one of {', '.join(code(status.value) for status in RunStatus)}; `running` is every run that is "
        "not over, whether or not a job of it has begun.",
        "## A job",
        _fields(JOB, job, job_fields(empty.jobs[0])),
        f"`status` is one of {over} when it is over, else of {going}; a program takes one that it does not know for "
        "one that is not over.",
        "## What a project takes up",
        "`dstack du --json` prints one object:",
        _fields(WEIGHTS, weights, weights),
        "An entry of `kinds`:",
        _fields(KIND, weights["kinds"][0], weights["kinds"][0]),
        "An entry of `workflows`:",
        _fields(WORKFLOW, weights["workflows"][0], weights["workflows"][0]),
        "## An error",
        'On standard error, as `{"error": {…}}` on one line:',
        _fields(ERROR, error, bare),
        "An entry of `problems`:",
        _fields(PROBLEM, error["problems"][0], error["problems"][0]),
        "## Example",
        fenced(run_json(full), "json"),
    )


def _weights() -> Weights:
    return Weights(
        sorts=(SortWeight(what="artifacts", bytes=1, objects=1),),
        workflows=(WorkflowWeight(workflow="train", bytes=1, artifacts=1, logs=0, results=1, objects=1),),
    )


def _fields(meanings: dict[str, str], full: dict[str, Any], empty: dict[str, Any]) -> str:
    assert list(meanings) == list(full), f"documented {list(meanings)}, printed {list(full)}"
    rows = []
    for name, value in full.items():
        optional = " or null" if None in (value, empty[name]) else ""
        given = empty[name] if value is None else value
        rows.append((code(name), _kind(given) + optional, meanings[name]))
    return table(("field", "type", "meaning"), rows)


def _kind(value: object) -> str:
    kinds = {str: "string", int: "number", list: "list", dict: "object"}
    return kinds[type(value)]


def _reused() -> JobView:
    return JobView(
        workflow=WorkflowName("prepare"),
        status=JobStatus.REUSED,
        host="gpu-1",
        attempt=1,
        fingerprint="5f3c" * 16,
        reused_from=RunName("brave-owl-7"),
    )


def _failed() -> JobView:
    return JobView(
        workflow=WorkflowName("train"),
        status=JobStatus.FAILED,
        host="gpu-2",
        attempt=3,
        fingerprint="09ab" * 16,
        reason="exit code 1",
        started=1_760_000_003.5,
        ended=1_760_000_063.25,
    )


def _view(*jobs: JobView) -> RunView:
    return RunView(
        id=RunId("8236000000000-abcdefghij"),
        run=RunName("angry-rat-1"),
        workflow=WorkflowName("train"),
        status=overall_status([job.status for job in jobs]),
        user="alice",
        machine="laptop",
        submitted=1_760_000_000.12,
        jobs=jobs,
    )
