"""Orphans: living attempts on a host with a recorded end, because a person or a coordinator called them lost.

An orphan is ended by the next coordinator of the account that reaches the host, when no run waits for the orphan any
more, and by `dstack stop`. `gone` in the folder of an attempt says that nothing of the attempt lives; a lost attempt
without `gone` may live.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from dstack.app.protocol.bucket_performer import read_only
from dstack.app.protocol.jobs import is_wanted
from dstack.app.queries.lost_attempts import end_of
from dstack.core.format.key_parser import attempt_in
from dstack.core.format.keys import AttemptKeys, ProjectKeys
from dstack.core.format.records import Claim, End, Gone, pack, unpack
from dstack.errors import BucketError
from dstack.model import Nonce
from dstack.ports import Bucket, RunnerPort
from dstack.wire import HELD, RUNNING


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphan:
    """A living attempt on a host, and the recorded end of the attempt."""

    nonce: Nonce
    attempt: AttemptKeys
    end: End
    run_name: str = ""
    """The run that claimed the attempt; "" where the claim cannot be read."""

    @property
    def text(self) -> str:
        """The orphan, the recorded end, and the command that stops the orphan, in a line."""
        which = f"attempt {self.attempt.number} of {self.run_name or 'a run'}"
        line = f"{which} was recorded as {self.end.status}, and runs on"
        return f"{line}: dstack stop {self.run_name}" if self.run_name else line


async def find_orphans(runner: RunnerPort, bucket: Bucket, keys: ProjectKeys) -> list[Orphan]:
    """The orphans of this project in the spool of the runner; asks the bucket only about living attempts."""
    found = []
    for each in await runner.spool():
        attempt = attempt_in(keys, each.attempt) if each.state in (HELD, RUNNING) else None
        end = await asyncio.to_thread(end_of, bucket, attempt) if attempt is not None else None
        if attempt is not None and end is not None and end.nonce == each.nonce:
            name = await asyncio.to_thread(_claimant, bucket, attempt)
            found.append(Orphan(nonce=each.nonce, attempt=attempt, end=end, run_name=name))
    return found


def _claimant(bucket: Bucket, attempt: AttemptKeys) -> str:
    body = bucket.get(attempt.claim)
    try:
        return unpack(Claim, attempt.claim, body).run_name if body is not None else ""
    except BucketError:
        return ""


async def end_orphan(runner: RunnerPort, bucket: Bucket, orphan: Orphan) -> None:
    """End the whole process tree, have the host forget the attempt, and record that nothing of the attempt lives."""
    await runner.stop(orphan.nonce, abort=True)
    # Before the release: no later coordinator finds an attempt that its host has forgotten.
    await asyncio.to_thread(record_orphan_gone, bucket, orphan.attempt, orphan.nonce)
    await runner.release(orphan.nonce)


def record_orphan_gone(bucket: Bucket, attempt: AttemptKeys, nonce: str) -> None:
    """Record that nothing lives of an attempt that was called lost. Blocking; without a promise: the record is for
    people."""
    bucket.create(attempt.gone, pack(Gone(nonce=nonce)))


def is_awaited(bucket: Bucket, keys: ProjectKeys, attempt: AttemptKeys) -> bool:
    """Whether a lost attempt may still give its generation the result, and some run waits for the result. Blocking."""
    if bucket.get(attempt.generation.result) is not None:
        return False
    return read_only(is_wanted(keys, attempt), bucket)
