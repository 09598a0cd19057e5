"""Common parts of the object stores before opening: the arguments of obstore, and commands that print tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dstack.errors import CredentialsError

if TYPE_CHECKING:
    from dstack.adapters.bucket.object_stores.aws_profile import KeyProvider

HOST_PACKAGES = ("obstore", "typing_extensions")
"""Packages for a host to open an object store: the library, and its own requirement."""
TOOL_DEADLINE_S = 60.0
"""Seconds for a cloud's own command to print a token."""
_ENDPOINTS = ("endpoint", "base_url")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreArguments:
    """`config` and `keywords` are obstore's, and may hold secrets; `who` names the credentials for people.

    `provider` is the source of keys among the keywords, where dstack looks for keys itself.
    """

    config: Mapping[str, Any] = field(repr=False)
    keywords: Mapping[str, Any] = field(default_factory=dict, repr=False)
    who: str
    provider: KeyProvider | None = field(default=None, repr=False)

    def for_bulk(self, timeout: str) -> dict[str, Any]:
        """The keywords for a store whose requests may take `timeout`, in obstore's own spelling of a duration."""
        return {**self.keywords, "client_options": {**self.keywords.get("client_options", {}), "timeout": timeout}}


def plain_http(config: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords for obstore to speak without TLS, where `config` names an http:// endpoint on purpose."""
    is_plain = any(str(config.get(name)).startswith("http://") for name in _ENDPOINTS)
    return {"client_options": {"allow_http": True}} if is_plain else {}


def names_any(options: Mapping[str, Any], names: frozenset[str]) -> bool:
    """Whether some option has one of `names`, in upper or lower case: obstore takes both."""
    return any(name.lower() in names for name in options)


def run_tool(words: Sequence[str], environment: Mapping[str, str]) -> str | None:
    """The output of a cloud's own command, None for a command not installed.

    Raises CredentialsError with the last line of its errors when the command fails.
    """
    import shutil
    import subprocess

    program = shutil.which(words[0], path=environment.get("PATH"))
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, *words[1:]],
            env=dict(environment),
            # A tool that asks for a password must fail, not wait for an answer nobody sees.
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TOOL_DEADLINE_S,
            check=False,
        )
    except (subprocess.TimeoutExpired, OSError):
        raise CredentialsError(
            f"`{words[0]}` gives no credentials", hint=f"run it by hand: {' '.join(words)}"
        ) from None
    if done.returncode != 0:
        errors = done.stderr.decode("utf-8", "replace").strip().splitlines()
        why = errors[-1][:300] if errors else f"exit {done.returncode}"
        raise CredentialsError(f"`{words[0]}` gives no credentials: {why}", hint=f"`{words[0]}` must be signed in")
    return done.stdout.decode("utf-8", "replace")
