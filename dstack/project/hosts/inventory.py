"""`hosts.yaml`: the machines of the user's and of the project's. `editor.py` edits the file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from dstack.errors import ConfigError, UsageError
from dstack.model import Host, HostName
from dstack.project.yaml.parser import MapNode, Node, ScalarNode, YamlDocument, load_yaml
from dstack.project.yaml.report import (
    MapEntry,
    Report,
    is_absent,
    quote,
    read_boolean,
    read_fields,
    read_integer,
    read_map,
    read_text,
    read_texts,
    suggest,
)
from dstack.project.yaml.schema import HOST_KEYS, spellings

HOSTS_FILE = ".dstack/hosts.yaml"
LOCAL_HOST = HostName("local")

_KEYS = spellings(HOST_KEYS)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_ADDRESS = re.compile(r"[A-Za-z0-9_.:\[\]%-]{1,255}\Z")
_USER = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.@\\+-]{0,63}\Z")
_JUMP = re.compile(r"(?:[A-Za-z0-9_.][A-Za-z0-9_.+-]*@)?[A-Za-z0-9_.:\[\]%-]+\Z")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/=-]{0,63}\Z")
_ONLY_SSH = ("address", "user", "port", "identity-file", "jump")


def read_inventory(*, home: Path, root: Path | None, file: Path | None = None) -> tuple[Host, ...]:
    """The hosts of the project's `.dstack/hosts.yaml` and of `~/.dstack/hosts.yaml`; for a name in both, the project's
    host.

    With `file` only this file is read. No host anywhere means this machine, without SSH. Raises ConfigError with all
    problems of both files, UsageError for a missing `file`.
    """
    report = Report()
    hosts: dict[HostName, Host] = {}
    for path, shown in _paths(home, root, file):
        loaded = load_yaml(path, shown, personal=file is None and path == home / HOSTS_FILE)
        if loaded.missing and file is not None:
            raise UsageError(f"{file} does not exist")
        for host in read_hosts(report, loaded):
            # `_paths` names the project's file first: its entry stays.
            hosts.setdefault(host.name, host)
    if report.problems:
        raise ConfigError(report.problems)
    return tuple(hosts.values()) or (Host(name=LOCAL_HOST, local=True),)


def _paths(home: Path, root: Path | None, file: Path | None) -> list[tuple[Path, str]]:
    if file is not None:
        return [(file, str(file))]
    personal = (home / HOSTS_FILE, f"~/{HOSTS_FILE}")
    # A project in the home folder has one file under both names: read twice, each problem would be told twice.
    if root is None or root.resolve() == home.resolve():
        return [personal]
    return [(root / HOSTS_FILE, HOSTS_FILE), personal]


def read_hosts(report: Report, loaded: YamlDocument) -> tuple[Host, ...]:
    """The hosts of one file; problems go to `report`."""
    body = hosts_node(report, report.take(loaded))
    entries = body.entries if isinstance(body, MapNode) else ()
    found = (_read_host(report, key, value) for key, value in entries)
    return tuple(host for host in found if host is not None)


def hosts_node(report: Report, root: Node | None) -> Node | None:
    """The node under the root key `hosts:`; None without one."""
    if root is None or is_absent(root):
        return None
    top = read_map(report, root, "the file")
    if top is None:
        return None
    for key, _ in top.entries:
        if key.text != "hosts":
            advice = suggest(key.text, ["hosts"]) or '; hosts stand under "hosts:"'
            report.problem(key.position, f"unknown key {quote(key.text)}{advice}")
    body = top.get("hosts")
    if body is None or is_absent(body):
        return body
    return read_map(report, body, "hosts")


def name_fault(name: str) -> str | None:
    """Why `name` cannot name a host; None for a possible name."""
    if _NAME.match(name):
        return None
    return f'{quote(name)} cannot name a host: a letter or digit, then letters, digits, "-", "_" or ".", at most 64'


def _read_host(report: Report, key: ScalarNode, node: Node) -> Host | None:
    reason = name_fault(key.text)
    if reason:
        report.problem(key.position, reason)
    fields: dict[str, MapEntry] = {}
    if not is_absent(node):
        body = read_map(report, node, key.text)
        if body is None:
            return None
        fields = read_fields(report, body, f"host {key.text}", known=_KEYS)
    values = {name: field.value for name, field in fields.items() if not is_absent(field.value)}
    local = bool("local" in values and read_boolean(report, values["local"], "local"))
    for name in _ONLY_SSH if local else ():
        if name in fields:
            report.problem(fields[name].key.position, f"{key.text} is this machine (local: true); {name} is for SSH")
    # An entry without a usable name is read to its end all the same, to report its other problems.
    if reason:
        return None
    return Host(
        name=HostName(key.text),
        address=_matched(report, values, "address", _ADDRESS),
        user=_matched(report, values, "user", _USER),
        port=_integer(report, values, "port", high=65535),
        identity_file=_path(report, values, "identity-file"),
        jump=_jump(report, values),
        labels=_labels(report, values),
        slots=_integer(report, values, "slots", high=4096),
        gpu_shares=_integer(report, values, "gpu-shares", high=64),
        local=local,
        forward_credentials=_forwards(report, values),
        dir=_dir(report, values),
        position=key.position,
    )


def _matched(report: Report, values: Mapping[str, Node], key: str, pattern: re.Pattern[str]) -> str | None:
    text = read_text(report, values[key], key) if key in values else None
    if text is None:
        return None
    if not pattern.match(text.text) or text.text.startswith("-"):
        advice = (
            f"; write user: {text.text.partition('@')[0]} for the user" if key == "address" and "@" in text.text else ""
        )
        report.problem(text.position, f"{key}: {quote(text.text)} is not possible here{advice}")
        return None
    return text.text


def _integer(report: Report, values: Mapping[str, Node], key: str, *, high: int) -> int | None:
    return read_integer(report, values[key], key, low=1, high=high) if key in values else None


def _path(report: Report, values: Mapping[str, Node], key: str) -> str | None:
    text = read_text(report, values[key], key) if key in values else None
    if text is None:
        return None
    if not text.text.isprintable() or text.text.startswith("-"):
        report.problem(text.position, f"{key}: {quote(text.text)} is not a path")
        return None
    return text.text


def _forwards(report: Report, values: Mapping[str, Node]) -> bool:
    key = "forward-credentials"
    return bool(key in values and read_boolean(report, values[key], key))


def _dir(report: Report, values: Mapping[str, Node]) -> str | None:
    path = _path(report, values, "dir")
    if path is None or path.startswith(("/", "~/")):
        return path
    message = f'dir: {quote(path)} must begin with "/" or "~/"'
    report.problem(values["dir"].position, message)
    return None


def _jump(report: Report, values: Mapping[str, Node]) -> str | None:
    """`[user@]host[:port]`, several separated by commas."""
    text = read_text(report, values["jump"], "jump") if "jump" in values else None
    if text is None:
        return None
    hops = [hop.strip() for hop in text.text.split(",")]
    if not all(_JUMP.match(hop) and not hop.startswith("-") for hop in hops):
        report.problem(text.position, f"jump: expected [user@]host[:port], found {quote(text.text)}")
        return None
    return ",".join(hops)


def _labels(report: Report, values: Mapping[str, Node]) -> tuple[str, ...]:
    if "labels" not in values:
        return ()
    found: list[str] = []
    for label in read_texts(report, values["labels"], "labels"):
        if _LABEL.match(label.text):
            found.append(label.text)
        else:
            report.problem(label.position, f"labels: {quote(label.text)} cannot be a label")
    return tuple(dict.fromkeys(found))
