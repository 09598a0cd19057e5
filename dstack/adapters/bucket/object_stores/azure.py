"""Azure Blob Storage: a key or signature among the options, or AZURE_* of the environment; the token to lend."""

from __future__ import annotations

import json

from dstack.adapters.bucket.backend import (
    UNDER_BUCKET,
    Backend,
    Container,
    Environment,
    LentCredentials,
    Options,
    Properties,
)
from dstack.adapters.bucket.object_stores.arguments import (
    HOST_PACKAGES,
    StoreArguments,
    names_any,
    plain_http,
    run_tool,
)
from dstack.errors import CredentialsError
from dstack.ports import Bucket

_LOGIN_OPTIONS = frozenset(
    {
        "access_key",
        "account_key",
        "master_key",
        "azure_storage_account_key",
        "azure_storage_access_key",
        "azure_storage_master_key",
        "sas_token",
        "sas_key",
        "azure_storage_sas_token",
        "azure_storage_sas_key",
        "token",
        "bearer_token",
        "azure_storage_token",
    }
)
"""Options with a credential: one of these stops the search for other credentials."""
_SECRET_OPTIONS = _LOGIN_OPTIONS | {
    "client_secret",
    "azure_client_secret",
    "azure_storage_client_secret",
    "encryption_key",
    "azure_storage_encryption_key",
    "fabric_session_token",
    "azure_fabric_session_token",
}
OPTION_BY_VARIABLE = {
    "AZURE_STORAGE_ACCOUNT_NAME": "account_name",
    "AZURE_STORAGE_ACCOUNT_KEY": "access_key",
    "AZURE_STORAGE_SAS_TOKEN": "sas_token",
    "AZURE_STORAGE_ENDPOINT": "endpoint",
}
"""Variables of the environment -> the options with the same meaning."""
STORAGE_RESOURCE = "https://storage.azure.com/"
_CONTAINER = Container(noun="container", command="az storage container create --name {}")


def _arguments(options: Options) -> StoreArguments:
    """The options unchanged; obstore reads AZURE_* of the environment by itself."""
    is_given = names_any(options, _LOGIN_OPTIONS)
    who = UNDER_BUCKET if is_given else "your Azure credentials (AZURE_* of the environment)"
    return StoreArguments(config=dict(options), keywords=plain_http(options), who=who)


def _open(url: str, options: Options, home: str) -> Bucket:
    from dstack.adapters.bucket.object_stores.obstore_store import open_obstore

    return open_obstore(url, _arguments(options), _CONTAINER)


def _lend(options: Options, environment: Environment) -> LentCredentials:
    """A key or shared access signature under `bucket:` or of the environment, else a token by the `az` command."""
    # Options under `bucket:` win over the environment, as in obstore.
    config = {ours: environment[name] for name, ours in OPTION_BY_VARIABLE.items() if environment.get(name)} | dict(
        options
    )
    if names_any(config, _LOGIN_OPTIONS):
        who = UNDER_BUCKET if names_any(options, _LOGIN_OPTIONS) else "AZURE_STORAGE_* of the environment"
        return LentCredentials(who=who, options=config, expires_at=None)
    words = ["az", "account", "get-access-token", "--resource", STORAGE_RESOURCE, "--output", "json"]
    printed = run_tool(words, environment)
    if printed is None:
        raise CredentialsError(
            "there are no Azure credentials here that could be handed on",
            hint="set AZURE_STORAGE_SAS_TOKEN, or install `az` and sign in with `az login`",
        )
    try:
        answer = json.loads(printed)
        token, end = str(answer["accessToken"]), answer.get("expires_on")
        expires_at = float(end) if end else None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CredentialsError(
            "what `az account get-access-token` printed is no token", hint="run it by hand"
        ) from None
    return LentCredentials(who="your Azure login", options={**config, "token": token}, expires_at=expires_at)


AZURE_BACKEND = Backend(
    properties=Properties(
        name="azure",
        schemes=("az", "azure", "abfs", "abfss", "adl"),
        extra="azure",
        host_packages=HOST_PACKAGES,
        secret_options=_SECRET_OPTIONS,
    ),
    open=_open,
    name_login=lambda options, environment: _arguments(options).who,
    lend=_lend,
)
