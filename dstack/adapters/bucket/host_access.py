"""A bucket for another machine to open: the bucket's place and, on purpose only, the user's own credentials."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from dstack.adapters.bucket.backend import LentCredentials
from dstack.adapters.bucket.registry import SECRET_OPTIONS, backend_of
from dstack.errors import CredentialsError

LEAST_VALIDITY_S = 60.0
"""Seconds of validity left, at least, for credentials to be lent."""
RENEWAL_HINT = "`aws sso login`, or whatever gives you these credentials, renews them"


def location_options(url: str, options: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """The storage options for the bucket's place, without any credentials.

    A host cannot read this machine's environment, so facts there about the place, as S3's endpoint, are added.
    """
    locate = backend_of(url).locate
    located = locate(options, environment) if locate else options
    return {name: value for name, value in located.items() if name.lower() not in SECRET_OPTIONS}


def lend_credentials(url: str, options: Mapping[str, Any], environment: Mapping[str, str]) -> LentCredentials:
    """The user's current credentials for the bucket at `url`.

    Raises CredentialsError where there are none (a role belongs to its machine), for ended credentials, and for a kind
    of bucket without credentials.
    """
    lend = backend_of(url).lend
    if lend is None:
        raise CredentialsError(f"{url.split(':', 1)[0]}: a bucket of this kind has no credentials to hand on")
    lent = lend(options, environment)
    # A host that gets credentials in their last minute would fail in the middle of its first job.
    if lent.expires_at is not None and lent.expires_at < time.time() + LEAST_VALIDITY_S:
        raise CredentialsError(f"{lent.who}: these credentials are over", hint=RENEWAL_HINT)
    return lent
