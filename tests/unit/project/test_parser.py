"""The strict loader: what YAML means here, where things stand, and that no bytes can do harm."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dstack.errors import ConfigError, Problem
from dstack.project.plan import load_project
from dstack.project.starter_files import VARIABLES_EXAMPLE, WORKFLOWS_EXAMPLE
from dstack.project.yaml import parser
from dstack.project.yaml.parser import ListNode, MapNode, ScalarNode, load_yaml, parse_yaml


def only(source: str) -> ScalarNode:
    loaded = parse_yaml(source.encode(), "f")
    assert loaded.problems == ()
    assert isinstance(loaded.root, ScalarNode)
    return loaded.root


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("12:30", "12:30"),
        ("12:30:00", "12:30:00"),
        ("017", 17),
        ("0o17", 15),
        ("0x1F", 31),
        ("0b11", "0b11"),
        ("1_000", "1_000"),
        ("2021-09-27", "2021-09-27"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("null", None),
        ("3.10", 3.1),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("-.inf", -math.inf),
        ("'1'", "1"),
        ('"true"', "true"),
        ("=", "="),
    ],
)
def test_scalars_are_those_of_yaml_1_2(written: str, value: object) -> None:
    node = only(written)
    assert node.value == value
    assert type(node.value) is type(value)


@pytest.mark.parametrize("written", ["3.10", "0.00002", "017", "0x1F", "1e-3", "TRUE", "0.10"])
def test_the_source_text_of_a_scalar_is_kept(written: str) -> None:
    assert only(written).text == written


def test_positions_count_lines_and_columns_from_1_in_characters() -> None:
    loaded = parse_yaml("a: 1\r\n'é😀':   [x,\n  {b: c}]\n".encode(), "f")
    assert isinstance(loaded.root, MapNode)
    (_, one), (key, items) = loaded.root.entries
    assert isinstance(items, ListNode)
    assert (one.position.line, one.position.column) == (1, 4)
    assert (key.position.line, key.position.column) == (2, 1)
    assert (items.position.line, items.position.column) == (2, 9)
    assert (items.items[1].position.line, items.items[1].position.column) == (3, 3)


@pytest.mark.parametrize(
    ("source", "line", "column"),
    [
        ("k: echo MARK", 1, 9),
        ("k: 'it''s MARK'", 1, 11),
        ('k: "a\\"b MARK"', 1, 10),
        ("k: |\n  one\n  two MARK\n", 3, 7),
        ("k: |\n\n    one MARK\n", 3, 9),
        ("k: >-\n  folded\n  on MARK\n", 3, 6),
        ("k: MAR\n  MARK\n", 2, 3),
        ("k: |+2\n    MARK\n\n", 2, 5),
        ("k: MARK MARK", 1, 9),
    ],
)
def test_a_place_inside_a_scalar_is_found_in_every_style(source: str, line: int, column: int) -> None:
    root = parse_yaml(source.encode(), "f").root
    assert isinstance(root, MapNode)
    node = root.get("k")
    assert isinstance(node, ScalarNode)
    found = node.locate(node.text.rindex("MARK"), 4)
    assert (found.line, found.column) == (line, column)


@pytest.mark.parametrize(
    ("source", "message", "line", "column"),
    [
        (b"a: \xff", "this is not UTF-8 text", 1, 4),
        (b"a: 1\nb: \x07", "the character U+0007 is not allowed in YAML", 2, 4),
        (b'a: "\\0"', "the character U+0000 cannot be part of a value", 1, 4),
        (b"a: " + b"[" * 31 + b"]" * 31, "", 0, 0),
        (b"a: " + b"[" * 32 + b"]" * 32, "nested deeper than 32 levels", 1, 35),
        (b"a: " + b"9" * 101, "a number of more than 100 characters; quote it if it is text", 1, 4),
        (b"a: &x 1\n", "anchors (&x) are not supported; write the value out where it is used", 1, 4),
        (b"a: *x\n", "aliases (*x) are not supported; write the value out here", 1, 4),
        (b"a: !!python/object:os.system x\n", "tags (tag:yaml.org,2002:python/object:os.system)", 1, 4),
        (b"a: 1\na: 2\n", 'the key "a" was already given in line 1', 2, 1),
        (b"? [a]\n: 1\n", "a key must be a name", 1, 3),
        (b"<<: {a: 1}\n", "merges (<<) are not supported", 1, 1),
        (b'"": 1\n', "a key is empty", 1, 1),
    ],
)
def test_what_is_not_in_the_language_is_a_problem_with_its_place(
    source: bytes, message: str, line: int, column: int
) -> None:
    problems = parse_yaml(source, "f").problems
    if not message:
        assert problems == ()
        return
    assert len(problems) == 1
    assert problems[0].message.startswith(message)
    assert (problems[0].line, problems[0].column) == (line, column)


def test_the_limits_on_bytes_and_nodes_hold() -> None:
    assert parse_yaml(b"#" * parser.MAX_YAML_BYTES, "f").problems == ()
    assert "larger than 1048576 bytes" in parse_yaml(b"#" * (parser.MAX_YAML_BYTES + 1), "f").problems[0].message
    assert parse_yaml(b"[" + b"a," * (parser.MAX_YAML_NODES - 1) + b"]", "f").problems == ()
    assert "more than 20000 values" in parse_yaml(b"[" + b"a," * parser.MAX_YAML_NODES + b"]", "f").problems[0].message


def test_what_is_no_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert load_yaml(tmp_path / "folder", "f").problems[0].message == "is not a regular file"
    assert load_yaml(tmp_path / "none", "f").missing


HOSTILE = {
    "brackets": b"[" * 500_000,
    "braces": b"{a: " * 200_000,
    "dashes": b"- " * 500_000,
    "questions": b"? " * 500_000,
    "merges": b"a: &a {x: 1}\n" + b"".join(b"m%d: {<<: *a}\n" % number for number in range(20_000)),
    "laughs": b"a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\n",
    "digits": b"a: " + b"9" * 1_000_000,
    "hexadecimal": b"a: 0x" + b"f" * 1_000_000,
    "quote": b'a: "' + b"x" * 1_000_000,
    "one key": b"a" * 1_000_000 + b": 1",
    "many keys": b"".join(b"k%d: 1\n" % number for number in range(9_000)),
    "same key": b"a: 1\n" * 9_000,
    "folded": b"a: >\n" + b" x\n" * 300_000,
    "colons": b": " * 400_000,
    "escapes": b'a: "' + b"\\x41" * 250_000 + b'"',
    "references": b"workflows: [{name: a, commands: ['" + b"${{ x }} " * 100_000 + b"']}]",
    "references in env": b"workflows: [{name: a, commands: [ls], env: {A: '" + b"$x " * 300_000 + b"'}, b: }]",
    "workflows": b"workflows:\n" + b"".join(b"- {name: a%d, depends-on: [b%d]}\n" % (n, n) for n in range(2_500)),
    "anchors": b"".join(b"- &a%d x\n" % number for number in range(15_000)),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_answered_before_the_timeout(name: str, tmp_path: Path) -> None:
    """For some of these PyYAML's own loader needs minutes, or more stack than there is."""
    folder = tmp_path / ".dstack"
    folder.mkdir()
    for file in ("workflows.yaml", "variables.yaml"):
        (folder / file).write_bytes(HOSTILE[name])
    with pytest.raises(ConfigError):
        load_project(tmp_path)


_PIECES = st.sampled_from(
    [b"\t", b"&a ", b"*a", b"!!str ", b"<<: ", b"? ", b"- ", b": ", b"[", b"]", b"{", b"}", b"'", b'"', b"|\n", b"\xff"]
)
_WORDS = st.sampled_from(
    [
        b"${{ x }}",
        b"${{",
        b"$(",
        b"`",
        b"<<EOF",
        b"\\",
        b"---\n",
        b"\0",
        b"\xef\xbb\xbf",
        b"null",
        b"~",
        b"..",
        b"%YAML 9\n",
    ]
)


@st.composite
def mutated(draw: st.DrawFn, source: bytes) -> bytes:
    """The starter file with pieces cut, doubled, moved and put in."""
    text = bytearray(source)
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(text)))
        end = min(len(text), at + draw(st.integers(0, 30)))
        choice = draw(st.integers(0, 3))
        if choice == 0:
            del text[at:end]
        elif choice == 1:
            text[at:at] = draw(_PIECES | _WORDS)
        elif choice == 2:
            text[at:at] = text[at:end]
        else:
            text[at:end] = draw(st.binary(max_size=8))
    return bytes(text)


@settings(max_examples=400, deadline=10_000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(workflows=mutated(WORKFLOWS_EXAMPLE.encode()), variables=mutated(VARIABLES_EXAMPLE.encode()))
def test_a_mutated_project_is_loaded_or_refused_with_places(tmp_path: Path, workflows: bytes, variables: bytes) -> None:
    folder = tmp_path / ".dstack"
    folder.mkdir(exist_ok=True)
    (folder / "workflows.yaml").write_bytes(workflows)
    (folder / "variables.yaml").write_bytes(variables)
    for problem in problems_of(tmp_path):
        source = {".dstack/workflows.yaml": workflows, ".dstack/variables.yaml": variables}[problem.file]
        # libyaml counts more kinds of line breaks than \n.
        assert 1 <= problem.line <= len(source) + 1
        assert problem.column >= 1
        assert problem.message.isprintable()


def problems_of(root: Path) -> tuple[Problem, ...]:
    try:
        load_project(root)
    except ConfigError as error:
        return error.problems
    return ()


_LEAVES = st.text(max_size=8) | st.integers() | st.booleans()
_VALUES = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(min_size=1, max_size=6), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=200, deadline=10_000)
@given(_VALUES)
def test_what_pyyaml_writes_in_quotes_reads_back(value: object) -> None:
    """The loader agrees with YAML's own writer wherever the file uses none of what is refused."""
    source = yaml.safe_dump(value, default_style='"', allow_unicode=False)
    loaded = parse_yaml(source.encode(), "f")
    if any(word in source for word in ("!!", "&", "\\0", "\\uD", "\\ud")) or loaded.problems:
        return
    assert _plain(loaded.root) == _texts(value)


def _plain(node: object) -> object:
    if isinstance(node, MapNode):
        return {key.text: _plain(item) for key, item in node.entries}
    if isinstance(node, ListNode):
        return [_plain(item) for item in node.items]
    assert isinstance(node, ScalarNode)
    return node.text


def _texts(value: object) -> object:
    if isinstance(value, dict):
        return {key: _texts(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_texts(item) for item in value]
    return value


@pytest.mark.skipif(not hasattr(yaml, "CSafeLoader"), reason="PyYAML was built without its C parser")
@pytest.mark.parametrize("source", [WORKFLOWS_EXAMPLE, VARIABLES_EXAMPLE, "k: |\r\n  é😀\r\n", "[a, {b: 'c''d'}]"])
def test_the_parser_in_python_gives_the_same_nodes(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fast = parse_yaml(source.encode(), "f")
    monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    assert parse_yaml(source.encode(), "f") == fast


@pytest.mark.parametrize("escape", ["FFFFFFFF", "80000000", "00110000"])
def test_the_parser_in_python_refuses_an_escape_beyond_unicode(escape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    loaded = parse_yaml(f'k: "\\U{escape}"\n'.encode(), "f")
    assert [problem.message.startswith("this is not YAML") for problem in loaded.problems] == [True]
