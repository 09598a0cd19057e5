"""The command line of `dstack run`, taken apart: pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches

from dstack.errors import UsageError
from dstack.session.submission import RunRequest

RUN_FLAGS = {
    "-d": "detach",
    "--detach": "detach",
    "--dry-run": "dry_run",
    "--offline": "offline",
    "--json": "as_json",
    "-h": "wants_help",
    "--help": "wants_help",
}
RUN_OPTIONS = (*(flag for flag in RUN_FLAGS if flag.startswith("--")), "--rerun", "--hosts", "--var")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLine:
    """A parsed command line of `dstack run`. `rerun` are workflows, `overrides` the words for variables, in order."""

    workflow: str | None = None
    detach: bool = False
    dry_run: bool = False
    offline: bool = False
    """A dry run without questions to hosts."""
    as_json: bool = False
    wants_help: bool = False
    hosts: str | None = None
    rerun: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    assignments: tuple[str, ...] = ()
    """The `name=value` of each `--var`."""

    def request(self, *, command: Sequence[str] = ()) -> RunRequest:
        """The request of the line for a run; `command` is the line for people in the record of the run."""
        return RunRequest(
            workflow=self.workflow or "",
            overrides=self.overrides,
            assignments=self.assignments,
            reserved=RUN_OPTIONS,
            rerun=self.rerun,
            command=tuple(command),
        )


def read_arguments(arguments: Sequence[str]) -> RunLine:
    """Take `dstack run …` apart: an option of ours wins over a variable of the same name.

    The workflow is the first word that is no option and no value of an option. `--rerun` alone means this workflow,
    `--rerun=NAME` another workflow of the run. Raises UsageError for an option without a needed value or companion.
    """
    line = RunLine()
    rest: list[str] = []
    again: list[str] = []
    assignments: list[str] = []
    words = list(arguments)
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if word in RUN_FLAGS:
            line = _flagged(line, RUN_FLAGS[word])
        elif equals and name in RUN_FLAGS:
            raise UsageError(
                f"{name} takes no value", hint=f"for a variable of that name: --var {name.lstrip('-')}={value}"
            )
        elif name == "--rerun":
            # Never the next word: in `--rerun train` that is the workflow of the run.
            again.append(value)
        elif name == "--hosts":
            line = replace(line, hosts=value if equals else _next(words, "--hosts"))
        elif name == "--var":
            assignments.append(value if equals else _next(words, "--var"))
        elif line.workflow is None and not word.startswith("-"):
            line = replace(line, workflow=word)
        else:
            rest.append(word)
            # The value of a variable is the next word, unless that is an option.
            if word.startswith("--") and not equals and words and not words[0].startswith("--"):
                rest.append(words.pop(0))
    _require_companions(line, rest)
    names = tuple(name or (line.workflow or "") for name in again)
    return replace(line, rerun=names, overrides=tuple(rest), assignments=tuple(assignments))


def _require_companions(line: RunLine, rest: Sequence[str]) -> None:
    """Raise UsageError for words without a needed companion; `rest` are the words for variables."""
    if line.workflow is None and rest and not line.wants_help:
        near = get_close_matches(rest[0].partition("=")[0], RUN_OPTIONS, n=1)
        hint = f"or did you mean the option {near[0]}? " if near else ""
        raise UsageError(
            f"say which workflow to run before {rest[0]}", hint=f"{hint}dstack run WORKFLOW [--VARIABLE VALUE]"
        )
    if line.offline and not line.dry_run:
        hint = "for a variable of that name: --var offline=VALUE"
        raise UsageError("--offline goes with --dry-run: a run needs its hosts", hint=hint)


def _flagged(line: RunLine, flag: str) -> RunLine:
    match flag:
        case "detach":
            return replace(line, detach=True)
        case "dry_run":
            return replace(line, dry_run=True)
        case "offline":
            return replace(line, offline=True)
        case "as_json":
            return replace(line, as_json=True)
    return replace(line, wants_help=True)


def _next(words: list[str], option: str) -> str:
    if not words:
        raise UsageError(f"{option} needs a value")
    return words.pop(0)
