"""`dstack secrets set`: keep the value of a secret on this machine."""

from __future__ import annotations

import getpass
import sys
from typing import Annotated

import typer

from dstack.adapters.secrets.store import SecretStore
from dstack.cli.arguments import ALL_PROJECTS_OPTION, SECRET_NAME_ARGUMENT
from dstack.cli.command_session import own_home
from dstack.cli.lazy import as_command
from dstack.cli.secrets.scopes import scope_of, whose
from dstack.errors import UsageError
from dstack.project.names import environment_name_fault
from dstack.wire import SHORTEST_SECRET

MAX_SECRET_BYTES = 64 * 1024
"""Bytes of a value: every system takes environment variables of this size."""
STDIN_OPTION = typer.Option("--stdin", help="Read the value from standard input to its end, also on a terminal.")


def set_(
    context: typer.Context,
    name: Annotated[str, SECRET_NAME_ARGUMENT],
    stdin: Annotated[bool, STDIN_OPTION] = False,
    everywhere: Annotated[bool, ALL_PROJECTS_OPTION] = False,
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
    scope = scope_of(everywhere)
    value = _decode_value(name, _read(name, stdin=stdin))
    place = SecretStore(own_home()).put(scope, name, value)
    print(f"{name} is kept in {place}, for {whose(scope)}")
    if place.why:
        print(f"  not in a keyring: {place.why}", file=sys.stderr)
    if len(value.encode("utf-8", "surrogateescape")) < SHORTEST_SECRET:
        print(
            f"note: {name} is shorter than {SHORTEST_SECRET} characters, so it is not masked in logs", file=sys.stderr
        )


def _read(name: str, *, stdin: bool) -> bytes:
    if sys.stdin.isatty() and not stdin:
        try:
            return getpass.getpass(f"{name}: ").encode("utf-8", "surrogateescape")
        except EOFError:
            raise UsageError(f"no value for {name} was given; nothing is changed") from None
    # Two bytes more for a line end, and one to see that a value is too long.
    body = sys.stdin.buffer.read(MAX_SECRET_BYTES + 3)
    for ending in (b"\r\n", b"\n"):
        if body.endswith(ending):
            return body[: -len(ending)]
    return body


def _decode_value(name: str, body: bytes) -> str:
    """The value as text; raises UsageError, without any part of the value, for a value unfit for the environment of a
    job."""
    if not body:
        raise UsageError(
            f"the value of {name} is empty; nothing is changed", hint=f"`dstack secrets rm {name}` forgets"
        )
    if len(body) > MAX_SECRET_BYTES:
        raise UsageError(f"the value of {name} is longer than {MAX_SECRET_BYTES // 1024} kB; nothing is changed")
    if b"\0" in body:
        raise UsageError(f"the value of {name} has a NUL in it, which no environment variable can hold")
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        # `from None`, because the error of the decoder holds the value.
        raise UsageError(f"the value of {name} is no UTF-8 text", hint="encode it, with base64 for example") from None


command = as_command("set", set_)
# Else click refuses the word by itself, with a message that repeats the value.
command.allow_extra_args = command.ignore_unknown_options = True
