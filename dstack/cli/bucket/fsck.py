"""`dstack fsck`: is everything in the bucket as docs/format.md says?"""

from __future__ import annotations

import os
import time
from typing import Annotated

import typer

from dstack.app.maintenance.bucket_access import store_time
from dstack.app.maintenance.bucket_probe import writable
from dstack.app.maintenance.fsck.bucket import check_bucket
from dstack.app.maintenance.fsck.findings import Finding
from dstack.cli.command_session import open_session
from dstack.errors import BucketDamageError
from dstack.session.coordinator_parts import make_performer
from dstack.session.session import Session
from dstack.ui.terminal import clean


def fsck(
    deep: Annotated[bool, typer.Option("--deep", help="Also read all artifacts and check every byte.")] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Write or remove what follows from what is there, in this project.")
    ] = False,
    hosts: Annotated[
        bool, typer.Option("--hosts", help="Also ask the hosts for what runs there although its attempt has ended.")
    ] = False,
) -> None:
    """Check the whole bucket, of all its projects: each record, result and log, and what they say of one another.

    Prints each problem with its key and what it means, and exits with 8 when one is left. May run beside anything.
    """
    session = open_session()
    if repair:
        writable(session.bucket)
    now = store_time(session.bucket, os.urandom(16).hex(), own=time.time())
    found = repaired = derivable = 0
    performer = make_performer(session)
    try:
        for each in check_bucket(session.bucket, now=now, deep=deep):
            found += 1
            ours = each.repair is not None and each.key.startswith(session.keys.root)
            if repair and ours and each.repair is not None:
                performer.take(each.repair())
                repaired += 1
            elif ours:
                derivable += 1
            _tell(each, repaired=repair and ours)
    finally:
        performer.close()
    found += _check_hosts(session) if hosts else 0
    if not found:
        print("nothing is wrong")
        return
    done = f"{repaired} repaired, " if repair else ""
    _conclude(found, found - repaired, done, derivable)


def _conclude(found: int, left: int, done: str, derivable: int) -> None:
    """Print the sum; raises BucketDamageError when a problem is left."""
    print(f"{found} problem{'s' * (found != 1)}: {done}{left} left")
    if left:
        hint = f"`dstack fsck --repair` mends {derivable} of them" if derivable else "see docs/how-to/keep-house.md"
        raise BucketDamageError(f"the bucket has {left} problem{'s' * (left != 1)}", hint=hint)


def _check_hosts(session: Session) -> int:
    """Print the orphans of this account on all hosts, and the unreachable hosts -> the number of printed findings."""
    # Imported here on purpose: only `--hosts` connects to hosts.
    from dstack.app.coordination.orphans import find_orphans
    from dstack.cli.host_questions import ask_hosts

    answers = ask_hosts(
        session, session.inventory(), lambda host, runner, _: find_orphans(runner, session.bucket, session.keys)
    )
    count = 0
    for answer in answers:
        for line in [orphan.text for orphan in answer.value or ()] + ([str(answer.error)] if answer.error else []):
            print(clean(answer.host.name))
            print(clean(f"  {line}"), flush=True)
            count += 1
    return count


def _tell(each: Finding, *, repaired: bool) -> None:
    print(clean(each.key))
    print(clean(f"  {each.meaning}"))
    if each.remedy:
        print(clean(f"  {'done' if repaired else 'repair'}: {each.remedy}"), flush=True)
