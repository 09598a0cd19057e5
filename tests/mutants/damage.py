"""Mutants of objects of a bucket that are damaged, gone or missing from a list."""

from __future__ import annotations

from tests.mutants.mutant import PROTOCOL, Mutant

MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        name="damage-is-silence",
        breaks="a damaged input is taken for a bucket that does not answer, and tried again for ever",
        file="dstack/app/coordination/preparation.py",
        old="        except DamagedObjectError as error:\n            return DamagedInput(",
        new="        except () as error:\n            return DamagedInput(",
        tests=("tests/hostile/test_damage.py::test_a_run_that_takes_what_is_damaged_has_it_made_anew_once",),
    ),
    Mutant(
        name="back-to-the-damaged",
        breaks="who makes a damaged result anew agrees with the damaged generation, in which the run is already",
        file="dstack/app/protocol/generations.py",
        old="if job.above < each <= stands.closed",
        new="if each <= stands.closed",
        tests=PROTOCOL,
    ),
    Mutant(
        name="missing-manifest-is-nothing",
        breaks="a job that succeeded and whose manifest is gone left nothing behind",
        file="dstack/app/queries/run_artifacts.py",
        old="        if job.status in GOOD_STATES:\n            return committed",
        new="        if not job.status:\n            return committed",
        tests=("tests/hostile/test_damage.py::test_every_reader_names_what_is_damaged_and_the_way_out",),
    ),
    Mutant(
        name="believe-a-late-list",
        breaks="a pack that a list lacks is called missing without asking for it by key",
        file="dstack/app/protocol/complete_lists.py",
        old="if key not in found and not (yield from ask(Reaches(key, size))):",
        new="if key not in found:",
        tests=("tests/app/protocol/test_complete_lists.py", *PROTOCOL),
    ),
    Mutant(
        name="claims-by-a-list",
        breaks="the last attempt is the last one that a list shows",
        file="dstack/app/protocol/complete_lists.py",
        old="    while (yield from ask(Read(key_of(number + 1)))) is not None:",
        new="    while False:",
        tests=("tests/app/protocol/test_complete_lists.py",),
    ),
    Mutant(
        name="users-by-a-list",
        breaks="who uses a generation is whom the lists of pins and wants show",
        file="dstack/app/protocol/generation_users.py",
        old="    found = yield from _registered_names(keys)\n",
        new="    found: set[str] = set()\n",
        tests=("tests/app/protocol/test_complete_lists.py",),
    ),
    Mutant(
        name="fsck-denies-the-lost",
        breaks="fsck calls a result damage whose attempt had been called lost",
        file="dstack/app/maintenance/fsck/jobs.py",
        old="end.status not in (AttemptEnd.SUCCEEDED, AttemptEnd.LOST) and",
        new="end.status != AttemptEnd.SUCCEEDED and",
        tests=("tests/app/maintenance/test_fsck.py",),
    ),
    Mutant(
        name="summary-without-machine",
        breaks="a summary that fsck writes lacks the machine of its run",
        file="dstack/app/queries/run_views.py",
        old="        machine=run.machine,\n",
        new="",
        tests=("tests/app/maintenance/test_fsck.py",),
    ),
)
