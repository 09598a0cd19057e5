"""The report of `dstack hosts check`: the condition of each host, and each problem with the way out."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from dstack.adapters.bucket.remote_errors import redact_url
from dstack.adapters.ssh.known_hosts import ChangedKeyError, RevokedKeyError
from dstack.cli.host_questions import ask_hosts
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


# 1777: every account makes tickets there, and removes its own alone. An flock needs no right to write.
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
    answers = ask_hosts(session, hosts, HostInspection(session).at)
    width = screen_width(sys.stdout)
    sys.stdout.write("\n".join(host_lines(answers, width=width, colour=use_colour(sys.stdout))) + "\n")
    for problem, fix, names in problems_by_hosts(answers):
        lines = [f"{', '.join(names)}: {problem}", *([f"  {fix}"] if fix else [])]
        sys.stdout.write("\n" + notes(lines, sys.stdout))
    code = max((_code(answer) for answer in answers), default=0)
    if any(answer.value is not None and answer.value.fresh for answer in answers):
        bucket = clean(redact_url(session.settings.bucket))
        lines = [f"the bucket {bucket} is not used yet", f"  dstack init --bucket {bucket}    tries it"]
        sys.stdout.write("\n" + notes(lines, sys.stdout))
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


def host_lines(answers: Sequence[HostAnswer[HostCondition]], *, width: int, colour: bool = False) -> list[str]:
    """A title and the condition of each host, in lines of at most `width` columns; names alone may be cut."""
    return table_lines(_COLUMNS, [_row(answer) for answer in answers], width=width, colour=colour)


def problems_by_hosts(answers: Sequence[HostAnswer[HostCondition]]) -> list[tuple[str, str, list[str]]]:
    """Each problem with the way out and the hosts with the problem, in the order of the hosts."""
    hosts_by_problem: dict[tuple[str, str], list[str]] = {}
    for answer in answers:
        for problem in problems(answer):
            hosts_by_problem.setdefault(problem, []).append(answer.host.name)
    return [(problem, fix, names) for (problem, fix), names in hosts_by_problem.items()]


def problems(answer: HostAnswer[HostCondition]) -> list[tuple[str, str]]:
    """The problems of a host, each with the way out, the worst first."""
    if answer.error is not None:
        message = answer.error.detail
        return [(message, answer.error.hint or "")]
    facts = answer.value.facts if answer.value is not None else None
    listed = []
    if facts is not None and not facts.git:
        listed.append(("no git, so no code can be laid there", "install git on it, e.g. `apt-get install git`"))
    if facts is not None and not facts.docker:
        listed.append(
            (
                f"Docker does not answer user {facts.user}: workflows with `image:` cannot run",
                "install Docker, or add the user to the group docker; nothing to do without `image:`",
            )
        )
    if facts is not None and not facts.shared_slots and not answer.host.local:
        listed.append(
            (
                "jobs of other accounts are not counted in its slots",
                f"for all accounts, once as root: {SHARE_SLOTS}",
            )
        )
    if facts is not None and facts.disk_free < LITTLE_DISK_BYTES:
        listed.append(
            (f"only {size_text(facts.disk_free)} free below {facts.dir}", "make room, or set `dir:` to a larger disk")
        )
    if answer.value is not None and answer.value.trouble:
        lacks = "can read the bucket, and not write to it" if answer.value.who else "cannot read the bucket"
        listed.append((f"its account {lacks}: {answer.value.trouble}", answer.value.help or GIVE_RIGHTS))
    if answer.value is not None and answer.value.unseen:
        fix = f"{answer.value.help}; until then {STAY_AWAKE}" if answer.value.help else STAY_AWAKE
        listed.append((answer.value.unseen, fix))
    return listed


def _code(answer: HostAnswer[HostCondition]) -> int:
    if answer.error is not None:
        return answer.error.exit_code
    if answer.value is None:
        return 0
    if answer.value.trouble:
        return BucketError.exit_code
    return 0 if answer.value.facts.git else UNFIT_HOST_EXIT


def _row(answer: HostAnswer[HostCondition]) -> tuple[str, ...]:
    if answer.value is None:
        return (answer.host.name, _failure(answer.error), *["-"] * 7)
    facts = answer.value.facts
    return (
        answer.host.name,
        "ok" if facts.git and not answer.value.trouble else "unfit",
        _tools(facts),
        str(facts.cpus),
        size_text(facts.memory),
        _gpus(facts.gpus),
        str(slots_of(answer.host, facts)),
        size_text(facts.disk_free),
        _bucket(answer.value),
    )


def _tools(facts: HostFacts) -> str:
    """`Python 3.11.2, git 2.39.5, no Docker`."""
    git = f"git {facts.git.removeprefix('git version ')}" if facts.git else "no git"
    return f"Python {facts.python}, {git}, {'Docker' if facts.docker else 'no Docker'}"


def _bucket(condition: HostCondition) -> str:
    """How the account of a host sees the bucket: `yes (alice)`, `read only`, `no`."""
    if condition.trouble:
        return "read only" if condition.who else "no"
    if condition.fresh and not condition.who:
        return "not used yet"
    return f"yes ({condition.who})" if condition.who else "no"


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
