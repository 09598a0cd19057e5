"""`$name` and `${{ name }}` outside of commands: paths, image, env, resources. Values are put in as text, once.

A value is never searched for references again, and every result is checked by the same rules as a text without
references.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from dstack.project.placeholders import ARGUMENTS_NAME, REFERENCE_PATTERN, reference_name
from dstack.project.workflows.variables import SYSTEM_VARIABLES, VariableScope
from dstack.project.yaml.parser import ListNode, MapNode, Node, ScalarNode, resolve_scalar
from dstack.project.yaml.report import Report, quote, suggest

_ANY = re.compile(REFERENCE_PATTERN.pattern + r"|\$\{(?P<braced>[A-Za-z_]\w*)\}|\$(?P<bare>[A-Za-z_]\w*)", re.ASCII)
_OPEN = re.compile(r"\$\{\{")

MAX_TEXT_REFERENCES = 1_000


def explain_unknown(name: str, scope: VariableScope) -> str:
    """The message about a `${{ name }}` without a variable."""
    family, dot, rest = name.partition(".")
    if dot and family in ("secrets", "env"):
        return f"${{{{ {name} }}}}: secrets and env are in the environment; write ${rest} in a command"
    if name == "run.args":
        return "${{ run.args }} is not supported; declare variables and write $variables_as_args"
    known = [*(variable.name for variable in scope.variables), *SYSTEM_VARIABLES]
    return f"no variable is called {quote(name)}{suggest(name, known)}"


@dataclass(slots=True)
class _Filling:
    report: Report
    scope: VariableScope
    what: str
    lenient: bool

    def fill(self, node: ScalarNode) -> ScalarNode:
        if "$" not in node.text:
            return node
        if node.text.count("$") > MAX_TEXT_REFERENCES:
            self.report.problem(node.position, f"{self.what}: more than {MAX_TEXT_REFERENCES} references in one text")
            return node
        whole = REFERENCE_PATTERN.fullmatch(node.text) or _ANY.fullmatch(node.text)
        text = _ANY.sub(lambda found: self._value(node, found), node.text)
        for opening in _OPEN.finditer(node.text):
            if not REFERENCE_PATTERN.match(node.text, opening.start()):
                self.report.problem(node.locate(opening.start(), 3), "${{ is never closed by }}")
        # `{gpu: "${{ gpus }}"}` is quoted only because YAML's flow style wants it: a number stays a number.
        value = resolve_scalar(text) if node.plain or whole else text
        return replace(node, text=text, value=value)

    def _value(self, node: ScalarNode, found: re.Match[str]) -> str:
        inner = found.group("inner")
        name = reference_name(inner) if inner is not None else found.group("braced") or found.group("bare")
        place = node.locate(found.start(), found.end() - found.start())
        variable = self.scope.find(name)
        exported = self.scope.exports.get(name)
        # `$BATCH_SIZE` as in a job; `${{ … }}` takes the names of variables alone.
        if variable is None and inner is None and exported:
            variable = self.scope.find(exported)
        if variable is not None:
            return variable.text
        if name.lower() in SYSTEM_VARIABLES:
            message = f"{name} is known only when the job starts and differs in every run; use it in a command"
            self.report.problem(place, f"{self.what}: {message}")
        elif name == ARGUMENTS_NAME:
            self.report.problem(place, f"{self.what}: $variables_as_args has a meaning in commands only")
        elif inner is None and self.lenient:
            advice = suggest(name, [variable.name for variable in self.scope.variables])
            self.report.note(place, f"{self.what}: no variable is called {quote(name)}; it stays as written{advice}")
        else:
            self.report.problem(place, f"{self.what}: {explain_unknown(name, self.scope)}")
        return found.group()


def fill(report: Report, node: Node, scope: VariableScope, what: str, *, lenient: bool = False) -> Node:
    """`node` with values in place of every reference in its scalars (keys stay); unknown names are problems.

    With `lenient` an unknown `$name` stays unchanged, with a note. A scalar in plain style, or a scalar of a single
    reference only, becomes a number or boolean again if the text reads like one.
    """
    filling = _Filling(report, scope, what, lenient)
    return _fill(filling, node)


def _fill(filling: _Filling, node: Node) -> Node:
    if isinstance(node, ListNode):
        return replace(node, items=tuple(_fill(filling, item) for item in node.items))
    if isinstance(node, MapNode):
        return replace(node, entries=tuple((key, _fill(filling, value)) for key, value in node.entries))
    return filling.fill(node)
