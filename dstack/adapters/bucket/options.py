"""From storage options and what this machine knows to the arguments of an obstore store, and whose keys they hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dstack.adapters.bucket.aws_profile import KeyProvider, aws_credentials, aws_source

FSSPEC_NAMES = {
    "key": "access_key_id",
    "secret": "secret_access_key",
    "endpoint_url": "endpoint",
    "region_name": "region",
    "token": "session_token",
    "anon": "skip_signature",
}
"""fsspec's storage options for S3 -> obstore's names of the same; its other names are obstore's already."""

S3 = ("s3://", "s3a://")
GCS = ("gs://", "gcs://")
AZURE = ("az://", "azure://", "abfs://", "abfss://", "adl://")
ENDPOINT = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
OWN_CREDENTIALS = {"access_key_id", "aws_access_key_id", "skip_signature", "aws_skip_signature"}
"""Options that say whose credentials count: then nothing is looked for."""
AZURE_OWN = {"access_key", "account_key", "sas_token", "sas_key", "token", "bearer_token"}
UNDER_BUCKET = "the credentials under `bucket:`"
ENDPOINT_NAMES = ("endpoint", "base_url")


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """`config` and `arguments` are obstore's; `who` names the credentials for people."""

    config: Mapping[str, Any] = field(repr=False)
    arguments: Mapping[str, Any] = field(repr=False)
    who: str

    @property
    def provider(self) -> KeyProvider | None:
        """What is asked for keys, if it is ours."""
        found = self.arguments.get("credential_provider")
        return found if isinstance(found, KeyProvider) else None


def opening(url: str, options: Mapping[str, Any], environment: Mapping[str, str]) -> Opening:
    """Raises BucketError for an AWS profile that does not exist or has no credentials."""
    config, who = dict(options), "the credentials of this machine"
    arguments: dict[str, Any] = {}
    if url.startswith(S3):
        config, arguments, who = _of_s3(options, environment)
    elif url.startswith(GCS) and config.get("token"):
        token = {"token": str(config.pop("token")), "expires_at": None}
        arguments, who = {"credential_provider": lambda: token}, UNDER_BUCKET
    elif url.startswith(GCS):
        who = "your Google login (application default credentials)"
    elif url.startswith(AZURE):
        who = UNDER_BUCKET if config.keys() & AZURE_OWN else "your Azure credentials (AZURE_* of the environment)"
    if any(str(config.get(name)).startswith("http://") for name in ENDPOINT_NAMES):
        arguments["client_options"] = {"allow_http": True}
    return Opening(config=config, arguments=arguments, who=who)


def s3_options(options: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """Storage options under obstore's names, with the endpoint that the environment names as AWS's tools read it."""
    flat = {name: value for name, value in options.items() if name != "client_kwargs"}
    flat.update(options.get("client_kwargs") or {})
    config = {FSSPEC_NAMES.get(name, name): value for name, value in flat.items()}
    endpoint = next((environment[name] for name in ENDPOINT if environment.get(name)), None)
    if endpoint is not None:
        config.setdefault("endpoint", endpoint)
    return config


def _of_s3(options: Mapping[str, Any], environment: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Any], str]:
    config = s3_options(options, environment)
    profile = config.pop("profile", None)
    if config.keys() & OWN_CREDENTIALS:
        return config, {}, UNDER_BUCKET
    source = aws_source(profile, environment)
    who = "the role of this machine" if source is None else source.who
    return config, aws_credentials(profile, environment), who
