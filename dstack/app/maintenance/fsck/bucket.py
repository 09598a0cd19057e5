"""`dstack fsck`: everything in a bucket held against docs/format.md. Blocking; some jobs or runs in memory at a time.

A bucket is in use during the check, so every suspicion is checked again after a pause: only lasting faults are told.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice

from dstack.app.effects.catalogue import BucketPerformer, Delete
from dstack.app.effects.steps import Steps, ask
from dstack.app.maintenance.blocking_driver import parallel
from dstack.app.maintenance.fsck.findings import FORSAKEN_NAME_S, Check, Finding
from dstack.app.maintenance.fsck.jobs import check_job
from dstack.app.maintenance.fsck.runs import check_run
from dstack.core.format.key_parser import PROJECT_FOLDERS, KeyKind, kind_of
from dstack.core.format.keys import FORMAT_KEY, PROBES, PROJECTS, ProjectKeys
from dstack.core.format.name_records import decode_name
from dstack.model import Fingerprint, RunId
from dstack.ports import Bucket, Listed

RECHECK_PAUSE_S = 1.0
CHECKS_AT_A_TIME = 64


def check_bucket(bucket: Bucket, *, now: float, deep: bool, pause: float = RECHECK_PAUSE_S) -> Iterator[Finding]:
    """All faults of a bucket, as found; raises BucketError when the store does not answer.

    `now` is the time of day by the store's clock, in seconds since the epoch.
    """
    for name in bucket.children(""):
        if name not in (FORMAT_KEY, PROJECTS, PROBES):
            yield Finding(key=name, meaning="no dstack of this version writes this key")
    if bucket.children(PROJECTS, limit=1) and bucket.get(FORMAT_KEY) is None:
        yield Finding(key=FORMAT_KEY, meaning="the bucket has no format record: a later version may misread it")
    for name in bucket.children(PROJECTS):
        keys = ProjectKeys(f"{PROJECTS}{name}")
        yield from check_project(Check(bucket=bucket, keys=keys, now=now, deep=deep), pause=pause)


def check_project(check: Check, *, pause: float = RECHECK_PAUSE_S) -> Iterator[Finding]:
    """All faults of a project."""
    keys, bucket = check.keys, check.bucket
    for name in bucket.children(keys.root):
        if name not in PROJECT_FOLDERS:
            yield Finding(key=keys.root + name, meaning="no dstack of this version writes this key")
    for folder in (keys.jobs, keys.runs):
        for name in bucket.children(folder):
            if not name.endswith("/"):
                yield Finding(key=folder + name, meaning="no dstack of this version writes this key")
    jobs = (name.rstrip("/") for name in bucket.children(keys.jobs) if name.endswith("/"))
    yield from _lasting_findings((partial(check_job, check, Fingerprint(job)) for job in jobs), pause)
    runs = (name.rstrip("/") for name in bucket.children(keys.runs) if name.endswith("/"))
    yield from _lasting_findings((partial(check_run, check, RunId(run)) for run in runs), pause)
    names = bucket.survey(keys.names)
    yield from _lasting_findings((partial(_check_name, check, each) for each in names), pause)
    for folder in (keys.code, keys.coordinators, keys.people, keys.hosts):
        for each in bucket.survey(folder):
            if kind_of(keys, each.key) is KeyKind.UNKNOWN:
                yield Finding(key=each.key, meaning="no dstack of this version writes this key")


def _lasting_findings(checks: Iterable[Callable[[], list[Finding]]], pause: float) -> Iterator[Finding]:
    """The findings of many checks, some at a time; a check with findings is made again after a pause."""
    waiting = iter(checks)
    while batch := list(islice(waiting, CHECKS_AT_A_TIME)):
        suspicious = [each for each, found in zip(batch, parallel(lambda each: each(), batch), strict=True) if found]
        if not suspicious:
            continue
        # What a coordinator is about to write is missing for a moment; what is missing still is wrong.
        time.sleep(pause)
        for found in parallel(lambda each: each(), suspicious):
            yield from found


def _check_name(check: Check, each: Listed) -> list[Finding]:
    """A name leads to a run of that name."""
    key = each.key
    if kind_of(check.keys, key) is not KeyKind.NAME:
        return [Finding(key=key, meaning="no run can have this name")]
    body = check.bucket.get(key)
    if body is None:
        return []
    run = decode_name(body)
    if run is None:
        return [Finding(key=key, meaning="it does not hold the id of a run")]
    record = check.keys.run(run).record
    if check.bucket.get(record) is not None:
        return []
    if not check.old(each, FORSAKEN_NAME_S):
        return []

    def repair() -> Steps[BucketPerformer, None]:
        yield from ask(Delete((key,)))

    return [
        Finding(key=key, meaning=f"a name of run {run}, which does not exist", remedy="remove the name", repair=repair)
    ]
