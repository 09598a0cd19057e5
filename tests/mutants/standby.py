"""Mutants of runs that their laptop still looks after, left to hosts in stand-by."""

from __future__ import annotations

from tests.mutants.mutant import PROTOCOL, Mutant

STANDING = ("tests/app/coordination/test_standby.py",)
MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        name="standby-claims-beside-the-laptop",
        breaks="whoever stands by takes the run up while its attendant lives, and claims",
        file="dstack/app/coordination/standby.py",
        old="    while (yield from ask(Alive(attendant))) is not Liveness.DEAD:",
        new="    while (yield from ask(Alive(attendant))) is Liveness.UNKNOWN:",
        tests=PROTOCOL,
    ),
    Mutant(
        name="standby-takes-doubt-for-death",
        breaks="a heartbeat that is merely read once counts as the attendant's death",
        file="dstack/app/coordination/standby.py",
        old="    while (yield from ask(Alive(attendant))) is not Liveness.DEAD:",
        new="    while (yield from ask(Alive(attendant))) is Liveness.ALIVE:",
        tests=STANDING,
    ),
    Mutant(
        name="standby-takes-an-outage-for-silence",
        breaks="the time in which the bucket answered nobody counts as silence of the attendant",
        file="dstack/app/coordination/standby.py",
        old="                self._observer.forget(attendant)\n",
        new="",
        tests=STANDING,
    ),
    Mutant(
        name="standby-takes-up-what-has-ended",
        breaks="a run that ended is taken up because its attendant has left",
        file="dstack/app/coordination/standby.py",
        old="    return (yield from ask(Read(run.final))) is None",
        new="    return (yield from ask(Read(run.final))) is not run",
        tests=STANDING,
    ),
    Mutant(
        name="standby-slows-the-start",
        breaks="hosts are asked to stand by before the first job has begun",
        file="dstack/session/standby.py",
        old="        await self._screen.start.wait()\n",
        new="",
        tests=("tests/cli/runs/test_standby.py",),
    ),
    Mutant(
        name="standby-before-the-heartbeat",
        breaks="hosts watch for a heartbeat that was never written, and take the run up at once",
        file="dstack/session/standby.py",
        old="        await heart.begin()\n",
        new="",
        tests=("tests/cli/runs/test_standby.py",),
    ),
    Mutant(
        name="hosts-get-all-secrets",
        breaks="a host is told the secrets of jobs that it cannot run",
        file="dstack/app/protocol/job_secrets.py",
        old="if misfit(spec, facts) is None for value in memory_values(spec)",
        new="for value in memory_values(spec)",
        tests=("tests/app/protocol/test_job_secrets.py",),
    ),
    Mutant(
        name="a-silent-coordinator-keeps-slots",
        breaks="a runner whose coordinator has fallen silent holds what it was asked to hold for ever",
        file="dstack/runner/serve.py",
        old="[stdin], [], [], self._lease)",
        new="[stdin], [], [], None)",
        tests=("tests/unit/runner/job/test_lease.py",),
    ),
)
