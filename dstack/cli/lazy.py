"""A group of commands, each imported at its run, so that `--help` and `ps` pay for nothing else."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import click
import typer
from typer.core import TyperGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class Lazy:
    """Where a command is: `target` is `module:attribute`, a typer function, a typer app or a click command."""

    target: str
    help: str
    hidden: bool = False


class LazyGroup(TyperGroup):
    """Knows names and short helps of commands; the module of a command is imported at the run of the command."""

    def __init__(self, name: str, lazy: Mapping[str, Lazy], *, about: str, epilog: str | None = None) -> None:
        super().__init__(
            name=name,
            help=about,
            epilog=epilog,
            # In any other mode rich, slow to import, draws the help.
            rich_markup_mode=None,
            no_args_is_help=False,
            context_settings={"help_option_names": ["-h", "--help"]},
        )
        self._lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = self._lazy.get(cmd_name)
        return None if entry is None else load(cmd_name, entry)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # click's own list would import every command for its help.
        rows = [(name, entry.help) for name, entry in self._lazy.items() if not entry.hidden]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in self._lazy:
            shown = [name for name, entry in self._lazy.items() if not entry.hidden]
            near = get_close_matches(args[0], shown, n=1, cutoff=0.5)
            more = f"did you mean `{ctx.command_path} {near[0]}`?" if near else f"see `{ctx.command_path} --help`"
            raise click.UsageError(f"there is no command {args[0]!r}; {more}", ctx)
        return super().resolve_command(ctx, args)


def load(name: str, entry: Lazy) -> click.Command:
    """Import the command of `entry`."""
    module, _, attribute = entry.target.partition(":")
    target: Any = getattr(importlib.import_module(module), attribute)
    if isinstance(target, click.Command):
        return target
    return as_command(name, target, hidden=entry.hidden)


def as_command(name: str, function: Callable[..., Any], *, hidden: bool = False) -> click.Command:
    """A typer function as the click command `name`."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    settings = {"help_option_names": ["-h", "--help"]}
    app.command(name=name, hidden=hidden, context_settings=settings)(function)
    command = typer.main.get_command(app)
    command.name = name
    return command
