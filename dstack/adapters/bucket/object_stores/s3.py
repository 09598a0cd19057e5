"""S3 and compatible servers: fsspec's options and AWS's environment as obstore's arguments; keys to lend."""

from __future__ import annotations

import os
from typing import Any

from dstack.adapters.bucket.backend import (
    UNDER_BUCKET,
    Backend,
    Container,
    Environment,
    LentCredentials,
    Options,
    Properties,
)
from dstack.adapters.bucket.object_stores.arguments import HOST_PACKAGES, StoreArguments, names_any, plain_http
from dstack.errors import CredentialsError
from dstack.ports import Bucket

FSSPEC_NAMES = {
    "key": "access_key_id",
    "secret": "secret_access_key",
    "endpoint_url": "endpoint",
    "region_name": "region",
    "token": "session_token",
    "anon": "skip_signature",
}
"""fsspec's storage options for S3 -> obstore's names of the same; fsspec's other names are obstore's already."""
ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
REGION_VARIABLES = ("AWS_REGION", "AWS_DEFAULT_REGION")
_LOGIN_OPTIONS = frozenset({"access_key_id", "aws_access_key_id", "skip_signature", "aws_skip_signature"})
"""Options that choose the credentials: one of these stops the search for other credentials."""
_SECRET_OPTIONS = _LOGIN_OPTIONS | {
    "profile",
    "key",
    "secret",
    "secret_access_key",
    "aws_secret_access_key",
    "token",
    "session_token",
    "aws_session_token",
    "aws_token",
    "sse_customer_key_base64",
    "aws_sse_customer_key_base64",
}
S3_CONTAINER = Container(noun="bucket", command="aws s3 mb s3://{}")


def obstore_options(options: Options, environment: Environment) -> dict[str, Any]:
    """Storage options under obstore's names, with the endpoint from the environment, read as AWS's tools do."""
    flat = {name: value for name, value in options.items() if name != "client_kwargs"}
    flat.update(options.get("client_kwargs") or {})
    config = {FSSPEC_NAMES.get(name, name): value for name, value in flat.items()}
    if endpoint := _first_variable(environment, ENDPOINT_VARIABLES):
        config.setdefault("endpoint", endpoint)
    return config


def store_arguments(options: Options, environment: Environment) -> StoreArguments:
    """The arguments for obstore. Raises BucketError for a missing AWS profile, or a profile without credentials."""
    config = obstore_options(options, environment)
    profile = config.pop("profile", None)
    if names_any(config, _LOGIN_OPTIONS):
        return StoreArguments(config=config, keywords=plain_http(config), who=UNDER_BUCKET)
    from dstack.adapters.bucket.object_stores.aws_profile import aws_source, key_provider

    source = aws_source(profile, environment)
    keywords = plain_http(config)
    provider = key_provider(source, profile, environment)
    if source is not None and provider is not None:
        keywords["credential_provider"] = provider
        # obstore reads the region from the environment by itself, and AWS's tools let it win over the profile.
        if source.region and not _first_variable(environment, REGION_VARIABLES):
            keywords["region"] = source.region
    who = "the role of this machine" if source is None else source.who
    return StoreArguments(config=config, keywords=keywords, who=who, provider=provider)


def _open(url: str, options: Options, home: str) -> Bucket:
    from dstack.adapters.bucket.object_stores.obstore_store import open_obstore

    return open_obstore(url, store_arguments(options, os.environ), S3_CONTAINER)


def _locate(options: Options, environment: Environment) -> dict[str, Any]:
    config = obstore_options(options, environment)
    if region := _first_variable(environment, REGION_VARIABLES):
        config.setdefault("region", region)
    return config


def _lend(options: Options, environment: Environment) -> LentCredentials:
    """Keys under `bucket:`, of the environment or of a profile; of SSO and assumed roles as temporary keys."""
    from dstack.adapters.bucket.object_stores.aws_profile import aws_source

    config = _locate(options, environment)
    profile = config.pop("profile", None)
    if names_any(config, _LOGIN_OPTIONS):
        return LentCredentials(who=UNDER_BUCKET, options=config, expires_at=None)
    source = aws_source(profile, environment)
    keys = source.ask() if source else None
    if source is None or keys is None:
        # A role belongs to its machine, and a host has its own.
        raise CredentialsError(
            "there are no AWS credentials here that could be handed on",
            hint="sign in with the AWS tools, or name a profile: `options: {profile: …}` under `bucket:`",
        )
    config |= {"access_key_id": keys.access_key, "secret_access_key": keys.secret}
    if keys.token:
        config["session_token"] = keys.token
    if source.region:
        config.setdefault("region", source.region)
    return LentCredentials(who=source.who, options=config, expires_at=keys.expires_at)


def _abort_uploads(url: str, options: Options, prefix: str, before: float) -> int:
    from dstack.adapters.bucket.object_stores.s3_uploads import abort_uploads

    return abort_uploads(url, options, prefix, before=before)


def _first_variable(environment: Environment, names: tuple[str, ...]) -> str:
    return next((environment[name] for name in names if environment.get(name)), "")


S3_BACKEND = Backend(
    properties=Properties(
        name="s3",
        schemes=("s3", "s3a"),
        extra="s3",
        host_packages=HOST_PACKAGES,
        secret_options=_SECRET_OPTIONS,
    ),
    open=_open,
    name_login=lambda options, environment: store_arguments(options, environment).who,
    locate=_locate,
    lend=_lend,
    abort_uploads=_abort_uploads,
)
