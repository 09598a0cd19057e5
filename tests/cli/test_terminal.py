"""The terminal is given back without the colours and modes of a job, however a command ends."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time

import pytest

from tests.support.people.laptop import LIMIT, Laptop, names

HIDDEN = "\\033[8m\\033[30;40m"
FILES = {
    ".dstack/workflows.yaml": f"""\
workflows:
  - name: first
    commands: ['printf "{HIDDEN}hidden\\n"']
  - name: second
    depends-on: [first]
    commands: ['printf "{HIDDEN}also no end"']
  - name: calm
    commands: [echo calm]
  - name: slow
    commands: ['printf "{HIDDEN}begun\\n"', 'while [ ! -e "$GATE" ]; do sleep 0.1; done']
    env: [GATE]
""",
}
RESET = "\x1b[0m"
pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Laptop:
    """A project in which `second` and `calm` were run."""
    project = Laptop(tmp_path_factory.mktemp("made"), user="alice", columns=80)
    project.environment["GATE"] = str(project.root / "gate")
    project.write(FILES)
    project.git()
    assert project.run("run", "calm").code == 0
    assert project.run("run", "second").code == 0
    return project


def last_run(made: Laptop) -> str:
    return names(made.run("ps").out)[0]


def is_clean(shown: str) -> bool:
    """Whether a terminal is left without colours: by the last sequence that sets any."""
    return "\x1b[8m" in shown and shown.rindex(RESET) > max(shown.rindex("\x1b[8m"), shown.rindex("\x1b[30;40m"))


def test_logs_end_without_colours(made: Laptop) -> None:
    run = last_run(made)
    one = made.terminal("logs", run, "second")
    assert one.out == f"\x1b[8m\x1b[30;40malso no end{RESET}"
    assert made.terminal("logs", run, "second", "-f").out == one.out


def test_the_logs_of_two_jobs_do_not_colour_one_another(made: Laptop) -> None:
    both = made.terminal("logs", last_run(made))
    dark = "\x1b[8m\x1b[30;40m"
    assert both.out == f"[first] {dark}hidden{RESET}\n[second] {dark}also no end{RESET}\n"
    assert made.run("logs", "-").out == both.out


def test_what_is_not_coloured_gets_nothing_extra(made: Laptop) -> None:
    assert made.run("run", "calm", "--rerun").code == 0
    assert made.run("logs", "-").out == made.terminal("logs", last_run(made)).out == "calm\n"
    assert made.run("run", "second").code == 0


def test_an_attached_run_ends_without_colours(made: Laptop) -> None:
    done = made.terminal("run", "second", "--rerun")
    assert done.code == 0
    assert is_clean(done.out)
    assert all(is_clean(line) for line in done.out.splitlines() if "\x1b[8m" in line)


def test_ctrl_c_takes_the_colours_away(made: Laptop) -> None:
    done = made.terminal("run", "slow", interrupt_at="begun")
    run = names(done.out)[0]
    assert is_clean(done.out)
    followed = made.terminal("logs", run, "-f", interrupt_at="begun")
    assert followed.code == 130
    assert is_clean(followed.out)
    attached = made.terminal("attach", run, interrupt_at="begun")
    assert is_clean(attached.out)
    (made.root / "gate").touch()


def test_logs_that_are_told_to_end_take_the_colours_away(made: Laptop) -> None:
    made.environment["GATE"] = str(made.root / "third-gate")
    run = names(made.run("run", "slow", "-d", "--rerun").out)[0]
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "dstack", "logs", run, "-f"]
    process = subprocess.Popen(command, cwd=made.root, env=made.environment, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    shown, deadline = b"", time.monotonic() + LIMIT
    while b"begun" not in shown:
        assert time.monotonic() < deadline
        shown += os.read(master, 4096)
    process.terminate()
    (made.root / "third-gate").touch()
    assert process.wait(LIMIT) == 128 + signal.SIGTERM
    while select.select([master], [], [], 0.5)[0]:
        try:
            shown += os.read(master, 4096)
        except OSError:
            break
    os.close(master)
    assert is_clean(shown.decode())


def test_a_reader_that_leaves_takes_no_colours_with_it(made: Laptop) -> None:
    """`dstack logs -f | head -1` in a terminal: head wrote what it read there, and standard error is that terminal."""
    made.environment["GATE"] = str(made.root / "another-gate")
    run = names(made.run("run", "slow", "-d", "--rerun").out)[0]
    master, slave = pty.openpty()
    read, write = os.pipe()
    command = [sys.executable, "-m", "dstack", "logs", run, "-f"]
    process = subprocess.Popen(
        command, cwd=made.root, env={**made.environment, "TERM": "xterm"}, stdin=slave, stdout=write, stderr=slave
    )
    os.close(slave)
    os.close(write)
    assert select.select([read], [], [], 60)[0]
    shown = os.read(read, 4096)
    os.close(read)
    (made.root / "another-gate").touch()
    assert process.wait(LIMIT) == 1
    assert b"begun" in shown
    deadline, beside = time.monotonic() + LIMIT, b""
    while RESET.encode() not in beside:
        assert time.monotonic() < deadline
        if select.select([master], [], [], 0.1)[0]:
            beside += os.read(master, 4096)
    assert beside == RESET.encode()
    os.close(master)
