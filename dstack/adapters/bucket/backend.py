"""The declaration of a kind of storage: facts as `Properties`, functions in a `Backend`.

Each backend's own file makes one `Backend`; `registry.py` lists all backends. Every command imports all of these files,
so a backend imports its library inside functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dstack.ports import Bucket, Exclusion

Options = Mapping[str, Any]
"""Storage options, as written under `bucket:` in config.yaml."""
Environment = Mapping[str, str]
UNDER_BUCKET = "the credentials under `bucket:`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """The holder of objects in an object store: its `noun`, and the `command` to make a holder named `{}`."""

    noun: str
    command: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Properties:
    """The facts about one kind of bucket, known before any bucket is opened."""

    name: str
    """The kind, for tests and for programmers."""
    schemes: tuple[str, ...]
    """URL schemes in lower case, the usual scheme first. No two backends share a scheme."""
    is_path: bool = False
    """Whether the bucket is a path in a file system: another host sees the same bucket only where the same file system
    is mounted, and where it is not, the path looks like a new bucket."""
    exclusion: Exclusion = Exclusion.STORE
    """How hard the probe at first use tries: the kernel's exclusion needs few writers."""
    reads_at_once: int = 16
    """Useful number of parallel reads: behind a network each read is a round trip."""
    extra: str
    """The extra of dstack's package with the library; "" where the standard library is enough."""
    host_packages: tuple[str, ...] | None
    """Packages for a host to open the bucket by itself, beside the standard library, the main package first. None: only
    a laptop can open the bucket."""
    secret_options: frozenset[str] = frozenset()
    """Names, in lower case, of storage options with the user's own credentials or their place: such options go to no
    host unasked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LentCredentials:
    """The user's current credentials as storage options, complete for opening the bucket elsewhere.

    `who` names the credentials for people. `expires_at`: seconds since the epoch, None where the credentials last until
    withdrawn, or their end is unknown. `options` hold secrets and are not shown by `repr`.
    """

    who: str
    options: Options = field(repr=False)
    expires_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """The declaration of a kind of storage: facts and functions."""

    properties: Properties
    open: Callable[[str, Options, str], Bucket]
    """The bucket at a URL with options; the last argument is the user's home. Reads and writes nothing. Raises
    BucketError for a senseless URL or option, ImportError for a missing library."""
    path: Callable[[str, str], str] | None = None
    """The absolute path of the bucket, out of the URL and the user's home; None for a kind without a path."""
    is_private: Callable[[str], bool] | None = None
    """Whether only one account can use the bucket at a path; None for a kind without a path."""
    name_login: Callable[[Options, Environment], str] | None = None
    """The owner of the credentials for the bucket, in words; None for a kind opened by the account itself."""
    locate: Callable[[Options, Environment], dict[str, Any]] | None = None
    """Storage options completed by facts about the place that only this machine's environment has; None for a kind
    without such facts."""
    lend: Callable[[Options, Environment], LentCredentials] | None = None
    """The user's credentials as plain values; None for a kind without credentials. Raises CredentialsError where there
    are none."""
    abort_uploads: Callable[[str, Options, str, float], int] | None = None
    """End interrupted uploads below a prefix of the bucket at a URL, begun before a time of day by the store's clock
    -> how many; None where no upload can be left behind unseen. Raises BucketError when the store refuses."""
