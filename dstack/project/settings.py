"""`config.yaml`: the place of the bucket, and the project's name in the bucket."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dstack.errors import ConfigError
from dstack.model import Position
from dstack.project.yaml.parser import ListNode, MapNode, Node, ScalarNode, YamlDocument, load_yaml
from dstack.project.yaml.report import Report, is_absent, quote, read_fields, read_map, read_text, report_mismatch
from dstack.project.yaml.schema import BUCKET_KEYS, CONFIG_KEYS, spellings

CONFIG_FILE = ".dstack/config.yaml"
BUCKET_VARIABLE = "DSTACK_BUCKET"
DEFAULT_ORIGIN = "the default"
MAX_PROJECT_NAME_CHARACTERS = 128

_UNSAFE = re.compile(r"[^A-Za-z0-9._=+@-]+")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?:://|::)")
_SCP = re.compile(r"(?:[^@/:\s]+@)?(?:\[[^\]]*\]|[^/:\s]+):(?!//)(?P<path>.*)\Z")
_REMOTE_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/]*(?P<path>/.*)?\Z")
_SCALAR_NAMES = re.compile(r"[A-Za-z0-9._=+@-]+\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The place of all state. `bucket` is a URL or an absolute path, `options` its storage options; `origin` says which
    file or variable named the bucket, `position` the place in the file, if any. `project` is the name in config.yaml,
    if any."""

    bucket: str
    origin: str
    options: Mapping[str, Any] = field(default_factory=dict)
    position: Position | None = None
    project: str | None = None

    @property
    def is_chosen(self) -> bool:
        """Whether a file or variable names the bucket; False for the default bucket."""
        return self.origin != DEFAULT_ORIGIN


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    bucket: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    position: Position | None = None
    project: str | None = None
    shown: str = ""


def read_settings(*, home: Path, root: Path | None, environment: Mapping[str, str]) -> Settings:
    """Read both config files. For the bucket `DSTACK_BUCKET` comes first, then the project's file, then the user's,
    then `~/.dstack/bucket`. Raises ConfigError with all problems of both files."""
    report = Report()
    files: list[_File] = []
    # In the home folder the project's file and the user's file are the same one.
    if root is not None and root.resolve() != home.resolve():
        project = load_yaml(root / CONFIG_FILE, CONFIG_FILE)
        files.append(_read(report, project, base=root, home=home, personal=False))
    # In the home folder the one file is also the project's, and may name the project.
    personal = root is None or bool(files)
    own = load_yaml(home / CONFIG_FILE, f"~/{CONFIG_FILE}", personal=True)
    files.append(_read(report, own, base=home, home=home, personal=personal))
    if report.problems:
        raise ConfigError(report.problems)
    name = next((file.project for file in files if file.project), None)
    given = environment.get(BUCKET_VARIABLE)
    if given:
        # Without options: the options of a file belong to the bucket of that file.
        return Settings(bucket=_location(given, root or home, home), origin=BUCKET_VARIABLE, project=name)
    for file in files:
        if file.bucket is not None:
            return Settings(
                bucket=file.bucket, origin=file.shown, options=file.options, position=file.position, project=name
            )
    return Settings(bucket=str(home / ".dstack" / "bucket"), origin=DEFAULT_ORIGIN, project=name)


def _read(report: Report, loaded: YamlDocument, *, base: Path, home: Path, personal: bool) -> _File:
    node = report.take(loaded)
    if node is None or is_absent(node):
        return _File()
    top = read_map(report, node, "the file")
    if top is None:
        return _File()
    refused = {"project": "belongs into the project's own .dstack/config.yaml"} if personal else {}
    fields = read_fields(report, top, "the file", known=spellings(CONFIG_KEYS), refused=refused)
    bucket, options = _read_bucket(report, fields["bucket"].value) if "bucket" in fields else (None, {})
    return _File(
        bucket=_location(bucket.text, base, home) if bucket else None,
        options=options,
        position=bucket.position if bucket else None,
        project=_read_project(report, fields["project"].value) if "project" in fields else None,
        shown=loaded.file,
    )


def _read_bucket(report: Report, node: Node) -> tuple[ScalarNode | None, Mapping[str, Any]]:
    if isinstance(node, MapNode):
        fields = read_fields(report, node, "bucket", known=spellings(BUCKET_KEYS))
        if "url" not in fields:
            report.problem(node.position, "bucket: url is missing")
            return None, {}
        options = _read_options(report, fields["options"].value) if "options" in fields else {}
        return _read_url(report, fields["url"].value), options
    if isinstance(node, ScalarNode):
        return _read_url(report, node), {}
    report_mismatch(report, node, "bucket", "a URL or path, or a map of url and options")
    return None, {}


def _read_url(report: Report, node: Node) -> ScalarNode | None:
    text = read_text(report, node, "bucket")
    if text is not None and (not text.text.isprintable() or not text.text.strip()):
        report.problem(text.position, f"bucket: {quote(text.text)} is neither a URL nor a path")
        return None
    return text


def _read_options(report: Report, node: Node) -> Mapping[str, Any]:
    if is_absent(node):
        return {}
    body = read_map(report, node, "options")
    return {key.text: _plain(value) for key, value in body.entries} if body else {}


def _plain(node: Node) -> Any:
    if isinstance(node, MapNode):
        return {key.text: _plain(value) for key, value in node.entries}
    if isinstance(node, ListNode):
        return [_plain(item) for item in node.items]
    return node.value


def _location(text: str, base: Path, home: Path) -> str:
    """A URL unchanged; a path absolute, with `~` as `home` and relative paths below `base`."""
    if _URL.match(text):
        return text
    if text == "~" or text.startswith("~/"):
        return str(home / text[2:])
    return str(base / text)


def _read_project(report: Report, node: Node) -> str | None:
    text = read_text(report, node, "project")
    if text is None:
        return None
    if not _SCALAR_NAMES.match(text.text) or not text.text.strip(".") or len(text.text) > MAX_PROJECT_NAME_CHARACTERS:
        wanted = f'letters, digits and "._=+@-", at most {MAX_PROJECT_NAME_CHARACTERS}'
        report.problem(text.position, f"project: {quote(text.text)} cannot name a project: {wanted}")
        return None
    return text.text


def project_name(configured: str | None, remote: str | None, root: Path) -> str:
    """The project's name as a part of a bucket key: from config.yaml, else the path of the git remote without `.git`,
    else the folder's name; other characters become "."."""
    if configured:
        return configured
    return _safe(_remote_path(remote or "")) or _safe(root.name) or "project"


def _remote_path(remote: str) -> str:
    found = _REMOTE_URL.match(remote) or _SCP.match(remote)
    path = (found["path"] or "") if found else remote
    path = path.partition("?")[0].partition("#")[0].strip("/")
    return path.removesuffix(".git").strip("/")


def _safe(text: str) -> str:
    # Stripped again behind the cut, which may begin with a dot: neither `.` nor `..` is a part of a key.
    return _UNSAFE.sub(".", text).strip(".")[-MAX_PROJECT_NAME_CHARACTERS:].strip(".")
