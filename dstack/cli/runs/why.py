"""`dstack why`: why the jobs of a run ran, or were reused."""

from __future__ import annotations

from typing import Annotated

from dstack.app.queries.runs import job_of, run_view
from dstack.cli.arguments import RUN_ARGUMENT, WORKFLOW_ARGUMENT
from dstack.cli.command_session import open_session
from dstack.model import JobStatus, WorkflowName
from dstack.ui.terminal import clean


def why(
    run: Annotated[str | None, RUN_ARGUMENT] = None, workflow: Annotated[str | None, WORKFLOW_ARGUMENT] = None
) -> None:
    """Say for each job of a run (or for one) why it ran, by what differs from earlier jobs, or why it was reused.

    RUN may be the beginning of a name; without it, or as `-`, it is your own last run on this machine.
    """
    from dstack.app.queries.explanation import Explainer

    session = open_session()
    record = session.require_run(run)
    view = run_view(session.bucket, session.keys, record, look=session.look)
    explainer = Explainer(session.bucket, session.keys, record, view)
    names = [job_of(view, workflow).workflow] if workflow else [job.workflow for job in view.jobs]
    for name in names:
        explanation = explainer.explain(WorkflowName(name))
        print(clean(f"{name}: {explanation.verdict}"))
        for line in explanation.differences:
            print(clean(f"  {line}"))
        job = job_of(view, name)
        if job.status is JobStatus.QUEUED and job.fingerprint:
            print(clean(f"  {job.status}: {job.reason}"))
