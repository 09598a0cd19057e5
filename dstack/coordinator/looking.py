"""Whether this host sees a bucket: tried in a process of its own, for libraries start threads that no fork survives."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from dstack.adapters.bucket_open import open_bucket
from dstack.adapters.bucket_options import opening
from dstack.adapters.identity import user_name
from dstack.app.probe import writable
from dstack.coordinator.refusal import Refusal
from dstack.core.handover import HandOver, is_folder, unseen
from dstack.errors import BucketError


def look(hand: HandOver, library: str | None) -> dict[str, Any]:
    """Returns `who`, in words, when the bucket can be read from here, and whether it was `used` before; raises Refusal
    (kind `bucket`) when it cannot, or is a folder that shows no use: one that is not mounted looks like that, too."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        os.write(writer, json.dumps(_found(hand, library)).encode()[:4096])
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        said = stream.read()
    os.waitpid(child, 0)
    answer = json.loads(said) if said else {"message": "the look at the bucket ended early", "hint": "try again"}
    if "who" not in answer:
        raise Refusal("bucket", str(answer.get("message")), str(answer.get("hint") or ""))
    return answer


def _found(hand: HandOver, library: str | None) -> dict[str, Any]:
    if library is not None:
        sys.path.append(library)
    try:
        used = writable(open_bucket(hand.bucket, {**hand.options, **hand.credentials}, "/"))
        if not used and is_folder(hand.bucket):
            return {"message": unseen(hand.bucket)}
        return {"who": _who(hand), "used": used}
    except BucketError as error:
        return {"message": str(error), "hint": error.hint or ""}
    except Exception as error:
        return {"message": f"{type(error).__name__}: {error}"[:1000], "hint": "report this"}


def _who(hand: HandOver) -> str:
    """Whose credentials opened it."""
    if hand.credentials:
        return "you (forwarded)"
    if is_folder(hand.bucket):
        return user_name()
    return opening(hand.bucket, hand.options, os.environ).who
