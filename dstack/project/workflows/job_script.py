"""Commands -> one script text without the value of any variable.

`${{ name }}` becomes exactly `${name}` and `$variables_as_args` becomes `"$@"`; the values come in through the
environment and the arguments. A reference is refused, with advice, where the shell would not expand the result, or
where a program would read the value as a script. `$name` is left to the shell.
"""

from __future__ import annotations

from collections.abc import Sequence

from dstack.model import Variable, VariableType
from dstack.project.shell.quotes import Context, Reference
from dstack.project.shell.scan import scan
from dstack.project.workflows.references import explain_unknown
from dstack.project.workflows.variables import SYSTEM_VARIABLES, VariableScope
from dstack.project.yaml.parser import ScalarNode
from dstack.project.yaml.report import Report, quote

_SPLIT = frozenset(" \t\n*?[")


def compile_script(report: Report, commands: Sequence[ScalarNode], scope: VariableScope) -> str:
    """The script for `sh -e`, with `scope.arguments()` as `"$@"` and `scope.environment()` in the environment.

    Every command must be complete in itself. Problems point at the reference in the YAML file; the text is of use only
    without problems.
    """
    return "".join(f"{_compile(report, command, scope)}\n" for command in commands)


def _compile(report: Report, command: ScalarNode, scope: VariableScope) -> str:
    found = scan(command.text)
    if found.fault:
        offset, message = found.fault
        report.problem(command.locate(offset, _visible(command.text, offset)), message)
    pieces: list[str] = []
    at = 0
    for reference in found.references:
        reason = _refusal(report, command, reference, scope)
        if reason:
            width = reference.end - reference.start
            report.problem(command.locate(reference.start, width), reason)
        pieces += [command.text[at : reference.start], _replacement(reference, scope)]
        at = reference.end
    # A text behind `|` ends with a newline of its own.
    return "".join((*pieces, command.text[at:])).rstrip("\n")


def _visible(text: str, offset: int) -> int:
    """The number of characters from `offset` to the end of the line, for the search in the source."""
    rest = text[offset:].split("\n", 1)[0]
    return max(1, min(len(rest), 20))


def _replacement(reference: Reference, scope: VariableScope) -> str:
    if reference.is_arguments:
        return '"$@"'
    variable = scope.find(reference.name)
    # With braces, because a letter may follow right behind the reference.
    return f"${{{scope.names[variable.name] if variable else reference.name}}}"


def _refusal(report: Report, command: ScalarNode, reference: Reference, scope: VariableScope) -> str | None:
    """Why a reference is refused at this place; None for an allowed reference."""
    if reference.is_arguments:
        return _arguments_refusal(reference)
    variable = scope.find(reference.name)
    if variable is None and reference.name not in SYSTEM_VARIABLES:
        return explain_unknown(reference.name, scope)
    name = scope.names[variable.name] if variable else reference.name
    written = f"${{{{ {reference.name} }}}}"
    match reference.context:
        case Context.SINGLE:
            return (
                f"{written} in single quotes is not put in; use double quotes, or end them before: '…'\"{written}\"'…'"
            )
        case Context.QUOTED_HEREDOC:
            return (
                f"{written} in a here-document with a quoted end word is not put in; write the end word without quotes"
            )
        case Context.EXPANSION:
            return f"{written} cannot stand inside ${{…}}; write ${name} there, or set a shell variable first"
        case Context.ARITHMETIC if _is_text(variable):
            return f"{written} is a text and cannot stand in arithmetic, where a shell may execute it; give it a number"
    if reference.reader and _is_text(variable):
        return _reader_refusal(written, name, reference.reader)
    if reference.context is Context.WORD and variable is not None:
        _note_splitting(report, command, reference, variable)
    return None


def _is_text(variable: Variable | None) -> bool:
    """Whether the value may be any text; numbers and booleans are checked, and safe for any reader."""
    return variable is not None and variable.type is VariableType.STRING


def _reader_refusal(written: str, name: str, reader: str) -> str:
    if reader.startswith(("python", "pypy")):
        way = f'use os.environ["{name}"]'
    elif "awk" in reader:
        way = f'use ENVIRON["{name}"]'
    elif reader == "perl":
        way = f"use $ENV{{{name}}}"
    elif reader in ("eval", "trap", "sed", "gsed", "let", "declare", "typeset", "local"):
        way = "write it without " + reader
    elif reader == "ssh":
        way = "run it as a command of the workflow instead"
    else:
        way = f"use ${name} from the environment inside single quotes"
    return f"{written} is a text and would become part of a script that {reader} reads; {way}"


def _arguments_refusal(reference: Reference) -> str | None:
    if reference.in_function:
        return "$variables_as_args inside a function would be the function's own arguments; call it outside"
    if reference.context is not Context.WORD:
        return '$variables_as_args cannot stand in quotes, here-documents or expansions; write it unquoted: it is "$@"'
    if not reference.alone:
        return "$variables_as_args must be a word of its own, with spaces around it"
    if reference.reader:
        return (
            f"$variables_as_args would become part of a script that {reference.reader} reads; call the program directly"
        )
    return None


def _note_splitting(report: Report, command: ScalarNode, reference: Reference, variable: Variable) -> None:
    if variable.type is VariableType.STRING and _SPLIT & set(variable.text):
        place = command.locate(reference.start, reference.end - reference.start)
        written = f"${{{{ {reference.name} }}}}"
        message = f'unquoted, so the shell splits {quote(variable.text)} into words; write "{written}" to keep it whole'
        report.note(place, message)
