"""Values as JSON for scripts. The fields are a promise: new fields come, and no field is renamed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dstack.app.queries.run_views import JobView, RunView
from dstack.errors import ConfigError, DstackError
from dstack.model import RunStatus
from dstack.wire.field_kinds import LATEST

if TYPE_CHECKING:
    from dstack.app.maintenance.disk_usage import Weights


def run_fields(view: RunView) -> dict[str, Any]:
    """One run: `run, workflow, status, user, submitted, jobs, machine, ended, looked_after_by, stage`; null where
    there is nothing. Times are ISO 8601 in UTC. `looked_after_by` of an open run without a coordinator is empty."""
    return {
        "run": view.run,
        "workflow": view.workflow,
        "status": view.status.value,
        "user": view.user,
        "submitted": moment(view.submitted),
        "jobs": [job_fields(job) for job in view.jobs],
        "machine": view.machine or None,
        "ended": moment(view.ended) if view.ended else None,
        "looked_after_by": list(view.caretakers.by) if view.caretakers is not None else None,
        "stage": view.stage.value if view.status is RunStatus.RUNNING else None,
    }


def job_fields(job: JobView) -> dict[str, Any]:
    """One job: `workflow, status, host, attempt, fingerprint, reused_from, reason, started, ended, unreachable_since,
    sighting`;
    null where there is nothing. Times are by the clock of the job's host; a reused job has the times of the job behind
    the result."""
    return {
        "workflow": job.workflow,
        "status": job.status.value,
        "host": job.host or None,
        "attempt": job.attempt or None,
        "fingerprint": job.fingerprint or None,
        "reused_from": job.reused_from,
        "reason": job.reason or None,
        "started": moment(job.started) if job.started else None,
        "ended": moment(job.ended) if job.ended else None,
        "unreachable_since": moment(job.unreachable) if job.unreachable else None,
        "sighting": job.sighting or None,
    }


def run_json(view: RunView) -> str:
    """A run as an indented JSON object."""
    return json.dumps(run_fields(view), indent=2)


def runs_json(views: Iterable[RunView]) -> str:
    """A list of runs as indented JSON."""
    return json.dumps([run_fields(view) for view in views], indent=2)


def weights_json(weights: Weights) -> str:
    """`{bytes, objects, used, unknown, kinds: [{what, bytes, objects}], workflows: [{workflow, bytes, …}]}`."""
    fields = {
        "bytes": weights.bytes,
        "objects": weights.objects,
        "used": weights.used,
        "unknown": weights.unknown,
        "kinds": [asdict(each) for each in weights.sorts],
        "workflows": [asdict(each) for each in weights.workflows],
    }
    return json.dumps(fields, indent=2)


def error_json(error: DstackError) -> str:
    """`{"error": {message, hint, exit_code, problems?}}` on one line."""
    fields: dict[str, Any] = {"message": str(error), "hint": error.hint, "exit_code": error.exit_code}
    if isinstance(error, ConfigError):
        fields["problems"] = [
            {"file": each.file, "line": each.line, "column": each.column, "message": each.message}
            for each in error.problems
        ]
    return json.dumps({"error": fields})


def moment(seconds: float) -> str:
    """Seconds since the epoch as `2026-11-22T21:57:03.120Z`; the beginning of the epoch for a time beyond the
    calendar."""
    if not 0 < seconds < LATEST:
        seconds = 0.0
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
