"""What a host answers, checked before it is believed: pure functions from JSON to model values."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from dstack import wire
from dstack.adapters.runner.start import opening
from dstack.bounds import LATEST, Few
from dstack.core.artifacts.manifests import MAX_ENTRIES, BadManifestError, entry_from_wire, manifest_of
from dstack.core.format.codec import build
from dstack.errors import BucketError, HostError
from dstack.model import Entry, ExitReport, HostFacts, HostQueue, Manifest, Spooled

T = TypeVar("T")

MAX_LINE = 1 << 20
"""Bytes of one entry of a manifest as it comes over the wire."""
MAX_TEXT = 4096
"""Characters of any one text of a host's but its messages."""
MAX_SIZE = 2**63 - 1

_HINT = "something other than dstack's runner answers there, or its files are damaged"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptStatus:
    """What a host knows of one attempt. `state` is one of `wire.STATES`, `log` the bytes of its log so far."""

    state: str
    log: int
    exit: ExitReport | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Spool:
    attempts: Few[Spooled]


def facts(host: str, answer: Mapping[str, Any]) -> HostFacts:
    """The answer to `hello`; raises HostError when it speaks another wire version or makes no sense."""
    spoken = answer.get("wire")
    if spoken != wire.WIRE_VERSION:
        _other_version(host, spoken)
    gpus = answer.get("gpus")
    if not isinstance(gpus, list) or not all(isinstance(gpu, dict) for gpu in gpus):
        _nonsense(host, "hello", "gpus is not a list of objects")
    found = _built(HostFacts, host, "hello", {**answer, "gpus": [{**gpu, "count": 1} for gpu in gpus]})
    if not found.dir.startswith("/"):
        _nonsense(host, "hello", "dir is not absolute")
    return found


def exit_report(host: str, op: str, value: object) -> ExitReport:
    """The `exit` of an answer; raises HostError when it is none."""
    report = _built(ExitReport, host, op, value)
    if report.code is None and report.signal is None and not report.reason:
        _nonsense(host, op, "an exit has neither code nor signal nor reason")
    if len(report.log_lost) > MAX_TEXT or not report.log_lost.isprintable():
        _nonsense(host, op, "a text is too long or holds control characters")
    return report


def status(host: str, answer: Mapping[str, Any]) -> AttemptStatus:
    state, log, ended = answer.get("state"), answer.get("log"), answer.get("exit")
    if state not in wire.STATES:
        _nonsense(host, wire.STATUS, "state is unknown")
    report = None if ended is None else exit_report(host, wire.STATUS, ended)
    return AttemptStatus(state=str(state), log=whole(host, wire.STATUS, log), exit=report)


def spool(host: str, answer: Mapping[str, Any]) -> list[Spooled]:
    attempts = _built(_Spool, host, wire.SPOOL, answer).attempts
    if not all(wire.is_nonce(each.nonce) and each.state in wire.STATES for each in attempts):
        _nonsense(host, wire.SPOOL, "an attempt is none")
    return list(attempts)


def queue(host: str, answer: Mapping[str, Any]) -> HostQueue:
    """The answer to `queue`; raises HostError for one that makes no sense."""
    tickets = answer.get("tickets")
    if not isinstance(tickets, list):
        _nonsense(host, wire.QUEUE, "tickets is not a list")
    return _built(HostQueue, host, wire.QUEUE, {**answer, "entries": [_ticket(item) for item in tickets]})


def last_line(data: bytes) -> str:
    """The last of whole lines that a host sent for people, safe to be shown; "" for an empty one."""
    return opening(data.rstrip(b"\n").rpartition(b"\n")[2].decode("utf-8", "replace"), MAX_TEXT)


def _ticket(item: object) -> dict[str, Any]:
    """A ticket of the wire in the fields of a QueueEntry."""
    fields = dict(item) if isinstance(item, dict) else {}
    asked = fields.pop("demand", None)
    demand: Mapping[str, Any] = asked if isinstance(asked, dict) else {}
    count = demand.get("gpus")
    gpu = {"count": count, "name": demand.get("gpu_name"), "memory": demand.get("gpu_memory")} if count else None
    resources = {"cpu": demand.get("cpu"), "memory": demand.get("memory"), "gpu": gpu}
    return {**fields, "resources": resources}


def flag(host: str, op: str, value: object) -> bool:
    if not isinstance(value, bool):
        _nonsense(host, op, "expected true or false")
    return value


def moment(host: str, op: str, value: object) -> float:
    """Seconds since the epoch, above 0 and before LATEST."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < LATEST:
        _nonsense(host, op, "expected a time")
    return float(value)


def whole(host: str, op: str, value: object) -> int:
    """A whole number from 0 to MAX_SIZE."""
    if type(value) is not int or not 0 <= value <= MAX_SIZE:
        _nonsense(host, op, "expected a whole number")
    return value


def choice(host: str, op: str, value: object, options: Iterable[str]) -> str:
    if not isinstance(value, str) or value not in options:
        _nonsense(host, op, "expected one of " + ", ".join(options))
    return value


def subset(host: str, op: str, value: object, asked: Iterable[str]) -> list[str]:
    """Those of `asked` that the host named, in the order of `asked`; it may name no others."""
    order = list(dict.fromkeys(asked))
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        _nonsense(host, op, "expected a list of text")
    named = set(value)
    if not named <= set(order):
        _nonsense(host, op, "it names what it was not asked for")
    return [item for item in order if item in named]


class Listing:
    """Collects a manifest from its lines as they come, in pieces cut anywhere; raises HostError on nonsense."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._entries: list[Entry] = []
        self._rest = bytearray()

    def feed(self, data: bytes) -> None:
        first, newline, more = data.partition(b"\n")
        self._rest += first
        if len(self._rest) > MAX_LINE:
            _nonsense(self._host, wire.MANIFEST, "a line is longer than 1 MiB")
        if not newline:
            return
        *lines, rest = more.split(b"\n")
        if len(self._entries) + len(lines) >= MAX_ENTRIES:
            _nonsense(self._host, wire.MANIFEST, f"it holds more than {MAX_ENTRIES} paths")
        self._entries += [self._entry(line) for line in (bytes(self._rest), *lines)]
        self._rest = bytearray(rest)

    def manifest(self, answer: Mapping[str, Any]) -> Manifest:
        """The whole, once the answer is there."""
        if self._rest:
            _nonsense(self._host, wire.MANIFEST, "the last line has no end")
        partial = flag(self._host, wire.MANIFEST, answer.get("partial"))
        try:
            return manifest_of(self._entries, partial=partial)
        except BadManifestError as error:
            _nonsense(self._host, wire.MANIFEST, str(error))

    def _entry(self, line: bytes) -> Entry:
        try:
            value = json.loads(line.decode("utf-8", "surrogateescape"))
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            _nonsense(self._host, wire.MANIFEST, "a line is no JSON object")
        try:
            return entry_from_wire(value)
        except BadManifestError as error:
            _nonsense(self._host, wire.MANIFEST, str(error))


def _built(cls: type[T], host: str, op: str, value: object) -> T:
    try:
        return build(cls, value, op)
    except BucketError as error:
        raise HostError(host, f"the runner's answer makes no sense: {error}", hint=_HINT) from None


def _nonsense(host: str, op: str, what: str) -> NoReturn:
    raise HostError(host, f"the runner's answer to {op!r} makes no sense: {what}", hint=_HINT)


def _other_version(host: str, spoken: object) -> NoReturn:
    if type(spoken) is not int or not 0 <= spoken <= MAX_SIZE:
        _nonsense(host, wire.HELLO, "it names no wire version")
    ours = wire.WIRE_VERSION
    older = "the runner there is older: update dstack on the machine that started it, or remove the runner folder there"
    raise HostError(
        host,
        f"the runner speaks version {spoken} of the wire, this dstack version {ours}",
        hint="update the dstack on this machine" if spoken > ours else older,
    )
