"""Mutants of a host that several accounts share: whose an attempt is, and who may judge it."""

from __future__ import annotations

from tests.mutants.mutant import PROTOCOL, Mutant

MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        name="foreign-is-silence",
        breaks="another account's attempt on a host that answers is taken for one on a silent host, and lost",
        file="dstack/app/protocol/settlement.py",
        old="        yield from _foreign(job, live, want, verdict)\n",
        new="        yield from _unreachable(job, live, want)\n",
        tests=PROTOCOL,
    ),
    Mutant(
        name="unseen-is-dead",
        breaks="an attempt of another account that is not seen to run is called lost, and its result waits in vain",
        file="dstack/app/protocol/settlement.py",
        old="    may_lose = want is not None and verdict.sighting is Sighting.RESTARTED\n",
        new="    may_lose = want is not None and verdict.sighting is not Sighting.ALIVE\n",
        tests=PROTOCOL,
    ),
    Mutant(
        name="any-ticket-believed",
        breaks="a ticket that another account made proves that an attempt lives",
        file="dstack/runner/queue/sightings.py",
        old="        return stat.S_ISREG(found.st_mode) and found.st_uid == uid and _is_locked(fd, uid, locks)\n",
        new="        return stat.S_ISREG(found.st_mode) and _is_locked(fd, uid, locks)\n",
        tests=("tests/unit/runner/queue/test_sightings.py",),
    ),
    Mutant(
        name="any-lock-believed",
        breaks="a lock that another account holds on a ticket proves that the attempt of its owner lives",
        file="dstack/runner/queue/sightings.py",
        old="            return not pids or any(_owner(os.path.join(PROC_FOLDER, str(pid))) in (None, uid)",
        new="            return True or any(_owner(os.path.join(PROC_FOLDER, str(pid))) in (None, uid)",
        tests=("tests/unit/runner/queue/test_sightings.py",),
    ),
    Mutant(
        name="boot-alone-is-death",
        breaks="another boot id counts as a restart although another machine may have answered",
        file="dstack/core/foreign_attempts.py",
        old="    if claim.machine and claim.machine == facts.machine:\n        return Sighting.RESTARTED",
        new="    if not is_same_boot(claim, facts):\n        return Sighting.RESTARTED",
        tests=("tests/app/hosts/test_hosts_of_claims.py",),
    ),
    Mutant(
        name="entry-decides",
        breaks="the entry of the inventory in use decides whose an attempt is",
        file="dstack/app/hosts/fleet.py",
        old="        found.append(self._entry_of(claim))\n",
        new="        found += [] if named is not None else [self._entry_of(claim)]\n",
        tests=("tests/app/hosts/test_hosts_of_claims.py",),
    ),
    Mutant(
        name="own-attempts-exempt",
        breaks="a coordinator goes on with its own attempt although the records say that it is lost",
        file="dstack/app/protocol/attempts.py",
        old=(
            "    yield from _lose_silent(job, mine, claim)\n"
            "    end = yield from _end_of(mine)\n"
            "    if end is not None and end.status == AttemptEnd.LOST:\n"
            "        yield from ask(Linger(claim, _linger(job, mine, claim)))\n"
            "    return end is not None\n"
        ),
        new="    end = yield from _end_of(mine)\n    return end is not None and end.status != AttemptEnd.LOST\n",
        tests=("tests/app/protocol/test_attempts.py",),
    ),
    Mutant(
        name="late-result-stays",
        breaks="the result of an attempt that was called lost, and that no run waits for, lies on its host for ever",
        file="dstack/app/coordination/host_cleanup.py",
        old="    return LeftoverAction.BRING_IN\n",
        new="    return LeftoverAction.LEAVE\n",
        tests=("tests/app/coordination/test_late_results.py",),
    ),
    Mutant(
        name="late-result-dropped",
        breaks="a host forgets the result of an attempt that was called lost before it is in the bucket",
        file="dstack/app/coordination/host_cleanup.py",
        old="    return LeftoverAction.BRING_IN\n",
        new="    return LeftoverAction.FORGET\n",
        tests=("tests/app/coordination/test_late_results.py",),
    ),
    Mutant(
        name="late-result-from-anywhere",
        breaks="a host gives the result of a lost attempt that was claimed on another machine, or by another account",
        file="dstack/app/coordination/late_results.py",
        old=" or not belongs(claim, facts) or is_other_machine(claim, facts):",
        new=":",
        tests=("tests/app/coordination/test_late_results.py",),
    ),
    Mutant(
        name="orphans-stay",
        breaks="what was called lost and lives keeps its slot for ever",
        file="dstack/app/coordination/host_cleanup.py",
        old="            await end_orphan(runner, bucket, orphan)\n",
        new="            continue\n",
        tests=("tests/app/coordination/test_orphans.py",),
    ),
    Mutant(
        name="awaited-orphan-ended",
        breaks="an attempt that was called lost is ended although a run waits for the result that it may give",
        file="dstack/app/coordination/host_cleanup.py",
        old="        if not await asyncio.to_thread(is_awaited, bucket, keys, orphan.attempt):\n",
        new="        if orphan:\n",
        tests=("tests/app/coordination/test_orphans.py",),
    ),
    Mutant(
        name="pause-is-silence",
        breaks="an hour in which a coordinator was stopped, and asked nothing, makes a host silent and its jobs lost",
        file="dstack/app/hosts/silence.py",
        old="        silence.seconds += min(now - silence.asked, ASKING_GAP_S)\n",
        new="        silence.seconds += now - silence.asked\n",
        tests=("tests/app/hosts/test_silence.py",),
    ),
)
