"""`dstack queue`: the running and waiting jobs of hosts, with reasons."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated

import typer

from dstack.app.coordination.orphans import Orphan, find_orphans
from dstack.cli.command_session import open_session
from dstack.cli.host_questions import ask_hosts
from dstack.core.placement import slots_of
from dstack.errors import BucketError, NotFoundError
from dstack.model import Host, HostQueue, QueueEntry, Resources
from dstack.ports import RunnerPort
from dstack.session.host_answers import HostAnswer
from dstack.session.session import Session
from dstack.ui.tables import Column, notes, size_text, table
from dstack.ui.times import duration_text

ASKED_HOSTS_ARGUMENT = typer.Argument(metavar="[HOST]...", help="Hosts to ask; all by default.")
_COLUMNS = (
    Column(title="HOST", floor=8),
    Column(title="JOB", floor=12),
    Column(title="USER"),
    Column(title="STATE"),
    Column(title="FOR", right=True),
    Column(title="WANTS", floor=8),
    Column(title="WHY", floor=12, wraps=True),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueReport:
    """The queue of a host, and a line for each attempt of this account still running after the recorded end."""

    queue: HostQueue
    orphans: tuple[str, ...] = ()


def queue(
    names: Annotated[list[str] | None, ASKED_HOSTS_ARGUMENT] = None,
    hosts: Annotated[str | None, typer.Option("--hosts", metavar="FILE", help="Inventory to use.")] = None,
) -> int:
    """Show what runs and waits on the hosts, of all their users, in the order in which it is served."""
    session = open_session(hosts_file=hosts)
    inventory = session.inventory()
    for name in names or ():
        if name not in {host.name for host in inventory}:
            raise NotFoundError(f"there is no host {name!r}", hint="`dstack hosts ls` lists the hosts")
    chosen = [host for host in inventory if not names or host.name in names]
    answers = ask_hosts(session, chosen, lambda host, runner, _: _report_queue(host, runner, session))
    rows = [row for answer in answers for row in _rows(answer)]
    if rows:
        sys.stdout.write(table(_COLUMNS, rows, sys.stdout))
    elif answers:
        print("nothing runs or waits")
    sys.stdout.write(notes((line for answer in answers for line in _notes(answer)), sys.stdout))
    for answer in answers:
        if answer.error is not None:
            hint = [f"  {answer.error.hint}"] if answer.error.hint else []
            sys.stderr.write(notes([str(answer.error), *hint], sys.stderr))
    return max((answer.error.exit_code for answer in answers if answer.error is not None), default=0)


async def _report_queue(host: Host, runner: RunnerPort, session: Session) -> QueueReport:
    facts = await runner.facts()
    found = await runner.queue(slots_of(host, facts), host.gpu_shares or 1)
    orphans: list[Orphan] = []
    with suppress(BucketError):  # the queue is the host's: it is shown whether or not the bucket can be read
        orphans = await find_orphans(runner, session.bucket, session.keys) if found.entries else []
    return QueueReport(queue=found, orphans=tuple(f"{host.name}: {orphan.text}" for orphan in orphans))


def _rows(answer: HostAnswer[QueueReport]) -> list[tuple[str, ...]]:
    """The rows of a host; a failed host has a row too, so as not to look idle."""
    if answer.error is not None:
        why = answer.error.detail
        return [(answer.host.name, "-", "-", "failed", "-", "-", why)]
    return [_row(answer.host, entry) for entry in (answer.value.queue.entries if answer.value else ())]


def _row(host: Host, entry: QueueEntry) -> tuple[str, ...]:
    if entry.fault:
        wants = "a slot" if entry.counts else "-"
        return (host.name, "-", entry.user, "malformed", "-", wants, entry.fault)
    state = "waiting" if entry.gpus is None else "running"
    gpus = f"on GPU {', '.join(map(str, entry.gpus))}" if entry.gpus else ""
    wants = wants_text(entry.resources)
    if entry.priority:
        wants = f"{wants}, priority {entry.priority}"
    return (host.name, entry.title or "-", entry.user, state, duration_text(entry.since), wants, entry.why or gpus)


def _notes(answer: HostAnswer[QueueReport]) -> list[str]:
    """Notes about the queue of a host, for people, beside the rows."""
    if answer.value is None:
        return []
    name, host_queue = answer.host.name, answer.value.queue
    notes = list(answer.value.orphans)
    for entry in host_queue.entries:
        if entry.fault:
            takes = "takes a slot" if entry.counts else "takes no slot"
            notes.append(f"{name}: {entry.user} has a file that is no ticket and {takes}: {entry.file}: {entry.fault}")
    if host_queue.more:
        notes.append(f"{name}: and {host_queue.more} more")
    notes += [f"{name}: {reason}, so the queue lies elsewhere" for reason in host_queue.unfit]
    if not host_queue.shared and not answer.host.local:
        notes.append(f"{name}: own account only; `dstack hosts check` says how to see all")
    return notes


def wants_text(resources: Resources) -> str:
    """`a slot, 4 cores, 16 GB, 2 GPUs A100`."""
    parts = ["a slot"]
    if resources.cpu:
        parts.append(f"{resources.cpu} core{'s' if resources.cpu > 1 else ''}")
    if resources.memory:
        parts.append(size_text(resources.memory))
    if resources.gpu:
        kind = f" {resources.gpu.name}" if resources.gpu.name else ""
        parts.append(f"{resources.gpu.count} GPU{'s' if resources.gpu.count > 1 else ''}{kind}")
    return ", ".join(parts)
