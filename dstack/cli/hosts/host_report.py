"""The report of `dstack hosts check`: the condition of each host, and each problem with the way out."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from dstack.adapters.bucket.remote_errors import redact_url
from dstack.adapters.ssh.known_hosts import ChangedKeyError, RevokedKeyError
from dstack.cli.ask_hosts import ask_hosts
from dstack.core.placement import slots_of
from dstack.errors import BucketError, DstackError, HostKeyError
from dstack.model import Gpu, Host, HostFacts
from dstack.session.host_answers import HostAnswer
from dstack.session.host_inspection import HostCondition, HostInspection
from dstack.session.session import Session
from dstack.ui.tables import Column, notes, screen_width, size_text, table_lines, use_colour
from dstack.ui.terminal import clean

LITTLE_DISK_BYTES = 5_000_000_000


UNFIT_HOST_EXIT = 5


SHARE_SLOTS = "install -d -m 1777 /var/lib/dstack-slots && install -m 0444 /dev/null /var/lib/dstack-slots/lock"


GIVE_RIGHTS = "give the account the right to read and write there (docs/how-to/share-a-bucket.md)"


STAY_AWAKE = "its jobs need this machine to be awake; see docs/how-to/shut-the-laptop.md"


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


def report(session: Session, hosts: Sequence[Host]) -> int:
    """Print the condition of every host, and each problem with the way out -> the exit code of the worst problem."""
    found = ask_hosts(session, hosts, HostInspection(session).at)
    width = screen_width(sys.stdout)
    sys.stdout.write("\n".join(host_lines(found, width=width, colour=use_colour(sys.stdout))) + "\n")
    for problem, fix, names in problems_by_hosts(found):
        told = [f"{', '.join(names)}: {problem}", *([f"  {fix}"] if fix else [])]
        sys.stdout.write("\n" + notes(told, sys.stdout))
    code = max((_code(each) for each in found), default=0)
    if any(each.value is not None and each.value.fresh for each in found):
        bucket = clean(redact_url(session.settings.bucket))
        told = [f"the bucket {bucket} is not used yet", f"  dstack init --bucket {bucket}    tries it"]
        sys.stdout.write("\n" + notes(told, sys.stdout))
    if session.settings.is_chosen:
        sys.stdout.write(_missing(session))
    return code


def _missing(session: Session) -> str:
    """A note about a missing folder of the bucket; "" for a present folder, and for every other kind of bucket."""
    try:
        session.storage.require_folder()
    except BucketError as error:
        return "\n" + notes([str(error), f"  {error.hint}"], sys.stdout)
    return ""


def host_lines(found: Sequence[HostAnswer[HostCondition]], *, width: int, colour: bool = False) -> list[str]:
    """A title and the condition of each host, in lines of at most `width` columns; names alone may be cut."""
    return table_lines(_COLUMNS, [_row(each) for each in found], width=width, colour=colour)


def problems_by_hosts(found: Sequence[HostAnswer[HostCondition]]) -> list[tuple[str, str, list[str]]]:
    """Each problem with the way out and the hosts with the problem, in the order of the hosts."""
    told: dict[tuple[str, str], list[str]] = {}
    for each in found:
        for problem in problems(each):
            told.setdefault(problem, []).append(each.host.name)
    return [(problem, fix, names) for (problem, fix), names in told.items()]


def problems(found: HostAnswer[HostCondition]) -> list[tuple[str, str]]:
    """The problems of a host, each with the way out, the worst first."""
    if found.error is not None:
        message = found.error.detail
        return [(message, found.error.hint or "")]
    facts = found.value.facts if found.value is not None else None
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
                f"for all accounts, once as root: {SHARE_SLOTS}",
            )
        )
    if facts is not None and facts.disk_free < LITTLE_DISK_BYTES:
        told.append(
            (f"only {size_text(facts.disk_free)} free below {facts.dir}", "make room, or set `dir:` to a larger disk")
        )
    if found.value is not None and found.value.trouble:
        lacks = "can read the bucket, and not write to it" if found.value.who else "cannot read the bucket"
        told.append((f"its account {lacks}: {found.value.trouble}", found.value.help or GIVE_RIGHTS))
    if found.value is not None and found.value.unseen:
        fix = f"{found.value.help}; until then {STAY_AWAKE}" if found.value.help else STAY_AWAKE
        told.append((found.value.unseen, fix))
    return told


def _code(found: HostAnswer[HostCondition]) -> int:
    if found.error is not None:
        return found.error.exit_code
    if found.value is None:
        return 0
    if found.value.trouble:
        return BucketError.exit_code
    return 0 if found.value.facts.git else UNFIT_HOST_EXIT


def _row(found: HostAnswer[HostCondition]) -> tuple[str, ...]:
    if found.value is None:
        return (found.host.name, _failure(found.error), *["-"] * 7)
    facts = found.value.facts
    return (
        found.host.name,
        "ok" if facts.git and not found.value.trouble else "unfit",
        _tools(facts),
        str(facts.cpus),
        size_text(facts.memory),
        _gpus(facts.gpus),
        str(slots_of(found.host, facts)),
        size_text(facts.disk_free),
        _bucket(found.value),
    )


def _tools(facts: HostFacts) -> str:
    """`Python 3.11.2, git 2.39.5, no Docker`."""
    git = f"git {facts.git.removeprefix('git version ')}" if facts.git else "no git"
    return f"Python {facts.python}, {git}, {'Docker' if facts.docker else 'no Docker'}"


def _bucket(seen: HostCondition) -> str:
    """How the account of a host sees the bucket: `yes (alice)`, `read only`, `no`."""
    if seen.trouble:
        return "read only" if seen.who else "no"
    if seen.fresh and not seen.who:
        return "not used yet"
    return f"yes ({seen.who})" if seen.who else "no"


def _failure(error: DstackError | None) -> str:
    """The state of a host without an answer, in a word or two: a changed key is more than an unknown key."""
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
