"""The programs that read an argument, or their standard input, as a script.

A value at such a place would become script text of the program, however well the shell quotes the value: in `python -c
"print('${{ x }}')"` the value is Python. `job_script.py` refuses texts there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

HERE_STRING = "<<<"
"""The operator in a list of words; the program reads the next word."""
_ASSIGNMENT = re.compile(r"\w+\+?=")
_SHELLS = frozenset(("sh", "bash", "dash", "zsh", "ksh", "ash", "mksh", "fish", "csh", "tcsh", "su"))
# Other letters before the last: short options stand together, as in `perl -ne` and `bash -ec`.
_CODE = {
    "perl": re.compile(r"-[a-zA-Z0-9]*[eE]\Z"),
    "ruby": re.compile(r"-[a-zA-Z]*e\Z"),
    "node": re.compile(r"(?:-[a-z]*[ep]|--eval|--print)\Z"),
    "Rscript": re.compile(r"-e\Z"),
    "php": re.compile(r"-r\Z"),
    "lua": re.compile(r"-e\Z"),
}
_SHELL_CODE = re.compile(r"-[a-zA-Z]*c\Z|--command\Z")
_PYTHON = re.compile(r"(?:python|pypy)[0-9.]*\Z")
_FILTERS = frozenset(("awk", "gawk", "mawk", "nawk", "sed", "gsed"))
_WRAPPERS = frozenset(
    ("sudo", "env", "exec", "command", "builtin", "time", "nohup", "nice", "setsid", "stdbuf", "timeout")
)
_OWN_OPTION = {"awk": ("-v", "-F", "--assign", "--field-separator"), "sed": ()}


def _program(word: str) -> str:
    return word.rsplit("/", 1)[-1]


def _kind(word: str) -> re.Pattern[str] | None:
    """The option of a program before a word with a script."""
    name = _program(word)
    if name in _SHELLS:
        return _SHELL_CODE
    return re.compile(r"-[a-zA-Z]*c\Z") if _PYTHON.match(name) else _CODE.get(name)


def _first(words: Sequence[str]) -> int:
    """Index of the program's name, behind assignments and wrappers; `len(words)` without a program."""
    wrapped = False
    for index, word in enumerate(words):
        # Options and numbers of a wrapper, as in `timeout 5` and `nice -n 5`.
        skipped = wrapped and (word.startswith("-") or word[:1].isdigit())
        if _ASSIGNMENT.match(word) or skipped:
            continue
        if _program(word) not in _WRAPPERS:
            return index
        wrapped = True
    return len(words)


def script_of(words: Sequence[str]) -> str | None:
    """The program that reads the word after `words` as a script or a part of a script; None without such a program."""
    if words and words[-1] == HERE_STRING:
        return reads_script_from_stdin(words[:-1])
    first = _first(words)
    if first == len(words):
        return None
    name = _program(words[first])
    after = words[first + 1 :]
    if name in ("eval", "let"):
        return name
    # With `-i` the shell evaluates every value as arithmetic, and arithmetic can execute commands.
    if name in ("declare", "typeset", "local") and any(re.match(r"-\w*i", word) for word in after):
        return name
    # The first operand of trap is a script, all further operands are signals.
    if name == "trap" and not any(not word.startswith("-") for word in after):
        return name
    # ssh joins all words behind the host to a script for the shell there.
    if name == "ssh" and any(not word.startswith("-") for word in after):
        return name
    if name in _FILTERS:
        return _filter(name, after)
    return _code(words)


def _code(words: Sequence[str]) -> str | None:
    """`… bash -c <here>`, `… python3 -c <here>`, wherever the program stands in the command."""
    for index in range(len(words) - 1):
        pattern = _kind(words[index])
        options = words[index + 1 :]
        if pattern and all(option.startswith("-") for option in options) and pattern.match(options[-1]):
            return _program(words[index])
    return None


def _filter(name: str, after: Sequence[str]) -> str | None:
    """awk and sed take the first word that is not an option, or the word after `-e`, as a program."""
    takes = _OWN_OPTION["awk" if "awk" in name else "sed"]
    if after and after[-1] in ("-e", "--expression", "--source"):
        return name
    if after and after[-1] in (*takes, "-f", "--file"):
        return None
    position = 0
    while position < len(after) and after[position].startswith("-"):
        if after[position] in ("-e", "-f", "--expression", "--file", "--source"):
            return None
        position += 2 if after[position] in takes else 1
    return name if position >= len(after) else None


def reads_script_from_stdin(words: Sequence[str]) -> str | None:
    """The program of a command with a script on its standard input: `bash`, `python3 -`, `ssh host`."""
    first = _first(words)
    if first == len(words):
        return None
    name = _program(words[first])
    after = words[first + 1 :]
    if name == "ssh":
        return name
    if not _kind(words[first]):
        return None
    if any(word in ("-", "-s", "/dev/stdin") for word in after):
        return name
    # With a file or `-c` the script is elsewhere, and standard input is data.
    return None if any(not word.startswith("-") for word in after) or _code([*words]) else name
