"""The only way of calling git on the laptop, so that git reads and executes nothing unasked.

Every call gets the same environment: no prompts, no locks taken for convenience, no hooks, no fsmonitor, no lazy
fetches, messages in English, no GIT_* variable of the caller's. Only calls with `home` None see the user's own
configuration, and are limited to commands that answer questions and start no other program.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from dstack.errors import SnapshotError
from dstack.private_folder import RIGHTS_OF_OTHERS

NO_GIT_HINT = "install git 2.20 or newer on this machine"
SAFE_SETTINGS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.untrackedCache=false",
    "core.splitIndex=false",
    "core.pager=cat",
    "protocol.allow=never",
    "submodule.recurse=false",
    "gc.auto=0",
    "maintenance.auto=false",
)
HINT_BY_TEXT = (
    (
        "dubious ownership",
        "the folder belongs to somebody else; if you trust it: `git config --global --add safe.directory <folder>`",
    ),
    ("not a git repository", "run `git init` in the project folder"),
    ("must be run in a work tree", "start dstack in the folder of the project, not in a bare repository or in .git"),
    ("No space left", "free some disk space on this machine"),
    ("Permission denied", "make every file of the project readable, or name it in .gitignore"),
    ("missing", "the repository lacks objects (a partial clone?): `git fetch --refetch`, then try again"),
    ("unable to read", "the repository lacks objects (a partial clone?): `git fetch --refetch`, then try again"),
    ("index file", "`git status` in the project says what is wrong with its index"),
)


def environment(*, home: Path | None = None, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of one git process; `home` None leaves the user's own configuration visible."""
    # GIT_DIR and the like, as set inside a hook, would point git at another repository.
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    env.update(
        LC_ALL="C",
        LANGUAGE="C",
        GIT_OPTIONAL_LOCKS="0",
        GIT_TERMINAL_PROMPT="0",
        GIT_NO_LAZY_FETCH="1",
        GIT_NO_REPLACE_OBJECTS="1",
        GIT_LITERAL_PATHSPECS="0",
        GIT_ASKPASS="true",
        SSH_ASKPASS="true",
    )
    if home is not None:
        # Both spellings: GIT_CONFIG_GLOBAL is known from git 2.32 on only.
        env.update(HOME=str(home), XDG_CONFIG_HOME=str(home), GIT_CONFIG_GLOBAL=os.devnull)
        env.update(GIT_CONFIG_NOSYSTEM="1", GIT_ATTR_NOSYSTEM="1")
    env.update(extra or {})
    return env


def command_line(arguments: Sequence[str]) -> list[str]:
    """The whole command line of one git process."""
    settings = [part for setting in SAFE_SETTINGS for part in ("-c", setting)]
    return ["git", "--no-pager", *settings, *arguments]


def call(
    arguments: Sequence[str], *, env: Mapping[str, str], cwd: Path, data: bytes = b"", codes: Iterable[int] = (0,)
) -> subprocess.CompletedProcess[bytes]:
    """Run git to its end -> the finished process; raises SnapshotError unless its exit code is in `codes`."""
    process = start_piped(arguments, env=env, cwd=cwd)
    return finish(process, arguments[0], data=data, codes=codes)


def start_piped(arguments: Sequence[str], *, env: Mapping[str, str], cwd: Path) -> subprocess.Popen[bytes]:
    """Start git, to be ended by `finish`; two readers may run side by side."""
    return start(arguments, env=env, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(
    process: subprocess.Popen[bytes], command: str, *, data: bytes = b"", codes: Iterable[int] = (0,)
) -> subprocess.CompletedProcess[bytes]:
    """Wait for git -> the finished process; raises SnapshotError unless its exit code is in `codes`."""
    with process:
        try:
            output, errors = process.communicate(data)
        except BaseException:
            process.kill()
            raise
    if process.returncode not in codes:
        raise git_error(command, errors, process.returncode)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def start(arguments: Sequence[str], *, env: Mapping[str, str], cwd: Path, **streams: object) -> subprocess.Popen[bytes]:
    """Start git with the given streams; raises SnapshotError without an installed git.

    All files written by git are private: they lie in folders of dstack's alone.
    """
    try:
        return subprocess.Popen(command_line(arguments), env=dict(env), cwd=cwd, umask=RIGHTS_OF_OTHERS, **streams)  # type: ignore[call-overload,no-any-return]
    except OSError as error:
        raise start_error(error, cwd) from None


def start_error(error: OSError, cwd: Path) -> SnapshotError:
    """The error for a git process not started in `cwd`."""
    if not cwd.is_dir():
        return SnapshotError(f"the folder {cwd} does not exist", hint="start dstack in the folder of the project")
    if isinstance(error, FileNotFoundError):
        return SnapshotError("git is not installed on this machine, or not on PATH", hint=NO_GIT_HINT)
    return SnapshotError(f"git cannot be started: {error.strerror}", hint=NO_GIT_HINT)


def git_error(command: str, stderr: bytes, code: int) -> SnapshotError:
    """The error for a failed git process: its last line, and the next step."""
    lines = [line for line in stderr.decode("utf-8", "replace").splitlines() if line.strip()]
    last = lines[-1].strip() if lines else f"exit code {code}"
    whole = "\n".join(lines)
    hint = next((hint for mark, hint in HINT_BY_TEXT if mark in whole), "`git status` in the project may say more")
    return SnapshotError(f"the code cannot be packed: git {command}: {last}", hint=hint)


def c_quote(path: Path) -> str:
    """A path in C quotes, for git's lists of object folders and its configuration, safe for any characters."""
    text = str(path).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{text}"'
