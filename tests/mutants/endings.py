"""Mutants of ends of jobs: stops, lost logs, full disks."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        name="held-for-nobody",
        breaks="where the bucket falls silent while a job is queued, a slot is held for ever for an attempt of nobody",
        file="dstack/app/protocol/attempts.py",
        old="        yield from ask(Drop(nonce))\n        raise\n",
        new="        raise\n",
        tests=("tests/app/protocol/test_attempts.py",),
    ),
    Mutant(
        name="silent-docker-is-death",
        breaks="a container counts as gone because Docker does not answer: its job is called lost while it runs",
        file="dstack/runner/job/stop.py",
        old="            now = VANISHED if runs is False else RUNNING\n",
        new="            now = RUNNING if runs else VANISHED\n",
        tests=("tests/unit/runner/job/test_stop_states.py",),
    ),
    Mutant(
        name="slot-before-removal",
        breaks="a supervisor ends while the container of its job is still there",
        file="dstack/runner/job/process.py",
        old="        if not self._executor.created():\n",
        new="        if True:\n",
        tests=("tests/unit/runner/job/test_container.py", "-k", "sees_its_folder"),
    ),
    Mutant(
        name="ended-container-stays",
        breaks="a container that ended after its supervisor was killed stays on the host for ever",
        file="dstack/runner/operations.py",
        old="            if attempt.read_exit() is None:\n                remove_outside(attempt)\n",
        new="",
        tests=("tests/unit/runner/job/test_container.py",),
    ),
    Mutant(
        name="stop-waits-for-the-frozen",
        breaks="a stop waits for a runner that gives no sign of life",
        file="dstack/app/coordination/effect_driver.py",
        old="return await self._hosts.ask(effect.claim, lambda _: ask_living(link, stop))",
        new="return await self._hosts.ask(effect.claim, stop)",
        tests=("tests/hostile/test_stops.py",),
    ),
    Mutant(
        name="stop-waits-for-its-owner",
        breaks="a stop waits for a coordinator that holds its lock and does nothing",
        file="dstack/app/protocol/settlement.py",
        old="if late >= STOP_GRACE_S or (yield from ask(Alive(live.owner, live.claim))) is Liveness.DEAD:",
        new="if (yield from ask(Alive(live.owner, live.claim))) is Liveness.DEAD:",
        tests=("tests/app/protocol/test_attempts_stop.py",),
    ),
    Mutant(
        name="masked-log-cut-silently",
        breaks="a masked log that finds no room is cut without a word",
        file="dstack/runner/job/masked_log.py",
        old='self.loss = "%d bytes of the log could not be written',
        new='_ = "%d bytes of the log could not be written',
        tests=("tests/unit/runner/base/test_disk_room.py",),
    ),
    Mutant(
        name="log-without-room-ahead",
        breaks="a job that could not write its own log is not noticed",
        file="dstack/runner/job/log_disk_room.py",
        old="        if self.is_full and (self._blind or size > self._end - DISK_BLOCK_BYTES):",
        new="        if False:",
        tests=("tests/unit/runner/base/test_disk_room.py",),
    ),
    Mutant(
        name="logs-forget-the-loss",
        breaks="`dstack logs` of an incomplete log exits with 0",
        file="dstack/cli/runs/logs.py",
        old="    if losses:\n",
        new="    if False:\n",
        tests=("tests/hostile/test_full_disk.py",),
    ),
    Mutant(
        name="full-disk-fails-the-job",
        breaks="a job that never began for want of room is called failed",
        file="dstack/app/coordination/preparation.py",
        old="            return self._not_begun(spec, str(error))\n",
        new="            return Unpreparable(str(error))\n",
        tests=("tests/hostile/test_full_disk.py",),
    ),
    Mutant(
        name="stop-needs-room",
        breaks="a job on a full disk cannot be stopped",
        file="dstack/runner/base/spool.py",
        old='(self._reserve, self.stop + ".reserve", self._room)',
        new="(self._reserve, self._room)",
        tests=("tests/unit/runner/base/test_disk_room.py",),
    ),
)
