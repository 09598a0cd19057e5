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
        name="prune-without-tomb",
        breaks="the collector looks for users and then deletes, without closing the generation",
        file="dstack/app/pruning.py",
        old="        yield from create(keys.tomb, pack(tomb))\n",
        new="        yield Read(keys.tomb)\n",
        tests=PROTOCOL,
    ),
    Mutant(
        name="prune-without-second-look",
        breaks="the collector does not look for users again once the tomb stands",
        file="dstack/app/pruning.py",
        old="""        yield from create(keys.tomb, pack(tomb))
        use = yield from user_of(project, keys, ended)
""",
        new="        yield from create(keys.tomb, pack(tomb))\n",
        tests=PROTOCOL,
    ),
    Mutant(
        name="pin-after-look",
        breaks="a run looks for the tomb before its pin stands",
        file="dstack/app/generations.py",
        old="""    yield from create(keys.pin(job.run.id), pack(Pin(nonce=(yield NewNonce()))))
    left = (yield Read(keys.tomb)) is not None
""",
        new="""    left = (yield Read(keys.tomb)) is not None
    yield from create(keys.pin(job.run.id), pack(Pin(nonce=(yield NewNonce()))))
""",
        tests=PROTOCOL,
    ),
    Mutant(
        name="pull-pins-after-look",
        breaks="somebody who pulls artifacts looks for the tomb before the pin stands",
        file="dstack/app/pruning.py",
        old="""    yield from create(keys.pin(pin.nonce), pack(pin))
    if (yield Read(keys.tomb)) is None:
        return True
""",
        new="""    if (yield Read(keys.tomb)) is None:
        yield from create(keys.pin(pin.nonce), pack(pin))
        return True
""",
        tests=PROTOCOL,
    ),
    Mutant(
        name="data-before-result",
        breaks="the collector deletes the bytes before the result that names them",
        file="dstack/app/pruning.py",
        old="    for tier in tiers:\n",
        new="    for tier in reversed(tiers):\n",
        tests=PROTOCOL,
    ),
    Mutant(
        name="deaf-to-other-coordinators",
        breaks="a coordinator does what it saw of a tomb itself, not what its run recorded first",
        file="dstack/app/generations.py",
        old="""    if (yield from create(key, pack(made))):
        return made
    return (yield from read_record(Want, key))
""",
        new="""    yield from create(key, pack(made))
    return made
""",
        tests=PROTOCOL,
    ),
    Mutant(
        name="start-for-a-pruned-run",
        breaks="a slow coordinator starts a job of a run whose records were pruned",
        file="dstack/app/attempts.py",
        old="    if told is None and (yield Read(job.run_keys.record)) is None:\n",
        new="    if False:\n",
        tests=("tests/app/test_pruning.py",),
    ),
    Mutant(
        name="summary-before-record",
        breaks="the summary of a run is pruned before its record: it looks unfinished, and is worked on again",
        file="dstack/app/pruning.py",
        old="    for tier in ({keys.record} & found, rest, {keys.final} & found):\n",
        new="    for tier in ({keys.final} & found, rest, {keys.record} & found):\n",
        tests=("tests/app/test_pruning.py",),
    ),
)
