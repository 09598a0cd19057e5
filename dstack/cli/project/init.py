"""`dstack init`: write a commented starter, and try a bucket."""

from __future__ import annotations

import time
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from dstack.adapters.bucket.opener import private_path
from dstack.cli.command_session import own_home, say
from dstack.errors import ConfigError, UsageError
from dstack.project import starter_files
from dstack.project.plan import load_project
from dstack.project.settings import CONFIG_FILE, read_settings
from dstack.project.starter_files import STARTER_FILES, write_starter
from dstack.session.session_bucket import Storage
from dstack.ui.terminal import clean


def _name_bucket(root: Path, home: Path, url: str) -> None:
    """Try the bucket at `url` and write the name into config.yaml.

    Raises BucketError for a storage unfit as a bucket, UsageError where config.yaml names another bucket."""
    # Without DSTACK_BUCKET: the question is the bucket of the file.
    settings = read_settings(home=home, root=root, environment={})
    here = settings.origin == CONFIG_FILE
    # Read like the variable, so that the same rules make a path absolute.
    wanted = read_settings(home=home, root=root, environment={"DSTACK_BUCKET": url}).bucket
    if here and settings.bucket != wanted:
        place = f"{settings.position.file}:{settings.position.line}" if settings.position else settings.origin
        raise UsageError(f"{place} names another bucket: {settings.bucket}", hint="change that line, or leave it")
    storage = Storage(wanted, settings.options if here else {}, home=home, notify=say)
    began = time.monotonic()
    effort = storage.probe()
    if effort is None:
        print(f"{clean(wanted)}: in use already, and this version may write to it")
    else:
        effort_text = f"{effort.rounds} × {effort.writers} writers at once, one winner each"
        print(f"{clean(wanted)}: good ({effort_text}; {time.monotonic() - began:.1f} s)")
    if path := private_path(wanted, home):
        print(clean(f"only your account can use it; for a team: {_to_share(path)}"))
    if not here:
        print(f"wrote {starter_files.write_bucket(root, wanted, home=home)}")


def _to_share(path: str) -> str:
    """The command to open a private folder, with everything in the folder, to a group."""
    # X is the search right of folders; s hands the group on to everything made in there.
    command = f"chgrp -R GROUP {quote(path)} && chmod -R g+rwXs {quote(path)}"
    closed = [parent for parent in Path(path).parents if not parent.stat().st_mode & 0o011]
    return command + "".join(f" && chmod a+x {quote(str(parent))}" for parent in closed)


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
    for name in STARTER_FILES:
        if starter_files.exists_as_yaml(root / name):
            print(f"{'wrote' if name in written else 'kept '} {name}")
    print(f"next: {_next(root)}")


def _next(root: Path) -> str:
    """The next command to type after `init`."""
    try:
        workflows = load_project(root).workflows
    except ConfigError:
        return "`dstack check` says what is wrong in .dstack/"
    return clean(f"`dstack run --help` lists the workflows, `dstack run {workflows[-1].name}` runs one")
