"""Adds or removes one host in the text of a `hosts.yaml`; everything else stays byte for byte.

The text is edited at the positions from the parser and read again afterwards: if an edit has another effect, in some
corner of YAML, the edit is refused and nothing is written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace

from dstack.errors import ConfigError, NotFoundError, UsageError
from dstack.model import Host
from dstack.project.hosts.inventory import hosts_node, name_fault, read_hosts
from dstack.project.yaml.parser import ListNode, MapNode, Node, ScalarNode, parse_yaml, resolve_scalar
from dstack.project.yaml.report import Report, quote, suggest

# Fewer texts than plain YAML allows: each is safe in block style and in flow style alike.
_PLAIN = re.compile(r"[A-Za-z0-9_./~][A-Za-z0-9_./~@:+-]*\Z")
_HINT = "edit the file by hand"


def add_host(source: bytes, host: Host, shown: str) -> bytes:
    """The file with `host` as the last entry; an empty `source` gives a new file.

    Raises UsageError for an existing or impossible name, ConfigError for a file with problems.
    """
    reason = name_fault(host.name)
    if reason:
        raise UsageError(reason)
    before = _hosts(source, shown)
    if any(known.name == host.name for known in before):
        raise UsageError(f"{shown} already has a host {host.name}", hint=f"dstack hosts rm {host.name}")
    text, mark = _decode(source)
    body = _body(source, shown)
    made = mark + _insert(text, body, host).encode()
    if not _reads_as(made, [*before, replace(host, position=None)]):
        raise UsageError(f"{host.name} cannot be added to {shown}", hint=_HINT)
    return made


def hosts_text(hosts: Sequence[Host]) -> bytes:
    """A file of these hosts: no setting is checked, and every text is written as a text."""
    lines = [line for host in hosts for line in _block(host, "  ", "  ")]
    # A lone surrogate from a record gets as far as the parser, and is refused there as no UTF-8.
    return "\n".join(("hosts:", *lines, "")).encode("utf-8", "surrogatepass")


def remove_host(source: bytes, name: str, shown: str) -> bytes:
    """The file without the host `name`; comments above and below the entry stay.

    Raises NotFoundError for an unknown host, ConfigError for a file with problems.
    """
    before = _hosts(source, shown)
    names = [host.name for host in before]
    if name not in names:
        raise NotFoundError(f"{shown} has no host {quote(name)}{suggest(name, names)}")
    text, mark = _decode(source)
    body = _body(source, shown)
    made = mark + _delete(text, body, name).encode() if isinstance(body, MapNode) else source
    if not _reads_as(made, [host for host in before if host.name != name]):
        raise UsageError(f"{name} cannot be removed from {shown}", hint=_HINT)
    return made


def _reads_as(source: bytes, wanted: list[Host]) -> bool:
    try:
        return _hosts(source, "") == wanted
    except ConfigError:
        return False


def _hosts(source: bytes, shown: str) -> list[Host]:
    report = Report()
    hosts = read_hosts(report, parse_yaml(source, shown))
    if report.problems:
        raise ConfigError(report.problems)
    return [replace(host, position=None) for host in hosts]


def _body(source: bytes, shown: str) -> Node | None:
    return hosts_node(Report(), parse_yaml(source, shown).root)


def _decode(source: bytes) -> tuple[str, bytes]:
    """The text, and the byte order mark before it."""
    # The offsets of the parser count from behind the mark.
    mark = b"\xef\xbb\xbf" if source.startswith(b"\xef\xbb\xbf") else b""
    return source[len(mark) :].decode(), mark


def _insert(text: str, body: Node | None, host: Host) -> str:
    newline = "\r\n" if "\r\n" in text else "\n"
    if isinstance(body, MapNode) and body.flow:
        if not body.entries:
            return f"{text[: body.end - 1]}{_flow(host)}{text[body.end - 1 :]}"
        key, value = body.entries[-1]
        at = _end(value, key)
        return f"{text[:at]}, {_flow(host)}{text[at:]}"
    if body is None:
        begin = text if not text or text.endswith(("\n", "\r")) else text + newline
        return begin + newline.join(("hosts:", *_block(host, "  ", "  "), ""))
    if isinstance(body, MapNode):
        key, value = body.entries[-1]
        indent = " " * (body.entries[0][0].position.column - 1)
        at = _line_end(text, _end(value, key))
    else:
        indent = "  "
        at = _line_end(text, body.end)
    lines = newline.join((*_block(host, indent, "  "), ""))
    begin = text[:at] if text[:at].endswith(("\n", "\r")) else text[:at] + newline
    return begin + lines + text[at:]


def _delete(text: str, body: MapNode, name: str) -> str:
    index = next(index for index, (key, _) in enumerate(body.entries) if key.text == name)
    key, value = body.entries[index]
    start, end = key.start, _end(value, key)
    if not body.flow:
        begin = max(text.rfind("\n", 0, start), text.rfind("\r", 0, start)) + 1
        return text[:begin] + text[_line_end(text, end) :]
    after = re.compile(r"\s*,[ \t]*").match(text, end)
    before = re.compile(r",\s*\Z").search(text, body.start, start)
    if before and (after is None or index == len(body.entries) - 1):
        return text[: before.start()] + text[end:]
    return text[:start] + text[after.end() if after else end :]


def _end(node: Node, key: ScalarNode) -> int:
    """The end of the last written character of an entry; an empty value ends with the colon of the key."""
    if isinstance(node, ScalarNode):
        # The source of a block scalar includes the line ends behind the text.
        if node.raw:
            return node.start + len(node.raw.rstrip())
        return max(node.end, key.end)
    if node.flow:
        return node.end
    if isinstance(node, ListNode):
        return _end(node.items[-1], key) if node.items else node.end
    last, value = node.entries[-1]
    return _end(value, last)


def _line_end(text: str, at: int) -> int:
    """The start of the line after offset `at`; the end of the text for the last line."""
    found = re.compile(r"[^\r\n]*(?:\r\n|\r|\n|\Z)").match(text, at)
    return found.end() if found else len(text)


def _settings(host: Host) -> list[tuple[str, str]]:
    texts = [("address", host.address), ("user", host.user), ("identity-file", host.identity_file)]
    found = [(key, _yaml_text(value)) for key, value in texts if value is not None]
    if host.port is not None:
        found.append(("port", str(host.port)))
    found += [(key, _yaml_text(value)) for key, value in (("jump", host.jump), ("dir", host.dir)) if value is not None]
    if host.labels:
        found.append(("labels", "[" + ", ".join(_yaml_text(label) for label in host.labels) + "]"))
    if host.slots is not None:
        found.append(("slots", str(host.slots)))
    if host.forward_credentials:
        found.append(("forward-credentials", "true"))
    if host.gpu_shares is not None:
        found.append(("gpu-shares", str(host.gpu_shares)))
    if host.local:
        found.append(("local", "true"))
    return found


def _yaml_text(text: str) -> str:
    """A text as YAML: plain if plain YAML reads back as the same text, else in double quotes."""
    # A colon at the end would make the text a key.
    plain = _PLAIN.match(text) and isinstance(resolve_scalar(text), str) and not text.endswith(":")
    # A string of JSON is also a double-quoted scalar of YAML.
    return text if plain else json.dumps(text, ensure_ascii=False)


def _block(host: Host, indent: str, step: str) -> list[str]:
    settings = _settings(host)
    return [f"{indent}{_yaml_text(host.name)}:", *(f"{indent}{step}{key}: {value}" for key, value in settings)]


def _flow(host: Host) -> str:
    inner = ", ".join(f"{key}: {value}" for key, value in _settings(host))
    return f"{_yaml_text(host.name)}: {{{inner}}}"
