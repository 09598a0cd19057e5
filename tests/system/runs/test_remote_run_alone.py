"""Runs that are left alone: the terminal closes, the connection breaks; the jobs go on and nothing of them is lost."""

from __future__ import annotations

import fcntl
import os
import pty
import shlex
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from tests.support.hosts.farm import Farm, TestHost
from tests.support.hosts.home import Home
from tests.support.people.laptop import Laptop
from tests.support.people.pipeline import GATE, MARKS, marks, remote_laptop
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def host(farm: Farm) -> TestHost:
    return farm.start()[0]


@pytest.fixture
def laptop(host: TestHost, ssh_home: Home, tmp_path: Path) -> Laptop:
    return remote_laptop(tmp_path, ssh_home, host)


def open_terminal(laptop: Laptop, command: str) -> tuple[subprocess.Popen[bytes], int]:
    """A shell that leads a session of its own on a terminal -> the shell, and the end that a person would hold."""
    person, terminal = pty.openpty()

    def take_terminal() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    # The one thread of a test process: nothing else can hold a lock at the fork.
    shell = subprocess.Popen(
        ["sh", "-c", command],
        cwd=laptop.root,
        env=laptop.environment,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        preexec_fn=take_terminal,
    )
    os.close(terminal)
    return shell, person


def test_a_detached_run_of_five_steps_completes_when_its_terminal_is_closed(laptop: Laptop, host: TestHost) -> None:
    """`run -d`, then the terminal hangs up while the first step still waits: all five steps run, once each."""
    steps = {1: [], 2: [1], 3: [1], 4: [2, 3], 5: [4]}
    lines = ["workflows:"]
    for step, before in steps.items():
        lines += [
            f"  - name: step-{step}",
            f"    depends-on: {{repo: {{include: []}}, workflows: [{', '.join(f'step-{each}' for each in before)}]}}",
            "    commands:",
            f"      - echo {step} >> {MARKS}",
            f"      - while [ ! -e {GATE} ]; do sleep 0.05; done",
            f"      - cat step-* > out 2>/dev/null || true; echo {step} >> out; mv out step-{step}",
            f"    artifacts: [step-{step}]",
        ]
    laptop.write({".dstack/workflows.yaml": "\n".join(lines) + "\n"})
    laptop.commit()
    said = laptop.root.parent / "said"
    python = shlex.quote(sys.executable)
    shell, person = open_terminal(
        laptop, f"{python} -P -m dstack run step-5 -d > {said}; echo done >> {said}; sleep 600"
    )
    until(
        "the run is left to the background", lambda: said.exists() and said.read_text().endswith("done\n"), seconds=60
    )
    os.close(person)
    assert shell.wait(timeout=30) == -signal.SIGHUP
    until("the first step runs", lambda: marks([host]), seconds=60)
    host.run(["touch", GATE], user="alice")

    name = said.read_text().split()[0]
    until("the run ends", lambda: laptop.show(name)["status"] != "running", seconds=120)
    assert set(laptop.statuses(name).values()) == {"succeeded"}
    assert sorted(marks([host])) == ["1", "2", "3", "4", "5"]
    laptop.dstack("artifacts", "pull", name, "step-5", "-o", str(laptop.root.parent / "out"))
    assert (laptop.root.parent / "out/step-5").read_text().split() == ["1", "2", "1", "3", "4", "5"]


LINES = 300


def test_a_broken_connection_costs_no_byte_of_the_log(laptop: Laptop, host: TestHost) -> None:
    """sshd's processes are killed twice while the job writes: the attached run goes on, each line is there once."""
    loop = f"i=0; while [ $i -lt {LINES} ]; do echo line $i; i=$((i+1)); sleep 0.03; done"
    laptop.write(
        {".dstack/workflows.yaml": f"workflows:\n  - name: talk\n    commands: ['echo talk >> {MARKS}', '{loop}']\n"}
    )
    laptop.commit()
    seen = []
    with laptop.start("run", "talk") as process:
        assert process.stdout
        for line in process.stdout:
            seen.append(line)
            if line in ("line 40\n", "line 160\n"):
                host.run(["pkill", "-KILL", "-u", "alice", "sshd"])
    assert process.returncode == 0, "".join(seen)
    expected = [f"line {number}\n" for number in range(LINES)]
    assert [line for line in seen if line.startswith("line ")] == expected
    assert marks([host]) == ["talk"]
    name = seen[0].strip()
    assert laptop.dstack("logs", name, "--raw").stdout == "".join(expected)
    assert host.sshd_log().count("Accepted publickey") >= 3
