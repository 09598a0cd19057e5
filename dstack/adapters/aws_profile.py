"""Credentials from where AWS's own tools keep them: profiles, SSO, assumed roles.

The environment and the roles of instances are obstore's own business; only what stands in ~/.aws needs boto3, which is
therefore imported only when something stands there and nothing nearer counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dstack.errors import BucketError


def aws_credentials(profile: str | None, environment: Mapping[str, str]) -> dict[str, Any]:
    """The arguments of obstore's store that bring the credentials of a profile; none where it finds them itself.

    `profile` comes first, then AWS_ACCESS_KEY_ID, then AWS_PROFILE, then the default profile if there is any. They are
    asked for again before they expire. Raises BucketError for a profile that does not exist or has no credentials.
    """
    if profile is None and environment.get("AWS_ACCESS_KEY_ID"):
        return {}
    named = profile or environment.get("AWS_PROFILE")
    if named is None and not any(path.exists() for path in _files(environment)):
        return {}
    import boto3
    from botocore.exceptions import BotoCoreError
    from obstore.auth.boto3 import Boto3CredentialProvider

    who = f"the AWS profile {named!r}" if named else "the default AWS profile"
    try:
        session = boto3.Session(profile_name=named)
        if session.get_credentials() is None:
            if named is None:
                return {}
            raise BucketError(f"{who} has no credentials", hint=f"try `aws sts get-caller-identity --profile {named}`")
        provider = Boto3CredentialProvider(session)
    except BotoCoreError as error:
        raise BucketError(
            f"{who} cannot be used: {error}", hint="see ~/.aws/config; `aws sso login` renews it"
        ) from None
    found: dict[str, Any] = {"credential_provider": provider}
    if session.region_name and not environment.get("AWS_REGION"):
        found["region"] = session.region_name
    return found


def _files(environment: Mapping[str, str]) -> tuple[Path, Path]:
    home = Path(environment.get("HOME", "/")) / ".aws"
    return (
        Path(environment.get("AWS_SHARED_CREDENTIALS_FILE") or home / "credentials"),
        Path(environment.get("AWS_CONFIG_FILE") or home / "config"),
    )
