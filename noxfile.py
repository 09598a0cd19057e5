"""Every check of the project. `nox` runs what CI runs; `nox -s soak`, `mutants` and `bench` are run by hand.

Arguments after `--` go to pytest, for example `nox -- --require-docker --require-spin`: what a machine lacks is skipped
with its reason, unless it is required. `--skipped-before` plays the tests alone that earlier runs skipped so.
When nox runs out of a virtual environment that holds `-e .[dev]`, as the README's command makes it, all sessions use
that one; else each makes its own.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.metadata import Distribution, PackageNotFoundError
from pathlib import Path

import nox
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent
TWO = ("-n", "2")
WAITING = ("-n", "4", "--dist", "worksteal")
"""For tests that wait for clocks and hosts far more than they compute."""
HOST_PYTHONS = ("3.9", "3.10")
"""The oldest Pythons that a host may have."""
COORDINATOR = "tests/contract/test_coordinator.py"
"""Skipped on Pythons that it does not promise."""
WRITE = "--write"
"""Of `nox -s docs -- --write`; nothing for pytest."""
SKIPPED_BEFORE = "--skipped-before"
LACKING = ROOT / ".pytest_cache/v/dstack/lacking"
"""Where tests/lacking.py keeps what each session skipped."""
REQUIRE_SPIN = "--require-spin"
"""Of `nox -s model -- --require-spin`; nothing for pytest."""


def _is_installed(requirement: Requirement) -> bool:
    try:
        return requirement.specifier.contains(Distribution.from_name(requirement.name).version, prereleases=True)
    except PackageNotFoundError:
        return False


def _is_ready() -> bool:
    """Whether the environment that nox runs in is this checkout with everything that the sessions need."""
    project = nox.project.load_toml(ROOT / "pyproject.toml")["project"]
    needed = [Requirement(text) for text in (*project["dependencies"], *project["optional-dependencies"]["dev"])]
    try:
        origin = json.loads(Distribution.from_name("dstack").read_text("direct_url.json") or "{}")
    except PackageNotFoundError:
        return False
    is_ours = bool(origin.get("dir_info", {}).get("editable")) and origin["url"] == ROOT.as_uri()
    return is_ours and all(_is_installed(requirement) for requirement in needed)


READY = _is_ready()
nox.options.sessions = ["lint", "unit", "contract", "cli", "system", "hostile", "hosts-python", "model", "docs"]
nox.options.default_venv_backend = "none" if READY else "uv|virtualenv"
nox.options.reuse_venv = "yes"


def _install(session: nox.Session) -> None:
    if not READY:
        session.install("-e", ".[dev]")


def _run(session: nox.Session, program: str, *arguments: str, env: dict[str, str] | None = None) -> None:
    """Run a program of the environment; it need not be activated."""
    found = str(Path(sys.executable).with_name(program)) if READY else program
    session.run(found, *arguments, env=env, external=READY)


def _has_skipped(name: str) -> bool:
    return any(json.loads(file.read_text()) for file in LACKING.glob(f"{name}*"))


def _pytest(session: nox.Session, *arguments: str, env: dict[str, str] | None = None) -> None:
    if SKIPPED_BEFORE in session.posargs and not _has_skipped(session.name):
        session.log("this session has skipped nothing for want of something on this machine")
        return
    given = [argument for argument in session.posargs if argument not in (WRITE, REQUIRE_SPIN)]
    _run(session, "python", "-m", "pytest", *arguments, *given, env=env)


@nox.session
def lint(session: nox.Session) -> None:
    """Format, style, types, layers and sizes."""
    _install(session)
    _run(session, "ruff", "format", "--check", ".")
    _run(session, "ruff", "check", ".")
    _run(session, "mypy")
    _run(session, "lint-imports")
    _run(session, "python", "-m", "tests.sizes")


@nox.session
def unit(session: nox.Session) -> None:
    """Pure decisions, and what needs no other process than git and Python; seconds."""
    _install(session)
    _pytest(session, "tests/unit", *TWO)


@nox.session
def contract(session: nox.Session) -> None:
    """One suite for each port, on every implementation; the use cases on fakes; the simulator."""
    _install(session)
    _pytest(session, "tests/contract", "tests/app", *TWO, env={"DSTACK_SCHEDULES": "10000"})


@nox.session
def cli(session: nox.Session) -> None:
    """Whole commands in a temporary project, whole outputs compared."""
    _install(session)
    _pytest(session, "tests/cli", *TWO)


@nox.session
def hostile(session: nox.Session) -> None:
    """Attacks from outside: other accounts, damage, lying hosts, full disks. DSTACK_ROUNDS plays more of each."""
    _install(session)
    _pytest(session, "tests/hostile", *WAITING)


@nox.session
def system(session: nox.Session) -> None:
    """Real sshd, real git, real buckets, kill -9."""
    _install(session)
    _pytest(session, "tests/system", *TWO)


def _interpreter(version: str) -> str | None:
    """A working Python of that version: on PATH, or one of pyenv's."""
    pyenv = Path.home().glob(f".pyenv/versions/{version}.*/bin/python")
    for candidate in (shutil.which(f"python{version}"), *map(str, pyenv)):
        if candidate and subprocess.run([candidate, "-c", ""], capture_output=True, check=False).returncode == 0:
            return candidate
    return None


@nox.session(name="hosts-python")
def hosts_python(session: nox.Session) -> None:
    """What is shipped to hosts, on the oldest Pythons that a host may have (those found here)."""
    found = {version: python for version in HOST_PYTHONS if (python := _interpreter(version))}
    for version in HOST_PYTHONS:
        if version not in found:
            session.warn(f"python{version} is not on this machine: NOTHING is tested on it")
    if not found:
        session.skip(f"none of {', '.join(HOST_PYTHONS)} is on this machine")
    _install(session)
    for version, python in found.items():
        env = {"DSTACK_HOST_PYTHON": python, "DSTACK_HOST_PYTHONS": version}
        _pytest(session, "tests/unit/runner", "tests/contract/test_runner.py", COORDINATOR, *TWO, env=env)


@nox.session
def model(session: nox.Session) -> None:
    """The Spin model of the protocol, whole, and its mutants; skipped where spin or gcc is missing, unless required."""
    required = REQUIRE_SPIN in session.posargs
    if not required and not (shutil.which("spin") and shutil.which("gcc")):
        session.skip("spin or gcc is not on this machine: apt-get install spin gcc")
    _install(session)
    _run(session, "python", "-m", "tests.model", *([REQUIRE_SPIN] if required else []))


@nox.session
def mutants(session: nox.Session) -> None:
    """Break the shipped source on purpose, once for each guarantee, and see a test fail."""
    _install(session)
    _run(session, "python", "-m", "tests.mutants", *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """The long figures, whole."""
    _install(session)
    env = {"DSTACK_SCHEDULES": "100000", "DSTACK_ROUNDS": "50", "DSTACK_KILLS": "200"}
    _pytest(session, "tests/app/protocol/test_simulator.py", "tests/system", "tests/hostile", *TWO, env=env)


@nox.session
def bench(session: nox.Session) -> None:
    """Timings against their anchors, side by side in one run; never an assertion."""
    _install(session)
    _run(session, "python", "-m", "tests.bench", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Reference pages are generated from the code: this fails when they have drifted, or a link points nowhere.

    `nox -s docs -- --write` writes them.
    """
    _install(session)
    _run(session, "python", "-m", "tests.docs", *([WRITE] if WRITE in session.posargs else []))
