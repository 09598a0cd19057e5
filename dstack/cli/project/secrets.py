"""`dstack secrets`: values that jobs get and nothing keeps but this machine. No value is ever an argument or shown."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import Annotated

import typer

from dstack.adapters.secrets.dotenv_file import NAME as DOTENV
from dstack.adapters.secrets.dotenv_file import read_dotenv
from dstack.adapters.secrets.secrets_file import SHOWN, Kept, Scope
from dstack.adapters.secrets.store import SecretStore
from dstack.cli.command_session import open_session, own_home
from dstack.cli.lazy import Lazy, LazyGroup, as_command
from dstack.errors import NotFoundError, UsageError
from dstack.project.locate import find_project
from dstack.project.names import environment_name_fault
from dstack.session.secret_values import EVERYWHERE
from dstack.ui.tables import Column, table
from dstack.wire import SHORTEST_SECRET

LONGEST = 64 * 1024
"""Bytes: the value of one environment variable that every system takes."""
_LISTED = (Column(title="SECRET", floor=12), Column(title="FOR", floor=12), Column(title="KEPT IN", floor=12))
NAME = typer.Argument(metavar="NAME", help="What the job calls it: an environment variable.", show_default=False)
GLOBAL = typer.Option("--global", help="For all projects; what is set for a project comes first.")
STDIN = typer.Option("--stdin", help="Read the value from standard input to its end, also on a terminal.")


def set_(
    context: typer.Context,
    name: Annotated[str, NAME],
    stdin: Annotated[bool, STDIN] = False,
    everywhere: Annotated[bool, GLOBAL] = False,
) -> None:
    """Keep a secret of this project: in the keyring of this system, else in a file that only you can read.

    Asks for the value on a terminal, without showing it; else reads standard input, of which one newline at the end is
    left out. Replaces an earlier value.

    Example: dstack secrets set WANDB_API_KEY
    """
    if context.args:
        raise UsageError(
            "a value is never an argument: it would be in the history of your shell, and seen by others",
            hint=f"`dstack secrets set {name}` asks for it; or give it on standard input",
        )
    fault = environment_name_fault(name)
    if fault:
        raise UsageError(fault)
    scope = _scope(everywhere)
    value = _checked(name, _read(name, stdin=stdin))
    place = SecretStore(own_home()).put(scope, name, value)
    print(f"{name} is kept in {place}, for {_shown(scope)}")
    if place.why:
        print(f"  not in a keyring: {place.why}", file=sys.stderr)
    if len(value.encode("utf-8", "surrogateescape")) < SHORTEST_SECRET:
        print(
            f"note: {name} is shorter than {SHORTEST_SECRET} characters, so it is not masked in logs", file=sys.stderr
        )


def ls() -> None:
    """List the secrets that runs here find, without their values. Of one name the first line counts."""
    home, root = own_home(), _project_folder()
    store = SecretStore(home)
    rows: list[tuple[str, str, str]] = []
    if root is not None:
        own = Scope(project=open_session().name)
        rows += [_row(one) for one in store.kept(own)]
        rows += [(name, "this project", DOTENV) for name in read_dotenv(root).values]
    rows += [_row(one) for one in store.kept(EVERYWHERE)]
    rows.sort(key=lambda row: row[0])
    if rows:
        sys.stdout.write(table(_LISTED, rows, sys.stdout))
    else:
        print("no secret is set; `dstack secrets set NAME` sets one", file=sys.stderr)


def rm(name: Annotated[str, NAME], everywhere: Annotated[bool, GLOBAL] = False) -> None:
    """Forget a secret of this project, or with --global the one for all projects."""
    scope = _scope(everywhere)
    store = SecretStore(own_home())
    if store.remove(scope, name):
        print(f"{name} is forgotten, for {_shown(scope)}")
        return
    other = "--global" if not everywhere and any(one.name == name for one in store.kept(EVERYWHERE)) else ""
    hint = f"`dstack secrets rm {name} --global` forgets the one for all projects" if other else _names(store, scope)
    root = _project_folder()
    if root is not None and not everywhere and name in read_dotenv(root).values:
        hint = f"it stands in {DOTENV}, which dstack never writes: remove it there"
    raise NotFoundError(f"no secret {name} is kept for {_shown(scope)}", hint=hint)


def _names(store: SecretStore, scope: Scope) -> str:
    kept = ", ".join(one.name for one in store.kept(scope))
    return f"kept are {kept}" if kept else "`dstack secrets ls` lists what there is"


def _row(kept: Kept) -> tuple[str, str, str]:
    whose = "all projects" if kept.scope.project is None else "this project"
    return (kept.name, whose, "keyring" if kept.value is None else SHOWN)


def _scope(everywhere: bool) -> Scope:
    if everywhere:
        return EVERYWHERE
    try:
        return Scope(project=open_session().name)
    except UsageError as error:
        raise UsageError(str(error), hint="go to the project whose secret it is, or say --global") from None


def _shown(scope: Scope) -> str:
    return "all projects" if scope.project is None else f"project {scope.project}"


def _project_folder() -> Path | None:
    try:
        return find_project(Path.cwd(), home=own_home())
    except UsageError:
        return None


def _read(name: str, *, stdin: bool) -> bytes:
    if sys.stdin.isatty() and not stdin:
        try:
            return getpass.getpass(f"{name}: ").encode("utf-8", "surrogateescape")
        except EOFError:
            raise UsageError(f"no value for {name} was given; nothing is changed") from None
    body = sys.stdin.buffer.read(LONGEST + 3)
    for ending in (b"\r\n", b"\n"):
        if body.endswith(ending):
            return body[: -len(ending)]
    return body


def _checked(name: str, body: bytes) -> str:
    """The value as text; raises UsageError, which shows nothing of it, for one that no job could be given."""
    if not body:
        raise UsageError(
            f"the value of {name} is empty; nothing is changed", hint=f"`dstack secrets rm {name}` forgets"
        )
    if len(body) > LONGEST:
        raise UsageError(f"the value of {name} is longer than {LONGEST // 1024} kB; nothing is changed")
    if b"\0" in body:
        raise UsageError(f"the value of {name} has a NUL in it, which no environment variable can hold")
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"the value of {name} is no UTF-8 text", hint="encode it, with base64 for example") from None


_set = as_command("set", set_)
_set.allow_extra_args = _set.ignore_unknown_options = True
group = LazyGroup(
    "secrets",
    {
        "set": Lazy(target="dstack.cli.project.secrets:_set", help="Keep the value of a secret on this machine."),
        "ls": Lazy(target="dstack.cli.project.secrets:ls", help="List secrets, without their values."),
        "rm": Lazy(target="dstack.cli.project.secrets:rm", help="Forget a secret."),
    },
    about="Keep secrets for jobs: API keys, tokens.",
)
