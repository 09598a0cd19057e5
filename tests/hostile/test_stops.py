"""`dstack stop` beside what is frozen or gone: the job's own processes, by /proc, say whether it was stopped."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import pytest

from tests.support.people.laptop import Laptop
from tests.support.waiting import until

ROUNDS = int(os.environ.get("DSTACK_ROUNDS", "1"))
SOON = 25.0
"""Seconds in which a stop reaches the job: 3 until another coordinator is started, 5 for the frozen one, TERM, the rest
for a machine that is busy."""

WORKFLOWS = """
workflows:
  - name: train
    depends-on: {{repo: {{include: []}}}}
    commands:
      - echo $$ >> {marks}
      - exec sleep 600
"""


def laptop_in(folder: Path) -> Laptop:
    made = Laptop(folder)
    made.write({".dstack/workflows.yaml": WORKFLOWS.format(marks=made.marks)})
    made.commit()
    return made


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def runners_of(coordinator: int) -> list[int]:
    """The children of a coordinator that were started as runners."""
    children = Path(f"/proc/{coordinator}/task/{coordinator}/children").read_text().split()
    return [int(pid) for pid in children if b"sys.stdin.buffer" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def freeze_runner(run: subprocess.Popen[str]) -> None:
    for pid in runners_of(run.pid):
        os.kill(pid, signal.SIGSTOP)


def kill_runner(run: subprocess.Popen[str]) -> None:
    for pid in runners_of(run.pid):
        os.kill(pid, signal.SIGKILL)


def freeze_coordinator(run: subprocess.Popen[str]) -> None:
    run.send_signal(signal.SIGSTOP)


def freeze_both(run: subprocess.Popen[str]) -> None:
    freeze_runner(run)
    freeze_coordinator(run)


Attack = Callable[[subprocess.Popen[str]], None]
ATTACKS: tuple[Attack, ...] = (freeze_runner, kill_runner, freeze_coordinator, freeze_both)


def attacked(laptop: Laptop, attack: Attack, pause: float) -> str:
    """What went wrong when a run was attacked `pause` seconds after its job began, and stopped then; "" for nothing."""
    run = laptop.start("run", "train", start_new_session=True)
    try:
        until("the job runs", laptop.local_marks)
        job = int(laptop.local_marks()[0])
        time.sleep(pause)
        attack(run)
        stop = laptop.start("stop", "-")
        until("the job was stopped", lambda: not lives(job), seconds=SOON)
        out, err = stop.communicate(timeout=60)
        assert (stop.returncode, "train: stopped" in out) == (0, True), (out, err)
        assert laptop.local_marks() == [str(job)]
        run.send_signal(signal.SIGCONT)
        run.communicate(timeout=60)
        assert run.returncode == 1
        assert laptop.statuses("-") == {"train": "stopped"}
    except AssertionError as error:
        return f"{attack.__name__}: {error}"
    finally:
        if run.poll() is None:
            for pid in [*runners_of(run.pid), run.pid]:
                os.kill(pid, signal.SIGKILL)
            run.communicate()
    return ""


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_stop_ends_the_job_whatever_is_frozen(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    laptops = [laptop_in(tmp_path / attack.__name__) for attack in ATTACKS]
    pauses = [chance.random() * seed for _ in ATTACKS]
    with ThreadPoolExecutor(len(ATTACKS)) as pool:
        assert not [text for text in pool.map(attacked, laptops, ATTACKS, pauses) if text]


@pytest.fixture
def frozen_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system that was frozen: who writes to it is in state D until it is thawed."""
    image, folder = tmp_path / "image", tmp_path / "disk"
    folder.mkdir()
    image.write_bytes(b"")
    os.truncate(image, 8 << 20)
    made = [["mkfs.ext4", "-q", str(image)], ["mount", "-o", "loop", str(image), str(folder)]]
    if os.getuid() or not shutil.which("fsfreeze") or any(subprocess.run(each).returncode for each in made):
        pytest.skip("a disk that hangs needs root, fsfreeze and a loop device")
    try:
        subprocess.run(["fsfreeze", "-f", str(folder)], check=True)
        yield folder
    finally:
        subprocess.run(["fsfreeze", "-u", str(folder)], check=False, stderr=subprocess.DEVNULL)
        subprocess.run(["umount", "-l", str(folder)], check=True)


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_what_the_kernel_does_not_end_stays_stopping_and_is_named(tmp_path: Path, frozen_disk: Path) -> None:
    laptop = Laptop(tmp_path / "laptop")
    commands = f"echo $$ >> {laptop.marks}\n      - exec dd if=/dev/zero of={frozen_disk}/file bs=4096 count=1"
    laptop.write({
        ".dstack/workflows.yaml": "workflows:\n  - name: train\n    depends-on: {repo: {include: []}}\n"
        f"    commands:\n      - {commands}\n"
    })  # fmt: skip
    laptop.commit()
    run = laptop.start("run", "train", start_new_session=True)
    assert run.stdout
    try:
        until("the job runs", laptop.local_marks)
        job = int(laptop.local_marks()[0])
        until("it waits for the disk", lambda: state_of(job) == "D")
        stop = laptop.start("stop", "-", "--abort")
        output = run.stdout
        said = until("it is called so", lambda: _line_with(output, "the kernel does not end"))
        assert "train: stopping" in said
        assert f"{job} (dd, state D)" in said
        assert laptop.statuses("-") == {"train": "stopping"}
        assert lives(job)
        subprocess.run(["fsfreeze", "-u", str(frozen_disk)], check=True)
        out, err = stop.communicate(timeout=60)
        assert "train: stopped" in out, (out, err)
        assert not lives(job)
    finally:
        subprocess.run(["fsfreeze", "-u", str(frozen_disk)], check=False, stderr=subprocess.DEVNULL)
        if run.poll() is None:
            run.kill()
        run.communicate()


def _line_with(lines: IO[str], words: str) -> str:
    """The next line that holds the words; the test's own deadline ends the wait."""
    return next((line for line in lines if words in line), "")


def test_a_connection_that_is_cut_between_hold_and_go_is_called_one(tmp_path: Path) -> None:
    laptop = laptop_in(tmp_path / "laptop")
    run = laptop.start("run", "train")
    spool = laptop.home / ".dstack" / "spool"
    deadline = time.monotonic() + 8
    cut: set[str] = set()
    while run.poll() is None and time.monotonic() < deadline and not laptop.local_marks():
        held = {path.parent.name for path in spool.glob("*/supervisor.json")} - cut
        if held:
            cut |= held
            kill_runner(run)
    if run.poll() is None:
        laptop.dstack("stop", "-")
    out, err = run.communicate(timeout=60)
    assert cut
    assert "the connection was lost" in out + err, (out, err)
    assert "was decided already" not in out + err, (out, err)
    assert "never started" not in out + err, (out, err)
