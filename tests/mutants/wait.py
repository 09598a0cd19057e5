"""Mutants of jobs that only silent hosts might run."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

PROSPECTS = ("tests/app/hosts/test_silent_host_wait.py",)
MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        name="waits-for-the-silent-for-ever",
        breaks="a run waits for ever for a host that never answered, because it might have what the job asks for",
        file="dstack/core/placement.py",
        old="all(host.seconds >= limit for host in possible.values())",
        new="not possible",
        tests=PROSPECTS,
    ),
    Mutant(
        name="silence-taken-for-inability",
        breaks="a job is given up although a host showed that it can run it, and is only rebooted",
        file="dstack/core/placement.py",
        old="    silent = any_answer and not likely and ",
        new="    silent = any_answer and ",
        tests=PROSPECTS,
    ),
    Mutant(
        name="waits-because-all-are-silent",
        breaks="a run waits for ever once the one host that answered, and cannot run its job, falls silent too",
        file="dstack/core/placement.py",
        old="    any_answer = bool(present or absent_misfits)\n",
        new="    any_answer = bool(present)\n",
        tests=PROSPECTS,
    ),
    Mutant(
        name="left-to-hosts-that-never-can",
        breaks="a run is left to hosts that can never run one of its jobs, and nobody awaits the silent one that may",
        file="dstack/session/handover.py",
        old="(*handed.left, *await self._awaited(record))",
        new="handed.left",
        tests=(
            "tests/cli/runs/test_silent_hosts.py::test_a_run_that_is_left_to_hosts_keeps_the_silent_one_that_alone_can_run_a_job",
        ),
    ),
)
