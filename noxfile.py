"""Every check of the project. `nox` runs what CI runs; `nox -s soak`, `mutants` and `bench` are run by hand.

Arguments after `--` go to pytest, for example `nox -- --require-docker`.
"""

from __future__ import annotations

import shutil

import nox

nox.options.sessions = ["lint", "unit", "contract", "cli", "system", "hosts-python", "docs"]
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = False

TWO = ("-n", "2")
HOST_PYTHONS = ("3.9", "3.10")


def _install(session: nox.Session) -> None:
    session.install("-e", ".[dev]")


def _pytest(session: nox.Session, *arguments: str, env: dict[str, str] | None = None) -> None:
    session.run("python", "-m", "pytest", *arguments, *session.posargs, env=env)


@nox.session
def lint(session: nox.Session) -> None:
    """Format, style, types, layers and sizes."""
    _install(session)
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("mypy")
    session.run("lint-imports")
    session.run("python", "-m", "tests.sizes")


@nox.session
def unit(session: nox.Session) -> None:
    """Pure decisions, and what needs no other process than git and Python; seconds."""
    _install(session)
    _pytest(session, "tests/unit", "tests/cases", *TWO)


@nox.session
def contract(session: nox.Session) -> None:
    """One suite for each port, on every implementation; the use cases on fakes; the simulator."""
    _install(session)
    _pytest(session, "tests/contract", "tests/app", *TWO, env={"DSTACK_SCHEDULES": "20000"})


@nox.session
def cli(session: nox.Session) -> None:
    """Whole commands in a temporary project, whole outputs compared."""
    _install(session)
    _pytest(session, "tests/cli", *TWO)


@nox.session
def system(session: nox.Session) -> None:
    """Real sshd, real git, real buckets, kill -9."""
    _install(session)
    _pytest(session, "tests/system", *TWO)


@nox.session(name="hosts-python")
def hosts_python(session: nox.Session) -> None:
    """What is shipped to hosts, on the oldest Pythons that a host may have (those found here)."""
    _install(session)
    for version in HOST_PYTHONS:
        if shutil.which(f"python{version}") is None:
            session.warn(f"python{version} is not on this machine; its share is skipped")
    _pytest(session, "tests/unit/runner", "tests/contract", *TWO, env={"DSTACK_HOST_PYTHONS": ",".join(HOST_PYTHONS)})


@nox.session
def mutants(session: nox.Session) -> None:
    """Break the shipped source on purpose, once for each guarantee, and see a test fail."""
    _install(session)
    session.run("python", "-m", "tests.mutants", *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """The long figures, whole."""
    _install(session)
    env = {"DSTACK_SCHEDULES": "100000", "DSTACK_ROUNDS": "50"}
    _pytest(session, "tests/app/test_protocol.py", "tests/system", *TWO, env=env)


@nox.session
def bench(session: nox.Session) -> None:
    """Timings against their anchors, side by side in one run; never an assertion."""
    _install(session)
    session.run("python", "-m", "tests.bench", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Reference pages are generated from the code: this fails when they have drifted, or a link points nowhere."""
    _install(session)
    session.run("python", "-m", "tests.docs", *session.posargs)
