"""Credentials from the places of AWS's own tools: the environment, ~/.aws, and the programs named there.

Standard library only, for use on hosts too. Keys from AWS itself (SSO, assumed roles) are left to boto3 or the `aws`
command, by what is installed. Roles of instances and containers are obstore's own business.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from dstack.adapters.bucket.object_stores.aws_tools import AwsKeys, ask_aws_cli, ask_boto3, ask_process
from dstack.errors import BucketError, CredentialsError

KEYS_REREAD_S = 60.0
"""Seconds after which files are read again: other tools write new temporary keys there."""
KEYS_RENEWAL_LEAD_S = 300.0
"""Seconds before the end of temporary keys at which new keys are asked for."""
SETTINGS_THAT_ASK_AWS = (
    "role_arn",
    "sso_session",
    "sso_start_url",
    "sso_account_id",
    "web_identity_token_file",
    "login_session",
)
"""Settings of a profile whose keys only AWS itself can give."""
RENEW = "`aws sso login`, or whatever gives you these credentials, renews them"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySource:
    """A place of keys. `who` names the place for people; `region` stands beside the keys, or is ""."""

    who: str
    region: str
    ask: Callable[[], AwsKeys | None] = field(repr=False)


def aws_source(profile: str | None, environment: Mapping[str, str]) -> KeySource | None:
    """The place of the keys in use: `profile`, else AWS_ACCESS_KEY_ID, else AWS_PROFILE, else the default profile if
    present.

    None where the machine may have a role of its own. Raises BucketError for a missing profile, a profile without
    credentials, and unreadable files.
    """
    if profile is None and environment.get("AWS_ACCESS_KEY_ID"):
        keys = _environment_keys(environment)
        return KeySource(who=f"AWS_ACCESS_KEY_ID ({keys.access_key[:8]}…)", region="", ask=lambda: keys)
    named = profile or environment.get("AWS_PROFILE")
    name = named or "default"
    who = f"the AWS profile {name!r}"
    settings = _read_profile(name, environment)
    if settings is None:
        if named is None:
            return None
        hint = "see ~/.aws/config and ~/.aws/credentials, or `aws configure list-profiles`"
        raise BucketError(f"there is no AWS profile {name!r}", hint=hint)
    if not _names_keys(settings):
        if named is None:
            return None
        raise BucketError(f"{who} has no credentials", hint=f"try `aws sts get-caller-identity --profile {name}`")

    def ask() -> AwsKeys | None:
        return _find_keys(name, _read_profile(name, environment) or {}, environment)

    return KeySource(who=who, region=settings.get("region", ""), ask=ask)


def key_provider(source: KeySource | None, profile: str | None, environment: Mapping[str, str]) -> KeyProvider | None:
    """The keys of `source` in obstore's form; None where obstore finds the keys by itself, as in the environment.

    Keys are asked for again before their end.
    """
    if source is None or (profile is None and environment.get("AWS_ACCESS_KEY_ID")):
        return None
    return KeyProvider(source)


class KeyProvider:
    """Keys in obstore's form, asked for from any thread; cached for a while."""

    def __init__(self, source: KeySource) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._keys: AwsKeys | None = None
        self._since = self._until = 0.0
        self.failure: BucketError | None = None
        """Why the last question had no answer: the library passes errors on as text only."""

    def __call__(self) -> dict[str, Any]:
        with self._lock:
            now = time.time()
            # A clock that was set back would make them last for ever.
            if self._keys is None or not self._since <= now < self._until:
                self._keys, self._since = self._ask(), now
                # Without an end they are those of a file, which may be another one soon.
                end = self._keys.expires_at
                self._until = now + KEYS_REREAD_S if end is None else max(end - KEYS_RENEWAL_LEAD_S, now + 1)
            return {
                "access_key_id": self._keys.access_key,
                "secret_access_key": self._keys.secret,
                "token": self._keys.token or None,
                "expires_at": datetime.fromtimestamp(self._until, tz=timezone.utc),
            }

    def _ask(self) -> AwsKeys:
        self.failure = None
        try:
            keys = self._source.ask()
            if keys is None:
                raise CredentialsError(f"{self._source.who} has no credentials any more", hint=RENEW)
        except BucketError as error:
            self.failure = error
            raise
        return keys


def _environment_keys(environment: Mapping[str, str]) -> AwsKeys:
    return AwsKeys(
        access_key=environment["AWS_ACCESS_KEY_ID"],
        secret=environment.get("AWS_SECRET_ACCESS_KEY", ""),
        token=environment.get("AWS_SESSION_TOKEN", ""),
        expires_at=AwsKeys.moment(environment.get("AWS_CREDENTIAL_EXPIRATION")),
    )


def _names_keys(settings: Mapping[str, str]) -> bool:
    return any(settings.get(name) for name in ("aws_access_key_id", "credential_process", *SETTINGS_THAT_ASK_AWS))


def _find_keys(name: str, settings: Mapping[str, str], environment: Mapping[str, str]) -> AwsKeys | None:
    """The keys of a profile, in the search order of AWS's tools; raises CredentialsError for a profile without keys."""
    if any(settings.get(setting) for setting in SETTINGS_THAT_ASK_AWS):
        keys = ask_boto3(name) or ask_aws_cli(name, environment)
        if keys is None:
            raise CredentialsError(
                f"the AWS profile {name!r} needs AWS's own tools, and neither boto3 nor `aws` is installed here",
                hint="pip install boto3, or install the AWS command line",
            )
        return keys
    if settings.get("aws_access_key_id"):
        if not settings.get("aws_secret_access_key"):
            raise CredentialsError(f"the AWS profile {name!r} has a key without its secret", hint="see ~/.aws")
        return AwsKeys(
            access_key=settings["aws_access_key_id"],
            secret=settings["aws_secret_access_key"],
            token=settings.get("aws_session_token", ""),
            expires_at=None,
        )
    if settings.get("credential_process"):
        return ask_process(f"the AWS profile {name!r}", settings["credential_process"], environment)
    return None


def _read_profile(name: str, environment: Mapping[str, str]) -> dict[str, str] | None:
    """The settings of a profile out of both files, None where both lack the profile."""
    credentials, config = _files(environment)
    sections = [(config, "default" if name == "default" else f"profile {name}"), (credentials, name)]
    found = [section for path, title in sections if (section := _read_section(path, title)) is not None]
    if not found:
        return None
    return {key: value for section in found for key, value in section.items()}


def _read_section(path: str, title: str) -> dict[str, str] | None:
    import configparser

    # Raw: a "%" in a secret is no interpolation. No default section: AWS has a profile of that name.
    parser = configparser.RawConfigParser(default_section="", strict=False)
    try:
        with open(path, encoding="utf-8") as file:
            parser.read_file(file)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, configparser.Error) as error:
        # What a parser says can hold the line, and the line a secret.
        why = error.strerror if isinstance(error, OSError) else "it is not what AWS's tools write"
        raise BucketError(f"{path} cannot be read: {why}", hint="mend the file, or remove it") from None
    return dict(parser.items(title)) if parser.has_section(title) else None


def _files(environment: Mapping[str, str]) -> tuple[str, str]:
    home = os.path.join(environment.get("HOME", "/"), ".aws")
    return (
        environment.get("AWS_SHARED_CREDENTIALS_FILE") or os.path.join(home, "credentials"),
        environment.get("AWS_CONFIG_FILE") or os.path.join(home, "config"),
    )
