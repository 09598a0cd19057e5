"""The options of one host in ~/.ssh/config, as plain values.

asyncssh's parser is the base, but skips unknown options and gives up on quotes accepted by OpenSSH. So the options in
need here are kept by name, and where the parser gives up, OpenSSH itself is asked (`ssh -G`).
"""

from __future__ import annotations

import getpass
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from asyncssh.config import ConfigParseError, SSHClientConfig, SSHConfig

from dstack.errors import ConfigError, Problem

SSH_G_TIMEOUT_S = 15.0
"""Seconds for `ssh -G`, including a Match exec of the user's."""

OPTIONS_NOT_FOLLOWED: Mapping[str, tuple[tuple[str, ...], str]] = {
    "StrictHostKeyChecking": (("yes", "true", "ask"), "dstack always checks host keys"),
    "ControlMaster": (("no", "false"), "dstack keeps one connection of its own"),
    "KnownHostsCommand": (("none",), "confirm the key with dstack hosts add"),
    "RevokedHostKeys": (("none",), "write @revoked lines into known_hosts"),
    "ProxyUseFdpass": (("no", "false"), "dstack cannot take over a file descriptor"),
    "CanonicalizeHostname": (("no", "false", "none"), "write the full name as HostName"),
    "VerifyHostKeyDNS": (("no", "false"), "dstack believes known_hosts alone"),
}
"""Options not followed by dstack: the values without effect, and the note on any other value."""

_MANY = ("identityfile", "certificatefile")
_LISTS = ("userknownhostsfile", "globalknownhostsfile")
_TRUTHS = ("identitiesonly", "compression")
_NUMBERS = ("port", "connecttimeout")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """The host in question: the name as given by the user; `user` and `port` None means: not given."""

    name: str
    user: str | None = None
    port: int | None = None


def read_options(home: Path, system: Path | None, question: Question, ssh: str | None) -> dict[str, Any]:
    """The options of one host by lower-case name, `~/.ssh/config` before the system's file.

    Lists: identityfile, certificatefile, userknownhostsfile, globalknownhostsfile (`none` is the empty list). Booleans:
    identitiesonly, compression. Integers: port, connecttimeout. All others as written; None for `none`. The options are
    in the order of the files. Raises ConfigError when neither asyncssh's parser nor OpenSSH (`ssh`, None for none) can
    read the file.
    """
    config = home / ".ssh" / "config"
    files = [path for path in (config, system) if path is not None and path.is_file()]
    try:
        return _parse(files, question)
    except (ConfigParseError, UnicodeDecodeError, OSError) as error:
        return _ask_openssh(config, question, ssh, error)


def ignored_options(options: Mapping[str, Any]) -> list[str]:
    """A sentence for each option set to a value not followed by dstack."""
    found = []
    for name, (harmless, why) in OPTIONS_NOT_FOLLOWED.items():
        value = options.get(name.lower())
        if value is not None and str(value).lower() not in harmless:
            found.append(f"{name} {value} of the SSH configuration is not followed: {why}")
    return found


def _keep(config: SSHConfig, option: str, args: list[str]) -> None:
    config._options.setdefault(option, " ".join(args))  # noqa: SLF001 the parser has no other way in
    args.clear()


def _match_host(config: SSHClientConfig, option: str, args: list[str]) -> None:
    """Host patterns by OpenSSH's rule: separated by blanks alone, where asyncssh takes a comma too."""
    patterns = [pattern for pattern in args if "," not in pattern]
    SSHClientConfig._match_host(config, option, patterns or ["!*"])  # noqa: SLF001
    args.clear()


class _Config(SSHClientConfig):
    """asyncssh's parser, without skipping options in silence."""

    _handlers: ClassVar[dict[str, Any]] = {  # type: ignore[misc]  # the base says no ClassVar
        **SSHClientConfig._handlers,  # noqa: SLF001 of its own base class
        **{name.lower(): (name, _keep) for name in OPTIONS_NOT_FOLLOWED},
        "host": ("Host", _match_host),
    }


def _parse(files: Sequence[Path], question: Question) -> dict[str, Any]:
    def load(final: bool) -> SSHConfig:
        user = () if question.user is None else question.user
        port = () if question.port is None else question.port
        # The arguments: no earlier configuration, no reload, not canonical.
        return _Config.load(None, list(files), False, False, final, getpass.getuser(), user, question.name, port)

    config = load(False)
    # `Match final` holds only in a second reading, for the host name found in the first.
    if config.has_match_final():
        config = load(True)
    return {name.lower(): value for name, value in config.get_options(False).items()}


def _ask_openssh(config: Path, question: Question, ssh: str | None, error: Exception) -> dict[str, Any]:
    program = shutil.which(ssh) if ssh else None
    if program is None:
        raise _unreadable(config, str(error), "no ssh is installed that could be asked instead") from None
    said = _ssh_g(program, config, question, error)
    # ssh prints its defaults too: the answer for an empty file tells them from the wishes of the user.
    built_in = _ssh_g(program, Path(os.devnull), Question(name=question.name), error)
    return _convert({name: values for name, values in said.items() if values != built_in.get(name)})


def _ssh_g(program: str, config: Path, question: Question, error: Exception) -> dict[str, list[str]]:
    argv = [program, "-G", "-F", str(config)]
    argv += ["-p", str(question.port)] if question.port is not None else []
    argv += ["-l", question.user] if question.user is not None else []
    # A name that begins with a dash is no option.
    argv += ["--", question.name]
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=SSH_G_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as failure:
        raise _unreadable(config, str(error), f"ssh -G gave no answer either: {failure}") from None
    if done.returncode != 0:
        words = done.stderr.decode("utf-8", "replace").strip()
        raise _unreadable(config, words or str(error), "ssh refuses it too") from None
    options: dict[str, list[str]] = {}
    for line in done.stdout.decode("utf-8", "surrogateescape").splitlines():
        name, _, value = line.partition(" ")
        options.setdefault(name, []).append(value)
    return options


def _convert(options: Mapping[str, list[str]]) -> dict[str, Any]:
    """The lines of `ssh -G` as asyncssh's parser would give the same options."""
    typed: dict[str, Any] = {}
    for name, values in options.items():
        if name in _MANY:
            typed[name] = [value for value in values if value != "none"]
        elif name in _LISTS:
            typed[name] = [] if values == ["none"] else values[0].split()
        elif name in _TRUTHS:
            typed[name] = values[0] == "yes"
        elif name in _NUMBERS:
            typed[name] = int(values[0])
        else:
            typed[name] = None if values[0] == "none" else values[0]
    return typed


def _unreadable(config: Path, reason: str, more: str) -> ConfigError:
    found = re.search(r"^(.*?):? line (\d+): (.*)$", reason.splitlines()[0] if reason else "")
    file, line, what = found.groups() if found else (str(config), "1", reason)
    problem = Problem(file=file, line=int(line), column=1, message=f"{what} ({more})")
    return ConfigError([problem], hint="ssh -G HOST shows what OpenSSH makes of the file")
