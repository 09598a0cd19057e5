"""Disks that fill and empty at any time: nothing is lost that is not said, and no job pays for it that never began."""

from __future__ import annotations

import os
import random
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.support.people.laptop import Laptop
from tests.support.runners.fixtures import snapshot
from tests.support.runners.host import Host
from tests.support.runners.small_disk import SECRETS, Filler, small_disk
from tests.support.waiting import until

__all__ = ["small_disk", "snapshot"]

ROUNDS = int(os.environ.get("DSTACK_ROUNDS", "1"))
WRITES = 300
LINE = 20_000
SPEAKER = """
import os, signal, time
signal.signal(signal.SIGPIPE, signal.SIG_IGN)
line = b"a" * {line} + b"\\n"
done = 0
for number in range({writes}):
    left = line
    while left:
        try:
            left = left[os.write(1, left):]
        except OSError:
            break
    done += len(line) - len(left)
    time.sleep({pause})
open({marks!r}, "w").write(str(done))
"""
"""A job that goes on whatever becomes of its log, and counts by itself how much of it could be written."""


def play_job(host: Host, seed: int, *, secret: bool) -> str:
    """Play one job that says WRITES lines while the disk fills and empties; "" when what is missing is what is said.

    What the job counted, in a file outside of the disk, is the judge.
    """
    chance = random.Random(seed)
    filler = Filler(host.root)
    marks = host.root.parent / f"written-{seed}-{secret}"
    speaker = host.root.parent / f"speaker-{seed}-{secret}.py"
    pause = chance.choice((0, 0.001, 0.004))
    speaker.write_text(SPEAKER.format(line=LINE - 1, writes=WRITES, pause=pause, marks=str(marks)))
    client = host.connect()
    nonce = host.start(client, f"python3 {speaker}", secrets=SECRETS if secret else None)

    def disturb() -> None:
        for _ in range(chance.randint(1, 3)):
            time.sleep(chance.random() * 0.5)  # the seed's choice of when: no condition is waited for
            filler.fill(leave=chance.choice((0, 0, 100, 100_000)))
            time.sleep(0.3 + chance.random())
            if chance.random() < 0.8:
                filler.empty()

    attack = threading.Thread(target=disturb)
    attack.start()
    log, end = host.finish(client, nonce)
    attack.join()
    filler.empty()
    kept = log.count(b"a" * (LINE - 1) + b"\n")
    client.call("release", nonce=nonce)
    missing = kept < WRITES or int(marks.read_text()) < WRITES * LINE
    if missing and not end["log_lost"]:
        return f"seed {seed}: {WRITES - kept} of {WRITES} lines are missing, and nobody says so"
    if secret and kept == WRITES and end["log_lost"]:
        return f"seed {seed}: nothing is missing, and {end['log_lost']!r}"
    return ""


@pytest.mark.parametrize("secret", [True, False], ids=["masked", "plain"])
def test_whenever_the_disk_fills_what_is_missing_is_said(small_disk: Host, secret: bool) -> None:
    wrong = [play_job(small_disk, seed, secret=secret) for seed in range(ROUNDS)]
    assert not [text for text in wrong if text]


WORKFLOWS = """
workflows:
  - name: train
    commands:
      - echo $$ >> {marks}
      - echo trained
"""
BIG = 3_000_000
"""Bytes of the project's code: more than is left on the disk."""


def hosts(laptop: Laptop, **folders: Path) -> None:
    """Make this machine the laptop's hosts, once for each folder."""
    entries = [f"  {name}: {{local: true, dir: {folder}}}\n" for name, folder in folders.items()]
    (laptop.home / ".dstack" / "hosts.yaml").write_text("hosts:\n" + "".join(entries))


@pytest.fixture
def laptop(tmp_path: Path, small_disk: Host) -> Laptop:
    """A project whose one host is this machine, with its folder on the small disk."""
    made = Laptop(tmp_path / "laptop")
    made.write({".dstack/workflows.yaml": WORKFLOWS.format(marks=made.marks)})
    (made.home / ".dstack").mkdir()
    hosts(made, small=small_disk.root)
    (made.root / "bulk").write_bytes(random.Random(7).randbytes(BIG))
    made.commit()
    return made


def said_by(run: subprocess.Popen[str]) -> list[str]:
    """The lines of a run as they come."""
    lines: list[str] = []

    def take() -> None:
        assert run.stdout
        lines.extend(iter(run.stdout.readline, ""))

    threading.Thread(target=take, daemon=True).start()
    return lines


@pytest.mark.parametrize("seed", range(3 * ROUNDS))
def test_a_job_that_found_the_disk_full_begins_once_there_is_room(laptop: Laptop, small_disk: Host, seed: int) -> None:
    chance = random.Random(seed)
    filler = Filler(small_disk.root)
    # The first run brings runner and code; then its code is laid on a disk with too little room, or none, for it.
    laptop.dstack("run", "train")
    assert len(laptop.local_marks()) == 1
    if seed % 3 == 1:
        laptop.write({"more": "code that has to be brought as well"})
        laptop.commit()
    filler.fill(leave=(0, chance.randrange(1 << 16, BIG // 2), BIG // 2)[seed % 3])
    run = laptop.start("run", "train", "--rerun")
    lines = said_by(run)
    try:
        until("the disk is called full", lambda: "the disk of the host is full" in "".join(lines), seconds=40)
        assert len(laptop.local_marks()) == 1
        assert run.poll() is None
        filler.empty()
        assert run.wait(60) == 0, "".join(lines)
        assert len(laptop.local_marks()) == 2
        assert "trained" in "".join(lines)
    finally:
        if run.poll() is None:
            run.kill()
        run.communicate()


def test_another_host_is_taken_at_once(laptop: Laptop, small_disk: Host, tmp_path: Path) -> None:
    filler = Filler(small_disk.root)
    laptop.dstack("run", "train")
    hosts(laptop, small=small_disk.root, roomy=tmp_path / "roomy")
    filler.fill(leave=BIG // 2)
    found = laptop.run_json("train", "--rerun")
    assert [(job["status"], job["host"]) for job in found["jobs"]] == [("succeeded", "roomy")]
    assert len(laptop.local_marks()) == 2


TALKER = """
workflows:
  - name: talk
    depends-on: {{repo: {{include: []}}}}
    commands:
      - trap '' PIPE
      - echo first; echo $$ >> {marks}
      - while [ ! -e {full} ]; do sleep 0.05; done
      - head -c 6000000 /dev/zero | tr '\\0' a || true
      - exit 0
"""


@pytest.mark.parametrize("secret", [True, False], ids=["masked", "plain"])
def test_logs_that_lack_something_say_so_by_their_exit_code(laptop: Laptop, small_disk: Host, secret: bool) -> None:
    filler, full = Filler(small_disk.root), laptop.root.parent / "full"
    text = TALKER.format(marks=laptop.marks, full=full)
    laptop.write({".dstack/workflows.yaml": text + ("    env: [TOKEN]\n" if secret else "")})
    laptop.commit()
    run = laptop.start("run", "talk", environment={"TOKEN": "correct horse battery"})
    lines = said_by(run)
    until("the job talks", lambda: "first" in "".join(lines) and laptop.local_marks())
    filler.fill()
    full.touch()
    # What it left cannot be listed either: that waits, and fails no job that has ended well.
    until("it waits for room", lambda: "waits for room" in "".join(lines))
    filler.empty()
    assert run.wait(60) == 0, "".join(lines)[-2000:]
    run.communicate()
    assert "[dstack] " in "".join(lines)
    logs = laptop.dstack("logs", "-", code=5)
    assert logs.stdout.startswith("first\n")
    assert "\n[dstack] " in logs.stdout
    assert "small: talk: " in logs.stderr
    assert "the disk of the host is full" in logs.stderr
    [job] = laptop.show("-")["jobs"]
    assert (job["status"], "the disk of the host is full" in job["reason"]) == ("succeeded", True)
