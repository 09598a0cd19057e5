"""The user's own credentials for a bucket as plain values, for handing them to another machine on purpose."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timezone
from typing import Any

from dstack.adapters.bucket.aws_profile import RENEW, aws_source
from dstack.adapters.bucket.options import AZURE, AZURE_OWN, GCS, OWN_CREDENTIALS, S3, UNDER_BUCKET, s3_options
from dstack.errors import CredentialsError

AZURE_KEYS = {
    "AZURE_STORAGE_ACCOUNT_NAME": "account_name",
    "AZURE_STORAGE_ACCOUNT_KEY": "access_key",
    "AZURE_STORAGE_SAS_TOKEN": "sas_token",
    "AZURE_STORAGE_ENDPOINT": "endpoint",
}
PATIENCE = 60.0
MARGIN = 60.0
"""Seconds that credentials must still be good for, to be handed on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forwardable:
    """`options` are all storage options that open the bucket elsewhere; they hold secrets and are not shown by `repr`.

    `who` names the credentials for people. `expires_at`: seconds since the epoch, None where they last until somebody
    withdraws them, or nobody says.
    """

    who: str
    options: Mapping[str, Any] = field(repr=False)
    expires_at: float | None


def forwardable(url: str, options: Mapping[str, Any], environment: Mapping[str, str]) -> Forwardable:
    """The user's current credentials for the bucket at `url`, which is one of S3, Google Cloud Storage or Azure.

    S3: keys under `bucket:`, of the environment or of a profile, SSO and assumed roles as temporary keys. Google: an
    access token, by google-auth or else the `gcloud` command. Azure: a key or shared access signature under `bucket:`
    or of the environment, else an access token by the `az` command. Raises CredentialsError where there are none (a
    role belongs to its machine), where they are over, and for a bucket that knows no credentials.
    """
    if url.startswith(S3):
        found = _of_s3(options, environment)
    elif url.startswith(GCS):
        found = _of_google(options, environment)
    elif url.startswith(AZURE):
        found = _of_azure(options, environment)
    else:
        raise CredentialsError(f"{url.split(':', 1)[0]}: a bucket of this kind has no credentials to hand on")
    if found.expires_at is not None and found.expires_at < time.time() + MARGIN:
        raise CredentialsError(f"{found.who}: these credentials are over", hint=RENEW)
    return found


def _of_s3(options: Mapping[str, Any], environment: Mapping[str, str]) -> Forwardable:
    config = s3_options(options, environment)
    profile = config.pop("profile", None)
    region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")
    if region:
        config.setdefault("region", region)
    if config.keys() & OWN_CREDENTIALS:
        return Forwardable(who=UNDER_BUCKET, options=config, expires_at=None)
    source = aws_source(profile, environment)
    keys = source.ask() if source else None
    if source is None or keys is None:
        raise CredentialsError(
            "there are no AWS credentials here that could be handed on",
            hint="sign in with the AWS tools, or name a profile: `options: {profile: …}` under `bucket:`",
        )
    config |= {"access_key_id": keys.access_key, "secret_access_key": keys.secret}
    if keys.token:
        config["session_token"] = keys.token
    if source.region:
        config.setdefault("region", source.region)
    return Forwardable(who=source.who, options=config, expires_at=keys.expires_at)


def _of_google(options: Mapping[str, Any], environment: Mapping[str, str]) -> Forwardable:
    if options.get("token"):
        return Forwardable(who=UNDER_BUCKET, options=dict(options), expires_at=None)
    found = _by_google_auth()
    if found is None:
        said = _said(["gcloud", "auth", "print-access-token"], environment)
        if said is None:
            raise CredentialsError(
                "Google's credentials cannot be read here: neither google-auth nor `gcloud` is installed",
                hint="pip install google-auth requests, and `gcloud auth application-default login`",
            )
        found = said.strip(), None
    token, expires_at = found
    return Forwardable(who="your Google login", options={**options, "token": token}, expires_at=expires_at)


def _by_google_auth() -> tuple[str, float | None] | None:
    """An access token and its end, None where the library is not installed; it reads the process's own environment."""
    try:
        auth = importlib.import_module("google.auth")
        transport = importlib.import_module("google.auth.transport.requests")
    except ImportError:
        return None
    try:
        login, _ = auth.default(scopes=["https://www.googleapis.com/auth/devstorage.read_write"])
        login.refresh(transport.Request())
    except Exception as error:
        # The library's errors have no common root that is public.
        hint = "`gcloud auth application-default login` renews them"
        raise CredentialsError(f"Google gives no credentials: {str(error)[:300]}", hint=hint) from None
    # Its time has no zone, and is UTC.
    return str(login.token), login.expiry.replace(tzinfo=timezone.utc).timestamp() if login.expiry else None


def _of_azure(options: Mapping[str, Any], environment: Mapping[str, str]) -> Forwardable:
    config = {ours: environment[name] for name, ours in AZURE_KEYS.items() if environment.get(name)} | dict(options)
    if config.keys() & AZURE_OWN:
        who = UNDER_BUCKET if options.keys() & AZURE_OWN else "AZURE_STORAGE_* of the environment"
        return Forwardable(who=who, options=config, expires_at=None)
    resource = "https://storage.azure.com/"
    said = _said(["az", "account", "get-access-token", "--resource", resource, "--output", "json"], environment)
    if said is None:
        raise CredentialsError(
            "there are no Azure credentials here that could be handed on",
            hint="set AZURE_STORAGE_SAS_TOKEN, or install `az` and sign in with `az login`",
        )
    try:
        answer = json.loads(said)
        token, end = str(answer["accessToken"]), answer.get("expires_on")
        expires_at = float(end) if end else None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CredentialsError(
            "what `az account get-access-token` printed is no token", hint="run it by hand"
        ) from None
    return Forwardable(who="your Azure login", options={**config, "token": token}, expires_at=expires_at)


def _said(words: Sequence[str], environment: Mapping[str, str]) -> str | None:
    """What a program prints, None where it is not installed; raises CredentialsError with what it said."""
    program = shutil.which(words[0], path=environment.get("PATH"))
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, *words[1:]],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
    except (subprocess.TimeoutExpired, OSError):
        raise CredentialsError(
            f"`{words[0]}` gives no credentials", hint=f"run it by hand: {' '.join(words)}"
        ) from None
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        why = said[-1][:300] if said else f"exit {done.returncode}"
        raise CredentialsError(f"`{words[0]}` gives no credentials: {why}", hint=f"`{words[0]}` must be signed in")
    return done.stdout.decode("utf-8", "replace")
