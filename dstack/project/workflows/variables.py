"""`.dstack/variables.yaml`: the variables of each workflow, and the names of variables in a job's environment.

The default gives a variable its type. A job finds the value in the environment variable of the same name, made legal,
and in upper case; never under a name with a meaning for the shell, the loader or an interpreter on the host.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from dstack.model import Position, Variable, VariableType, WorkflowName
from dstack.project.yaml.parser import MapNode, Node, ScalarNode, load_yaml
from dstack.project.yaml.report import Report, describe, is_absent, quote, read_map, suggest

VARIABLES_FILE = ".dstack/variables.yaml"
GLOBAL_SECTION = "global"
SYSTEM_VARIABLES = ("run_name", "job_id")
"""Names that dstack gives values at claim time; never variables of the user's."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}\Z")
_ILLEGAL = re.compile(r"[^A-Za-z0-9_]")
_RESERVED = frozenset(
    """
    _ BASH BASHOPTS BASHPID CDPATH COLUMNS COMPREPLY COPROC CUDA_VISIBLE_DEVICES DIRSTACK DISPLAY EDITOR ENV
    EPOCHREALTIME EPOCHSECONDS EUID EXECIGNORE FCEDIT FIGNORE FUNCNAME FUNCNEST GCONV_PATH GLIBC_TUNABLES GLOBIGNORE
    GROUPS HISTCMD HISTCONTROL HISTFILE HISTSIZE HOME HOSTNAME HOSTTYPE IFS INPUTRC JAVA_TOOL_OPTIONS LANG LANGUAGE
    LINENO LINES LOCPATH LOGNAME MACHTYPE MAIL MAPFILE NODE_OPTIONS OLDPWD OPTARG OPTERR OPTIND OSTYPE PAGER PATH
    PIPESTATUS POSIXLY_CORRECT PPID PROMPT_COMMAND PS0 PS1 PS2 PS3 PS4 PWD RANDOM REPLY RUBYLIB RUBYOPT SECONDS SHELL
    SHELLOPTS SHLVL SRANDOM TEMP TERM TIMEFORMAT TMOUT TMP TMPDIR TZ UID USER VISUAL
    """.split()  # noqa: SIM905
)
_RESERVED_PREFIXES = (
    *("LD_", "DYLD_", "LC_", "BASH_", "PYTHON", "PERL5", "GIT_", "SSH_", "XDG_", "DSTACK_", "COMP_", "READLINE_"),
    *("NVIDIA_", "MALLOC_"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class VariableTable:
    """All of variables.yaml: the variables of each section, including `global`, in the order of the file."""

    sections: Mapping[str, tuple[Variable, ...]]
    places: Mapping[str, Position]
    """The position of the key of each section."""

    def scope(self, workflow: WorkflowName, values: Mapping[str, str] | None = None) -> VariableScope:
        """The variables of a workflow: its own section over `global`, in the order of the file, with `values` by
        name."""
        seen = {variable.name: variable for variable in self.sections.get(GLOBAL_SECTION, ())}
        seen.update((variable.name, variable) for variable in self.sections.get(workflow, ()))
        given = values or {}
        ordered = sorted(seen.values(), key=lambda variable: (variable.position.line, variable.position.column))
        return VariableScope.of(replace(variable, text=given.get(variable.name, variable.text)) for variable in ordered)


@dataclass(frozen=True, slots=True, kw_only=True)
class VariableScope:
    """The variables of a workflow. `names` maps a variable to the environment name that always holds the value;
    `exports` maps every environment name to its variable."""

    variables: tuple[Variable, ...]
    names: Mapping[str, str]
    exports: Mapping[str, str]

    @staticmethod
    def of(variables: Iterable[Variable]) -> VariableScope:
        ordered = tuple(variables)
        names = {variable.name: environment_name(variable.name) for variable in ordered}
        exports = {name: variable for variable, name in names.items()}
        uppers = Counter(legal_name(variable).upper() for variable in names)
        for variable in names:
            upper = legal_name(variable).upper()
            # Of `lr` and `Lr` neither owns `LR`.
            if uppers[upper] == 1 and not is_reserved(upper):
                exports.setdefault(upper, variable)
        return VariableScope(variables=ordered, names=names, exports=exports)

    def find(self, name: str) -> Variable | None:
        """The variable called `name`; `-` and `_` count as the same if only a single variable fits."""
        found = match_name(name, [variable.name for variable in self.variables])
        return next((variable for variable in self.variables if variable.name == found), None)

    def environment(self) -> dict[str, str]:
        """Every value under all names of its variable."""
        texts = {variable.name: variable.text for variable in self.variables}
        return {name: texts[variable] for name, variable in self.exports.items()}

    def arguments(self) -> tuple[str, ...]:
        """`--name value` for each variable; a true boolean is a bare flag, a false boolean absent."""
        words: list[str] = []
        for variable in self.variables:
            if variable.type is not VariableType.BOOLEAN:
                words += [f"--{variable.name}", variable.text]
            elif variable.text == "true":
                words.append(f"--{variable.name}")
        return tuple(words)


def legal_name(name: str) -> str:
    """A variable's name made legal for an environment variable (`batch-size` -> `batch_size`)."""
    return _ILLEGAL.sub("_", name)


def is_reserved(name: str) -> bool:
    """True for an environment name with a meaning for the shell, the loader or an interpreter."""
    return name in _RESERVED or name.startswith(_RESERVED_PREFIXES)


def environment_name(name: str) -> str:
    """The environment name that always holds a variable's value."""
    legal = legal_name(name)
    return f"DSTACK_VAR_{legal}" if is_reserved(legal) else legal


def match_name(name: str, known: Iterable[str]) -> str | None:
    """The known name for `name`: the equal name, else the only name that differs in `-` and `_` alone."""
    names = list(known)
    if name in names:
        return name
    alike = [candidate for candidate in names if _fold(candidate) == _fold(name)]
    return alike[0] if len(alike) == 1 else None


def _fold(name: str) -> str:
    return name.replace("_", "-")


def read_variables(report: Report, root: Path) -> VariableTable | None:
    """Read `.dstack/variables.yaml` of the project at `root`; no file means no variables.

    None for an unreadable file: references to variables cannot be judged then.
    """
    loaded = load_yaml(root / VARIABLES_FILE, VARIABLES_FILE)
    node = report.take(loaded)
    if loaded.missing:
        return VariableTable(sections={}, places={})
    if node is None:
        return None
    return read_table(report, node)


def read_table(report: Report, node: Node) -> VariableTable | None:
    """The sections under the root key `variables:`."""
    if is_absent(node):
        return VariableTable(sections={}, places={})
    top = read_map(report, node, "the file")
    if top is None:
        return None
    for key, _ in top.entries:
        if key.text != "variables":
            advice = suggest(key.text, ["variables"]) or '; sections stand under "variables:"'
            report.problem(key.position, f"unknown key {quote(key.text)}{advice}")
    body = top.get("variables")
    if body is None or is_absent(body):
        return VariableTable(sections={}, places={})
    sections = read_map(report, body, "variables")
    if sections is None:
        return None
    table = {key.text: _read_section(report, key, value) for key, value in sections.entries}
    _check_names(report, table)
    return VariableTable(sections=table, places={key.text: key.position for key, _ in sections.entries})


def _read_section(report: Report, name: ScalarNode, node: Node) -> tuple[Variable, ...]:
    if is_absent(node):
        return ()
    if not isinstance(node, MapNode):
        advice = (
            "" if name.text == GLOBAL_SECTION else f'; a variable of all workflows stands under "{GLOBAL_SECTION}:"'
        )
        found = describe(node)
        report.problem(node.position, f"{name.text}: expected a map of variables, found {found}{advice}")
        return ()
    found_ones = (_read_variable(report, key, value) for key, value in node.entries)
    return tuple(variable for variable in found_ones if variable is not None)


def _read_variable(report: Report, key: ScalarNode, node: Node) -> Variable | None:
    name = key.text
    if not _NAME.match(name):
        wanted = 'a letter or "_", then letters, digits, "_", "-" or ".", at most 64 in all'
        report.problem(key.position, f"{quote(name)} cannot name a variable: {wanted}")
        return None
    if legal_name(name).lower() in (*SYSTEM_VARIABLES, "variables_as_args"):
        report.problem(key.position, f"{name} is given by dstack itself and cannot be a variable")
        return None
    if not isinstance(node, ScalarNode):
        report.problem(node.position, f"{name}: expected a number, true, false or a text, found {describe(node)}")
        return None
    if node.value is None:
        report.problem(node.position, f'{name} has no default; write "" for an empty text')
        return None
    # Booleans of YAML 1.1, and so of the loaders of PyYAML.
    if node.plain and node.text.lower() in ("yes", "no", "on", "off"):
        report.note(node.position, f"{name}: {node.text} is a text; a boolean is written true or false")
    return Variable(name=name, text=_as_text(node), type=type_of(node), position=key.position)


def _as_text(node: ScalarNode) -> str:
    if isinstance(node.value, bool):
        return "true" if node.value else "false"
    return node.text


def type_of(node: ScalarNode) -> VariableType:
    """The type of a variable with this default."""
    match node.value:
        # First, because a bool is an int in Python.
        case bool():
            return VariableType.BOOLEAN
        case int():
            return VariableType.INTEGER
        case float():
            return VariableType.FLOAT
        case _:
            return VariableType.STRING


def _check_names(report: Report, table: Mapping[str, tuple[Variable, ...]]) -> None:
    """Report variables of a job that share an environment name; note names with a meaning for the system."""
    shared = table.get(GLOBAL_SECTION, ())
    for section, variables in table.items():
        first = {legal_name(variable.name): variable for variable in shared if section != GLOBAL_SECTION}
        for variable in variables:
            legal = legal_name(variable.name)
            other = first.setdefault(legal, variable)
            if other.name != variable.name:
                line = other.position.line
                message = f"{variable.name} and {other.name} (line {line}) are both {legal} in the job's environment"
                report.problem(variable.position, message)
            _note_reserved(report, variable, legal)


def _note_reserved(report: Report, variable: Variable, legal: str) -> None:
    if is_reserved(legal):
        name = environment_name(variable.name)
        report.note(variable.position, f"{legal} means something to the system: the job finds the value as ${name}")
    elif is_reserved(legal.upper()):
        upper = legal.upper()
        report.note(
            variable.position, f"{upper} means something to the system: the job finds the value as ${legal} only"
        )


def check_sections(report: Report, table: VariableTable, workflows: Iterable[str]) -> None:
    """Every section names a workflow or is `global`."""
    names = list(workflows)
    for section, place in table.places.items():
        if section != GLOBAL_SECTION and section not in names:
            advice = suggest(section, [*names, GLOBAL_SECTION])
            report.problem(place, f"no workflow is called {quote(section)}{advice}")
