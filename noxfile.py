"""Every check of the project. `nox` runs what CI runs; `nox -s soak`, `mutants` and `bench` are run by hand, and so is
one tier of the tests: `nox -s unit`, `contract`, `cli`, `system`, `hostile`. CONTRIBUTING.md says what each checks.

Arguments after `--` go to pytest, for example `nox -- --require-docker --require-spin`: what a machine lacks is skipped
with its reason, unless it is required. `--skipped-before` plays the tests alone that earlier runs skipped so.
When nox runs out of a virtual environment that holds `-e .[dev]`, as the README's command makes it, all sessions use
that one; else each makes its own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import Distribution, PackageNotFoundError
from pathlib import Path

import nox
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent
TIERS = ("system", "hostile", "cli", "contract", "app", "unit")
"""The longest tests first, so that the last minute is not one of them alone."""
PARALLEL = ("-n", os.environ.get("DSTACK_WORKERS", "4"), "--dist", "worksteal", "--durations=40")
"""For tests that wait for clocks and hosts more than they compute: more of them at once than processors."""
OLDEST = "3.9"
"""The oldest Python that a host may have: runners of tests run on it where it is there."""
OLDEST_COORDINATOR = "3.10"
"""The oldest Python on which a host coordinates."""
HOST_PYTHONS = ("3.9", "3.10", "3.11", "3.12", "3.13")
SHIPPED = ("tests/unit/runner", "tests/contract/test_runner.py", "tests/contract/test_coordinator.py")
"""The tests of what is shipped to hosts."""
SOAK = {"DSTACK_SCHEDULES": "100000", "DSTACK_ROUNDS": "50", "DSTACK_KILLS": "200"}
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
nox.options.sessions = ["lint", "docs", "model", "tests"]
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
    """Format, style, types, layers, sizes and layout."""
    _install(session)
    _run(session, "ruff", "format", "--check", ".")
    _run(session, "ruff", "check", ".")
    _run(session, "mypy")
    _run(session, "lint-imports")
    _run(session, "python", "-m", "tests.sizes")
    _run(session, "python", "-m", "tests.layout")


@nox.session
def tests(session: nox.Session) -> None:
    """All tests at once, as CI plays them; DSTACK_WORKERS says how many at a time."""
    _install(session)
    _pytest(session, *(f"tests/{tier}" for tier in TIERS), "tests/cases", *PARALLEL, env=_oldest_pythons(session))


@nox.session
def unit(session: nox.Session) -> None:
    """Pure decisions, and what needs no other process than git and Python; seconds."""
    _install(session)
    _pytest(session, "tests/unit", "tests/cases", *PARALLEL)


@nox.session
def contract(session: nox.Session) -> None:
    """One suite for each port, on every implementation; the use cases on fakes; the simulator."""
    _install(session)
    _pytest(session, "tests/contract", "tests/app", *PARALLEL)


@nox.session
def cli(session: nox.Session) -> None:
    """Whole commands in a temporary project, whole outputs compared."""
    _install(session)
    _pytest(session, "tests/cli", *PARALLEL)


@nox.session
def hostile(session: nox.Session) -> None:
    """Attacks from outside: other accounts, damage, lying hosts, full disks. DSTACK_ROUNDS plays more of each."""
    _install(session)
    _pytest(session, "tests/hostile", *PARALLEL)


@nox.session
def system(session: nox.Session) -> None:
    """Real sshd, real git, real buckets, kill -9."""
    _install(session)
    _pytest(session, "tests/system", *PARALLEL)


def _interpreter(version: str) -> str | None:
    """A working Python of that version: on PATH, or one of pyenv's."""
    pyenv = Path.home().glob(f".pyenv/versions/{version}.*/bin/python")
    for candidate in (shutil.which(f"python{version}"), *map(str, pyenv)):
        if candidate and subprocess.run([candidate, "-c", ""], capture_output=True, check=False).returncode == 0:
            return candidate
    return None


def _oldest_pythons(session: nox.Session) -> dict[str, str]:
    """Where the oldest Pythons that a host may have are, for the tests that start runners and coordinators."""
    found = {"DSTACK_HOST_PYTHON": _interpreter(OLDEST), "DSTACK_COORDINATOR_PYTHON": _interpreter(OLDEST_COORDINATOR)}
    for name, version in zip(found, (OLDEST, OLDEST_COORDINATOR), strict=True):
        if found[name] is None:
            session.warn(f"python{version} is not on this machine: NOTHING is tested on it")
    return {name: python for name, python in found.items() if python}


@nox.session(name="hosts-python")
def hosts_python(session: nox.Session) -> None:
    """What is shipped to hosts, on every Python that a host may have (those found here); the soak plays it too."""
    _install(session)
    found = {version: python for version in HOST_PYTHONS if (python := _interpreter(version))}
    for version in HOST_PYTHONS:
        if version not in found:
            session.warn(f"python{version} is not on this machine: NOTHING is tested on it")
    for version, python in found.items():
        env = dict.fromkeys(("DSTACK_HOST_PYTHON", "DSTACK_COORDINATOR_PYTHON"), python)
        _pytest(session, *SHIPPED, *PARALLEL, env={**env, "DSTACK_HOST_PYTHONS": version})


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
    """The long figures, whole, and what is shipped to hosts on every Python that they may have; hours."""
    _install(session)
    _pytest(session, "tests/app/protocol/test_simulator.py", "tests/system", "tests/hostile", *PARALLEL, env=SOAK)
    hosts_python(session)


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
