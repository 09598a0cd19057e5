"""Rounds of a small DAG on hosts that share a bucket, under an adversary that kills and stops whatever dstack runs.

Some coordinators are the shipped kind, some sit in command lines. When the faults are over the harness does what a
person would do (attach, or hand over again), and every run must come to its right end. The judge stands outside: marks
and locks of the jobs' own, /proc, and what `artifacts pull` brings.

DSTACK_ROUNDS sets the length: 12 rounds over all kinds of bucket in CI, 600 where a soak sets it to 50.
DSTACK_SEED=<n> runs round n of each kind alone, with the same decisions; a round that fails prints its seed and what
was done in it. Decisions are replayed, not the machine's own timing.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dstack.core.format.records import Claim, End, Result, unpack
from dstack.model import RunStatus
from tests.support.buckets import object_stores
from tests.support.faults.adversary import JOB, Adversary, Place
from tests.support.people.chain import slots_are_free
from tests.support.people.crowded import INPUTS, JOBS, Crowded
from tests.support.people.laptop import LIMIT
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(280)

KINDS = ("folder", "s3-ministack", *(("s3-real",) if os.environ.get("DSTACK_S3_ENDPOINT") else ()))
WHOLE = int(os.environ.get("DSTACK_ROUNDS", "1")) * 12
"""Rounds over all kinds: 12 in CI, 600 in a soak."""
SEED = os.environ.get("DSTACK_SEED")
SEEDS = [int(SEED)] if SEED else list(range(WHOLE // len(KINDS)))
PEACE = 45
"""Seconds in which a run must end once nobody is attacked any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What happens in a round, by its seed alone."""

    seed: int
    kind: str
    hosts: int = field(init=False)
    acts: tuple[str, ...] = field(init=False)
    fails: bool = field(init=False)
    blows: int = field(init=False)
    naps: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        chance = self.chance("script")
        first = chance.choice((("run",), ("hand",), ("run", "run"), ("run", "hand"), ("hand", "hand")))
        more = chance.choices(("attach", "hand again", "run", "hand", "stop"), weights=(4, 4, 1, 1, 1), k=3)
        drawn: dict[str, Any] = {
            "hosts": chance.choice((2, 2, 3)),
            "acts": (*first, *more),
            "fails": chance.random() < 0.2,
            "blows": chance.randint(8, 16),
            "naps": {job: 0.05 + 1.5 * chance.random() ** 2 for job in JOBS},
        }
        if chance.random() < 0.2:  # long enough for others to see that its coordinator is gone
            drawn["naps"][chance.choice(JOBS)] = 5.0
        for name, value in drawn.items():
            object.__setattr__(self, name, value)

    def chance(self, what: str) -> random.Random:
        return random.Random(f"{self.kind}:{self.seed}:{what}")


def processes_of(place: Place) -> str:
    return str(place.processes())


def is_quiet(place: Place) -> bool:
    return not place.processes()


@pytest.fixture(scope="module")
def buried() -> Iterator[list[tuple[str, Place]]]:
    """Rounds that are over: of none of them may anything be left. Coordinators linger for a few seconds, which is
    waited for once, at the end of them all."""
    rounds: list[tuple[str, Place]] = []
    yield rounds
    for name, place in rounds:  # their buckets stay until then: a coordinator waits for one that is gone
        until(
            f"nothing of {name} runs",
            partial(is_quiet, place),
            told=partial(processes_of, place),
        )
        shutil.rmtree(place.folder)


@pytest.fixture
def bucket(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a new bucket; what opens it is in the environment, as hosts that have credentials have it."""
    store = object_stores.ministack()  # before what marks the processes of this round
    monkeypatch.setenv("DSTACK_SLOTS_DIR", str(tmp_path / "slots"))
    if kind == "folder":
        return str(tmp_path / "bucket")
    if kind == "s3-real":
        store = object_stores.ObjectStore(
            endpoint=os.environ["DSTACK_S3_ENDPOINT"],
            key=os.environ["AWS_ACCESS_KEY_ID"],
            secret=os.environ["AWS_SECRET_ACCESS_KEY"],
        )
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    return store.make(f"c{hashlib.sha256(os.fsencode(tmp_path)).hexdigest()[:20]}")


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_whatever_is_killed_and_stopped_each_run_comes_to_its_right_end(
    kind: str, seed: int, bucket: str, tmp_path: Path, buried: list[tuple[str, Place]]
) -> None:
    script = Script(seed=seed, kind=kind)
    place = Place(folder=tmp_path)
    crowded = Crowded(tmp_path, bucket, hosts=script.hosts, naps=script.naps)
    if script.fails:
        (crowded.judge / "fail-right").touch()
    adversary = Adversary(place, f"{kind}:{seed}:blows", script.blows)
    told: list[str] = []
    try:
        storm(crowded, script, adversary, told)
        make_peace(crowded, script, told)
        judge(crowded, place, script)
    except BaseException:
        print(f"DSTACK_SEED={seed}, {script}\n" + "\n".join([*adversary.told, *told]))
        for name, text in crowded.logs().items():
            print(f"--- {name}\n{text[-4000:]}")
        print(crowded.marks(), place.processes(), sep="\n")
        raise
    finally:
        for process, _ in crowded.started:
            if process.poll() is None:
                process.kill()
            process.wait()
    buried.append((f"{kind} {seed}", place))


def storm(crowded: Crowded, script: Script, adversary: Adversary, told: list[str]) -> None:
    """People start, visit, hand over and stop runs while the adversary is at work."""
    chance = script.chance("people")
    adversary.start()
    try:
        for act in script.acts:
            share, pause = chance.random(), chance.uniform(0.0, 0.6)
            known = crowded.runs()
            told.append(f"{adversary.at():.2f} {act}")
            if act == "run":
                crowded.start("run", JOBS[-1])
            elif act == "hand":
                told.extend(crowded.hand(crowded.submit()))
            elif known:
                record = known[int(share * len(known))]
                if act == "hand again":
                    told.extend(crowded.hand(record))
                else:
                    crowded.start(act, record.name, *(["--abort"] if act == "stop" and pause < 0.3 else []))
            time.sleep(pause)
    finally:
        adversary.join()


def make_peace(crowded: Crowded, script: Script, told: list[str]) -> None:
    """What a person does who finds a run that nobody brings to its end."""
    chance = script.chance("peace")
    runs = crowded.runs()
    if not runs:  # whoever began it was killed before the run was recorded
        assert not crowded.marks(), "a job began, and no run is recorded"
        crowded.laptop.dstack("run", JOBS[-1], code=None)
        runs = crowded.runs()
    for record in runs:
        if crowded.view(record).status is not RunStatus.RUNNING:
            continue
        if chance.random() < 0.5:
            crowded.start("attach", record.name)
        else:
            told.extend(crowded.hand(record))
    for record in runs:
        until(
            f"{record.name} ends",
            lambda record=record: crowded.view(record).status is not RunStatus.RUNNING,  # type: ignore[misc]
            seconds=PEACE,
            told=lambda record=record: str(crowded.view(record)),  # type: ignore[misc]
        )
    for process, _ in crowded.started:
        process.wait(timeout=LIMIT)


def judge(crowded: Crowded, place: Place, script: Script) -> None:
    """Everything that must be true now, whatever happened."""
    runs = crowded.runs()
    for record in runs:
        judge_run(crowded, script, record.name)
    attempts = [judge_job(crowded, fingerprint, generation) for fingerprint, generation in generations(crowded)]
    judge_marks(crowded, script, {nonce: status for job in attempts for nonce, status in job.items()})
    for name, text in crowded.logs().items():
        assert "Traceback" not in text, f"{name}:\n{text[-4000:]}"
    judge_bytes(crowded, [record.name for record in runs])
    until("no job is left", lambda: not [found for found in place.processes() if found.role == JOB])
    until("all slots are free", lambda: slots_are_free(crowded.laptop))
    until("nobody has a child that ended unseen", lambda: not place.zombies(), told=lambda: str(place.zombies()))


def judge_run(crowded: Crowded, script: Script, name: str) -> None:
    record = next(record for record in crowded.runs() if record.name == name)
    view = crowded.view(record)
    stopped = crowded.session.bucket.get(crowded.session.keys.run(record.id).stop(None)) is not None
    right = RunStatus.FAILED if script.fails else RunStatus.SUCCEEDED
    assert view.status in ({right, RunStatus.STOPPED} if stopped else {right}), view
    if not stopped:
        good = [job.workflow for job in view.jobs if job.status in ("succeeded", "reused")]
        assert good == (["prepare", "left"] if script.fails else list(JOBS)), view


def generations(crowded: Crowded) -> list[tuple[str, int]]:
    """Every job that somebody wanted, by fingerprint and generation."""
    keys = crowded.session.bucket.list(f"{crowded.session.keys.root}jobs/")
    parts = [key.split("/jobs/", 1)[1].split("/") for key in keys]
    return sorted({(part[0], int(part[1])) for part in parts})


def judge_job(crowded: Crowded, fingerprint: str, generation: int) -> dict[str, str]:
    """How each attempt of a job ended, by its nonce; all of them have, and at most one has the result."""
    bucket, keys = crowded.session.bucket, crowded.session.keys.job(fingerprint, generation)  # type: ignore[arg-type]
    ends: dict[str, str] = {}
    claims = bucket.list(keys.claims)
    for number in range(1, len(claims) + 1):
        attempt = keys.attempt(number)
        claim, end = bucket.get(attempt.claim), bucket.get(attempt.end)
        assert claim is not None, f"{keys.folder} has a gap in its claims: {claims}"
        assert end is not None, f"attempt {number} of {keys.folder} has no end"
        found = unpack(End, attempt.end, end)
        assert unpack(Claim, attempt.claim, claim).nonce == found.nonce
        ends[found.nonce] = found.status
    result = bucket.get(keys.result)
    succeeded = [nonce for nonce, status in ends.items() if status == "succeeded"]
    if result is None:
        assert succeeded == []
    else:
        assert unpack(Result, keys.result, result).nonce in ends
        assert len(succeeded) <= 1
    return ends


def judge_marks(crowded: Crowded, script: Script, ends: dict[str, str]) -> None:
    """What really ran, by the jobs' own marks."""
    begun, done = Counter[str](), Counter[str]()
    by_job: dict[str, list[str]] = {}
    for what, job, attempt in crowded.marks():
        assert what != "TWICE", f"two of {job} at the same time, the second as {attempt}"
        {"begin": begun, "end": done, "failing": done}[what][attempt] += 1
        by_job.setdefault(job, [])
        if attempt not in by_job[job]:
            by_job[job].append(attempt)
    short = {nonce[:12]: status for nonce, status in ends.items()}
    assert set(begun) <= set(short), "an attempt ran that nobody had claimed"
    assert not [one for one, count in (begun + done).items() if begun[one] > 1 or done[one] > 1], "begun twice"
    for attempt, status in short.items():
        assert status != "void" or not begun[attempt], f"{attempt} is called void, and ran"
        assert status != "superseded", f"{attempt} ran beside another one"
        if status in ("succeeded", "failed"):
            assert begun[attempt] == 1, f"{attempt} {status}, and never began"
            assert done[attempt] == 1, f"{attempt} {status}, and did not come to its end"
    for job, attempts in by_job.items():
        for attempt in attempts[:-1]:
            again = ("lost", "stopped", *(("failed",) if script.fails and job == "right" else ()))
            assert short[attempt] in again, f"{job} ran again after {attempt} {short[attempt]}"


def expected(job: str) -> str:
    """What the job writes into its `sum`."""
    told = "".join(expected(name) for name in INPUTS[job]) + job + "\n"
    return f"{hashlib.sha256(told.encode()).hexdigest()}  -\n"


def judge_bytes(crowded: Crowded, names: list[str]) -> None:
    """Nothing is missing behind a result, and every byte and line of log is right."""
    by_name = {str(record.name): record for record in crowded.runs()}
    seen: set[tuple[str, int, int]] = set()
    for number, name in enumerate(names):
        jobs = [job for job in crowded.view(by_name[name]).jobs if job.status in ("succeeded", "reused")]
        fresh = {(job.fingerprint, job.generation, job.attempt) for job in jobs} - seen
        seen |= fresh
        if not fresh:
            continue
        out = crowded.folder / f"out-{number}"
        crowded.laptop.dstack("artifacts", "pull", name, "-o", str(out))
        log = crowded.laptop.dstack("logs", name).stdout.splitlines()
        for job in jobs:
            folder = out / job.workflow / job.workflow
            assert (folder / "sum").read_text() == expected(job.workflow), name
            assert (folder / "deep/big").read_bytes() == job.workflow[0].encode() * 300_000, name
            assert log.count(f"[{job.workflow}] log of {job.workflow}") == 1, log
        shutil.rmtree(out)
