"""The coordinator as hosts get it: its zipapp, started by the bootstrap on the oldest Python that it promises.

DSTACK_COORDINATOR_PYTHON names the interpreter; 3.10 is the oldest.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dstack.adapters.coordinator.client import CoordinatorClient, HostBucketReport
from dstack.adapters.coordinator.wheel import OLDEST_COORDINATOR_PYTHON
from dstack.adapters.runner.channel import RefusedError
from dstack.adapters.runner.client import RunnerClient
from dstack.adapters.runner.local import open_local
from dstack.adapters.runner.zipapp import bootstrap_source, runner_zipapp
from dstack.app.coordination.run import submit
from dstack.app.coordination.standby import STANDBY_POLL_S
from dstack.app.queries.runs import run_view
from dstack.cli.command_session import say
from dstack.cli.runs.run_arguments import read_arguments
from dstack.core.format.records import Coordinator, Final, RunRecord, pack
from dstack.core.handover import HandOver, digest
from dstack.model import Host, HostName, RunStatus
from dstack.session.session import Session
from dstack.session.submission import plan_run, rename
from tests.support.people.laptop import Laptop
from tests.support.waiting import until

PYTHON = os.environ.get("DSTACK_COORDINATOR_PYTHON", sys.executable)


def is_too_old() -> bool:
    code = f"import sys; sys.exit(sys.version_info[:2] < {OLDEST_COORDINATOR_PYTHON})"
    return subprocess.run([PYTHON, "-c", code], check=False).returncode != 0


pytestmark = pytest.mark.skipif(is_too_old(), reason="the shipped coordinator needs a later Python")


ATTENDANT = Coordinator(id="a" * 32, user="alice", machine="laptop", boot_id="other", pid=1, lock="/nowhere")
"""A coordinator on another machine; the tests beat for it."""


class Place:
    """A host in a folder, a bucket that it shares, and the laptop of somebody who hands runs to it."""

    def __init__(self, folder: Path) -> None:
        self.laptop = Laptop(folder)
        self.dir = folder / "host"
        self.gate, self.marks = folder / "gate", folder / "marks"
        self.bucket = folder / "bucket"
        self.bucket.mkdir()
        self.laptop.write(
            {
                ".dstack/workflows.yaml": f"""
workflows:
  - name: prepare
    commands: [echo prepare >> {self.marks}, 'while [ ! -e {self.gate} ]; do sleep 0.02; done', echo data > data.txt]
    artifacts: [data.txt]
  - name: train
    depends-on: [prepare]
    env: [TOKEN]
    commands: [echo "train $TOKEN" >> {self.marks}, cat data.txt > model.txt]
    artifacts: [model.txt]
""",
                ".dstack/config.yaml": f"bucket: {self.bucket}\n",
            }
        )
        self.laptop.commit()
        self.session = Session(
            root=self.laptop.root, home=self.laptop.home, environ=self.laptop.environment, hosts_file=None, notify=say
        )
        self.host = Host(name=HostName("here"), dir=str(self.dir))

    def submit(self, *arguments: str) -> RunRecord:
        _, submission = plan_run(self.session, read_arguments(list(arguments)).request())
        self.session.storage.probe()
        return submit(self.session.bucket, self.session.keys, submission, rename=rename)

    def given(self, record: RunRecord) -> HandOver:
        return HandOver(
            bucket=str(self.bucket),
            options={},
            project=self.session.name,
            run=record.id,
            record=digest(pack(record)),
            host=self.host,
            caller={"TOKEN": "s3cret"},
        )

    async def push(self, record: RunRecord) -> None:
        runner = RunnerClient(
            "here",
            lambda: open_local(self.host, PYTHON),
            zipapp=runner_zipapp(),
            bootstrap=bootstrap_source(),
            directory=str(self.dir),
        )
        try:
            await runner.push_code(self.session.name, record.snapshot, self.session.code)
        finally:
            await runner.close()

    async def hand(self, given: HandOver) -> str:
        client = await CoordinatorClient.open(await open_local(self.host, PYTHON), self.host.dir)
        try:
            return await client.hand(given, None)
        finally:
            await client.close()

    async def look(self, given: HandOver) -> HostBucketReport:
        client = await CoordinatorClient.open(await open_local(self.host, PYTHON), self.host.dir)
        try:
            return await client.look(given, None)
        finally:
            await client.close()

    def beat(self, number: int = 0) -> None:
        """ATTENDANT lives, as far as the bucket shows."""
        self.session.bucket.put(self.session.keys.heartbeat(ATTENDANT.id), b'{"beat":%d}' % number)

    def leave(self) -> None:
        """ATTENDANT leaves its runs."""
        self.session.bucket.delete(self.session.keys.heartbeat(ATTENDANT.id))

    def objects(self) -> dict[str, bytes]:
        """Everything in the bucket, as the file system shows it."""
        return {str(path): path.read_bytes() for path in self.bucket.rglob("*") if path.is_file()}

    def status(self, record: RunRecord) -> RunStatus:
        return run_view(self.session.bucket, self.session.keys, record).status

    def wait(self, record: RunRecord) -> None:
        until("the run is final", lambda: self.status(record) is not RunStatus.RUNNING, told=self.log)

    def log(self) -> str:
        return "\n".join(path.read_text() for path in (self.dir / "coordinators").glob("*.log"))

    def processes(self) -> list[int]:
        """Coordinators at work on this host, by the log that they write."""
        logs = {str(path) for path in (self.dir / "coordinators").glob("*.log")}
        found = []
        for fd in Path("/proc").glob("[0-9]*/fd/1"):
            try:
                if os.readlink(fd) in logs:
                    found.append(int(fd.parts[2]))
            except OSError:
                continue
        return found


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setenv("DSTACK_SLOTS_DIR", str(tmp_path / "slots"))
    made = Place(tmp_path)
    yield made
    made.gate.touch()
    for pid in made.processes():
        os.kill(pid, signal.SIGKILL)


def test_it_brings_a_run_to_its_end_and_ends_with_it(place: Place) -> None:
    record = place.submit("train")

    async def scene() -> None:
        await place.push(record)
        await place.hand(place.given(record))

    asyncio.run(scene())
    place.gate.touch()
    place.wait(record)
    assert place.status(record) is RunStatus.SUCCEEDED, place.log()
    assert place.marks.read_text() == "prepare\ntrain s3cret\n"
    until("it has ended", lambda: not place.processes())
    assert "s3cret" not in place.log()


def test_two_hand_overs_at_once_meet_one_coordinator_and_a_later_one_wakes_it(place: Place) -> None:
    first, second = place.submit("train"), place.submit("train", "--rerun=train")

    async def scene() -> set[str]:
        await place.push(first)
        ids = await asyncio.gather(*(place.hand(place.given(record)) for record in (first, second, first)))
        return {*ids, await place.hand(place.given(second))}

    assert len(asyncio.run(scene())) == 1
    assert len(place.processes()) == 1
    place.gate.touch()
    for record in (first, second):
        place.wait(record)
        assert place.status(record) is RunStatus.SUCCEEDED, place.log()


def test_it_runs_nothing_that_its_own_user_did_not_hand_to_it(place: Place) -> None:
    """Who may write to the bucket can put any record there: the hash that came over SSH is what counts."""
    record = place.submit("train")
    place.gate.touch()
    given = place.given(record)

    async def scene() -> None:
        await place.push(record)
        with pytest.raises(RefusedError, match="not the one that was handed over") as refusal:
            await place.hand(replace(given, record="0" * 64))
        assert refusal.value.kind == "run"

    asyncio.run(scene())
    until("it has ended", lambda: not place.processes())
    assert place.status(record) is RunStatus.RUNNING
    assert not place.marks.exists()


def test_a_bucket_that_the_host_does_not_see_is_found_before_anything_is_pushed(place: Place, tmp_path: Path) -> None:
    record = place.submit("train")
    elsewhere = replace(place.given(record), bucket=str(tmp_path / "elsewhere"))

    async def scene() -> None:
        assert (await place.look(place.given(record))).used
        with pytest.raises(RefusedError, match="does not see the bucket") as refusal:
            await place.look(elsewhere)
        assert refusal.value.kind == "bucket"

    asyncio.run(scene())
    assert not (place.dir / "coordinators").exists(), "a look starts no coordinator"


def test_a_coordinator_that_was_killed_is_followed_by_one_that_adopts_its_job(place: Place) -> None:
    record = place.submit("train")

    async def hand() -> str:
        await place.push(record)
        return await place.hand(place.given(record))

    first = asyncio.run(hand())
    until("the job runs", lambda: place.marks.exists(), told=place.log)
    for pid in place.processes():
        os.kill(pid, signal.SIGKILL)
    until("it is gone", lambda: not place.processes())
    assert asyncio.run(hand()) != first
    place.gate.touch()
    place.wait(record)
    assert place.status(record) is RunStatus.SUCCEEDED, place.log()
    assert place.marks.read_text() == "prepare\ntrain s3cret\n", "nothing was started twice"


def test_a_second_hand_over_adds_values_and_takes_none_away(place: Place) -> None:
    """The first laptop has not the value that a later job needs; the second has; a third has not again."""
    record = place.submit("train")
    whole, without = place.given(record), replace(place.given(record), caller={})

    async def hand(given: HandOver) -> None:
        await place.hand(given)

    asyncio.run(place.push(record))
    asyncio.run(hand(without))
    place.gate.touch()
    until("the job waits for its value", lambda: "waits for the value of TOKEN" in place.log(), told=place.log)
    for given in (whole, without):
        asyncio.run(hand(given))
    place.wait(record)
    assert place.status(record) is RunStatus.SUCCEEDED, place.log()
    assert place.marks.read_text() == "prepare\ntrain s3cret\n"


def test_a_silent_bucket_ends_no_coordinator(place: Place) -> None:
    """The bucket's folder is taken away for a while: the run goes on when it is back."""
    record = place.submit("train")

    async def scene() -> None:
        await place.push(record)
        await place.hand(place.given(record))

    asyncio.run(scene())
    until("the job runs", lambda: place.marks.exists(), told=place.log)
    away = place.bucket.with_name("away")
    place.bucket.rename(away)
    place.gate.touch()
    until("it noticed", lambda: "cannot" in place.log() or "again" in place.log(), told=place.log)
    begin = time.monotonic()
    if place.bucket.exists():  # made anew by a write: what stands in it is nothing of the run's
        place.bucket.rename(place.bucket.with_name("made"))
    away.rename(place.bucket)
    place.wait(record)
    assert place.status(record) is RunStatus.SUCCEEDED, place.log()
    assert time.monotonic() - begin < 60


async def handed(place: Place, *runs: tuple[RunRecord, Coordinator | None]) -> None:
    """Each run is handed over, with its code, for whom it is attended by."""
    for record, attendant in runs:
        await place.push(record)
        await place.hand(replace(place.given(record), attendant=attendant))


def test_it_writes_nothing_while_somebody_attends_and_goes_on_once_that_one_has_left(place: Place) -> None:
    """Two attended runs: one is left by its attendant, of the other it is ended."""
    left, ended = place.submit("train"), place.submit("train", "--rerun=train")
    other = replace(ATTENDANT, id="b" * 32)
    place.session.bucket.put(place.session.keys.heartbeat(other.id), b"{}")
    place.beat()
    before = place.objects()
    place.gate.touch()
    asyncio.run(handed(place, (left, ATTENDANT), (ended, other)))
    until("it stands by", lambda: place.log().count("stands by for alice@laptop") == 2, told=place.log)
    begin = time.monotonic()
    until(
        "it has looked a second time", lambda: time.monotonic() - begin > STANDBY_POLL_S + 2, seconds=2 * STANDBY_POLL_S
    )
    assert place.objects() == before, "whoever stands by writes nothing"
    assert not place.marks.exists()
    place.session.bucket.put(place.session.keys.run(ended.id).final, final_of(ended))
    place.session.bucket.delete(place.session.keys.heartbeat(other.id))
    place.leave()
    place.wait(left)
    assert place.status(left) is RunStatus.SUCCEEDED, place.log()
    assert place.marks.read_text() == "prepare\ntrain s3cret\n"
    until("it has ended", lambda: not place.processes(), seconds=STANDBY_POLL_S + 10)
    assert f"{ended.name}: needs nobody" in place.log()


def final_of(record: RunRecord) -> bytes:
    return pack(
        Final(
            nonce="f",
            run=record.name,
            user=record.user,
            machine=record.machine,
            submitted=record.submitted,
            workflow=record.workflow,
            status=RunStatus.STOPPED,
            ended=1.0,
            jobs=(),
        )
    )


def test_a_hand_over_without_an_attendant_ends_a_stand_by_at_once_and_none_begins_it_again(place: Place) -> None:
    """As Ctrl-C of an attached run does, and `attach` later on while the host works."""
    record = place.submit("train")
    place.beat()
    asyncio.run(handed(place, (record, ATTENDANT)))
    until("it stands by", lambda: "stands by" in place.log(), told=place.log)
    begin = time.monotonic()
    asyncio.run(handed(place, (record, None)))
    until("the job runs", lambda: place.marks.exists(), told=place.log, seconds=STANDBY_POLL_S - 5)
    assert time.monotonic() - begin < STANDBY_POLL_S - 5
    asyncio.run(handed(place, (record, ATTENDANT)))
    place.gate.touch()
    place.wait(record)
    assert place.marks.read_text() == "prepare\ntrain s3cret\n"
    assert place.log().count("stands by") == 1
