"""Values from the command line: `--name value`, `--name=value`, `--flag`, `--no-flag` and `--var name=value`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dstack.errors import UsageError
from dstack.model import Variable, VariableType
from dstack.project.workflows.variables import match_name
from dstack.project.yaml.parser import MAX_NUMBER_CHARACTERS, resolve_scalar
from dstack.project.yaml.report import quote, suggest

# No environment variable holds a NUL, and a surrogate stands for a byte that is no UTF-8.
_UNUSABLE = re.compile("[\0\ud800-\udfff]")
_WANTED = {
    VariableType.INTEGER: "a whole number",
    VariableType.FLOAT: "a number",
    VariableType.BOOLEAN: "true or false",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Overridable:
    """The variables of all workflows of a run, for overrides; a name may belong to several variables.

    `elsewhere` maps variables of other workflows to the name of such a workflow, `options` are the options of the
    command itself, without "--": both for messages.
    """

    workflow: str
    variables: tuple[Variable, ...]
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys(variable.name for variable in self.variables))

    def variables_named(self, name: str) -> tuple[Variable, ...]:
        return tuple(variable for variable in self.variables if variable.name == name)

    def resolve_name(self, name: str) -> str:
        """The name of the variable for a spelling; raises UsageError for an unknown name."""
        found = match_name(name, self.names)
        if found is not None:
            return found
        owner = self.elsewhere.get(name)
        if owner:
            raise UsageError(
                f"{name} is a variable of {owner}, which {self.workflow} does not depend on",
                hint=self._listing(),
            )
        told = f"{self.workflow} has no variable {quote(name)}{suggest(name, self.names)}"
        if self.options:
            near = suggest(name, self.options).replace('mean "', 'mean "--')
            told += f", and `dstack run` no option {quote('--' + name)}{near}"
        raise UsageError(told, hint=self._listing())

    def _listing(self) -> str:
        return f"`dstack run {self.workflow} --help` lists the variables"


def read_overrides(
    allowed: Overridable, arguments: Sequence[str], assignments: Sequence[str] = ()
) -> Mapping[str, str]:
    """The overrides in `arguments` (words after the workflow's name) and `assignments` (`name=value` of `--var`).

    Returns variable name -> text, `true` or `false` for a boolean; the last of equal names wins. Raises UsageError for
    an unknown name, a missing value, a value not of the default's type, or a word without a name before it.
    """
    values: dict[str, str] = {}
    words = list(arguments)
    while words:
        _take(allowed, words, values)
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or not name:
            raise UsageError(f"--var {quote(assignment)}: expected name=value")
        found = allowed.resolve_name(name)
        values[found] = value
    return check_overrides(allowed, values)


def _take(allowed: Overridable, words: list[str], values: dict[str, str]) -> None:
    word = words.pop(0)
    if not word.startswith("--") or word == "--":
        raise UsageError(f"unexpected {quote(word)}", hint="variables are given as --name value")
    name, equals, value = word[2:].partition("=")
    if equals:
        values[allowed.resolve_name(name)] = value
        return
    negated = _find_negated(allowed, name)
    if negated is not None:
        values[negated] = "false"
        return
    found = allowed.resolve_name(name)
    if all(variable.type is VariableType.BOOLEAN for variable in allowed.variables_named(found)):
        values[found] = words.pop(0) if words and words[0].lower() in ("true", "false") else "true"
    elif not words or words[0].startswith("--"):
        raise UsageError(f"--{name} needs a value", hint=f"write --{name}=VALUE when the value begins with --")
    else:
        values[found] = words.pop(0)


def _find_negated(allowed: Overridable, name: str) -> str | None:
    """The boolean to turn off by `--no-name`; None when a variable itself has this name."""
    if not name.startswith(("no-", "no_")) or match_name(name, allowed.names):
        return None
    found = match_name(name[3:], allowed.names)
    if found and any(variable.type is VariableType.BOOLEAN for variable in allowed.variables_named(found)):
        return found
    return None


def check_overrides(allowed: Overridable, values: Mapping[str, str]) -> Mapping[str, str]:
    """`values` with resolved names and checked texts; raises UsageError."""
    checked: dict[str, str] = {}
    for spelled, value in values.items():
        name = allowed.resolve_name(spelled)
        if _UNUSABLE.search(value):
            raise UsageError(f"--{name}: the value is not text")
        texts = [_convert(variable, value) for variable in allowed.variables_named(name)]
        checked[name] = next((text for text in texts if text != value), value)
    return checked


def _convert(variable: Variable, value: str) -> str:
    """The text of a value in the type of a variable; raises UsageError for a value of another type."""
    if variable.type is VariableType.STRING:
        return value
    meaning = resolve_scalar(value)
    boolean = isinstance(meaning, bool)
    if variable.type is VariableType.BOOLEAN and boolean:
        return "true" if meaning else "false"
    numeric = (int,) if variable.type is VariableType.INTEGER else (int, float)
    if variable.type is not VariableType.BOOLEAN and not boolean and isinstance(meaning, numeric):
        return value
    place = f"{variable.position.file}:{variable.position.line}"
    limit = f" of at most {MAX_NUMBER_CHARACTERS} characters" if len(value) > MAX_NUMBER_CHARACTERS else ""
    raise UsageError(
        f"--{variable.name} {quote(value)}: expected {_WANTED[variable.type]}{limit}, as its default"
        f" {quote(variable.text)} in {place} is",
        hint="a default in quotes makes a variable a text",
    )
