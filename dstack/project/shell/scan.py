"""The place of each reference in a shell command: unquoted, in which quotes, in a function, for which program.

The scan follows the grammar of sh and bash for quoting only, and decides nothing: `job_script.py` allows or refuses a
reference. This module reads words, operators, reserved words and functions; `quotes.py` reads inside of quotes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dstack.project.shell.interpreters import HERE_STRING, reads_script_from_stdin, script_of
from dstack.project.shell.quotes import Context, FaultError, Heredoc, Reference, Scanner

MAX_COMMAND_WORDS = 100
"""Words of a command to keep, and MAX_WORD_CHARACTERS of each, for the name of the program."""
MAX_WORD_CHARACTERS = 200
_SPACE = " \t\r"
_ORDINARY = re.compile(r"[^\s;&|<>()'\"\\$`#]+")
_STILL_COMMAND = frozenset(("if", "then", "else", "elif", "do", "while", "until", "!", "time"))
# `-v` compares nothing, but `[[ -v a[i] ]]` evaluates the subscript.
_COMPARES = frozenset(("-eq", "-ne", "-lt", "-le", "-gt", "-ge", "-v"))
_SUBSCRIPT = re.compile(r"\w+\[[^\]]*\Z")
_FUNCTION = re.compile(r"[\w.:+-]+\Z")
_HEREDOC = re.compile(r"-?[ \t]*((?:'[^'\n]*'|\"[^\"\n]*\"|\\.|[^\s;&|<>()'\"\\])+)")
_EMPTY = re.compile(r"\([ \t]*\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """`fault` is the first fault of an incomplete command, with the offset."""

    references: tuple[Reference, ...]
    fault: tuple[int, str] | None = None


def scan(text: str) -> Scan:
    """Find the references of a command. Time is linear in the length; raises nothing."""
    scanner = Scanner(text, _pass_commands)
    try:
        scanner.commands("", 0)
    except FaultError as error:
        return Scan(references=tuple(scanner.references), fault=(error.offset, error.message))
    return Scan(references=tuple(scanner.references))


def _pass_commands(scanner: Scanner, closer: str, opened: int) -> None:
    _Commands(scanner, closer, opened).run()


class _Commands:
    """The commands of one level: words, operators, reserved words, functions."""

    def __init__(self, scanner: Scanner, closer: str, opened: int) -> None:
        self.scanner = scanner
        self.closer = closer
        self.opened = opened
        self.words: list[str] = []
        self.word: str | None = None
        self.line: list[list[str]] = [self.words]
        self.pipe_start = len(scanner.references)
        self.command_start = self.pipe_start
        self.groups: list[tuple[bool, int]] = []
        self.cases = 0
        self.test: int | None = None
        self.compares = False
        self.target = False
        self.awaiting_body = False
        self.functions_before = scanner.functions

    def run(self) -> None:
        scanner = self.scanner
        while scanner.at < len(scanner.text):
            character = scanner.text[scanner.at]
            # Before the look at `self.cases`: the word in front may be `esac`.
            if character == ")":
                self._end_word()
            # Inside of `case` a `)` ends a pattern, not the substitution.
            if self.closer and character == self.closer and not (character == ")" and self.cases):
                self._end_command(separator=True)
                scanner.at += 1
                self._finish()
                return
            self._pass(character)
        self._end_command(separator=True)
        if self.closer:
            raise FaultError(self.opened, "the substitution or ( that opens here is never closed in this command")
        if scanner.heredocs:
            heredoc = scanner.heredocs[0]
            raise FaultError(heredoc.offset, f"the here-document {heredoc.delimiter} is never ended in this command")
        self._finish()

    def _finish(self) -> None:
        if self.groups:
            raise FaultError(self.groups[-1][1], "the { that opens here is never closed in this command")
        self.scanner.functions = self.functions_before

    def _pass(self, character: str) -> None:
        scanner = self.scanner
        if character in _SPACE:
            self._end_word()
            scanner.at += 1
        elif character == "\n":
            self._end_command(separator=True)
            scanner.at += 1
            scanner.bodies(self.line)
            self.line = [self.words]
        elif character == "#" and self.word is None:
            # In the middle of a word `#` begins no comment.
            end = scanner.text.find("\n", scanner.at)
            scanner.at = len(scanner.text) if end < 0 else end
        elif character in ";&|":
            self._operator(character)
        elif character in "<>":
            self._redirect()
        elif character == "(":
            self._parenthesis()
        elif character == ")":
            self._end_command(separator=True)
            scanner.at += 1
        else:
            self._word_part(character)

    def _word_part(self, character: str) -> None:
        scanner = self.scanner
        start, first = scanner.at, len(scanner.references)
        so_far = self.word or ""
        if character == "\\":
            if scanner.at + 1 >= len(scanner.text):
                raise FaultError(scanner.at, "a command cannot end in a backslash; it would join the next one")
            scanner.at += 2
            # A continued line adds nothing to a word, and begins none.
            if scanner.text[start + 1] == "\n":
                return
        elif character == "'":
            scanner.single()
        elif character == '"':
            scanner.double()
        elif character == "$":
            scanner.dollar(Context.WORD)
        elif character == "`":
            scanner.at += 1
            scanner.commands("`", start)
        else:
            ordinary = _ORDINARY.match(scanner.text, start)
            scanner.at = ordinary.end() if ordinary else start + 1
        self.word = so_far
        if len(so_far) < MAX_WORD_CHARACTERS:
            # Without quotes, which change no name of a program: `"bash" -c` is `bash -c`.
            self.word += scanner.text[start : min(scanner.at, start + MAX_WORD_CHARACTERS)].strip("'\"\\")
        if len(scanner.references) > first:
            # A subscript is arithmetic, and bash executes the `$(…)` of a value there.
            if _SUBSCRIPT.search(so_far):
                scanner.mark(first, context=Context.ARITHMETIC)
            scanner.mark(first, reader=script_of(self.words))

    def _end_word(self) -> None:
        if self.word is None:
            return
        word, self.word = self.word, None
        if self.target:
            self.target = False
            return
        if self.test is not None:
            self._in_test(word)
        if self.words:
            if len(self.words) < MAX_COMMAND_WORDS:
                self.words.append(word)
            if self.words[0] == "function" and len(self.words) == 2:
                self._new_command()
                self.awaiting_body = True
            return
        self._first_word(word)

    def _first_word(self, word: str) -> None:
        """A word where a command may begin: reserved words open and close things."""
        scanner = self.scanner
        if word == "{":
            self.groups.append((self.awaiting_body, scanner.at - 1))
            scanner.functions += self.awaiting_body
            self.awaiting_body = False
            return
        if word == "}" and self.groups:
            scanner.functions -= self.groups.pop()[0]
            return
        if self.awaiting_body:
            # A body without braces has no end that this scan knows: all the rest of this level counts as the function.
            scanner.functions += 1
            self.awaiting_body = False
        if word == "case":
            self.cases += 1
        elif word == "esac":
            self.cases = max(0, self.cases - 1)
        elif word == "[[":
            self.test = len(scanner.references)
        if word not in _STILL_COMMAND:
            self.words.append(word)

    def _in_test(self, word: str) -> None:
        """In bash, `[[ a -eq b ]]` evaluates both sides as arithmetic."""
        self.compares = self.compares or word in _COMPARES
        if word == "]]":
            self._end_test()

    def _end_test(self) -> None:
        if self.test is not None and self.compares:
            self.scanner.mark(self.test, context=Context.ARITHMETIC)
        self.test = None
        self.compares = False

    def _new_command(self) -> None:
        self.words = []
        self.line.append(self.words)
        self.command_start = len(self.scanner.references)

    def _end_command(self, *, separator: bool) -> None:
        self._end_word()
        self._end_test()
        self.target = False
        reader = reads_script_from_stdin(self.words)
        if reader:
            # The output of the commands before the pipe is the script: `echo "${{ v }}" | sh`.
            self.scanner.mark(self.pipe_start, self.command_start, reader=reader)
        self._new_command()
        if separator:
            self.pipe_start = len(self.scanner.references)

    def _operator(self, character: str) -> None:
        scanner = self.scanner
        self._end_word()
        # In `[[ … ]]` the operators belong to the test and end no command.
        if self.test is not None:
            scanner.at += 1
            return
        piped = character == "|" and not scanner.peek("||")
        width = 2 if scanner.text[scanner.at : scanner.at + 2] in ("&&", "||", ";;", "|&", "&>") else 1
        if scanner.peek("&>"):
            scanner.at += width
            return
        self._end_command(separator=not piped)
        scanner.at += width

    def _redirect(self) -> None:
        scanner = self.scanner
        # A number right before the operator is a descriptor, no argument: `2>&1`.
        if self.word is not None and self.word.isdigit():
            self.word = None
        self._end_word()
        start = scanner.at
        if scanner.peek("<<<"):
            scanner.at += 3
            self.words.append(HERE_STRING)
        elif scanner.peek("<<"):
            scanner.at += 2
            self._heredoc(start)
        elif scanner.peek("<(") or scanner.peek(">("):
            scanner.at += 2
            scanner.commands(")", start)
            # The shell puts a word in place of the substitution, a path like `/dev/fd/63`.
            self.word = ""
        elif scanner.peek(">&") or scanner.peek("<&") or scanner.peek(">|") or scanner.peek(">>") or scanner.peek("<>"):
            scanner.at += 2
            self.target = True
        else:
            scanner.at += 1
            self.target = True

    def _heredoc(self, start: int) -> None:
        scanner = self.scanner
        strip = scanner.peek("-")
        found = _HEREDOC.match(scanner.text, scanner.at)
        if not found:
            raise FaultError(start, "a here-document needs a word that ends it")
        written = found[1]
        scanner.at = found.end()
        scanner.heredocs.append(
            Heredoc(
                offset=start,
                delimiter=re.sub(r"['\"\\]", "", written),
                literal=bool(re.search(r"['\"\\]", written)),
                strip=strip,
                words=self.words,
            )
        )

    def _parenthesis(self) -> None:
        scanner = self.scanner
        start, depth = scanner.at, scanner.depth
        empty = _EMPTY.match(scanner.text, start)
        named = self.word if self.word is not None else self.words[0] if len(self.words) == 1 else ""
        if empty and (self.awaiting_body or _FUNCTION.match(named)):
            self.word = None
            self._new_command()
            self.awaiting_body = True
            scanner.at = empty.end()
            return
        if self.word is None and not self.words and scanner.peek("(("):
            kept, heredocs, functions = len(scanner.references), list(scanner.heredocs), scanner.functions
            try:
                scanner.at += 2
                scanner.arithmetic(start)
                return
            except FaultError:
                # No arithmetic after all but a subshell in a subshell, as in `((a; b) | c)`.
                del scanner.references[kept:]
                scanner.at, scanner.depth = start, depth
                scanner.heredocs, scanner.functions = heredocs, functions
        body, self.awaiting_body = self.awaiting_body, False
        # `a=(…)` is an array, and `[[ (…) ]]` a group of the test: no new command begins.
        if self.test is None and self.word is None:
            self._end_command(separator=False)
        scanner.at += 1
        scanner.functions += body
        scanner.commands(")", start)
        scanner.functions -= body
        if self.word is not None:
            self.word += "()"
