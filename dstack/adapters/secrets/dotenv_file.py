"""`.env` of the project folder as a source of secrets: read, never written, never shipped."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dstack.errors import SecretError

DOTENV_FILE = ".env"


@dataclass(frozen=True, slots=True, kw_only=True)
class DotEnv:
    """The `values` of an `.env` file as written: `$NAME` is not expanded. `unread`: the lines other than NAME=VALUE."""

    values: Mapping[str, str] = field(default_factory=dict, repr=False)
    unread: tuple[int, ...] = ()


def read_dotenv(root: Path) -> DotEnv:
    """The project's `.env`, empty when the file is absent. Raises SecretError when the file cannot be read."""
    try:
        text = (root / DOTENV_FILE).read_bytes().decode("utf-8-sig", "surrogateescape")
    except FileNotFoundError:
        return DotEnv()
    except OSError as error:
        raise SecretError(f"{DOTENV_FILE} cannot be read: {error.strerror}") from None
    from dotenv.parser import parse_stream

    bindings = list(parse_stream(io.StringIO(text)))
    # A name without "=" has no value, and an empty one is none either.
    values = {bound.key: bound.value for bound in bindings if bound.key and bound.value and "\0" not in bound.value}
    return DotEnv(values=values, unread=tuple(bound.original.line for bound in bindings if bound.error))
