"""What a kind of storage declares about itself: facts as `Properties`, and the functions of a `Backend`.

Each backend's own file makes one `Backend`; `registry.py` lists all of them. Both are read by every command, so a
backend's file imports its library inside its functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dstack.ports import Bucket, Exclusion

Options = Mapping[str, Any]
"""Storage options, as they stand under `bucket:` in config.yaml."""
Environment = Mapping[str, str]
UNDER_BUCKET = "the credentials under `bucket:`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """The thing that holds objects in an object store: its `noun`, and the `command` that makes one named `{}`."""

    noun: str
    command: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Properties:
    """The facts about one kind of bucket that hold before any bucket of that kind is opened."""

    name: str
    """The kind, for tests and for programmers."""
    schemes: tuple[str, ...]
    """URL schemes in lower case, the usual one first. No two backends share a scheme."""
    is_path: bool = False
    """Whether the bucket is a path in a file system: another host sees the same bucket only where the same file system
    is mounted, and where it is not, the path looks like a new bucket."""
    exclusion: Exclusion = Exclusion.STORE
    """How hard the probe at first use tries: what the kernel promises needs few writers."""
    reads_at_once: int = 16
    """Reads in parallel that are worth it: behind a network each read is a round trip."""
    extra: str
    """The extra of dstack's package that installs the library; "" where the standard library is enough."""
    host_packages: tuple[str, ...] | None
    """Packages that a host needs beside the standard library to open the bucket by itself, the main one first. None:
    only a laptop can open the bucket."""
    secret_options: frozenset[str] = frozenset()
    """Names, in lower case, of storage options that hold the user's own credentials or say where these lie: such
    options go to no host unasked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LentCredentials:
    """The user's current credentials as storage options, all that are needed to open the bucket elsewhere.

    `who` names the credentials for people. `expires_at`: seconds since the epoch, None where the credentials last until
    they are withdrawn, or no end is known. `options` hold secrets and are not shown by `repr`.
    """

    who: str
    options: Options = field(repr=False)
    expires_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """One kind of storage: its facts, and what can be done with a URL of the kind."""

    properties: Properties
    open: Callable[[str, Options, str], Bucket]
    """The bucket at a URL with options; the last argument is the user's home. Reads and writes nothing. Raises
    BucketError for a URL or options that make no sense, ImportError for a library that is not installed."""
    path: Callable[[str, str], str] | None = None
    """The absolute path of the bucket, out of the URL and the user's home; None for a kind that is no path."""
    is_private: Callable[[str], bool] | None = None
    """Whether only one account can use the bucket at a path; None for a kind that is no path."""
    name_login: Callable[[Options, Environment], str] | None = None
    """Whose credentials open the bucket, in words; None where the account that runs dstack is all there is."""
    locate: Callable[[Options, Environment], dict[str, Any]] | None = None
    """Storage options completed by what only this machine's environment says about where the bucket is; None where
    the environment says nothing of the kind."""
    lend: Callable[[Options, Environment], LentCredentials] | None = None
    """The user's credentials as plain values; None for a kind without credentials. Raises CredentialsError where there
    are none."""
    abort_uploads: Callable[[str, Options, str, float], int] | None = None
    """End interrupted uploads below a prefix of the bucket at a URL, begun before a time of day by the store's clock
    -> how many; None where no upload can be left behind unseen. Raises BucketError when the store refuses."""
