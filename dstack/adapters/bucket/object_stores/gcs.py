"""Google Cloud Storage: an access token among the options, or the user's Google login; the token to lend."""

from __future__ import annotations

from dstack.adapters.bucket.backend import (
    UNDER_BUCKET,
    Backend,
    Container,
    Environment,
    LentCredentials,
    Options,
    Properties,
)
from dstack.adapters.bucket.object_stores.arguments import HOST_PACKAGES, StoreArguments, plain_http, run_tool
from dstack.errors import CredentialsError
from dstack.ports import Bucket

_SECRET_OPTIONS = frozenset(
    {
        "token",
        "bearer_token",
        "google_bearer_token",
        "service_account",
        "google_service_account",
        "service_account_path",
        "google_service_account_path",
        "service_account_key",
        "google_service_account_key",
        "application_credentials",
        "google_application_credentials",
    }
)
READ_WRITE_SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
_SCHEMES = ("gs", "gcs")
_CONTAINER = Container(noun="bucket", command="gcloud storage buckets create gs://{}")


def _arguments(options: Options) -> StoreArguments:
    """The token under `bucket:` where present; else obstore finds the application default credentials itself."""
    config = dict(options)
    keywords = plain_http(config)
    if not config.get("token"):
        return StoreArguments(
            config=config, keywords=keywords, who="your Google login (application default credentials)"
        )
    # obstore takes a ready token by a credential provider.
    token = {"token": str(config.pop("token")), "expires_at": None}
    return StoreArguments(config=config, keywords={**keywords, "credential_provider": lambda: token}, who=UNDER_BUCKET)


def _open(url: str, options: Options, home: str) -> Bucket:
    from dstack.adapters.bucket.object_stores.obstore_store import open_obstore

    return open_obstore(url, _arguments(options), _CONTAINER, scheme=_SCHEMES[0])


def _lend(options: Options, environment: Environment) -> LentCredentials:
    """An access token under `bucket:`, by google-auth, or by the `gcloud` command."""
    if options.get("token"):
        return LentCredentials(who=UNDER_BUCKET, options=dict(options), expires_at=None)
    found = _ask_google_auth()
    if found is None:
        printed = run_tool(["gcloud", "auth", "print-access-token"], environment)
        if printed is None:
            raise CredentialsError(
                "Google's credentials cannot be read here: neither google-auth nor `gcloud` is installed",
                hint="pip install google-auth requests, and `gcloud auth application-default login`",
            )
        found = printed.strip(), None
    token, expires_at = found
    return LentCredentials(who="your Google login", options={**options, "token": token}, expires_at=expires_at)


def _ask_google_auth() -> tuple[str, float | None] | None:
    """An access token and its end, None without the library; reads the process's own environment."""
    from datetime import timezone
    from importlib import import_module

    try:
        auth = import_module("google.auth")
        transport = import_module("google.auth.transport.requests")
    except ImportError:
        return None
    try:
        login, _ = auth.default(scopes=[READ_WRITE_SCOPE])
        login.refresh(transport.Request())
    except Exception as error:
        # The library's errors have no common root that is public.
        hint = "`gcloud auth application-default login` renews them"
        raise CredentialsError(f"Google gives no credentials: {str(error)[:300]}", hint=hint) from None
    # The library's time has no zone, and is UTC.
    return str(login.token), login.expiry.replace(tzinfo=timezone.utc).timestamp() if login.expiry else None


GCS_BACKEND = Backend(
    properties=Properties(
        name="gcs",
        schemes=_SCHEMES,
        extra="gcs",
        host_packages=HOST_PACKAGES,
        secret_options=_SECRET_OPTIONS,
    ),
    open=_open,
    name_login=lambda options, environment: _arguments(options).who,
    lend=_lend,
)
