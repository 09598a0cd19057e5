"""Keys taken apart: the other direction of `keys.py`, for walks over a whole bucket."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache

from dstack.core.format.identifiers import NAME_PATTERN, RUN_ID_PATTERN
from dstack.core.format.keys import ALL_WORKFLOWS, AttemptKeys, ProjectKeys
from dstack.model import Fingerprint


class KeyKind(Enum):
    """The kind of the object under a key of a project."""

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
    PRESENCE = "presence"
    """The presence record of a coordinator of a run."""
    PERSON = "person"
    """The entry of a run among the runs of a person."""
    INVENTORY = "inventory"
    DIFF = "diff"
    FILES = "files"
    TAG = "tag"
    UNKNOWN = "unknown"


ARTIFACTS, LOGS, CODE, RECORDS = "artifacts", "logs", "code", "records"
SORT_OF_KIND: Mapping[KeyKind, str] = {
    KeyKind.DATA: ARTIFACTS,
    KeyKind.MANIFEST: ARTIFACTS,
    KeyKind.LOG: LOGS,
    KeyKind.DIFF: CODE,
    KeyKind.FILES: CODE,
}
"""The sorts in which people count bytes; every kind without an entry is of the sort RECORDS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedKey:
    """A key of a project, taken apart. Empty and 0 where the kind has no such part.

    `name` is the last variable part: a run's name, a workflow, the user of a pin, the number of a user, a pack, a
    digest.
    """

    kind: KeyKind
    run: str = ""
    fingerprint: str = ""
    generation: int = 0
    number: int = 0
    """Of the attempt."""
    name: str = ""


_RUN = rf"(?P<run>{RUN_ID_PATTERN})"
_GENERATION = r"jobs/(?P<fingerprint>[0-9a-f]{64})/(?P<generation>[0-9]{6})"
_ATTEMPT = rf"{_GENERATION}/a/(?P<number>[0-9]{{6}})"
_FORMS: Mapping[KeyKind, str] = {
    KeyKind.NAME: rf"names/(?P<name>{NAME_PATTERN})",
    KeyKind.RUN: rf"runs/{_RUN}/run\.json",
    KeyKind.STOP: rf"runs/{_RUN}/stop/(?P<name>{ALL_WORKFLOWS}|{NAME_PATTERN})",
    KeyKind.OUTCOME: rf"runs/{_RUN}/jobs/(?P<name>{NAME_PATTERN})",
    KeyKind.FINAL: rf"runs/{_RUN}/final",
    KeyKind.WHY: rf"{_GENERATION}/why",
    KeyKind.WANT: rf"{_GENERATION}/wants/{_RUN}",
    KeyKind.PIN: rf"{_GENERATION}/pins/(?P<name>{NAME_PATTERN})",
    KeyKind.USER: rf"{_GENERATION}/users/(?P<name>[0-9]{{6}})",
    KeyKind.TOMB: rf"{_GENERATION}/tomb",
    KeyKind.CLAIM: rf"{_GENERATION}/claim/(?P<number>[0-9]{{6}})",
    KeyKind.RESULT: rf"{_GENERATION}/result",
    KeyKind.OWNER: rf"{_ATTEMPT}/owner/[0-9]{{6}}",
    KeyKind.STARTED: rf"{_ATTEMPT}/started",
    KeyKind.LOG: rf"{_ATTEMPT}/log/(?P<name>[0-9a-f]{{16}})",
    KeyKind.DATA: rf"{_ATTEMPT}/data/(?P<name>[0-9a-f]{{64}})",
    KeyKind.MANIFEST: rf"{_ATTEMPT}/manifest",
    KeyKind.END: rf"{_ATTEMPT}/end",
    KeyKind.GONE: rf"{_ATTEMPT}/gone",
    KeyKind.HEARTBEAT: rf"coordinators/(?P<name>{NAME_PATTERN})/hb",
    KeyKind.PRESENCE: rf"runs/{_RUN}/coordinators/(?P<name>{NAME_PATTERN})",
    KeyKind.PERSON: rf"people/(?P<name>[A-Za-z0-9._=@-]{{1,200}})/{_RUN}",
    KeyKind.INVENTORY: r"hosts/(?P<name>[0-9]{6})",
    KeyKind.DIFF: r"code/(?P<name>[0-9a-f]{40,64})/diff",
    KeyKind.FILES: r"code/(?P<name>[0-9a-f]{64})/files",
    KeyKind.TAG: rf"tags/(?P<name>{NAME_PATTERN})/[0-9]+",
}
PROJECT_FOLDERS = frozenset(f"{form.partition('/')[0]}/" for form in _FORMS.values())
"""The folders directly below a project in which dstack writes."""
_NUMBER = re.compile(r"[0-9]{6}", re.ASCII)


@cache
def _readers() -> tuple[tuple[KeyKind, Callable[[str], re.Match[str] | None]], ...]:
    # Compiled at the first key: commands that parse none start faster.
    return tuple((kind, re.compile(form, re.ASCII).fullmatch) for kind, form in _FORMS.items())


def parse_key(key: str) -> ParsedKey:
    """The parts of `key`, given without the leading `projects/<p>/`; UNKNOWN for keys this version never writes."""
    for kind, matches in _readers():
        found = matches(key)
        if found is not None:
            parts = found.groupdict()
            return ParsedKey(
                kind=kind,
                run=parts.get("run") or "",
                fingerprint=parts.get("fingerprint") or "",
                generation=int(parts.get("generation") or 0),
                number=int(parts.get("number") or 0),
                name=parts.get("name") or "",
            )
    return ParsedKey(kind=KeyKind.UNKNOWN)


def kind_of(project: ProjectKeys, key: str) -> KeyKind:
    """The kind of a whole key; UNKNOWN also for the key of another project."""
    return parse_key(key.removeprefix(project.root)).kind if key.startswith(project.root) else KeyKind.UNKNOWN


def attempt_in(project: ProjectKeys, folder: str) -> AttemptKeys | None:
    """The attempt whose folder this is; None for any other folder and for an attempt of another project."""
    if not folder.startswith(project.root):
        return None
    found = re.fullmatch(f"{_ATTEMPT}/", folder.removeprefix(project.root), re.ASCII)
    if found is None:
        return None
    return project.job(Fingerprint(found["fingerprint"]), int(found["generation"])).attempt(int(found["number"]))


def numbers(names: Iterable[str]) -> list[int]:
    """The numbers of generations or attempts among the last parts of listed keys, ascending.

    Other names are left out: anyone with access to the bucket may have put anything there.
    """
    # Names of folders end in a slash, names of objects do not.
    parts = (name.rstrip("/").rpartition("/")[2] for name in names)
    # The pattern comes first: int() takes other digits than 0-9, and texts of any length.
    return sorted(int(part) for part in parts if _NUMBER.fullmatch(part))


def log_offset(key: str) -> int:
    """The byte at which the log piece under `key` begins; `key` is of the kind LOG."""
    return int(key.rpartition("/")[2], 16)


def inventory_number(name: str) -> int | None:
    """The number of a shared inventory by the name in its folder; None for another name."""
    return 10**6 - int(name) if _NUMBER.fullmatch(name) else None


def takes_attempt(key: str) -> bool:
    """Whether the creation of `key` makes an attempt a coordinator's own: a claim, or an adoption."""
    return "/claim/" in key or "/owner/" in key


def sort_of(kind: KeyKind) -> str:
    """ARTIFACTS, LOGS, CODE or RECORDS."""
    return SORT_OF_KIND.get(kind, RECORDS)
