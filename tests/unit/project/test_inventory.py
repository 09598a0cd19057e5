"""hosts.yaml: reading both files, and editing one without touching the rest."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.errors import ConfigError, NotFoundError, UsageError
from dstack.model import Host, HostName
from dstack.project.hosts.editor import add_host, remove_host
from dstack.project.hosts.inventory import read_hosts, read_inventory
from dstack.project.yaml.parser import parse_yaml
from dstack.project.yaml.report import Report


def write(folder: Path, text: str) -> Path:
    path = folder / ".dstack" / "hosts.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def names(*hosts: Host) -> list[str]:
    return [host.name for host in hosts]


def parsed(source: bytes) -> dict[str, Host]:
    report = Report()
    hosts = read_hosts(report, parse_yaml(source, "h"))
    assert report.problems == []
    return {host.name: host for host in hosts}


def test_without_any_inventory_the_host_is_this_machine(tmp_path: Path) -> None:
    for text in (None, "", "hosts:\n", "hosts: {}\n", "# nothing\n"):
        if text is not None:
            write(tmp_path, text)
        assert read_inventory(home=tmp_path, root=tmp_path / "p") == (Host(name=HostName("local"), local=True),)


def test_the_projects_entry_wins_over_the_users(tmp_path: Path) -> None:
    home, root = tmp_path / "home", tmp_path / "p"
    write(home, "hosts:\n  a: {user: me, port: 22}\n  b:\n")
    write(root, "hosts:\n  c: {local: true}\n  a: {user: you}\n")
    hosts = read_inventory(home=home, root=root)
    assert names(*hosts) == ["c", "a", "b"]
    assert (hosts[1].user, hosts[1].port) == ("you", None)
    assert hosts[2].position is not None
    assert (hosts[2].position.file, hosts[2].position.line) == ("~/.dstack/hosts.yaml", 3)


def test_a_given_file_is_read_instead_of_both(tmp_path: Path) -> None:
    write(tmp_path, "hosts: {a: }\n")
    other = tmp_path / "mine.yaml"
    other.write_text("hosts: {z: }\n", encoding="utf-8")
    assert names(*read_inventory(home=tmp_path, root=tmp_path, file=other)) == ["z"]
    with pytest.raises(UsageError, match="does not exist"):
        read_inventory(home=tmp_path, root=tmp_path, file=tmp_path / "none.yaml")


def test_all_settings_are_read(tmp_path: Path) -> None:
    write(
        tmp_path,
        "hosts:\n  gpu-1:\n    address: 10.0.0.5\n    user: ubuntu\n    port: 2222\n    identity_file: ~/.ssh/id\n"
        "    jump: me@gate:22, other\n    labels: [big, gpu=a100]\n    slots: 2\n    dir: /data/dstack\n",
    )
    (host,) = read_inventory(home=tmp_path, root=None)
    assert host.position is not None
    assert host == Host(
        name=HostName("gpu-1"),
        address="10.0.0.5",
        user="ubuntu",
        port=2222,
        identity_file="~/.ssh/id",
        jump="me@gate:22,other",
        labels=("big", "gpu=a100"),
        slots=2,
        dir="/data/dstack",
        position=host.position,
    )


def test_all_problems_of_both_files_are_said_at_once(tmp_path: Path) -> None:
    home, root = tmp_path / "home", tmp_path / "p"
    write(home, "host: {}\nhosts: [a]\n")
    write(
        root,
        "hosts:\n  -oProxy=x: {}\n  a: {adress: x, port: 70000, slots: 0}\n  b: {address: -oProxyCommand=x}\n"
        "  c: {address: me@x, local: yes}\n  d: {local: true, port: 1}\n  e: {user: '-x', jump: 'a b', dir: rel}\n"
        "  f: {labels: ['a b'], identity-file: \"x\\ny\"}\n  g: text\n",
    )
    with pytest.raises(ConfigError) as caught:
        read_inventory(home=home, root=root)
    said = [f"{problem.file[:1]}{problem.line}: {problem.message}" for problem in caught.value.problems]
    assert said == [
        '.2: "-oProxy=x" cannot name a host: a letter or digit, then letters, digits, "-", "_" or ".", at most 64',
        '.3: unknown key "adress" in host a (did you mean "address"?)',
        ".3: port: expected a number from 1 to 65535, found 70000",
        ".3: slots: expected a number from 1 to 4096, found 0",
        '.4: address: "-oProxyCommand=x" is not possible here',
        '.5: address: "me@x" is not possible here; write user: me for the user',
        '.5: local: expected true or false, found the text "yes"',
        ".6: d is this machine (local: true); port is for SSH",
        '.7: user: "-x" is not possible here',
        '.7: jump: expected [user@]host[:port], found "a b"',
        '.7: dir: "rel" must begin with "/" or "~/"',
        '.8: labels: "a b" cannot be a label',
        '.8: identity-file: "x\\ny" is not a path',
        '.9: g: expected a map, found the text "text"',
        '~1: unknown key "host" (did you mean "hosts"?)',
        "~2: hosts: expected a map, found a list",
    ]


NEW = Host(name=HostName("new"), address="10.0.0.9", user="u", labels=("a", "b"), slots=2, identity_file="~/k y")
FILES = {
    "empty": b"",
    "only comments": b"# my hosts\n",
    "no last newline": b"hosts:\n  a: {port: 1}",
    "null": b"hosts:\n",
    "null with comment": b"# top\nhosts: # here\n# end\n",
    "empty flow": b"hosts: {}\n",
    "flow": b"hosts: {a: {port: 1}, b: } # end\n",
    "flow, comma": b"hosts: {\n  a: {port: 1}, # one\n  b: {},\n}\n",
    "block": b"hosts:\n  a:\n    port: 1   # one\n\n  # on b\n  b:\n    labels:\n      - x\n      - y # y\n# end\n\n",
    "deep indent": b"hosts:\n        a:\n            port: 1\n        b:\n            address: x\n",
    "null entries": b"hosts:\n  a:   # alias of ssh config\n  b:\n\n# end\n",
    "crlf": b"hosts:\r\n  a:\r\n    port: 1\r\n  b: {user: x}\r\n# end\r\n",
    "bom": b"\xef\xbb\xbfhosts:\n  a: {port: 1}\n  b:\n",
    "quoted": b'hosts:\n  \'a\':\n    address: "x"  # \xc3\xa9\xf0\x9f\x98\x80\n  "b": {}\n',
    "no indent of values": b"hosts:\n a:\n  port: 1\n b:\n  user: x\n",
    "block scalar": b"hosts:\n  a:\n    address: >-\n      x\n\n  b:\n    user: |-\n      y\n\n# end\n",
}


def is_subsequence(short: list[bytes], long: list[bytes]) -> bool:
    rest = iter(long)
    return all(line in rest for line in short)


@pytest.mark.parametrize("kind", FILES)
def test_adding_a_host_leaves_every_other_byte(kind: str) -> None:
    source = FILES[kind]
    made = add_host(source, NEW, "h")
    found = parsed(made)
    assert list(found)[-1] == "new"
    before = parsed(source)
    assert {name: host for name, host in found.items() if name != "new"}.keys() == before.keys()
    if not kind.startswith(("flow", "empty flow")):
        kept = source if source.endswith(b"\n") or not source else source + b"\n"
        assert is_subsequence(kept.splitlines(keepends=True), made.splitlines(keepends=True))
    assert made.count(b"\r\n") == made.count(b"\n") or b"\r\n" not in source


@pytest.mark.parametrize("kind", [kind for kind in FILES if b"'a'" in FILES[kind] or b"a:" in FILES[kind]])
def test_removing_what_was_added_gives_back_the_file(kind: str) -> None:
    source = FILES[kind]
    kept = source if source.endswith(b"\n") else source + b"\n"
    assert remove_host(add_host(source, NEW, "h"), "new", "h") == kept


@pytest.mark.parametrize(
    "kind", [kind for kind in FILES if b"b" in FILES[kind].replace(b"block", b"") and "a" in parsed(FILES[kind])]
)
@pytest.mark.parametrize("name", ["a", "b"])
def test_removing_a_host_leaves_the_others_and_the_comments(kind: str, name: str) -> None:
    source = FILES[kind]
    before = parsed(source)
    if name not in before:
        pytest.skip("this file has one host")
    made = remove_host(source, name, "h")
    assert parsed(made).keys() == before.keys() - {name}
    for comment in (b"# end", b"# on b"):
        assert (comment in source) == (comment in made)


def test_the_whole_text_after_an_edit() -> None:
    source = FILES["block"]
    assert add_host(source, NEW, "h").decode() == (
        "hosts:\n  a:\n    port: 1   # one\n\n  # on b\n  b:\n    labels:\n      - x\n      - y # y\n"
        '  new:\n    address: 10.0.0.9\n    user: u\n    identity-file: "~/k y"\n    labels: [a, b]\n    slots: 2\n'
        "# end\n\n"
    )
    assert remove_host(source, "a", "h").decode() == (
        "hosts:\n\n  # on b\n  b:\n    labels:\n      - x\n      - y # y\n# end\n\n"
    )


def test_a_name_that_is_there_or_not_there_is_said() -> None:
    with pytest.raises(UsageError, match="h already has a host a"):
        add_host(FILES["block"], Host(name=HostName("a")), "h")
    with pytest.raises(NotFoundError, match="h has no host"):
        remove_host(FILES["block"], "c", "h")
    with pytest.raises(UsageError, match="cannot name a host"):
        add_host(b"", Host(name=HostName("-x")), "h")
    with pytest.raises(ConfigError):
        add_host(b"hosts: [", NEW, "h")


@given(st.text("abc019.:/~-_ '\"#@", min_size=1, max_size=12))
def test_any_key_file_reads_back_as_it_was(path: str) -> None:
    host = Host(name=HostName("on"), identity_file=path)
    if path.startswith("-"):
        return
    assert parsed(add_host(b"", host, "h"))["on"].identity_file == path
