"""The answers of a host as values of the model."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from dstack import wire
from dstack.adapters.runner.channel import nonsense_error
from dstack.adapters.runner.start import first_words
from dstack.core.artifacts.manifests import MAX_MANIFEST_ENTRIES, BadManifestError, entry_from_wire, manifest_of
from dstack.errors import HostError
from dstack.model import (
    Entry,
    ExitReport,
    Gpu,
    HostFacts,
    HostQueue,
    Manifest,
    Nonce,
    QueueEntry,
    Resources,
    Spooled,
)
from dstack.wire.host_messages import HelloAnswer, QueueAnswer, SpoolAnswer, TicketAnswer
from dstack.wire.job_messages import ExitRecord, ManifestAnswer, StatusAnswer

MAX_LINE = 1 << 20
"""Bytes of an entry of a manifest on the wire."""
MAX_TEXT = 4096
"""Characters of a host's line for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptStatus:
    """The state of an attempt on its host. `state` is a word of `wire.STATES`, `log` the bytes of the log so far."""

    state: str
    log: int
    exit: ExitReport | None


def facts(host: str, answer: HelloAnswer) -> HostFacts:
    """The answer to `hello`; raises HostError where the folder of dstack is no path."""
    if not answer.dir.startswith("/"):
        raise nonsense_error(host, wire.HELLO, "dir is not absolute")
    return HostFacts(
        boot_id=answer.boot_id,
        hostname=answer.hostname,
        user=answer.user,
        uid=answer.uid,
        python=answer.python,
        platform=answer.platform,
        cpus=answer.cpus,
        memory=answer.memory,
        gpus=tuple(Gpu(count=1, name=gpu.name, memory=gpu.memory) for gpu in answer.gpus),
        git=answer.git,
        docker=answer.docker,
        disk_free=answer.disk_free,
        dir=answer.dir,
        shared_slots=answer.shared_slots,
        place=answer.place,
        machine=answer.machine,
    )


def exit_report(host: str, op: str, record: ExitRecord) -> ExitReport:
    """The `exit` of an answer; raises HostError for an end without code, signal and reason."""
    if record.code is None and record.signal is None and not record.reason:
        raise nonsense_error(host, op, "an exit has neither code nor signal nor reason")
    return ExitReport(
        code=record.code,
        signal=record.signal,
        stopped=record.stopped,
        reason=record.reason,
        missing=record.missing,
        started=record.started,
        ended=record.ended,
        log_lost=record.log_lost,
        vanished=bool(record.vanished),
    )


def status(host: str, answer: StatusAnswer) -> AttemptStatus:
    report = None if answer.exit is None else exit_report(host, wire.STATUS, answer.exit)
    return AttemptStatus(state=answer.state, log=answer.log, exit=report)


def spool(answer: SpoolAnswer) -> list[Spooled]:
    return [Spooled(nonce=Nonce(each.nonce), state=each.state, attempt=each.attempt) for each in answer.attempts]


def queue(answer: QueueAnswer) -> HostQueue:
    entries = tuple(_entry(ticket) for ticket in answer.tickets)
    return HostQueue(entries=entries, shared=answer.shared, more=answer.more, unfit=answer.unfit)


def _entry(ticket: TicketAnswer) -> QueueEntry:
    asked = ticket.demand
    gpu = Gpu(count=asked.gpus, name=asked.gpu_name, memory=asked.gpu_memory) if asked.gpus else None
    return QueueEntry(
        title=ticket.title,
        user=ticket.user,
        priority=ticket.priority,
        since=ticket.since,
        gpus=ticket.gpus,
        why=ticket.why,
        resources=Resources(cpu=asked.cpu, memory=asked.memory, gpu=gpu),
        fault=ticket.fault or "",
        file=ticket.file or "",
        counts=ticket.counts is not False,
    )


def last_line(data: bytes) -> str:
    """The last whole line of a host's lines for people, safe to be shown; "" for an empty line."""
    return first_words(data.rstrip(b"\n").rpartition(b"\n")[2].decode("utf-8", "replace"), MAX_TEXT)


def subset(host: str, op: str, named: Iterable[str], asked: Iterable[str]) -> list[str]:
    """The items of `asked` that the host named, in the order of `asked`; raises HostError where the host named
    others."""
    order, given = list(dict.fromkeys(asked)), set(named)
    if not given <= set(order):
        raise nonsense_error(host, op, "it names what it was not asked for")
    return [item for item in order if item in given]


class Listing:
    """Collects a manifest from pieces cut anywhere; raises HostError on nonsense."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._entries: list[Entry] = []
        self._rest = bytearray()

    def feed(self, data: bytes) -> None:
        first, newline, more = data.partition(b"\n")
        self._rest += first
        # Before the end of the line has come: an endless line must not fill the memory here.
        if len(self._rest) > MAX_LINE:
            raise nonsense_error(self._host, wire.MANIFEST, "a line is longer than 1 MiB")
        if not newline:
            return
        *lines, rest = more.split(b"\n")
        if len(self._entries) + len(lines) >= MAX_MANIFEST_ENTRIES:
            raise nonsense_error(self._host, wire.MANIFEST, f"it holds more than {MAX_MANIFEST_ENTRIES} paths")
        self._entries += [self._entry(line) for line in (bytes(self._rest), *lines)]
        self._rest = bytearray(rest)

    def manifest(self, answer: ManifestAnswer) -> Manifest:
        """The whole, once the answer is there."""
        if self._rest:
            raise nonsense_error(self._host, wire.MANIFEST, "the last line has no end")
        try:
            return manifest_of(self._entries, partial=answer.partial)
        except BadManifestError as error:
            raise nonsense_error(self._host, wire.MANIFEST, str(error)) from None

    def _entry(self, line: bytes) -> Entry:
        try:
            value = json.loads(line.decode("utf-8", "surrogateescape"))
        except (ValueError, RecursionError):
            # The decoder recurses, and a host may nest lists without an end.
            value = None
        if not isinstance(value, dict):
            raise nonsense_error(self._host, wire.MANIFEST, "a line is no JSON object")
        try:
            return entry_from_wire(value)
        except BadManifestError as error:
            raise nonsense_error(self._host, wire.MANIFEST, str(error)) from None


def other_version(host: str, spoken: int) -> HostError:
    """The error for a runner that speaks another version of the wire."""
    ours = wire.WIRE_VERSION
    older = "the runner there is older: update dstack on the machine that started it, or remove the runner folder there"
    return HostError(
        host,
        f"the runner speaks version {spoken} of the wire, this dstack version {ours}",
        hint="update the dstack on this machine" if spoken > ours else older,
    )
