"""Standard output that takes nothing: a full disk, a closed descriptor, a reader that has left. No traceback, ever."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support.people.laptop import LIMIT, Done, Laptop

FILES = {".dstack/workflows.yaml": "workflows:\n  - {name: w, commands: [echo done]}\n"}
UNWRITTEN = 9
FULL = "error: standard output cannot be written: No space left on device"
CLOSED = "error: standard output cannot be written: Bad file descriptor"
HINT = "  make room where it is written to, or give it another place"
COMMANDS = (
    ["ps"],
    ["ps", "-a", "--json"],
    ["show", "-"],
    ["logs", "-"],
    ["why", "-"],
    ["queue"],
    ["stop", "-", "--yes"],
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Laptop:
    """A project with one run, that has ended."""
    project = Laptop(tmp_path_factory.mktemp("unwritten"), user="alice", columns=80)
    project.write(FILES)
    project.git()
    assert project.run("run", "w").code == 0
    return project


def in_shell(project: Laptop, arguments: list[str], rest: str) -> Done:
    """The command with what a shell makes of `rest`, e.g. `>/dev/full`."""
    done = subprocess.run(
        ["bash", "-c", f'set -o pipefail; "$@" {rest}', "bash", sys.executable, "-m", "dstack", *arguments],
        cwd=project.root,
        env=project.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=LIMIT,
        check=False,
    )
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.mark.parametrize("arguments", [*COMMANDS, ["--version"], ["--help"]], ids=" ".join)
def test_a_full_disk_is_said_in_one_line(made: Laptop, arguments: list[str]) -> None:
    done = in_shell(made, arguments, ">/dev/full")
    assert (done.code, done.out) == (UNWRITTEN, "")
    if "--json" in arguments:
        assert json.loads(done.err)["error"]["exit_code"] == UNWRITTEN
    else:
        assert said(done) == [FULL, HINT]


def said(done: Done) -> list[str]:
    """What stands on standard error, but for the name of the run that `-` means."""
    return [line for line in done.err.splitlines() if not line.startswith("your last run: ")]


@pytest.mark.parametrize("arguments", [["ps"], ["stop", "-", "--yes"], ["--version"]], ids=" ".join)
def test_a_closed_standard_output_is_said_in_one_line(made: Laptop, arguments: list[str]) -> None:
    done = in_shell(made, arguments, ">&-")
    assert (done.code, said(done)) == (UNWRITTEN, [CLOSED, HINT])


def test_where_no_descriptor_is_open_the_exit_code_alone_tells(made: Laptop) -> None:
    assert in_shell(made, ["ps"], "<&- >&- 2>&-") == Done(UNWRITTEN, "", "")
    assert in_shell(made, ["show", "no-such-run-1"], "<&- >&- 2>&-") == Done(2, "", "")


def test_an_error_is_said_where_standard_output_takes_nothing(made: Laptop) -> None:
    done = in_shell(made, ["show", "no-such-run-1"], ">/dev/full")
    assert (done.code, "no-such-run-1" in done.err, "Traceback" in done.err) == (2, True, False)
    assert in_shell(made, ["show", "no-such-run-1"], "2>/dev/full").code == 2


@pytest.mark.parametrize("arguments", [["ps"], ["show", "-"], ["--help"]], ids=" ".join)
def test_a_reader_that_leaves_is_no_error(made: Laptop, arguments: list[str]) -> None:
    done = in_shell(made, arguments, "| head -1")
    assert (done.code in (0, 1), said(done), done.out.count("\n")) == (True, [], 1)
    gone = in_shell(made, arguments, "| true")
    assert (gone.code in (0, 1), gone.out, said(gone)) == (True, "", [])
