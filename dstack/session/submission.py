"""From a request to a run ready to be recorded."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dstack.adapters.process_identity import machine_name, new_nonce, new_run_id, new_run_name, user_name
from dstack.app.coordination.run import Submission, submit
from dstack.app.protocol.job_secrets import MemoryValue, memory_values
from dstack.app.queries.dry_run import Forecast, JobForecast, forecast_run
from dstack.core.format.records import RunRecord
from dstack.errors import DstackError, NotFoundError, SecretError, UsageError
from dstack.model import CodeFile, JobSpec, WorkflowName
from dstack.project.plan import make_plan
from dstack.project.snapshot_parts import CodeParts
from dstack.project.workflows.overrides import read_overrides
from dstack.session.secret_values import require_secrets, way_out
from dstack.session.session import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """A wish for a run: a workflow of the project, and values for variables."""

    workflow: str
    overrides: tuple[str, ...] = ()
    """`--NAME`, `VALUE` and `--NAME=VALUE` for variables, in order."""
    assignments: tuple[str, ...] = ()
    """`NAME=VALUE` for variables of any name."""
    reserved: tuple[str, ...] = ()
    """Words like `--json` with another meaning in the face: overrides of these names are refused."""
    rerun: tuple[str, ...] = ()
    """Workflows of the run to run again in spite of a result."""
    command: tuple[str, ...] = ()
    """The command line, for people, in the record of the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedRun:
    """A planned run, not recorded yet."""

    submission: Submission
    forecast: tuple[JobForecast, ...]
    """The future of each job, as far as the bucket knows now."""
    running: tuple[JobSpec, ...]
    """The jobs without a result to reuse."""
    placed: tuple[JobSpec, ...]
    """The running jobs for hosts of this session: no other run has an attempt to join."""

    @property
    def record(self) -> RunRecord:
        """The record to write; only the name may change, where another run takes the name first."""
        return self.submission.record


def prepare_run(session: Session, request: RunRequest) -> PreparedRun:
    """Plan a run and look up what can be reused; nothing is recorded.

    Raises ConfigError, UsageError and SnapshotError, and SecretError where a running job asks for a secret that is
    not set.
    """
    record, submission = plan_run(session, request)
    forecast = forecast_run(session.bucket, session.keys, record)
    reused = {each.workflow for each in forecast if each.fate is Forecast.REUSED}
    joining = {each.workflow for each in forecast if each.fate is Forecast.JOINS}
    # A reused job is given nothing: a user without a secret can use the results that others made with it.
    running = tuple(spec for spec in record.plan.jobs if spec.workflow not in reused)
    require_secrets(session.secrets, running)
    placed = tuple(spec for spec in running if spec.workflow not in joining)
    return PreparedRun(submission=submission, forecast=tuple(forecast), running=running, placed=placed)


def record_run(session: Session, submission: Submission) -> RunRecord:
    """Record the run -> the record under the final name. A new bucket is probed first."""
    session.storage.probe()
    return submit(session.bucket, session.keys, submission, rename=rename)


def plan_run(session: Session, request: RunRequest) -> tuple[RunRecord, Submission]:
    """Read the project, pack the code, make the plan; nothing is recorded.

    Raises ConfigError, UsageError and SnapshotError.
    """
    project = session.project()
    target = project.find_workflow(request.workflow)
    reserved = tuple(word.removeprefix("--") for word in request.reserved)
    allowed = replace(project.overridable(target), options=reserved)
    overrides = read_overrides(allowed, request.overrides, request.assignments)
    _check_rerun(request.rerun, project.members(target))
    snapshot = session.code.snapshot()
    code = CodeParts(tuple(session.code.files(snapshot)))
    plan = make_plan(project, target, overrides=overrides, code=code)
    for spec in plan.jobs:
        _refuse_pinned(spec)
    record = RunRecord(
        nonce=new_nonce(),
        id=new_run_id(time.time()),
        name=new_run_name(),
        user=user_name(),
        machine=machine_name(),
        submitted=time.time(),
        workflow=target,
        plan=plan,
        snapshot=snapshot,
        rerun=tuple(WorkflowName(name) for name in request.rerun),
        command=request.command,
    )
    lists = {part.digest: _file_list(part.files) for part in code.parts}
    diff = session.code.diff(snapshot) if snapshot.dirty else b""
    return record, Submission(record=record, files=lists, diff=diff)


def _check_rerun(rerun: Sequence[str], members: Sequence[str]) -> None:
    for name in rerun:
        if name not in members:
            raise UsageError(f"--rerun={name}: this run has no such workflow", hint=f"it has {', '.join(members)}")


def _refuse_pinned(spec: JobSpec) -> None:
    """Refuse results of tagged and named runs as inputs, which this version cannot take, before anything is done."""
    for dependency in spec.inputs:
        if dependency.tag is not None or dependency.run is not None:
            pin = f"tag {dependency.tag}" if dependency.tag is not None else f"run {dependency.run}"
            raise UsageError(
                f"{spec.workflow} takes the results of {pin}, which this version cannot do",
                hint="depend on the workflow itself: it is reused when nothing it depends on has changed",
            )


def _file_list(files: Sequence[CodeFile]) -> bytes:
    """JSON of path -> "mode blob"."""
    return json.dumps({file.path: f"{file.mode} {file.blob}" for file in files}).encode("utf-8", "surrogateescape")


def rename(record: RunRecord) -> RunRecord:
    """The same run under another name."""
    return replace(record, name=new_run_name())


def caller_values(session: Session, jobs: Sequence[JobSpec], *, required: bool = True) -> dict[str, str]:
    """Values of jobs from memory alone: bare names in `env:` from the environment of this process, and secrets. Nothing
    of the values is written anywhere.

    Raises NotFoundError and SecretError for a missing value; without `required` a missing value is left out.
    """
    values = {}
    for spec in jobs:
        for one in memory_values(spec):
            try:
                value = session.secrets.find(one.name) if one.secret else session.environ.get(one.name)
                if value is not None:
                    values[one.key] = value
                elif required:
                    raise _not_found(one, spec)
            except SecretError as error:
                if required:
                    raise
                session.tell(f"{error}; jobs that need it wait")
    return values


def _not_found(one: MemoryValue, spec: JobSpec) -> DstackError:
    if one.secret:
        text = f"secret {one.name} is not set (workflow {spec.workflow})"
        return SecretError(text, hint=way_out([one.name]))
    return NotFoundError(
        f"workflow {spec.workflow} takes {one.name} from your environment, where it is not set",
        hint=f"export {one.name}=…, or give it a value in workflows.yaml",
    )
