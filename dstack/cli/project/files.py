"""`dstack check` and `dstack init`: the files of the project itself."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer

from dstack.adapters.bucket.opener import open_bucket, private_folder, probe_effort
from dstack.adapters.bucket.remote_errors import redacted
from dstack.adapters.bucket.stall_notice import WaitingBucket
from dstack.app.maintenance.bucket_probe import check_format, ensure_probed, require_writer
from dstack.cli.command_session import open_session, own_home, say
from dstack.errors import ConfigError, Problem, SnapshotError, UsageError
from dstack.project import starter
from dstack.project.plan import Project, check_includes, load_project
from dstack.project.settings import read_settings
from dstack.project.starter import FILES, write_starter
from dstack.session.secret_values import missing_secrets
from dstack.session.session import Session
from dstack.ui.terminal import clean


def check() -> None:
    """Read and check all YAML files of the project and the inventory, that secrets are set, and whether the bucket can
    be read; run nothing.

    Prints every problem at once, as file:line:column, and exits with 2 when there is one, with 6 when it is the bucket.
    """
    session = open_session()
    problems: list[Problem] = []
    project = _gather(session.project, problems)
    hosts = _gather(session.inventory, problems)
    _gather(lambda: session.settings, problems)
    if project is not None and any(workflow.secrets for workflow in project.workflows):
        problems += _gather(lambda: missing_secrets(session.secrets, project.workflows), problems) or []
    unread = _check_includes(session, project, problems) if project is not None else ""
    if problems:
        raise ConfigError(sorted(set(problems)))
    for note in project.notes:
        sys.stderr.write(f"{clean(str(note))} (note)\n")
    if unread:
        sys.stderr.write(clean(f"include was not compared with the files: {unread}") + "\n")
    _ = session.bucket  # opening it reads what it says of itself
    workflows = len(project.workflows)
    print(f"{_counted(workflows, 'workflow')}, {_counted(len(hosts), 'host')}: nothing is wrong")


def _check_includes(session: Session, project: Project, problems: list[Problem]) -> str:
    """Note each `include` that matches no file that would be shipped -> why that could not be seen, "" when it was."""
    if all(source.depends.include is None for source in project.sources.values()):
        return ""
    try:
        files = session.code.files(session.code.snapshot())
    except SnapshotError as error:
        return str(error)
    problems += check_includes(project, files)
    return ""


def _name_bucket(root: Path, home: Path, url: str) -> None:
    """Try a bucket and write its name; raises BucketError when it is none, UsageError when another one is named."""
    settings = read_settings(home=home, root=root, environment={})
    here = settings.origin == starter.CONFIG_FILE
    wanted = read_settings(home=home, root=root, environment={"DSTACK_BUCKET": url}).bucket
    if here and settings.bucket != wanted:
        place = f"{settings.position.file}:{settings.position.line}" if settings.position else settings.origin
        raise UsageError(f"{place} names another bucket: {settings.bucket}", hint="change that line, or leave it")
    store = open_bucket(wanted, settings.options if here else {}, home)
    found = WaitingBucket(store, redacted(wanted), say)
    began = time.monotonic()
    known = check_format(found)
    if known is not None:
        require_writer(known)
        print(f"{clean(wanted)}: in use already, and this version may write to it")
    else:
        effort = probe_effort(store)
        ensure_probed(found, nonce=os.urandom(16).hex(), now=time.time(), effort=effort)
        told = f"{effort.rounds} × {effort.writers} writers at once, one winner each"
        print(f"{clean(wanted)}: good ({told}; {time.monotonic() - began:.1f} s)")
    if path := private_folder(store):
        print(clean(f"only your account can use it; for a team: {_to_share(path)}"))
    if not here:
        print(f"wrote {starter.write_bucket(root, wanted, home=home)}")


def _to_share(path: str) -> str:
    """The command that opens a private folder, with all that is in it, to a group."""
    command = f"chgrp -R GROUP {quote(path)} && chmod -R g+rwXs {quote(path)}"
    closed = [parent for parent in Path(path).parents if not parent.stat().st_mode & 0o011]
    return command + "".join(f" && chmod a+x {quote(str(parent))}" for parent in closed)


def _gather(read: Callable[[], Any], problems: list[Problem]) -> Any:
    """What `read` gives, or None with its problems noted."""
    try:
        return read()
    except ConfigError as error:
        problems += error.problems
        return None


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def init(
    bucket: Annotated[
        str | None, typer.Option("--bucket", metavar="URL", help="Try this bucket, and name it in config.yaml.")
    ] = None,
) -> None:
    """Write a commented starter into .dstack/ of the current folder; files that are there stay as they are.

    With --bucket the storage is tried first (s3://, gs://, az://, a folder): where several writers at once can create
    the same object it is refused, and nothing is written.
    """
    root, home = Path.cwd(), own_home()
    if bucket is not None:
        _name_bucket(root, home, bucket)
    written = {path.relative_to(root).as_posix() for path in write_starter(root, home=home)}
    for name in FILES:
        if starter.is_there(root / name):
            print(f"{'wrote' if name in written else 'kept '} {name}")
    print(f"next: {_next(root)}")


def _next(root: Path) -> str:
    """What to type after `init`."""
    try:
        workflows = load_project(root).workflows
    except ConfigError:
        return "`dstack check` says what is wrong in .dstack/"
    return clean(f"`dstack run --help` lists the workflows, `dstack run {workflows[-1].name}` runs one")
