"""A project's place in its repository, and the parts of the user's git configuration about files.

Nothing here writes, and none of the git commands starts another program.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from dstack.adapters.git.command import call, environment, finish, git_error, start_piped
from dstack.errors import SnapshotError

# Settings that say how to read files and that can name no program.
DATA_SETTINGS = (
    "core.filemode",
    "core.symlinks",
    "core.ignorecase",
    "core.precomposeunicode",
    "core.trustctime",
    "core.checkstat",
)
PLAIN_VALUE = re.compile(r"(?i)true|false|yes|no|on|off|0|1|default|minimal")


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """One repository of the user's: its folders and settings, all read once."""

    top: Path
    prefix: str
    """The folder asked for, relative to `top`: "" or ending in "/"."""
    index: Path
    objects: Path
    excludes: tuple[Path, ...]
    """Files of ignore patterns besides .gitignore, the weakest first."""
    attributes: Path
    user_attributes: Path
    converts: bool
    """The configuration converts line ends."""
    sha256: bool
    settings: Mapping[str, str]
    """The DATA_SETTINGS in the configuration."""
    head: str | None
    head_tree: str | None
    branch: str | None
    remote: str | None


def find_repository(folder: Path) -> Repository:
    """The repository around `folder`; raises SnapshotError when there is none, or git is not there."""
    env = environment()
    questions = ["--show-prefix", "--show-toplevel"]
    for name in ("index", "objects", "info/exclude", "info/attributes"):
        questions += ["--git-path", name]
    answer = call(["rev-parse", *questions], env=env, cwd=folder, codes=(0, 128))
    if answer.returncode != 0:
        raise no_repository_error(folder, answer.stderr)
    lines = answer.stdout.decode("utf-8", "surrogateescape").split("\n")[:-1]
    if len(lines) != len(questions) - 4:
        raise SnapshotError(f"the path of {folder} has a line break", hint="rename the folder")
    prefix, top = lines[0], Path(lines[1])
    index, objects, exclude, attributes = (folder.absolute() / line for line in lines[2:])
    config, (head, head_tree), branch = read_state(folder)
    return Repository(
        top=top,
        prefix=prefix,
        index=index,
        objects=objects,
        excludes=(user_file(config, "core.excludesfile", default="ignore", top=top), exclude),
        attributes=attributes,
        user_attributes=user_file(config, "core.attributesfile", default="attributes", top=top),
        converts=config.get("core.autocrlf", "false").lower() not in ("false", "no", "off", "0"),
        sha256=config.get("extensions.objectformat") == "sha256",
        settings={name: config[name] for name in DATA_SETTINGS if PLAIN_VALUE.fullmatch(config.get(name, ""))},
        head=head,
        head_tree=head_tree,
        branch=branch,
        remote=remote_url(config, branch),
    )


def is_ignored(folder: Path, path: Path) -> bool:
    """Whether the repository around `folder` neither tracks `path` nor takes `path` for a new file."""
    # 1: it is not ignored. 128: there is no repository, or it does not reach there.
    return (
        call(["check-ignore", "-q", "--", str(path)], env=environment(), cwd=folder, codes=(0, 1, 128)).returncode != 1
    )


def no_repository_error(folder: Path, stderr: bytes) -> SnapshotError:
    """Why there is no repository with files around `folder`."""
    # Git's own words, in English by the environment: it has no exit codes of its own for these.
    text = stderr.decode("utf-8", "replace").strip()
    if "dubious ownership" in text:
        return SnapshotError(
            f"{folder} is in a git repository of another owner",
            hint=f"if you trust it: git config --global --add safe.directory {folder}",
        )
    if "must be run in a work tree" in text:
        return SnapshotError(f"{folder} has no work tree around it", hint="start dstack in the project folder")
    if "not a git repository" in text:
        return SnapshotError(
            f"{folder} is in no git repository, so there is nothing that says which files are the code",
            hint="git init",
        )
    return git_error("rev-parse", stderr, 128)


CONFIGURATION_QUERY = ("config", "--list", "-z", "--includes")
HEAD_QUERY = ("cat-file", "--batch-check=%(objectname)")
BRANCH_QUERY = ("symbolic-ref", "-q", "HEAD")


def configuration(folder: Path) -> dict[str, str]:
    """The user's whole git configuration in force in `folder`; the last value of each setting."""
    return parse_configuration(call(CONFIGURATION_QUERY, env=environment(), cwd=folder).stdout)


def read_state(folder: Path) -> tuple[dict[str, str], tuple[str | None, str | None], str | None]:
    """The configuration; the checked-out commit and its tree, None before the first commit; the checked-out branch,
    born or not, None when HEAD is detached. Three reading processes, side by side."""
    env = environment()
    # Side by side: each process takes some 5 ms, and every `dstack run` waits for all three.
    with ExitStack() as started:
        config, head, branch = (
            started.enter_context(start_piped(question, env=env, cwd=folder))
            for question in (CONFIGURATION_QUERY, HEAD_QUERY, BRANCH_QUERY)
        )
        settings = parse_configuration(finish(config, "config").stdout)
        named = finish(head, "cat-file", data=b"HEAD^{commit}\nHEAD^{tree}\n").stdout.decode()
        reference = finish(branch, "symbolic-ref", codes=(0, 1, 128)).stdout.decode("utf-8", "surrogateescape")
    commit, tree = (None if line.endswith(" missing") else line for line in named.splitlines())
    return settings, (commit, tree), reference.strip().removeprefix("refs/heads/") or None


def parse_configuration(listing: bytes) -> dict[str, str]:
    """The output of `config --list -z` as a dictionary; the last value of each setting."""
    pairs = (entry.partition("\n") for entry in listing.decode("utf-8", "surrogateescape").split("\0") if entry)
    # `-c` settings of our own come last and are never asked for here.
    return {name: value if given else "true" for name, given, value in pairs}


def user_file(config: Mapping[str, str], setting: str, *, default: str, top: Path) -> Path:
    """The file named by a setting, or git's default file below the user's configuration folder."""
    named = config.get(setting)
    if named:
        return top / os.path.expanduser(named)
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(home) / "git" / default


def remote_url(config: Mapping[str, str], branch: str | None) -> str | None:
    """URL of the branch's remote, else of `origin`, without user names, passwords and tokens."""
    tracked = config.get(f"branch.{branch}.remote", "origin") if branch else "origin"
    url = config.get(f"remote.{tracked}.url") or config.get("remote.origin.url")
    return strip_credentials(url) if url else None


def strip_credentials(url: str) -> str:
    """A URL without possible secrets: user info of any scheme but ssh's user, query, fragment."""
    if "://" not in url:
        return url  # scp-like "git@host:path" and paths have no place for a password
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")
    user = place[0].partition(":")[0]
    keep = f"{user}@" if user and parts.scheme in ("ssh", "git+ssh", "ssh+git") else ""
    return urlunsplit((parts.scheme, keep + place[2], parts.path, "", ""))
