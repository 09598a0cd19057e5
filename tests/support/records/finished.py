"""Finished runs in a bucket, as old as a test needs them."""

from __future__ import annotations

import hashlib
import time

from dstack.core.artifacts import manifests
from dstack.core.format.keys import JobKeys
from dstack.core.format.records import (
    End,
    Pin,
    Result,
    RunRecord,
    pack,
)
from dstack.model import Entry, EntryKind, JobSpec
from tests.support.records.specs import spec
from tests.support.records.story import Story

TRAIN = spec("train")


def finished(story: Story, name: str, job: JobSpec = TRAIN, *, final: bool = True, generation: int = 1) -> RunRecord:
    """A run that made a result with an artifact."""
    record = story.run(name, job)
    attempt = story.attempt(record, job, generation=generation)
    keys = story.keys.job(story.fingerprint(job), generation)
    story.put(keys.pin(record.id), pack(Pin(nonce="n")))
    story.log(attempt, b"hello\n")
    digest = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    name_ = hashlib.sha256(f"{digest} 5\n".encode()).hexdigest()
    entry = Entry(path="model", kind=EntryKind.FILE, mode=0o644, size=5, sha256=digest, pack=name_)
    manifest = manifests.manifest_of([entry], partial=False)
    body = manifests.encode(manifest)
    story.put(attempt.pack(name_), b"hello")
    story.put(attempt.manifest, body)
    result = Result(
        nonce="n1", attempt=1, manifest=hashlib.sha256(body).hexdigest(), digest=manifests.content_digest(manifest),
        run=record.id, name=record.name,
    )  # fmt: skip
    story.put(keys.result, pack(result))
    story.put(attempt.end, pack(End(nonce="n1", status="succeeded")))
    outcome = story.outcome(record, job, digest=result.digest, generation=generation)
    if final:
        story.final(record, "succeeded", outcome)
    return record


def generation(story: Story, number: int = 1) -> JobKeys:
    return story.keys.job(story.fingerprint(TRAIN), number)


def age(story: Story) -> None:
    story.bucket.times = {key: time.time() - 3600 for key in story.bucket.objects}  # type: ignore[attr-defined]
