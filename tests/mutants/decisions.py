"""Mutants of decisions in core, each caught by the unit tests of its module."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        name="fingerprint-without-inputs",
        breaks="a job is reused although the content of its inputs changed",
        file="dstack/core/fingerprint.py",
        old='                "inputs": dict(parts.inputs),\n',
        new='                "inputs": sorted(parts.inputs),\n',
        tests=("tests/unit/core/test_fingerprint.py",),
    ),
    Mutant(
        name="mode-is-no-code",
        breaks="a script that became executable is the same code",
        file="dstack/core/fingerprint.py",
        old="[file.path, file.mode, file.blob]",
        new="[file.path, file.blob]",
        tests=("tests/unit/core/test_fingerprint.py",),
    ),
    Mutant(
        name="one-try-too-many",
        breaks="a job is tried once more than `retry` permits",
        file="dstack/core/retry.py",
        old="    if len(tried) < retry.attempts and tried[-1] in retry.on:",
        new="    if len(tried) <= retry.attempts and tried[-1] in retry.on:",
        tests=("tests/unit/core/test_retry.py",),
    ),
    Mutant(
        name="stopped-is-worse-than-failed",
        breaks="a run with a failed and a stopped job is shown as stopped",
        file="dstack/core/lifecycle.py",
        old="    if JobStatus.FAILED in found:",
        new="    if JobStatus.FAILED in found and JobStatus.STOPPED not in found:",
        tests=("tests/unit/core/test_lifecycle.py",),
    ),
    Mutant(
        name="any-boot-is-a-restart",
        breaks="an attempt on another machine of the same name counts as dead",
        file="dstack/core/foreign_attempts.py",
        old="    if claim.machine and claim.machine == facts.machine:",
        new="    if claim.machine:",
        tests=("tests/unit/core/test_foreign_attempts.py",),
    ),
    Mutant(
        name="rendezvous-by-credentials",
        breaks="a hand-over with fresh credentials starts a second coordinator for the bucket",
        file="dstack/core/handover.py",
        old="hand.bucket, plain(hand.options)]",
        new="hand.bucket, plain(hand.options), plain(hand.credentials)]",
        tests=("tests/unit/core/test_handover.py",),
    ),
    Mutant(
        name="heartbeat-stays-with-its-reader",
        breaks="a reader of artifacts leaves its heartbeat behind, and a prune waits for it",
        file="dstack/app/maintenance/reader_heartbeat.py",
        old="        self._bucket.delete(self._key)\n",
        new="",
        tests=("tests/app/maintenance/test_reader_heartbeat.py",),
    ),
    Mutant(
        name="outcome-without-its-loss",
        breaks="an outcome that fsck writes again does not say what its log lacks",
        file="dstack/app/protocol/settlement.py",
        old="            reason=result.log_lost,\n",
        new="",
        tests=("tests/app/maintenance/test_fsck.py", "-k", "written_again"),
    ),
)
