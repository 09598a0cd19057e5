"""The run meant by a name or id, by the beginning of a name, or by `-` for one's own last run. Reads only."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

from dstack.app.queries.runs import own_run_ids, run_ids
from dstack.core.format.identifiers import is_name, is_run_id
from dstack.core.format.keys import ProjectKeys
from dstack.core.format.name_records import decode_name
from dstack.core.format.records import RunRecord, unpack
from dstack.core.time_spans import CLOCK_SKEW_S
from dstack.errors import BucketError, NotFoundError, UsageError
from dstack.model import RunId, RunName

if TYPE_CHECKING:
    from dstack.ports import Bucket

OWN_LAST_RUN = "-"
"""The word for one's own last run."""
EVERYBODYS_RUNS_READ = 50
"""Runs of everybody to search for one's own last run, where a bucket has no list of a person's own."""
OWN_RUNS_READ = 3
"""Own runs to read: the newest may be in the middle of being recorded."""
FITTING_NAMES = 5
"""Names of runs to show when a beginning fits several."""
NEAR_NAMES = 1000
"""Names to compare with a mistyped name: one list."""


def find_run(bucket: Bucket, keys: ProjectKeys, handle: str) -> RunRecord:
    """The run with this name or id, or the only run with a name of this beginning.

    Raises UsageError when several names fit, and NotFoundError, with the nearest names, when none does.
    """
    run = handle if is_run_id(handle) else _id_by_name(bucket, keys, handle) or _id_by_beginning(bucket, keys, handle)
    record = _read_run(bucket, keys, RunId(run)) if run else None
    if record is None:
        raise _no_run(bucket, keys, handle)
    return record


def last_run(bucket: Bucket, keys: ProjectKeys, user: str, machine: str, *, now: float) -> RunRecord:
    """The newest run of `user` on `machine`, whatever others did since; raises NotFoundError without any.

    A run from the future, by `now`, counts only where there is no other: the clock of the machine was or is wrong, and
    such a run would stay the newest for as long as the clock was off.
    """
    # Runs of the future come first in the list: they are skipped, and taken only where there are no others.
    for until in (now + CLOCK_SKEW_S, None):
        for run in own_run_ids(bucket, keys, user, machine, OWN_RUNS_READ, until=until):
            record = _read_run(bucket, keys, run)
            if record is not None and (record.user, record.machine) == (user, machine):
                return record
    for run in run_ids(bucket, keys, EVERYBODYS_RUNS_READ):
        record = _read_run(bucket, keys, run)
        if record is not None and (record.user, record.machine) == (user, machine):
            return record
    raise NotFoundError(f"{user}@{machine} has made no run here yet", hint="`dstack ps` lists everybody's")


def _read_run(bucket: Bucket, keys: ProjectKeys, run: RunId) -> RunRecord | None:
    key = keys.run(run).record
    body = bucket.get(key)
    if body is None:
        return None
    record = unpack(RunRecord, key, body)
    # Names become folders of `artifacts pull`: whoever can write to the bucket must not choose where that is.
    for name in (record.name, *(spec.workflow for spec in record.plan.jobs)):
        if not is_name(name):
            raise BucketError(f"{key} holds a name that no run or workflow can have: {name!a}")
    return record


def _id_by_name(bucket: Bucket, keys: ProjectKeys, name: str) -> str | None:
    if not is_name(name):
        return None
    key = keys.name(RunName(name))
    body = bucket.get(key)
    if body is None:
        return None
    run = decode_name(body)
    if run is None:
        raise BucketError(f"{key} does not hold the id of a run", hint="remove the object and run again")
    return run


def _id_by_beginning(bucket: Bucket, keys: ProjectKeys, beginning: str) -> str | None:
    """The id of the only run with a name of this beginning."""
    if not is_name(beginning):
        return None
    listed = bucket.children(keys.names, limit=FITTING_NAMES + 1, after=beginning)
    fitting = [name for name in listed if name.startswith(beginning)]
    # An exact name was looked for before: here the text is a beginning, and must be of one name only.
    if len(fitting) > 1:
        more = ", …" if len(fitting) > FITTING_NAMES else ""
        raise UsageError(
            f"several runs begin with {beginning!r}: {', '.join(fitting[:FITTING_NAMES])}{more}",
            hint="write more of the name",
        )
    return _id_by_name(bucket, keys, fitting[0]) if fitting else None


def _no_run(bucket: Bucket, keys: ProjectKeys, name: str) -> NotFoundError:
    # Names that begin with the same letter: that of a typing error is seldom the first.
    after = name[:1] if is_name(name) else ""
    near = get_close_matches(name[:100], bucket.children(keys.names, limit=NEAR_NAMES, after=after), n=3)
    hint = (
        f"did you mean {' or '.join(near)}?"
        if near
        else "`dstack ps` lists the runs, and `-` stands for your own last one"
    )
    return NotFoundError(f"there is no run {name!r}", hint=hint)
