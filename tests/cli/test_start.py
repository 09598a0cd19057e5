"""What a command imports before it does anything: the start-up budget, held by names and not by a clock."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.support.people.laptop import Laptop

HEAVY = ("rich", "networkx", "asyncio", "asyncssh", "pydantic", "fsspec", "obstore", "boto3", "cryptography", "numpy",
         "keyring", "dotenv")  # fmt: skip
WORKFLOWS = {".dstack/workflows.yaml": "workflows:\n  - name: w\n    commands: [echo hi]\n"}


def imported(project: Laptop, *arguments: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "dstack", *arguments],
        cwd=project.root,
        env=project.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rsplit("|", 1)[1].strip() for line in lines[1:]}


@pytest.mark.parametrize("arguments", [["--help"], ["ps"], ["ps", "--json"], ["hosts", "ls"], ["hosts", "--help"],
                                       ["secrets", "ls"], ["secrets", "--help"]])  # fmt: skip
def test_nothing_heavy_is_imported(project: Callable[..., Laptop], arguments: list[str]) -> None:
    modules = imported(project(WORKFLOWS), *arguments)
    assert {module for module in modules if module.split(".")[0] in HEAVY} == set()


def test_the_version_imports_nothing_of_ours_but_itself(project: Callable[..., Laptop]) -> None:
    modules = imported(project(), "--version")
    assert {module for module in modules if module.startswith("dstack")} <= {"dstack", "dstack.__main__"}
    assert not modules & {"typing", "click", "typer", "dataclasses", "subprocess", "json", "re"}


@pytest.mark.parametrize(
    "module", ["click", "typer", "dstack.cli.main", "dstack.cli.runs.run", "dstack.app.coordination.run"]
)
def test_ctrl_c_while_modules_are_imported_ends_quietly(project: Callable[..., Laptop], module: str) -> None:
    press = f"""\
import os, signal, sys

class Press:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Press())
"""
    made = project({**WORKFLOWS, "press/sitecustomize.py": press})
    made.git()
    done = made.run("run", "w", env={"PYTHONPATH": str(made.root / "press")})
    assert (done.code, done.out, done.err) == (130, "", "")


def test_help_imports_no_command(project: Callable[..., Laptop]) -> None:
    modules = imported(project(), "--help")
    ours = {module for module in modules if module.startswith("dstack.")}
    assert ours <= {"dstack.__main__", "dstack.cli", "dstack.cli.main", "dstack.cli.lazy", "dstack.errors", "dstack.ui",
                    "dstack.ui.terminal", "dstack.ui.colours", "dstack.private_folder",
                    "dstack.cli.standard_streams"}  # fmt: skip


def test_a_run_without_secrets_opens_no_keyring(project: Callable[..., Laptop]) -> None:
    made = project(WORKFLOWS)
    made.git()
    modules = imported(made, "run", "w")
    assert {"keyring", "dotenv", "dstack.cli.secrets.set"} & modules == set()


def test_ps_imports_no_steps_and_no_runner(project: Callable[..., Laptop]) -> None:
    modules = imported(project(WORKFLOWS), "ps")
    ours = {module.removeprefix("dstack.app.") for module in modules if module.startswith("dstack.app.")}
    assert ours <= {"queries", "queries.runs", "queries.run_views", "maintenance", "maintenance.bucket_probe"}


def test_a_plan_without_a_circle_does_not_import_networkx(project: Callable[..., Laptop]) -> None:
    second = "  - name: v\n    depends-on: [w]\n    commands: [echo hi]\n"
    modules = imported(project({".dstack/workflows.yaml": WORKFLOWS[".dstack/workflows.yaml"] + second}), "check")
    assert "dstack.project.graph" in modules
    assert not any(module.startswith("networkx") for module in modules)
