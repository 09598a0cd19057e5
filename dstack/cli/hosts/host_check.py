"""Connects to hosts for `dstack hosts add` and `check`: keys, and what a host has."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from dstack.adapters.bucket.registry import is_path
from dstack.adapters.bucket.remote_errors import redact_url
from dstack.adapters.ssh.known_hosts import ChangedKeyError, PublicKey, RevokedKeyError
from dstack.app.maintenance.bucket_probe import check_format, writable
from dstack.app.maintenance.bucket_trial import try_bucket
from dstack.cli.hosts.ask import Answer, ask_hosts
from dstack.core.handover import unseen_text
from dstack.core.placement import slots_of
from dstack.errors import BucketError, DstackError, HostKeyError
from dstack.model import Gpu, Host, HostFacts
from dstack.ports import RunnerPort
from dstack.session.handover import HostCoordinators
from dstack.session.hosts import HostOpener
from dstack.session.session import Session
from dstack.ui.tables import Column, notes, screen_width, size_text, table_lines, use_colour
from dstack.ui.terminal import clean

MAX_HOPS = 16
LITTLE_DISK = 5_000_000_000
UNFIT = 5
SLOTS = "/var/lib/dstack-slots"
MOUNT = "mount it there at the same path, or name a storage that all machines reach (docs/how-to/share-a-bucket.md)"
RIGHTS = "give the account the right to read and write there (docs/how-to/share-a-bucket.md)"
AWAKE = "its jobs need this machine to be awake; see docs/how-to/shut-the-laptop.md"
_COLUMNS = (
    Column(title="HOST", floor=8),
    Column(title="STATE"),
    Column(title="TOOLS", floor=13, wraps=True),
    Column(title="CPUS", right=True, floor=4),
    Column(title="MEMORY", right=True),
    Column(title="GPUS", floor=7, wraps=True),
    Column(title="SLOTS", right=True, floor=5),
    Column(title="DISK", right=True),
    Column(title="BUCKET", floor=10, wraps=True),
)


def confirm_keys(inventory: Sequence[Host], host: Host, fingerprints: Sequence[str]) -> None:
    """Ask about every key on the way to `host` that nobody confirmed, keep the confirmed ones, and log in.

    `fingerprints` are confirmed without asking. Raises HostKeyError when one is not confirmed, HostUnreachableError
    when the host cannot be reached or lets nobody in.
    """
    asyncio.run(_confirm_keys({str(known.name): known for known in (*inventory, host)}, host, fingerprints))


async def _confirm_keys(inventory: dict[str, Host], host: Host, fingerprints: Sequence[str]) -> None:
    from dstack.adapters.ssh.connections import SshHosts

    async with SshHosts(inventory, note=_note) as connections:
        for _ in range(MAX_HOPS):
            unknown = await connections.scan_key(host)
            if not unknown:
                return
            for key in unknown:
                if fingerprints and key.fingerprint not in fingerprints:
                    raise HostKeyError(
                        clean(f"{key.host} shows the key {key.fingerprint}, not {' or '.join(fingerprints)}"),
                        hint="look at its key on the host itself before you trust it; nothing was sent or written",
                    )
                _decide(key.host, key.key, confirmed=bool(fingerprints))
                connections.confirm(key)
    detail = "too many unconfirmed hosts on the way"
    raise HostKeyError(f"{host.name}: {detail}", hint="look at its jump hosts", detail=detail)


def _decide(host: str, key: PublicKey, *, confirmed: bool) -> None:
    """Return when the key is confirmed, raise HostKeyError when it is not."""
    if confirmed:
        return
    told = clean(f"{host} shows the key {key.algorithm} {key.fingerprint}")
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise HostKeyError(
            f"{told}, which nobody confirmed",
            hint=f"compare it with `ssh-keygen -lf` on the host, then: dstack hosts add … --yes {key.fingerprint}",
        )
    sys.stderr.write(f"{told}\n  on the host: ssh-keygen -lf /etc/ssh/ssh_host_{_kind(key.algorithm)}_key.pub\n")
    # The event loop would keep Ctrl-C for later, and this waits in the middle of it: from before the question is seen.
    kept = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        sys.stderr.write("Is this the key of that host? [y/N] ")
        sys.stderr.flush()
        answer = sys.stdin.readline()
    finally:
        signal.signal(signal.SIGINT, kept)
    if answer.strip().lower() not in ("y", "yes"):
        detail = "its key was not confirmed"
        raise HostKeyError(f"{host}: {detail}", hint="nothing was sent and nothing was written", detail=detail)


def _kind(algorithm: str) -> str:
    return next((kind for kind in ("ed25519", "ecdsa", "rsa") if kind in algorithm), "*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a host has, and as whom it sees the bucket: "" where it does not; then why and what helps, where that is
    worth a line: the default folder is one of this machine's.

    `trouble` is what the account cannot do with a bucket that is there. `fresh` is a bucket that is not in use as seen
    from this machine either.
    """

    facts: HostFacts
    who: str = ""
    unseen: str = ""
    help: str = ""
    trouble: str = ""
    fresh: bool = False


class Looks:
    """Asks hosts what they have and see."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def at(self, host: Host, runner: RunnerPort, opener: HostOpener) -> Seen:
        """One host; that it does not see the bucket is no error, for most buckets are folders of one machine."""
        facts = await runner.facts()
        if host.local:
            return await asyncio.to_thread(self._here, facts)
        sight, bucket = HostCoordinators(self._session, opener), self._session.settings.bucket
        try:
            seeing = await sight.look(host, facts)
            if seeing.used:
                return Seen(facts=facts, who=seeing.who, trouble=seeing.trouble)
            if await self._is_fresh():
                return Seen(facts=facts, who=seeing.who, fresh=True)
            return Seen(facts=facts, unseen=unseen_text(redact_url(bucket)))
        except DstackError as error:
            if is_path(bucket) and await self._is_fresh():
                return Seen(facts=facts, fresh=True)
            if not self._session.settings.is_chosen:
                return Seen(facts=facts)
            fix = error.hint or (MOUNT if is_path(bucket) else "")
            return Seen(facts=facts, unseen=error.detail, help=fix)
        finally:
            await sight.close()

    def _here(self, facts: HostFacts) -> Seen:
        """This machine, by a real read and write; a bucket that is not used yet is not written to."""
        try:
            if not writable(self._session.bucket):
                return Seen(facts=facts, who=facts.user)
        except BucketError as error:
            return Seen(facts=facts, trouble=str(error), help=error.hint or "")
        try:
            try_bucket(self._session.bucket, os.urandom(16).hex())
        except BucketError as error:
            return Seen(facts=facts, who=facts.user, trouble=str(error), help=error.hint or "")
        return Seen(facts=facts, who=facts.user)

    async def _is_fresh(self) -> bool:
        """Whether nobody has used the bucket as seen from here; nothing is written to find out."""

        def look() -> bool:
            try:
                return check_format(self._session.bucket) is None
            except BucketError:
                return False

        return await asyncio.to_thread(look)


def report(session: Session, hosts: Sequence[Host]) -> int:
    """Print what every host has and each problem with its way out -> exit code, that of the worst."""
    found = ask_hosts(session, hosts, Looks(session).at)
    width = screen_width(sys.stdout)
    sys.stdout.write("\n".join(host_lines(found, width=width, colour=use_colour(sys.stdout))) + "\n")
    for problem, fix, names in told_once(found):
        told = [f"{', '.join(names)}: {problem}", *([f"  {fix}"] if fix else [])]
        sys.stdout.write("\n" + notes(told, sys.stdout))
    code = max((_code(each) for each in found), default=0)
    if any(each.said is not None and each.said.fresh for each in found):
        bucket = clean(redact_url(session.settings.bucket))
        told = [f"the bucket {bucket} is not used yet", f"  dstack init --bucket {bucket}    tries it"]
        sys.stdout.write("\n" + notes(told, sys.stdout))
    if session.settings.is_chosen:
        sys.stdout.write(_missing(session))
    return code


def _missing(session: Session) -> str:
    """That the folder of the bucket is not there; "" where it is, and where the bucket is no folder."""
    try:
        session.require_folder()
    except BucketError as error:
        return "\n" + notes([str(error), f"  {error.hint}"], sys.stdout)
    return ""


def host_lines(found: Sequence[Answer[Seen]], *, width: int, colour: bool = False) -> list[str]:
    """A title and what each host has, in lines of at most `width` columns; names alone may be cut."""
    return table_lines(_COLUMNS, [_row(each) for each in found], width=width, colour=colour)


def told_once(found: Sequence[Answer[Seen]]) -> list[tuple[str, str, list[str]]]:
    """Each problem with its way out and the hosts that have it, in the order in which they come up."""
    told: dict[tuple[str, str], list[str]] = {}
    for each in found:
        for problem in problems(each):
            told.setdefault(problem, []).append(each.host.name)
    return [(problem, fix, names) for (problem, fix), names in told.items()]


def problems(found: Answer[Seen]) -> list[tuple[str, str]]:
    """What is wrong with a host, and what to do about it, the worst first."""
    if found.error is not None:
        message = found.error.detail
        return [(message, found.error.hint or "")]
    facts = found.said.facts if found.said is not None else None
    told = []
    if facts is not None and not facts.git:
        told.append(("no git, so no code can be laid there", "install git on it, e.g. `apt-get install git`"))
    if facts is not None and not facts.docker:
        told.append(
            (
                f"Docker does not answer user {facts.user}: workflows with `image:` cannot run",
                "install Docker, or add the user to the group docker; nothing to do without `image:`",
            )
        )
    if facts is not None and not facts.shared_slots and not found.host.local:
        told.append(
            (
                "jobs of other accounts are not counted in its slots",
                f"for all accounts, once as root: install -d -m 1777 {SLOTS} && install -m 0444 /dev/null {SLOTS}/lock",
            )
        )
    if facts is not None and facts.disk_free < LITTLE_DISK:
        told.append(
            (f"only {size_text(facts.disk_free)} free below {facts.dir}", "make room, or set `dir:` to a larger disk")
        )
    if found.said is not None and found.said.trouble:
        lacks = "can read the bucket, and not write to it" if found.said.who else "cannot read the bucket"
        told.append((f"its account {lacks}: {found.said.trouble}", found.said.help or RIGHTS))
    if found.said is not None and found.said.unseen:
        fix = f"{found.said.help}; until then {AWAKE}" if found.said.help else AWAKE
        told.append((found.said.unseen, fix))
    return told


def _code(found: Answer[Seen]) -> int:
    if found.error is not None:
        return found.error.exit_code
    if found.said is None:
        return 0
    if found.said.trouble:
        return BucketError.exit_code
    return 0 if found.said.facts.git else UNFIT


def _row(found: Answer[Seen]) -> tuple[str, ...]:
    if found.said is None:
        return (found.host.name, _failure(found.error), *["-"] * 7)
    facts = found.said.facts
    return (
        found.host.name,
        "ok" if facts.git and not found.said.trouble else "unfit",
        _tools(facts),
        str(facts.cpus),
        size_text(facts.memory),
        _gpus(facts.gpus),
        str(slots_of(found.host, facts)),
        size_text(facts.disk_free),
        _bucket(found.said),
    )


def _tools(facts: HostFacts) -> str:
    """`Python 3.11.2, git 2.39.5, no Docker`."""
    git = f"git {facts.git.removeprefix('git version ')}" if facts.git else "no git"
    return f"Python {facts.python}, {git}, {'Docker' if facts.docker else 'no Docker'}"


def _bucket(seen: Seen) -> str:
    """How the account of a host sees the bucket: `yes (alice)`, `read only`, `no`."""
    if seen.trouble:
        return "read only" if seen.who else "no"
    if seen.fresh and not seen.who:
        return "not used yet"
    return f"yes ({seen.who})" if seen.who else "no"


def _failure(error: DstackError | None) -> str:
    """The state of a host that could not be asked, in a word or two: an unknown key is no changed one."""
    match error:
        case ChangedKeyError():
            return "key CHANGED"
        case RevokedKeyError():
            return "key REVOKED"
        case HostKeyError():
            return "no key"
    return "failed"


def _gpus(gpus: Sequence[Gpu]) -> str:
    """`2 × NVIDIA A100 80 GB`, "-" without any."""
    kinds: dict[tuple[str, int], int] = {}
    for gpu in gpus:
        kind = (gpu.name or "GPU", gpu.memory or 0)
        kinds[kind] = kinds.get(kind, 0) + gpu.count
    texts = [f"{count} × {name}{' ' + size_text(memory) if memory else ''}" for (name, memory), count in kinds.items()]
    return ", ".join(texts) or "-"


def _note(text: str) -> None:
    sys.stderr.write(clean(text) + "\n")
