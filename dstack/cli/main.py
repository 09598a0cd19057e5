"""The command line: the list of commands, and the only exit of the process."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import click

from dstack import __version__
from dstack.cli import standard_streams
from dstack.cli.lazy import Lazy, LazyGroup
from dstack.errors import ConfigError, DstackError, NotPrivateError
from dstack.private_folder import UntrustedError
from dstack.ui.terminal import clean, clean_lines

COMMANDS = {
    "run": Lazy(target="dstack.cli.runs.run:run_command", help="Run a workflow and all that it depends on."),
    "attach": Lazy(target="dstack.cli.runs.attach:attach", help="Come back to a run that goes on in the background."),
    "ps": Lazy(target="dstack.cli.runs.ps:ps", help="List runs."),
    "show": Lazy(target="dstack.cli.runs.show:show", help="Show one run and its jobs."),
    "logs": Lazy(target="dstack.cli.runs.logs:logs", help="Print or follow the logs of a run."),
    "why": Lazy(target="dstack.cli.runs.why:why", help="Say why a job ran, or why it was reused."),
    "queue": Lazy(target="dstack.cli.hosts.queue:queue", help="Show what runs and waits on the hosts, and why."),
    "stop": Lazy(target="dstack.cli.runs.stop:stop", help="Stop a run, or one workflow of it."),
    "lost": Lazy(target="dstack.cli.runs.lost:lost", help="Say that what runs of a run will never come back."),
    "artifacts": Lazy(target="dstack.cli.artifacts.group:group", help="List and fetch what jobs left behind."),
    "hosts": Lazy(target="dstack.cli.hosts.group:group", help="List, add, check and remove hosts."),
    "secrets": Lazy(target="dstack.cli.secrets.group:group", help="Keep secrets for jobs: API keys, tokens."),
    "prune": Lazy(target="dstack.cli.bucket.prune:prune", help="Remove old results, logs and records from the bucket."),
    "du": Lazy(target="dstack.cli.bucket.du:du", help="Show what the project takes up in the bucket."),
    "fsck": Lazy(target="dstack.cli.bucket.fsck:fsck", help="Check everything in the bucket, and repair what can be."),
    "check": Lazy(target="dstack.cli.project.check:check", help="Check the YAML files of the project; run nothing."),
    "init": Lazy(target="dstack.cli.project.init:init", help="Write a commented starter into .dstack/."),
    "version": Lazy(target="dstack.cli.main:version", help="Print the version."),
    "_coordinate": Lazy(target="dstack.cli.runs.coordinate:coordinate_", help="Look after a run.", hidden=True),
}
ROOT_HELP = "Run ML workflows on your own servers over SSH, without a central server."
ROOT_EPILOG = "`dstack COMMAND --help` says more; `dstack run --help` lists the workflows of this project."
INTERRUPTED_EXIT = 130


def version() -> None:
    """Print the version."""
    click.echo(f"dstack {__version__}")


def _print_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        version()
        ctx.exit()


def root() -> LazyGroup:
    """The `dstack` command."""
    group = LazyGroup("dstack", COMMANDS, about=ROOT_HELP, epilog=ROOT_EPILOG)
    option = click.Option(
        ["--version"],
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=_print_version,
        help="Print the version.",
    )
    group.params.append(option)
    return group


def main() -> NoReturn:
    """Run the command line of this process and exit: with the error's own code, 130 after Ctrl-C."""
    standard_streams.take_over_streams()
    code = execute(sys.argv[1:])
    standard_streams.flush()
    sys.exit(code)


def execute(arguments: list[str]) -> int:
    """Run a command line -> exit code. Every error but a DstackError is a bug, and keeps the traceback."""
    # From the raw words: an error leaves nothing of the parsed options.
    as_json = "--json" in arguments
    try:
        if not arguments:
            arguments = ["--help"]
        # Not in the standalone mode of click, which would print errors and exit by rules of its own.
        code = root().main(args=arguments, prog_name="dstack", standalone_mode=False)
        # Inside of the block: a full disk and a closed pipe often show at the flush alone.
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except DstackError as error:
        return _failed(error, as_json=as_json)
    except UntrustedError as error:
        return _failed(NotPrivateError(str(error), hint=error.hint), as_json=as_json)
    except click.ClickException as error:
        return _misused(error)
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED_EXIT
    except BrokenPipeError:
        # Nobody reads our output any more.
        standard_streams.discard()
        return 1
    except Exception as error:
        unwritten = standard_streams.output_error(error) if isinstance(error, OSError) else None
        if unwritten is not None:
            standard_streams.discard()
            return _failed(unwritten, as_json=as_json)
        _say("dstack: this is a bug; please report it with the traceback below\n")
        raise


def _failed(error: DstackError, *, as_json: bool) -> int:
    if as_json:
        from dstack.ui.jsonout import error_json

        _say(error_json(error) + "\n")
        return error.exit_code
    # Imported here on purpose: a command that succeeds does without.
    from dstack.ui.tables import notes

    hint = f"  {error.hint}".split("\n") if error.hint else []
    if isinstance(error, ConfigError):
        # Problems in files stand alone on their lines, so that editors find the places.
        count = len(error.problems)
        text = f"error: {count} problem{'s' * (count > 1)}:\n{clean_lines(str(error))}\n"
    else:
        text = notes(f"error: {error}".split("\n"), sys.stderr)
    _say(_red("error:") + text.removeprefix("error:") + notes(hint, sys.stderr))
    return error.exit_code


def _misused(error: click.ClickException) -> int:
    context = error.ctx if isinstance(error, click.UsageError) else None
    lines = [f"{_red('error:')} {clean(error.format_message())}"]
    if context is not None:
        lines.append(f"  {context.get_usage()}")
    _say("\n".join(lines) + "\n")
    return 2


def _red(text: str) -> str:
    coloured = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    return f"\x1b[1;31m{text}\x1b[0m" if coloured else text


def _say(text: str) -> None:
    # Standard output first, so that an error stands below the output in a terminal.
    standard_streams.flush()
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        pass  # nobody listens any more
