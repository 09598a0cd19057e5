"""The quoting of sh and bash: quotes, expansions, arithmetic, bodies of here-documents, and the references inside.

A reference is `${{ name }}` or `$variables_as_args`. Everything between quotes, words and operators, is read by
`scan.py`, through a callback of the type `Commands`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum, auto

from dstack.project.placeholders import ARGUMENTS_NAME, REFERENCE_PATTERN, reference_name
from dstack.project.shell.interpreters import reads_script_from_stdin

MAX_QUOTE_DEPTH = 40
MAX_COMMAND_REFERENCES = 1_000
"""References in one command; each costs a look at the words before the reference."""
MAX_ARITHMETIC_CHARACTERS = 10_000
"""Characters of one arithmetic expression: `((` may turn out to be a subshell only at the end, to be read again."""
# ASCII, because a shell takes no other letters for a part of a name.
_ARGUMENTS = re.compile(r"\$(?:variables_as_args(?!\w)|\{variables_as_args\})", re.ASCII)
_METACHARACTERS = frozenset(" \t\r\n;&|<>()")


class Context(Enum):
    WORD = auto()
    DOUBLE = auto()
    SINGLE = auto()
    HEREDOC = auto()
    QUOTED_HEREDOC = auto()
    ARITHMETIC = auto()
    EXPANSION = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A reference. `reader` is the interpreter that would read the value as part of a script; `alone` says that the
    reference is a whole word."""

    start: int
    end: int
    name: str
    context: Context
    alone: bool = False
    in_function: bool = False
    reader: str | None = None

    @property
    def is_arguments(self) -> bool:
        return self.name == ARGUMENTS_NAME


class FaultError(Exception):
    """The fault of an incomplete command, and its offset."""

    def __init__(self, offset: int, message: str) -> None:
        super().__init__(message)
        self.offset = offset
        self.message = message


@dataclass(slots=True)
class Heredoc:
    offset: int
    delimiter: str
    literal: bool
    strip: bool
    words: list[str]


Commands = Callable[["Scanner", str, int], None]
"""Passes the commands up to a closer (`)`, a backtick, or "" for the end of the text) for an opener at an offset."""


class Scanner:
    """A text with a reading position. Every method passes the construct at `at`; all raise FaultError."""

    def __init__(self, text: str, pass_commands: Commands) -> None:
        self.text = text
        self.pass_commands = pass_commands
        self.at = 0
        self.depth = 0
        self.functions = 0
        self.references: list[Reference] = []
        self.heredocs: list[Heredoc] = []

    def peek(self, wanted: str) -> bool:
        return self.text.startswith(wanted, self.at)

    def enter(self, offset: int) -> None:
        self.depth += 1
        if self.depth > MAX_QUOTE_DEPTH:
            raise FaultError(offset, f"quotes and substitutions are nested deeper than {MAX_QUOTE_DEPTH} levels")

    def commands(self, closer: str, opened: int) -> None:
        """Commands up to `closer` (`)` or a backtick), or to the end of the text for an empty closer."""
        self.enter(opened)
        self.pass_commands(self, closer, opened)
        self.depth -= 1

    def reference(self, context: Context) -> Reference | None:
        """Record and pass the reference at the reading position; None without a reference."""
        braces = REFERENCE_PATTERN.match(self.text, self.at)
        found = braces or _ARGUMENTS.match(self.text, self.at)
        if found is None:
            # In single quotes an open `${{` is ordinary text, for some program perhaps.
            if self.peek("${{") and context is not Context.SINGLE:
                raise FaultError(self.at, "${{ is never closed by }}")
            return None
        name = reference_name(braces["inner"]) if braces else ARGUMENTS_NAME
        end = found.end()
        before = self.text[self.at - 1 : self.at] or " "
        after = self.text[end : end + 1] or " "
        alone = context is Context.WORD and {before, after} <= _METACHARACTERS | {"`"}
        made = Reference(
            start=self.at, end=end, name=name, context=context, alone=alone, in_function=self.functions > 0
        )
        if len(self.references) == MAX_COMMAND_REFERENCES:
            raise FaultError(self.at, f"more than {MAX_COMMAND_REFERENCES} references in one command")
        self.references.append(made)
        self.at = end
        return made

    def mark(
        self, first: int, last: int | None = None, *, reader: str | None = None, context: Context | None = None
    ) -> None:
        """Set the reader or the context of the references with index `first` to `last`."""
        for index in range(first, len(self.references) if last is None else last):
            old = self.references[index]
            changed = context if context and old.context in (Context.WORD, Context.DOUBLE) else old.context
            # The first reader stays: commands inside of a substitution are marked before the command around them.
            self.references[index] = replace(old, reader=old.reader or reader, context=changed)

    def dollar(self, context: Context) -> None:
        """Pass one `$…` in an expanding context."""
        start = self.at
        if self.reference(context):
            return
        if self.peek("$(("):
            self.at += 3
            self.arithmetic(start)
        elif self.peek("$("):
            self.at += 2
            self.commands(")", start)
        elif self.peek("${"):
            self.at += 2
            self.expansion(start, quoted=context is not Context.WORD)
        elif context is Context.WORD and self.peek("$'"):
            # `$'` is a quote only outside of double quotes and here-documents.
            self.at += 1
            self.single(escapes=True)
        else:
            self.at += 1

    def single(self, *, escapes: bool = False) -> None:
        start = self.at
        self.at += 1
        while self.at < len(self.text):
            if self.peek("'"):
                self.at += 1
                return
            if escapes and self.peek("\\"):
                self.at += 2
            elif not (self.peek("$") and self.reference(Context.SINGLE)):
                self.at += 1
        raise FaultError(start, "the single quote that opens here is never closed in this command")

    def double(self, context: Context = Context.DOUBLE) -> None:
        start = self.at
        self.enter(start)
        self.at += 1
        while self.at < len(self.text):
            if self.peek('"'):
                self.at += 1
                self.depth -= 1
                return
            self.step(context)
        raise FaultError(start, "the double quote that opens here is never closed in this command")

    def step(self, context: Context) -> None:
        """Pass one character, or one expansion, in a context with `\\`, `$` and the backtick as the only special
        characters."""
        if self.peek("\\"):
            self.at += 2
        elif self.peek("$"):
            self.dollar(context)
        elif self.peek("`"):
            self.at += 1
            self.commands("`", self.at - 1)
        else:
            self.at += 1

    def expansion(self, start: int, *, quoted: bool) -> None:
        """`${…}` after the opening: references inside count as EXPANSION."""
        self.enter(start)
        while self.at < len(self.text):
            if self.peek("}"):
                self.at += 1
                self.depth -= 1
                return
            if self.peek('"'):
                self.double(Context.EXPANSION)
            elif self.peek("'") and not quoted:
                # Only without quotes around: in `"${x:-'}"` a single quote is an ordinary character.
                self.single()
            else:
                self.step(Context.EXPANSION)
        raise FaultError(start, "the ${ that opens here is never closed in this command")

    def arithmetic(self, start: int) -> None:
        """`$((…))` or `((…))` after the opening: references inside count as ARITHMETIC."""
        self.enter(start)
        level = 0
        while self.at < min(len(self.text), start + MAX_ARITHMETIC_CHARACTERS):
            if level == 0 and self.peek("))"):
                self.at += 2
                self.depth -= 1
                return
            if level == 0 and self.peek(")"):
                raise FaultError(start, "(( that is no arithmetic: write a space between the two")
            level += self.peek("(") - self.peek(")")
            if self.peek('"'):
                self.double(Context.ARITHMETIC)
            else:
                self.step(Context.ARITHMETIC)
        raise FaultError(start, "the (( that opens here is never closed in this command")

    def bodies(self, pipeline: list[list[str]]) -> None:
        """The here-documents announced in the line before."""
        pending, self.heredocs = self.heredocs, []
        for heredoc in pending:
            first = len(self.references)
            self.body(heredoc)
            # The body goes to the command of the `<<`, and on through pipes: `cat <<EOF | bash`.
            begin = next((index for index, words in enumerate(pipeline) if words is heredoc.words), 0)
            readers = (reads_script_from_stdin(words) for words in pipeline[begin:])
            self.mark(first, reader=next((reader for reader in readers if reader), None))

    def body(self, heredoc: Heredoc) -> None:
        start = line = self.at
        while True:
            newline = self.text.find("\n", line)
            end = len(self.text) if newline < 0 else newline
            found = self.text[line:end]
            if (found.lstrip("\t") if heredoc.strip else found) == heredoc.delimiter:
                break
            if newline < 0:
                raise FaultError(
                    heredoc.offset, f"the here-document {heredoc.delimiter} is never ended in this command"
                )
            line = newline + 1
        self.at = start
        while self.at < line:
            if not heredoc.literal:
                self.step(Context.HEREDOC)
            # Behind a quoted end word `$variables_as_args` stays text, like every `$name`.
            elif not (
                self.peek("$")
                and REFERENCE_PATTERN.match(self.text, self.at)
                and self.reference(Context.QUOTED_HEREDOC)
            ):
                self.at += 1
        self.at = min(end + 1, len(self.text))
