"""`dstack secrets`, and what runs make of it: with a keyring, with none, and with one that is locked."""

from __future__ import annotations

import hashlib
import json
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.checkout import ROOT
from tests.support.people.laptop import Laptop, names
from tests.support.secrets import keyring_backends

Make = Callable[..., Laptop]
VALUE = "kx7Qp2mZ9vR4tLw8"
WORKFLOW = """
workflows:
  - name: use
    secrets: [TOKEN]
    commands:
      - echo "got $TOKEN"
      - printf %s "$TOKEN" | sha256sum | cut -c1-16
"""


def digest(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()[:16]


def with_keyring(project: Laptop, backend: str) -> Laptop:
    project.environment |= {
        "PYTHON_KEYRING_BACKEND": backend if "." in backend else f"tests.support.secrets.keyring_backends.{backend}",
        keyring_backends.FILE: str(project.home.parent / "vault.json"),
        "PYTHONPATH": str(ROOT),
    }
    return project


@pytest.fixture
def ringed(project: Make) -> Laptop:
    made = with_keyring(project({".dstack/workflows.yaml": WORKFLOW}), "Working")
    made.git()
    return made


@pytest.fixture
def bare(project: Make) -> Laptop:
    made = with_keyring(project({".dstack/workflows.yaml": WORKFLOW}), keyring_backends.NONE)
    made.git()
    return made


def secrets_file(project: Laptop) -> Path:
    return project.home / ".dstack" / "secrets.json"


def vault(project: Laptop) -> dict[str, str]:
    path = project.home.parent / "vault.json"
    return json.loads(path.read_text()) if path.exists() else {}


def assert_nowhere(project: Laptop, value: str = VALUE) -> None:
    for folder in (project.home, project.root):
        for path in folder.rglob("*"):
            assert not path.is_file() or value.encode() not in path.read_bytes(), path


def test_set_keeps_in_the_keyring_and_nowhere_else(ringed: Laptop) -> None:
    done = ringed.run("secrets", "set", "TOKEN", stdin=f"{VALUE}\n")
    assert (done.code, done.out, done.err) == (
        0,
        "TOKEN is kept in the keyring (Test Keyring), for project project\n",
        "",
    )
    assert vault(ringed) == {"dstack/project TOKEN": VALUE}
    assert stat.S_IMODE(secrets_file(ringed).stat().st_mode) == 0o600
    assert_nowhere(ringed)


def test_without_a_keyring_a_file_of_the_owners_keeps_it_and_that_is_said(bare: Laptop) -> None:
    done = bare.run("secrets", "set", "TOKEN", stdin=VALUE)
    assert (done.code, done.out) == (0, "TOKEN is kept in ~/.dstack/secrets.json (mode 0600), for project project\n")
    assert done.err == "  not in a keyring: this system has no keyring that works\n"
    assert stat.S_IMODE(secrets_file(bare).stat().st_mode) == 0o600
    assert bare.run("run", "use").code == 0


@pytest.mark.parametrize(
    ("backend", "why"),
    [
        ("Locked", "the keyring (Test Keyring) cannot be used: the vault is locked"),
        ("Forgetful", "the keyring (Test Keyring) did not keep TOKEN as it is"),
        ("Plain", "this system has no keyring that works"),
        ("no.such.Backend", "ModuleNotFoundError: No module named 'no'"),
    ],
)
def test_a_keyring_that_does_not_work_is_not_trusted(project: Make, backend: str, why: str) -> None:
    made = with_keyring(project({".dstack/workflows.yaml": WORKFLOW}), backend)
    done = made.run("secrets", "set", "TOKEN", stdin=VALUE)
    assert (done.code, done.err) == (0, f"  not in a keyring: {why}\n")
    assert "secrets.json" in done.out
    assert VALUE in secrets_file(made).read_text()


def test_set_asks_on_a_terminal_without_showing_the_value(ringed: Laptop) -> None:
    done = ringed.terminal("secrets", "set", "TOKEN", answer=f"{VALUE}\n", answer_at="TOKEN: ")
    assert done.code == 0
    assert done.out == "TOKEN: \nTOKEN is kept in the keyring (Test Keyring), for project project\n"
    assert vault(ringed) == {"dstack/project TOKEN": VALUE}


def test_a_value_is_never_an_argument(ringed: Laptop) -> None:
    for value in (VALUE, f"-{VALUE}", f"--token={VALUE}"):
        done = ringed.run("secrets", "set", "TOKEN", value, stdin="other")
        assert done.code == 2
        assert done.err.startswith("error: a value is never an argument")
        assert VALUE not in done.err + done.out
    assert vault(ringed) == {}


@pytest.mark.parametrize(
    ("stdin", "told"),
    [("", "is empty"), ("\n", "is empty"), ("a\0b", "has a NUL"), ("x" * 65537, "longer than 64 kB")],
)
def test_values_that_no_job_could_get_are_refused(ringed: Laptop, stdin: str, told: str) -> None:
    done = ringed.run("secrets", "set", "TOKEN", stdin=stdin)
    assert (done.code, vault(ringed), secrets_file(ringed).exists()) == (2, {}, False)
    assert told in done.err


def test_bytes_that_are_no_text_are_refused(ringed: Laptop) -> None:
    command = [sys.executable, "-m", "dstack", "secrets", "set", "TOKEN"]
    done = subprocess.run(
        command, cwd=ringed.root, env=ringed.environment, input=b"\xff\xfe key", capture_output=True, check=False
    )
    assert (done.returncode, vault(ringed)) == (2, {})
    assert b"is no UTF-8 text" in done.stderr


@pytest.mark.parametrize("name", ["1A", "A-B", "DSTACK_X", "", "run_name"])
def test_names_that_no_job_could_get_are_refused(ringed: Laptop, name: str) -> None:
    assert ringed.run("secrets", "set", name, stdin=VALUE).code == 2
    assert vault(ringed) == {}


def test_a_short_value_is_kept_with_a_warning(ringed: Laptop) -> None:
    done = ringed.run("secrets", "set", "TOKEN", stdin="abc")
    assert (done.code, done.err) == (0, "note: TOKEN is shorter than 4 characters, so it is not masked in logs\n")


def test_ls_shows_names_and_places_and_no_value(ringed: Laptop) -> None:
    ringed.run("secrets", "set", "TOKEN", stdin=VALUE)
    ringed.run("secrets", "set", "TOKEN", "--global", stdin=VALUE)
    with_keyring(ringed, keyring_backends.NONE)
    ringed.run("secrets", "set", "API_KEY", "--global", stdin=VALUE)
    ringed.write({".env": f"# mine\nexport TOKEN='{VALUE}'\nEMPTY=\n"})
    done = ringed.run("secrets", "ls")
    assert (done.code, done.err) == (0, "")
    assert done.out == (
        "SECRET   FOR           KEPT IN\n"
        "API_KEY  all projects  ~/.dstack/secrets.json\n"
        "TOKEN    this project  keyring\n"
        "TOKEN    this project  .env\n"
        "TOKEN    all projects  keyring\n"
    )


def test_ls_outside_a_project_lists_what_is_for_all(ringed: Laptop) -> None:
    ringed.run("secrets", "set", "TOKEN", "--global", stdin=VALUE)
    ringed.root = ringed.home
    refused = ringed.run("secrets", "set", "TOKEN", stdin=VALUE)
    assert (refused.code, "or say --global" in refused.err) == (2, True)
    done = ringed.run("secrets", "ls")
    assert done.out == "SECRET  FOR           KEPT IN\nTOKEN   all projects  keyring\n"
    assert ringed.run("secrets", "rm", "TOKEN", "--global").code == 0
    assert ringed.run("secrets", "ls").err == "no secret is set; `dstack secrets set NAME` sets one\n"


def test_rm_forgets_one_and_says_where_others_are(ringed: Laptop) -> None:
    ringed.run("secrets", "set", "TOKEN", stdin=VALUE)
    ringed.run("secrets", "set", "TOKEN", "--global", stdin=VALUE)
    assert ringed.run("secrets", "rm", "TOKEN").out == "TOKEN is forgotten, for project project\n"
    assert vault(ringed) == {"dstack TOKEN": VALUE}
    again = ringed.run("secrets", "rm", "TOKEN")
    assert again.code == 2
    assert "`dstack secrets rm TOKEN --global`" in again.err
    ringed.write({".env": "TOKEN=x"})
    assert "it stands in .env, which dstack never writes" in ringed.run("secrets", "rm", "TOKEN").err


def test_what_is_nearest_wins_and_reaches_the_job_masked(ringed: Laptop) -> None:
    """The project's own, then its `.env`, then the one for all: each is seen once the nearer is gone."""
    ringed.write({".env": "TOKEN=from-dot-env$X\n"})
    ringed.run("secrets", "set", "TOKEN", stdin="from-project")
    ringed.run("secrets", "set", "TOKEN", "--global", stdin="from-global")
    for value in ("from-project", "from-dot-env$X", "from-global"):
        done = ringed.run("run", "use", "--rerun=use")
        assert done.code == 0, done.err
        log = ringed.run("logs", names(done.out)[0], "use").out
        assert log == f"got ***\n{digest(value)}\n"
        ringed.run("secrets", "rm", "TOKEN")
        if value.startswith("from-dot-env"):
            (ringed.root / ".env").unlink()


def test_a_run_without_its_secret_is_refused_before_anything_is_recorded(ringed: Laptop) -> None:
    ringed.write({".env": "not a line\n"})
    for arguments in (("run", "use"), ("run", "use", "--dry-run"), ("run", "use", "-d")):
        done = ringed.run(*arguments)
        assert (done.code, done.out) == (8, "")
        assert done.err == (
            "error: secret TOKEN is not set (workflow use)\n"
            "  `dstack secrets set TOKEN`, or a line in .env of the project folder; line 1 of .env is no NAME=VALUE\n"
        )
    assert not (ringed.home / ".dstack" / "bucket").exists()


def test_check_names_workflow_secret_and_way_out(ringed: Laptop) -> None:
    done = ringed.run("check")
    assert done.code == 2
    assert done.err == (
        "error: 1 problem:\n"
        ".dstack/workflows.yaml:3:11: use: secret TOKEN is not set: `dstack secrets set TOKEN`, "
        "or a line in .env of the project folder\n"
    )
    ringed.run("secrets", "set", "TOKEN", stdin=VALUE)
    assert ringed.run("check").code == 0


def test_what_is_reused_needs_no_secret_and_its_value_is_no_ingredient(ringed: Laptop) -> None:
    ringed.run("secrets", "set", "TOKEN", stdin=VALUE)
    assert ringed.run("run", "use").code == 0
    ringed.run("secrets", "set", "TOKEN", stdin="another value")
    assert "reused" in ringed.run("run", "use").out
    ringed.run("secrets", "rm", "TOKEN")
    again = ringed.run("run", "use")
    assert (again.code, "reused" in again.out) == (0, True)


def test_a_locked_keyring_is_an_error_in_a_line(ringed: Laptop) -> None:
    ringed.run("secrets", "set", "TOKEN", stdin=VALUE)
    for backend, told in (
        ("Locked", "the keyring (Test Keyring) cannot be used: the vault is locked\n  unlock it, then try again\n"),
        (keyring_backends.NONE, "secret TOKEN is in a keyring, and here is none"),
    ):
        done = with_keyring(ringed, backend).run("run", "use")
        assert done.code == 8
        assert told in done.err
    assert not (ringed.home / ".dstack" / "bucket").exists()


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_a_file_that_others_may_read_is_refused(bare: Laptop, mode: int) -> None:
    bare.run("secrets", "set", "TOKEN", stdin=VALUE)
    secrets_file(bare).chmod(mode)
    for arguments in (("run", "use"), ("secrets", "ls"), ("secrets", "set", "OTHER")):
        done = bare.run(*arguments, stdin="x" * 9)
        assert (done.code, "~/.dstack/secrets.json can be read by others" in done.err) == (8, True)


@pytest.mark.parametrize(
    "body", ["", "[]", "{}", '{"v": 1, "secrets": [{}]}', '{"v": 1, "secrets": [{"project": 1, "name": "A"}]}']
)
def test_a_damaged_file_is_an_error_in_a_line(bare: Laptop, body: str) -> None:
    bare.run("secrets", "set", "TOKEN", stdin=VALUE)
    secrets_file(bare).write_text(body)
    done = bare.run("run", "use")
    assert (done.code, done.err.count("\n")) == (8, 2)


def test_a_dotenv_never_travels(bare: Laptop) -> None:
    bare.write({".env": f"TOKEN={VALUE}\n"})
    assert bare.run("run", "use").code == 0
    (bare.root / ".env").unlink()
    assert_nowhere(bare)


def test_sets_at_once_lose_nothing(bare: Laptop) -> None:
    command = [sys.executable, "-m", "dstack", "secrets", "set"]
    processes = [
        subprocess.Popen(
            [*command, f"NAME_{number}"],
            cwd=bare.root,
            env=bare.environment,
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        for number in range(6)
    ]
    for process in processes:
        process.communicate(VALUE.encode(), timeout=120)
    listed = bare.run("secrets", "ls").out
    assert all(f"NAME_{number}" in listed for number in range(6))
