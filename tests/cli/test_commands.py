"""The command line itself: helps, unknown commands, errors, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import pytest

from dstack import __version__
from tests.support.people.laptop import Laptop

Make = Callable[..., Laptop]

HELP = """\
Usage: dstack [OPTIONS] COMMAND [ARGS]...

  Run ML workflows on your own servers over SSH, without a central server.

Options:
  --version   Print the version.
  -h, --help  Show this message and exit.

Commands:
  run        Run a workflow and all that it depends on.
  attach     Come back to a run that goes on in the background.
  ps         List runs.
  show       Show one run and its jobs.
  logs       Print or follow the logs of a run.
  why        Say why a job ran, or why it was reused.
  queue      Show what runs and waits on the hosts, and why.
  stop       Stop a run, or one workflow of it.
  lost       Say that what runs of a run will never come back.
  artifacts  List and fetch what jobs left behind.
  hosts      List, add, check and remove hosts.
  secrets    Keep secrets for jobs: API keys, tokens.
  prune      Remove old results, logs and records from the bucket.
  du         Show what the project takes up in the bucket.
  fsck       Check everything in the bucket, and repair what can be.
  check      Check the YAML files of the project; run nothing.
  init       Write a commented starter into .dstack/.
  version    Print the version.

  `dstack COMMAND --help` says more; `dstack run --help` lists the workflows
  of this project.
"""


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help(project: Make, arguments: list[str]) -> None:
    done = project().run(*arguments)
    assert (done.code, done.out, done.err) == (0, HELP, "")


@pytest.mark.parametrize("arguments", [["--version"], ["version"]])
def test_version(project: Make, arguments: list[str]) -> None:
    done = project().run(*arguments)
    assert (done.code, done.out, done.err) == (0, f"dstack {__version__}\n", "")


@pytest.mark.parametrize(
    "name", [line.split()[0] for line in HELP.partition("Commands:\n")[2].splitlines()[:16] if line.split()[0] != "run"]
)
def test_every_command_has_a_help_of_80_columns(project: Make, name: str) -> None:
    done = project().run(name, "--help")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"Usage: dstack {name}")
    assert max(len(line) for line in done.out.splitlines()) <= 80
    assert "Show this message and exit." in done.out


@pytest.mark.parametrize(
    "arguments", [["artifacts", "ls"], ["artifacts", "pull"], ["hosts", "add"], ["hosts", "check"]]
)
def test_every_command_of_a_group_has_a_help(project: Make, arguments: list[str]) -> None:
    done = project().run(*arguments, "--help")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"Usage: dstack {' '.join(arguments)}")


def test_an_unknown_command_is_told_with_the_nearest(project: Make) -> None:
    done = project().run("stpo")
    assert (done.code, done.out) == (2, "")
    assert done.err == (
        "error: there is no command 'stpo'; did you mean `dstack stop`?\n  Usage: dstack [OPTIONS] COMMAND [ARGS]...\n"
    )


def test_an_unknown_command_of_a_group_is_told_with_the_nearest(project: Make) -> None:
    done = project().run("hosts", "chek")
    assert done.code == 2
    assert "did you mean `dstack hosts check`?" in done.err


def test_a_hidden_command_is_never_proposed(project: Make) -> None:
    assert "_coordinate" not in project().run("coordinate").err


@pytest.mark.parametrize(
    "arguments", [["show", "--x"], ["logs", "a", "b", "c"], ["ps", "--nonsense"], ["ps", "-n", "0"], ["ps", "-n", "x"]]
)
def test_a_wrong_command_line_gives_2_and_the_usage(project: Make, arguments: list[str]) -> None:
    done = project().run(*arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: ")
    assert f"Usage: dstack {arguments[0]}" in done.err


def test_help_says_what_stands_for_a_run(project: Make) -> None:
    made = project()
    for command in ("show", "logs", "why", "attach"):
        told = " ".join(made.run(command, "--help").out.split())
        assert "or as `-`, it is your own last run on this machine" in told


def test_outside_a_project_the_way_in_is_told(project: Make) -> None:
    made = project()
    done = made.run("ps")
    assert (done.code, done.out) == (2, "")
    assert done.err == (
        f"error: no .dstack folder in {made.root} or any folder above it\n"
        "  go to your project, or make one here with `dstack init`\n"
    )


def test_an_error_of_a_json_command_is_json_on_stderr(project: Make) -> None:
    made = project({".dstack/workflows.yaml": "workflows: []\n"})
    done = made.run("show", "calm-otter-7", "--json")
    assert (done.code, done.out) == (2, "")
    assert json.loads(done.err) == {
        "error": {
            "message": "there is no run 'calm-otter-7'",
            "hint": "`dstack ps` lists the runs, and `-` stands for your own last one",
            "exit_code": 2,
        }
    }


def test_what_the_user_typed_cannot_steer_the_terminal(project: Make) -> None:
    made = project({".dstack/workflows.yaml": "workflows: []\n"})
    for done in (made.run("show", "a\x1b]0;x\x07\x1b[2Jb"), made.run("a\x1b[2Jb")):
        assert "\x1b" not in done.err
        assert done.code == 2


def test_a_reader_that_goes_away_is_no_error_to_talk_about(project: Make) -> None:
    made = project()
    process = subprocess.Popen(
        [sys.executable, "-m", "dstack", "--help"],
        cwd=made.root,
        env=made.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(60) in (0, 1)


def test_a_bug_keeps_its_traceback_and_asks_to_report(project: Make) -> None:
    made = project(
        {
            ".dstack/workflows.yaml": "workflows: []\n",
            "sitecustomize.py": "import dstack.app.queries.runs as o\no.views_of = None\n",
        }
    )
    done = made.run("ps", env={"PYTHONPATH": str(made.root)})
    assert done.code == 1
    assert "this is a bug; please report it" in done.err
    assert "Traceback" in done.err
    assert "TypeError" in done.err
