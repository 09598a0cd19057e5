"""The mutants: one for each guarantee, as a change of text in the shipped source and the tests that must see it."""

from __future__ import annotations

from dataclasses import dataclass

PROTOCOL = ("tests/app/test_protocol.py",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    name: str
    breaks: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


MUTANTS = (
    Mutant(
        name="check-then-put",
        breaks="creating looks first and then believes that its own write stands",
        file="dstack/app/creating.py",
        old="""        outcome = yield PutNew(key, body)
        if outcome is Put.CREATED:
            return True
""",
        new="""        if (yield Read(key)) is not None:
            return False
        outcome = yield PutNew(key, body)
        return True
""",
        tests=PROTOCOL,
    ),
    Mutant(
        name="no-read-back",
        breaks="the answer of a conditional write is believed without reading the key back",
        file="dstack/app/creating.py",
        old="            return bool(found == body)",
        new="            return False",
        tests=PROTOCOL,
    ),
    Mutant(
        name="result-before-artifacts",
        breaks="the result is created before everything that it names is in the bucket",
        file="dstack/app/attempts.py",
        old="""    collected = None
    while collected is None:
""",
        new="""    collected = None
    if report.succeeded:
        yield from _commit(mine, claim, report, Collected(manifest="0" * 64, digest="0" * 64))
    while collected is None:
""",
        tests=PROTOCOL,
    ),
    Mutant(
        name="claim-before-slot",
        breaks="the attempt is claimed before a slot is held",
        file="dstack/app/attempts.py",
        old="""    held = yield from _hold(job, keys, nonce)
    if held is None:
""",
        new="""    early = Claim(
        nonce=nonce, run=job.run.id, run_name=job.run.name, host="h", address={}, boot_id="b", coordinator=me
    )
    if not (yield from create(keys.attempt(number).claim, pack(early))):
        return
    held = yield from _hold(job, keys, nonce)
    if held is None:
""",
        tests=PROTOCOL,
    ),
    Mutant(
        name="start-without-look",
        breaks="the next attempt is claimed without looking for a result that came meanwhile",
        file="dstack/app/settling.py",
        old="if verdict is reuse.Next.LOOK or (yield Read(keys.result)) is not None:",
        new="if verdict is reuse.Next.LOOK:",
        tests=PROTOCOL,
    ),
    Mutant(
        name="start-after-stop",
        breaks="a coordinator starts the job without looking for a stop request behind its claim",
        file="dstack/app/attempts.py",
        old="    if stop is None and told is None:\n",
        new="    if told is None:\n",
        tests=PROTOCOL,
    ),
    Mutant(
        name="start-after-outcome",
        breaks="a coordinator starts the job without looking whether its run has an outcome of it behind its claim",
        file="dstack/app/attempts.py",
        old="    if stop is None and told is None:\n",
        new="    if stop is None:\n",
        tests=PROTOCOL,
    ),
    Mutant(
        name="adopt-without-verdict",
        breaks="a dead coordinator's attempt is called void without asking the host",
        file="dstack/app/settling.py",
        old="    if verdict != STARTED:\n",
        new="    if True:\n",
        tests=PROTOCOL,
    ),
    Mutant(
        name="forgetful-joiner",
        breaks="a joiner takes failures that came before it as its own outcome",
        file="dstack/app/settling.py",
        old="    ends = yield from _ends(keys, want.ended, number)",
        new="    ends = yield from _ends(keys, 0, number)",
        tests=PROTOCOL,
    ),
    Mutant(
        name="slot-freed-early",
        breaks="the ticket of an attempt is taken away before its job has ended",
        file="dstack/runner/supervisor.py",
        old="        try:\n            _wait_and_run(attempt, hold, control)\n",
        new="        slots.give_back(hold.slot)\n        try:\n            _wait_and_run(attempt, hold, control)\n",
        tests=("tests/unit/runner/test_slots.py",),
    ),
    Mutant(
        name="slot-not-inherited",
        breaks="the processes of a job do not keep its ticket when its supervisor is killed",
        file="dstack/runner/supervisor.py",
        old="Watch(attempt, record, (hold.slot.fd, hold.alive), hold.slot.gpus)",
        new="Watch(attempt, record, (hold.alive,), hold.slot.gpus)",
        tests=("tests/unit/runner/test_slots.py",),
    ),
    Mutant(
        name="overtaking",
        breaks="a job starts with what an earlier one waits for",
        file="dstack/runner/grants.py",
        old="        free.reserve(ticket.demand)\n",
        new="        pass\n",
        tests=("tests/unit/runner/test_grants.py",),
    ),
    Mutant(
        name="store-create-overwrites",
        breaks="an object store is asked to write without a condition",
        file="dstack/adapters/bucket_obstore.py",
        old='obstore.put(self._store, key, body, mode="create", use_multipart=False)',
        new="obstore.put(self._store, key, body, use_multipart=False)",
        tests=("tests/contract/test_bucket.py", "-k", "s3-ministack"),
    ),
    Mutant(
        name="large-create-overwrites",
        breaks="a large object is sent without a look whether one is there",
        file="dstack/adapters/bucket_obstore.py",
        old="        if self._exists(key):\n            return Put.EXISTS\n",
        new="",
        tests=("tests/contract/test_bucket_bulk.py", "-k", "s3-ministack"),
    ),
    Mutant(
        name="broken-source-is-unknown",
        breaks="the error of a source of bulk data is taken for a lost answer of the store",
        file="dstack/adapters/bucket_obstore.py",
        old="                raise source.failure\n",
        new="                pass\n",
        tests=("tests/contract/test_bucket_bulk.py", "-k", "s3-ministack"),
    ),
    Mutant(
        name="cut-answer-is-final",
        breaks="a read whose answer was cut off is not made again",
        file="dstack/adapters/bucket_obstore.py",
        old="if final or not left or",
        new="if True or not left or",
        tests=("tests/system/test_store_faults.py", "-k", "two_laptops"),
    ),
    Mutant(
        name="expired-is-unknown",
        breaks="a create that was refused for its credentials counts as a lost answer",
        file="dstack/adapters/bucket_obstore.py",
        old="            if refuses_credentials(str(error)):\n",
        new="            if not str(error):\n",
        tests=("tests/unit/adapters/test_credentials.py",),
    ),
    Mutant(
        name="packs-unverified",
        breaks="bytes of a host get into the bucket without being checked",
        file="dstack/app/collect.py",
        old="manifests.verified(files, counted(chunks))",
        new="counted(chunks)",
        tests=("tests/app/test_collect_pieces.py",),
    ),
    Mutant(
        name="pieces-not-looked-for",
        breaks="a result counts as whole without the pieces of its large files",
        file="dstack/core/reuse.py",
        old='        elif fields.get("pieces"):',
        new='        elif fields.get("no pieces"):',
        tests=("tests/app/test_collect_pieces.py",),
    ),
)
