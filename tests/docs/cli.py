"""`docs/reference/cli.md`: every command with its own help."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import click

from dstack.cli.main import root
from dstack.project.plan import load_project
from dstack.project.starter_files import write_starter
from dstack.ui.run_help import run_help, workflow_help
from tests.docs.markdown import code, fenced, page

OUTSIDE = {"COLUMNS": "100", "LINES": "25"}
"""A terminal of this size."""


def cli_page() -> str:
    """The commands in the order of `dstack --help`; the workflows in the help of `run` are those of `dstack init`."""
    blocks = []
    with patch.dict(os.environ, OUTSIDE):
        for context in _commands(_context(root(), "dstack")):
            name = context.command_path
            blocks += [f"## {code(name)}", *(_run() if name == "dstack run" else [fenced(_help(context))])]
    intro = (
        "Errors go to standard error, with a hint; with `--json` as one JSON object. [Exit codes](exit-codes.md), "
        "[fields of --json](json.md). `dstack` without a command prints the first of these texts."
    )
    return page("Commands", intro, *blocks)


def _commands(context: click.Context) -> Iterator[click.Context]:
    """The context of a command and of all below it that are not hidden."""
    yield context
    if isinstance(context.command, click.Group):
        for name in context.command.list_commands(context):
            command = context.command.get_command(context, name)
            if command is not None and not command.hidden:
                yield from _commands(_context(command, name, context))


def _context(command: click.Command, name: str, parent: click.Context | None = None) -> click.Context:
    return click.Context(command, info_name=name, parent=parent, **command.context_settings)


def _help(context: click.Context) -> str:
    out = io.StringIO()
    with redirect_stdout(out):
        text = context.command.get_help(context)
    return text or out.getvalue()


def _run() -> list[str]:
    with TemporaryDirectory() as folder:
        write_starter(Path(folder), home=Path.home())
        project = load_project(Path(folder))
        return [
            "In a project that `dstack init` made:",
            fenced(run_help(project)),
            f"### {code('dstack run train --help')}",
            fenced(workflow_help(project, "train")),
        ]
