"""From a key back to what it is: the other direction of `keys.py`, for those who look at a whole bucket."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What stands under a key of a project."""

    NAME = "name"
    RUN = "run"
    STOP = "stop"
    OUTCOME = "outcome"
    FINAL = "final"
    WHY = "why"
    WANT = "want"
    PIN = "pin"
    USER = "user"
    TOMB = "tomb"
    CLAIM = "claim"
    OWNER = "owner"
    STARTED = "started"
    LOG = "log"
    DATA = "data"
    MANIFEST = "manifest"
    END = "end"
    GONE = "gone"
    RESULT = "result"
    HEARTBEAT = "heartbeat"
    LOOKER = "looker"
    """Who looks after a run, or did."""
    OWN = "own"
    """A run among those of one person."""
    INVENTORY = "inventory"
    DIFF = "diff"
    FILES = "files"
    TAG = "tag"
    UNKNOWN = "unknown"


ARTIFACTS, LOGS, CODE, RECORDS = "artifacts", "logs", "code", "records"
SORTS: Mapping[Kind, str] = {
    Kind.DATA: ARTIFACTS,
    Kind.MANIFEST: ARTIFACTS,
    Kind.LOG: LOGS,
    Kind.DIFF: CODE,
    Kind.FILES: CODE,
}
"""What people count bytes by; everything else is RECORDS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A key of a project, taken apart. Empty and 0 where the kind has no such part.

    `name` is the last part that is not fixed: a run's name, a workflow, the user of a pin, the number of a user, a
    pack, a digest.
    """

    kind: Kind
    run: str = ""
    fingerprint: str = ""
    generation: int = 0
    number: int = 0
    """Of the attempt."""
    name: str = ""


_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
_RUN = r"(?P<run>[0-9]{13}-[A-Za-z0-9]{1,32})"
_GENERATION = r"jobs/(?P<fingerprint>[0-9a-f]{64})/(?P<generation>[0-9]{6})"
_ATTEMPT = rf"{_GENERATION}/a/(?P<number>[0-9]{{6}})"
_FORMS: Mapping[Kind, str] = {
    Kind.NAME: rf"names/(?P<name>{_NAME})",
    Kind.RUN: rf"runs/{_RUN}/run\.json",
    Kind.STOP: rf"runs/{_RUN}/stop/(?P<name>_all|{_NAME})",
    Kind.OUTCOME: rf"runs/{_RUN}/jobs/(?P<name>{_NAME})",
    Kind.FINAL: rf"runs/{_RUN}/final",
    Kind.WHY: rf"{_GENERATION}/why",
    Kind.WANT: rf"{_GENERATION}/wants/{_RUN}",
    Kind.PIN: rf"{_GENERATION}/pins/(?P<name>{_NAME})",
    Kind.USER: rf"{_GENERATION}/users/(?P<name>[0-9]{{6}})",
    Kind.TOMB: rf"{_GENERATION}/tomb",
    Kind.CLAIM: rf"{_GENERATION}/claim/(?P<number>[0-9]{{6}})",
    Kind.RESULT: rf"{_GENERATION}/result",
    Kind.OWNER: rf"{_ATTEMPT}/owner/[0-9]{{6}}",
    Kind.STARTED: rf"{_ATTEMPT}/started",
    Kind.LOG: rf"{_ATTEMPT}/log/(?P<name>[0-9a-f]{{16}})",
    Kind.DATA: rf"{_ATTEMPT}/data/(?P<name>[0-9a-f]{{64}})",
    Kind.MANIFEST: rf"{_ATTEMPT}/manifest",
    Kind.END: rf"{_ATTEMPT}/end",
    Kind.GONE: rf"{_ATTEMPT}/gone",
    Kind.HEARTBEAT: rf"coordinators/(?P<name>{_NAME})/hb",
    Kind.LOOKER: rf"runs/{_RUN}/coordinators/(?P<name>{_NAME})",
    Kind.OWN: rf"people/(?P<name>[A-Za-z0-9._=@-]{{1,200}})/{_RUN}",
    Kind.INVENTORY: r"hosts/(?P<name>[0-9]{6})",
    Kind.DIFF: r"code/(?P<name>[0-9a-f]{40,64})/diff",
    Kind.FILES: r"code/(?P<name>[0-9a-f]{64})/files",
    Kind.TAG: rf"tags/(?P<name>{_NAME})/[0-9]+",
}
_READERS = tuple((kind, re.compile(form, re.ASCII).fullmatch) for kind, form in _FORMS.items())


def place_of(key: str) -> Place:
    """What `key`, without the `projects/<p>/` before it, is; UNKNOWN for what no dstack of this version writes."""
    for kind, matches in _READERS:
        found = matches(key)
        if found is not None:
            parts = found.groupdict()
            return Place(
                kind=kind,
                run=parts.get("run") or "",
                fingerprint=parts.get("fingerprint") or "",
                generation=int(parts.get("generation") or 0),
                number=int(parts.get("number") or 0),
                name=parts.get("name") or "",
            )
    return Place(kind=Kind.UNKNOWN)


def sort_of(kind: Kind) -> str:
    """ARTIFACTS, LOGS, CODE or RECORDS."""
    return SORTS.get(kind, RECORDS)
