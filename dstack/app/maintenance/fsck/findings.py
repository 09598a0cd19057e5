"""The findings of `dstack fsck`, and the tools of its checks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dstack.app.effects.catalogue import BucketPerformer
from dstack.app.effects.steps import Steps
from dstack.core.format.key_parser import KeyKind, parse_key
from dstack.core.format.keys import ProjectKeys
from dstack.core.format.records import (
    Claim,
    Coordinator,
    End,
    Final,
    Gone,
    Inventory,
    Outcome,
    Owner,
    Pin,
    Result,
    RunRecord,
    Started,
    Stop,
    Tomb,
    User,
    Want,
    Why,
    unpack,
)
from dstack.errors import BucketError
from dstack.ports import Bucket, Listed

RECORD_CLASSES: Mapping[KeyKind, type[Any]] = {
    KeyKind.RUN: RunRecord,
    KeyKind.STOP: Stop,
    KeyKind.OUTCOME: Outcome,
    KeyKind.FINAL: Final,
    KeyKind.WHY: Why,
    KeyKind.WANT: Want,
    KeyKind.PIN: Pin,
    KeyKind.USER: User,
    KeyKind.TOMB: Tomb,
    KeyKind.CLAIM: Claim,
    KeyKind.OWNER: Owner,
    KeyKind.STARTED: Started,
    KeyKind.END: End,
    KeyKind.GONE: Gone,
    KeyKind.RESULT: Result,
    KeyKind.PRESENCE: Coordinator,
    KeyKind.INVENTORY: Inventory,
}
SETTLING_S = 60.0
"""Seconds from one record of a coordinator to its next record before the absence is told."""
FORSAKEN_NAME_S = 24 * 3600.0
"""Seconds after which a name without a run no longer counts as a submission under way."""

Repair = Callable[[], Steps[BucketPerformer, None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One fault: its key and its meaning. `repair` derives the right state from the other objects; `remedy` describes
    the repair in words. None where nothing can be derived."""

    key: str
    meaning: str
    remedy: str = ""
    repair: Repair | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The tools of a check. `deep`: every byte of artifacts is read and hashed."""

    bucket: Bucket
    keys: ProjectKeys
    now: float
    deep: bool = False

    def old(self, each: Listed, seconds: float) -> bool:
        return self.now - each.modified > seconds


class Records:
    """The records below a folder, decoded; every undecodable record is a finding."""

    def __init__(self, check: Check, listed: Iterable[Listed]) -> None:
        self._check = check
        self.listed = {each.key: each for each in listed}
        self.found: dict[KeyKind, dict[str, Any]] = {}
        self.findings: list[Finding] = []
        for key in self.listed:
            place = parse_key(key.removeprefix(check.keys.root))
            if place.kind is KeyKind.UNKNOWN:
                self.wrong(key, "no dstack of this version writes this key")
            elif place.kind in RECORD_CLASSES:
                self._read(key, place.kind)

    def of(self, kind: KeyKind) -> dict[str, Any]:
        """Key -> record of all records of a kind."""
        return self.found.get(kind, {})

    def lacks(self, key: str) -> bool:
        """Whether the record is absent; a record missing from the list is asked for by key."""
        return key not in self.listed and self._check.bucket.get(key) is None

    def wrong(self, key: str, meaning: str, *, remedy: str = "", repair: Repair | None = None) -> None:
        self.findings.append(Finding(key=key, meaning=meaning, remedy=remedy, repair=repair))

    def _read(self, key: str, kind: KeyKind) -> None:
        body = self._check.bucket.get(key)
        if body is None:
            return  # it went since the list
        try:
            self.found.setdefault(kind, {})[key] = unpack(RECORD_CLASSES[kind], key, body)
        except BucketError as error:
            self.wrong(key, error.detail)
