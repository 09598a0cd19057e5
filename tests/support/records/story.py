"""Puts runs into a bucket as a coordinator would, record by record, for tests of the read side."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dstack.core.fingerprint import fingerprint, ingredients
from dstack.core.format.keys import AttemptKeys, ProjectKeys
from dstack.core.format.records import Claim, Coordinator, End, Final, Outcome, RunRecord, Stop, Want, Why, pack
from dstack.model import (
    Fingerprint,
    JobSpec,
    JobStatus,
    RunId,
    RunName,
    RunPlan,
    RunStatus,
    Snapshot,
    WorkflowName,
)
from dstack.ports import Bucket, Put

ME = Coordinator(id="c1", user="alice", machine="laptop", boot_id="b", pid=1, lock="/nowhere")


@dataclass
class Story:
    """A bucket and its runs; each run is a second newer than the one before."""

    bucket: Bucket
    keys: ProjectKeys = field(default_factory=lambda: ProjectKeys.of("p"))
    runs: int = 0

    def put(self, key: str, body: bytes) -> None:
        assert self.bucket.create(key, body) is Put.CREATED

    def run(
        self, name: str, *specs: JobSpec, rerun: Sequence[str] = (), user: str = "alice", machine: str = "laptop"
    ) -> RunRecord:
        self.runs += 1
        rid = RunId(f"{10**13 - self.runs * 1000:013d}-{self.runs:010d}")
        record = RunRecord(
            nonce="n",
            id=rid,
            name=RunName(name),
            user=user,
            machine=machine,
            submitted=1_790_000_000.0 + self.runs,
            workflow=specs[-1].workflow,
            plan=RunPlan(jobs=tuple(specs)),
            snapshot=Snapshot(
                commit="c" * 40, tree="t" * 40, prefix="", head="h" * 40, branch="main", remote=None, dirty=True
            ),
            rerun=tuple(WorkflowName(each) for each in rerun),
        )
        self.put(self.keys.name(record.name), json.dumps({"run": rid}).encode())
        self.put(self.keys.run(rid).record, pack(record))
        return record

    def fingerprint(self, job: JobSpec, inputs: Mapping[str, str] | None = None) -> Fingerprint:
        return fingerprint(ingredients(job, inputs or {}))

    def outcome(self, record: RunRecord, job: JobSpec, status: str = "succeeded", **changes: object) -> Outcome:
        inputs = changes.pop("inputs", None)
        values: dict[str, object] = {
            "fingerprint": self.fingerprint(job, inputs),  # type: ignore[arg-type]
            "generation": 1,
            "attempt": 1,
            "host": "gpu-1",
            "digest": f"d-{job.workflow}",
            **changes,
        }
        made = Outcome(nonce="n", workflow=job.workflow, status=JobStatus(status), **values)  # type: ignore[arg-type]
        self.put(self.keys.run(record.id).job(job.workflow), pack(made))
        return made

    def final(self, record: RunRecord, status: str, *outcomes: Outcome) -> None:
        final = Final(
            nonce="n",
            run=record.name,
            user=record.user,
            machine=record.machine,
            submitted=record.submitted,
            workflow=record.workflow,
            status=RunStatus(status),
            ended=record.submitted + 60,
            jobs=outcomes,
        )
        self.put(self.keys.run(record.id).final, pack(final))

    def attempt(self, record: RunRecord, job: JobSpec, number: int = 1, *, generation: int = 1) -> AttemptKeys:
        """The run wants the job, and attempt `number` is claimed."""
        keys = self.keys.job(self.fingerprint(job), generation)
        if self.bucket.get(keys.want(record.id)) is None:
            self.put(keys.want(record.id), pack(Want(nonce="n", run=record.id, workflow=job.workflow, ended=0)))
        claim = Claim(
            nonce=f"n{number}",
            run=record.id,
            run_name=record.name,
            host=f"gpu-{number}",
            address={},
            boot_id="b",
            coordinator=ME,
        )
        self.put(keys.attempt(number).claim, pack(claim))
        return keys.attempt(number)

    def reopened(self, record: RunRecord, job: JobSpec, generation: int, reason: str) -> None:
        key = self.keys.job(self.fingerprint(job), generation).why
        self.put(key, pack(Why(nonce="n", run=record.id, reason=reason)))

    def end(self, attempt: AttemptKeys, status: str = "failed") -> None:
        self.put(attempt.end, pack(End(nonce="n", status=status)))

    def stop(self, record: RunRecord, workflow: str | None = None) -> None:
        name = WorkflowName(workflow) if workflow else None
        self.put(self.keys.run(record.id).stop(name), pack(Stop(nonce="n", user="bob")))

    def log(self, attempt: AttemptKeys, *pieces: bytes) -> None:
        offset = 0
        for piece in pieces:
            self.put(attempt.log(offset), piece)
            offset += len(piece)
