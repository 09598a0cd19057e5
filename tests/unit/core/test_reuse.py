"""Whether an earlier result may be taken."""

from __future__ import annotations

from dataclasses import replace

from dstack.core.reuse import fresh_reason
from dstack.model import WorkflowName
from tests.support.buckets.memory import MemoryBucket
from tests.support.records.specs import spec
from tests.support.records.story import Story


def test_a_result_is_taken_unless_the_user_or_the_workflow_says_otherwise() -> None:
    job = spec("train")
    run = Story(MemoryBucket()).run("one", job)
    assert fresh_reason(run, job) == ""
    assert fresh_reason(run, replace(job, reuse=False)) == "the workflow says reuse: false"
    rerun = replace(run, rerun=(WorkflowName("train"),), user="alice")
    assert fresh_reason(rerun, job) == "alice asked for it to run again"
    assert fresh_reason(rerun, spec("other")) == "", "only the named workflows run again"
