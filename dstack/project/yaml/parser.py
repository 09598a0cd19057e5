"""YAML events -> checked nodes with their positions.

PyYAML's own loaders keep the last of two equal keys, resolve aliases, recurse without a limit and read `no` as false.
This parser takes a smaller language: one document, unique scalar keys, no anchors, aliases, tags or merges, the scalars
of YAML 1.2's core schema, and limits on bytes, depth and nodes. The source text of every scalar stays available, so
that `0.00002` and `3.10` stay unchanged. No other module imports yaml, and this module only with a file to read: `ps`
in a project without a config.yaml has none.
"""

from __future__ import annotations

import bisect
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dstack.errors import Problem
from dstack.model import Position
from dstack.private_folder import UntrustedError, open_trusted

if TYPE_CHECKING:
    import yaml

MAX_YAML_BYTES = 1 << 20
# Nodes are read by recursion: the depth stays far below Python's own limit.
MAX_YAML_DEPTH = 32
MAX_YAML_NODES = 20_000
MAX_NUMBER_CHARACTERS = 100
"""Characters of a number; Python refuses longer numbers or takes seconds for them."""
MAX_LOCATE_CHARACTERS = 32_768
"""Characters of a scalar to search for positions; each search passes all characters before the position."""

_FORBIDDEN = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufeff\ufffe\uffff]")
"""Characters that YAML forbids. A list of the forbidden compiles ten times as fast as a list of the allowed."""
_UNUSABLE = re.compile("[\0\ud800-\udfff]")
_BREAKS = re.compile("\r\n|[\r\n\x85\u2028\u2029]")
_NULL = re.compile(r"(?:null|Null|NULL|~|)\Z")
_TRUE = re.compile(r"(?:true|True|TRUE)\Z")
_FALSE = re.compile(r"(?:false|False|FALSE)\Z")
_INTEGER = re.compile(r"[-+]?[0-9]+\Z")
_BASED = re.compile(r"0(?:o[0-7]+|x[0-9a-fA-F]+)\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_SPECIAL = re.compile(r"(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z")

ScalarValue = str | int | float | bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalarNode:
    """One scalar. `text` has escapes and folding resolved; `value` is the value by YAML 1.2.

    `raw` is the source between `start` and `end` (offsets in characters), for the search of positions inside.
    """

    position: Position
    text: str
    value: ScalarValue
    plain: bool
    raw: str
    start: int
    end: int

    def locate(self, offset: int, length: int) -> Position:
        """The position of `text[offset : offset + length]` in the file; the start of the scalar if the text is not
        found, or if the scalar is longer than MAX_LOCATE_CHARACTERS."""
        wanted = self.text[offset : offset + length]
        if not wanted or len(self.raw) > MAX_LOCATE_CHARACTERS:
            return self.position
        # Escapes and folding move offsets between text and source: the same occurrence of the text is searched for.
        at = -1
        for _ in range(self.text.count(wanted, 0, offset + length)):
            at = self.raw.find(wanted, at + 1 if at < 0 else at + len(wanted))
            if at < 0:
                return self.position
        return _advance(self.position, self.raw[:at])


@dataclass(frozen=True, slots=True, kw_only=True)
class ListNode:
    position: Position
    items: tuple[Node, ...]
    flow: bool
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MapNode:
    """Keys are unique and never empty, in the order of the file."""

    position: Position
    entries: tuple[tuple[ScalarNode, Node], ...]
    flow: bool
    start: int
    end: int

    def get(self, key: str) -> Node | None:
        return next((node for name, node in self.entries if name.text == key), None)


Node = ScalarNode | ListNode | MapNode


@dataclass(frozen=True, slots=True, kw_only=True)
class YamlDocument:
    """One document. `root` is None for a missing or unreadable file, with `missing` or problems. An empty file is an
    empty scalar. With other problems the root can still be read."""

    file: str
    root: Node | None
    problems: tuple[Problem, ...] = ()
    missing: bool = False


class _UnreadableError(Exception):
    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def resolve_scalar(text: str) -> ScalarValue:
    """The value of a plain scalar by the core schema of YAML 1.2; a number of more than MAX_NUMBER_CHARACTERS stays
    text."""
    if _NULL.match(text):
        return None
    if _TRUE.match(text):
        return True
    if _FALSE.match(text):
        return False
    if len(text) > MAX_NUMBER_CHARACTERS:
        return text
    if _INTEGER.match(text):
        return int(text)
    if _BASED.match(text):
        return int(text, 0)
    if _FLOAT.match(text):
        return float(text)
    if _SPECIAL.match(text):
        # Python spells `.inf` and `.nan` without the dot.
        return float(text.replace(".", "", 1))
    return text


def load_yaml(path: Path, shown: str, *, personal: bool = False) -> YamlDocument:
    """Read one file under the name `shown`. Raises nothing: every fault is in `problems`.

    A `personal` file lies in `~/.dstack`: no other account may own or change the file.
    """
    try:
        if not path.exists():
            return YamlDocument(file=shown, root=None, missing=True)
        # Opening a pipe would wait for a writer.
        if not path.is_file():
            return _fail(shown, "is not a regular file")
        with os.fdopen(open_trusted(str(path)), "rb") if personal else path.open("rb") as stream:
            # A byte more than allowed tells a file that is too large.
            source = stream.read(MAX_YAML_BYTES + 1)
    except UntrustedError as error:
        return _fail(shown, f"{error}; {error.hint}")
    except OSError as error:
        return _fail(shown, f"cannot be read: {error.strerror or error}")
    return parse_yaml(source, shown)


def parse_yaml(source: bytes, shown: str) -> YamlDocument:
    """Read one document from bytes. Raises nothing: every fault is in `problems`."""
    if len(source) > MAX_YAML_BYTES:
        return _fail(shown, f"is larger than {MAX_YAML_BYTES} bytes")
    try:
        text = source.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        position = _advance(Position(file=shown, line=1, column=1), source[: error.start].decode("utf-8", "replace"))
        return _fail(shown, "this is not UTF-8 text", position)
    bad = _FORBIDDEN.search(text)
    if bad:
        position = _advance(Position(file=shown, line=1, column=1), text[: bad.start()])
        return _fail(shown, f"the character U+{ord(bad.group()):04X} is not allowed in YAML", position)
    reading = _Reading(text, shown)
    try:
        root = reading.document()
    except _UnreadableError as error:
        return YamlDocument(file=shown, root=None, problems=(*reading.problems, error.problem))
    return YamlDocument(file=shown, root=root, problems=tuple(reading.problems))


def _fail(shown: str, message: str, position: Position | None = None) -> YamlDocument:
    place = position or Position(file=shown, line=1, column=1)
    problem = Problem(file=shown, line=place.line, column=place.column, message=message)
    return YamlDocument(file=shown, root=None, problems=(problem,))


def _advance(position: Position, passed: str) -> Position:
    """The position after `passed`, read from `position` on."""
    line, column, last = position.line, position.column, 0
    for found in _BREAKS.finditer(passed):
        line, column, last = line + 1, 1, found.end()
    return Position(file=position.file, line=line, column=column + len(passed) - last)


class _Reading:
    """A single pass over the events of a text."""

    def __init__(self, text: str, file: str) -> None:
        self.text = text
        self.file = file
        self.problems: list[Problem] = []
        self.nodes = 0
        self.starts = [0, *(found.end() for found in _BREAKS.finditer(text))]
        self.events = self._parse()

    def _parse(self) -> Iterator[Any]:
        import yaml

        try:
            # libyaml's loader is many times faster, and absent from some builds of PyYAML.
            yield from yaml.parse(self.text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            if error.context_mark and "unexpected end of stream" in str(error.problem):
                place = self._at(error.context_mark.index or 0)
                raise _UnreadableError(self._problem(place, "the quote that opens here is never closed")) from None
            index = mark.index or 0 if mark else 0
            advice = _advice(error, self.text[index : index + 1])
            raise _UnreadableError(self._problem(self._at(index), advice)) from None
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            # PyYAML's own loader raises what `chr` raises for an escape beyond Unicode: ValueError or OverflowError.
            words = " ".join(str(error).split())
            raise _UnreadableError(self._problem(self._at(0), f"this is not YAML: {words}")) from None

    def _at(self, index: int) -> Position:
        line = bisect.bisect_right(self.starts, index)
        return Position(file=self.file, line=line, column=index - self.starts[line - 1] + 1)

    @staticmethod
    def _problem(place: Position, message: str) -> Problem:
        return Problem(file=place.file, line=place.line, column=place.column, message=message)

    def _complain(self, place: Position, message: str) -> None:
        self.problems.append(self._problem(place, message))

    def document(self) -> Node:
        import yaml

        root: Node | None = None
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent) and root is not None:
                place = self._at(_begin(event))
                raise _UnreadableError(self._problem(place, "a second document begins here; one file holds one"))
            if isinstance(event, yaml.NodeEvent):
                root = self._node(event, 1)
        return root or self._scalar("", Position(file=self.file, line=1, column=1), (0, 0), plain=True)

    def _node(self, event: Any, depth: int) -> Node:
        import yaml

        place = self._at(_begin(event))
        self.nodes += 1
        if self.nodes > MAX_YAML_NODES:
            raise _UnreadableError(self._problem(place, f"more than {MAX_YAML_NODES} values in one file"))
        if depth > MAX_YAML_DEPTH:
            raise _UnreadableError(self._problem(place, f"nested deeper than {MAX_YAML_DEPTH} levels"))
        if isinstance(event, yaml.AliasEvent):
            message = f"aliases (*{event.anchor}) are not supported; write the value out here"
            raise _UnreadableError(self._problem(place, message))
        if event.anchor is not None:
            self._complain(place, f"anchors (&{event.anchor}) are not supported; write the value out where it is used")
        if isinstance(event, yaml.ScalarEvent):
            return self._read_scalar(event, place)
        if event.tag is not None:
            self._complain(place, f"tags ({_printable(event.tag)}) are not supported")
        if isinstance(event, yaml.SequenceStartEvent):
            return self._list(event, place, depth)
        return self._map(event, place, depth)

    def _read_scalar(self, event: Any, place: Position) -> ScalarNode:
        span = (_begin(event), _finish(event))
        if event.tag is not None:
            self._complain(place, f"tags ({_printable(event.tag)}) are not supported; quote a value to make it text")
        # Escapes in double quotes make characters that the source itself cannot hold.
        bad = _UNUSABLE.search(event.value)
        if bad:
            self._complain(place, f"the character U+{ord(bad.group()):04X} cannot be part of a value")
        return self._scalar(event.value, place, span, plain=event.style in (None, ""))

    def _scalar(self, text: str, place: Position, span: tuple[int, int], *, plain: bool) -> ScalarNode:
        value = resolve_scalar(text) if plain else text
        if (
            plain
            and len(text) > MAX_NUMBER_CHARACTERS
            and (_INTEGER.match(text) or _BASED.match(text) or _FLOAT.match(text))
        ):
            self._complain(place, f"a number of more than {MAX_NUMBER_CHARACTERS} characters; quote it if it is text")
        start, end = span
        raw = self.text[start:end]
        return ScalarNode(position=place, text=text, value=value, plain=plain, raw=raw, start=start, end=end)

    def _list(self, event: Any, place: Position, depth: int) -> ListNode:
        import yaml

        items: list[Node] = []
        for inner in self.events:
            if isinstance(inner, yaml.SequenceEndEvent):
                break
            items.append(self._node(inner, depth + 1))
        # In block style the end event stands behind the blank lines and comments that follow.
        end = _finish(inner) if event.flow_style or not items else items[-1].end
        return ListNode(position=place, items=tuple(items), flow=bool(event.flow_style), start=_begin(event), end=end)

    def _map(self, event: Any, place: Position, depth: int) -> MapNode:
        import yaml

        entries: dict[str, tuple[ScalarNode, Node]] = {}
        end = _finish(event)
        for inner in self.events:
            if isinstance(inner, yaml.MappingEndEvent):
                end = _finish(inner) if event.flow_style else end
                break
            key = self._node(inner, depth + 1)
            # Every key has a value among the events, at least an empty scalar.
            value = self._node(next(self.events), depth + 1)
            end = value.end
            if isinstance(key, ScalarNode):
                if self._is_new_key(key, entries):
                    entries[key.text] = (key, value)
            else:
                self._complain(key.position, "a key must be a name; put quotes around a text that begins with { or [")
        found = tuple(entries.values())
        return MapNode(position=place, entries=found, flow=bool(event.flow_style), start=_begin(event), end=end)

    def _is_new_key(self, key: ScalarNode, entries: dict[str, tuple[ScalarNode, Node]]) -> bool:
        if key.plain and key.text == "<<":
            self._complain(key.position, "merges (<<) are not supported; write the keys out here")
            return False
        if not key.text:
            self._complain(key.position, "a key is empty")
            return False
        if key.text in entries:
            first = entries[key.text][0].position.line
            self._complain(key.position, f'the key "{_printable(key.text)}" was already given in line {first}')
            return False
        return True


def _begin(event: Any) -> int:
    return int(event.start_mark.index)


def _finish(event: Any) -> int:
    return int(event.end_mark.index)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:60])


def _advice(error: yaml.MarkedYAMLError, rest: str) -> str:
    """A sentence for a syntax error at the character `rest`, with the usual cause if known."""
    words = " ".join(str(error.problem or error.context or "cannot be understood").split())
    if rest == "\t":
        return "this is not YAML: a tab cannot indent; use spaces"
    if "mapping values are not allowed" in words:
        return 'this is not YAML: ": " begins a value here; put quotes around a text that holds one'
    if "cannot start any token" in words:
        return f'this is not YAML: a text cannot begin with "{_printable(rest)}"; put quotes around it'
    return f"this is not YAML: {words}"
