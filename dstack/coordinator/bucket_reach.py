"""Whether this host sees a bucket, tried in a child process: libraries start threads, and a fork loses threads."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from dstack.adapters.bucket.opener import bucket_path, open_bucket
from dstack.adapters.bucket.registry import backend_of, is_path
from dstack.adapters.process_identity import user_name
from dstack.app.maintenance.bucket_access import try_bucket
from dstack.app.maintenance.bucket_probe import writable
from dstack.core.handover import HandOver, unseen_text
from dstack.errors import BucketError
from dstack.ports import Bucket
from dstack.wire import Refusal
from dstack.wire.coordinator_messages import LookAnswer

MESSAGE_LIMIT = 1000
"""Most characters of a message: the answer goes through a pipe in a single write."""


def probe_bucket(hand: HandOver, library: str | None) -> LookAnswer:
    """The view of a bucket from here: `who` reads it, in words, whether a dstack has `used` the bucket before, and the
    `trouble` of this account with reading or writing.

    Raises Refusal (kind `bucket`) when the bucket cannot be reached, and for a folder without a trace of dstack: an
    unmounted folder looks the same.
    """
    reader, writer = os.pipe()
    # A child: libraries of stores start threads here, and the coordinator is forked from this process later.
    child = os.fork()
    if not child:
        os.close(reader)
        os.write(writer, json.dumps(_probe_here(hand, library)).encode()[:4096])
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        said = stream.read()
    os.waitpid(child, 0)
    answer = json.loads(said) if said else {"message": "the look at the bucket ended early", "hint": "try again"}
    if "who" not in answer:
        raise Refusal("bucket", str(answer.get("message")), str(answer.get("hint") or ""))
    return LookAnswer.from_other_version(answer)


def _probe_here(hand: HandOver, library: str | None) -> dict[str, Any]:
    if library is not None:
        sys.path.append(library)
    try:
        bucket = open_bucket(hand.bucket, {**hand.options, **hand.credentials}, "/")
        used = writable(bucket)
        if not used and is_path(hand.bucket):
            return {"message": unseen_text(hand.bucket)}
        return {"who": _login_name(hand), "used": used, "trouble": _write_trouble(bucket) if used else ""}
    except BucketError as error:
        # An existing folder that refuses this account: in use by others, as far as can be told.
        if _is_closed_folder(hand.bucket):
            return {"who": "", "used": True, "trouble": str(error)[:MESSAGE_LIMIT]}
        return {"message": str(error)[:MESSAGE_LIMIT], "hint": error.hint or ""}
    except Exception as error:
        return {"message": f"{type(error).__name__}: {error}"[:1000], "hint": "report this"}


def _write_trouble(bucket: Bucket) -> str:
    """Why this account cannot write to the bucket; "" where writing works."""
    try:
        try_bucket(bucket, os.urandom(16).hex())
    except BucketError as error:
        return str(error)[:MESSAGE_LIMIT]
    return ""


def _is_closed_folder(bucket: str) -> bool:
    """Whether the bucket is a folder that exists here, so that only this account is kept out."""
    if not is_path(bucket):
        return False
    try:
        os.stat(bucket_path(bucket, "/"))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _login_name(hand: HandOver) -> str:
    """The owner of the credentials in use, in words."""
    if hand.credentials:
        return "you, forwarded"
    name_login = backend_of(hand.bucket).name_login
    return name_login(hand.options, os.environ) if name_login else user_name()
