"""AWS keys as plain values, and the programs with keys: a `credential_process`, the `aws` command, boto3.

Modules for starting programs are imported at need: commands with keys from a file start faster.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from dstack.errors import CredentialsError

AWS_TOOL_DEADLINE_S = 60.0
"""Seconds for a program to print keys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsKeys:
    """A pair of keys. `expires_at`: seconds since the epoch, None for an unknown end. Secrets
    are not shown by `repr`."""

    access_key: str
    secret: str = field(repr=False)
    token: str = field(repr=False)
    expires_at: float | None

    @staticmethod
    def moment(text: object) -> float | None:
        """Seconds since the epoch of an ISO 8601 time; None for anything else."""
        try:
            found = datetime.fromisoformat(str(text).replace("Z", "+00:00"))
        except ValueError:
            return None
        return found.timestamp() if found.tzinfo else None


def ask_process(who: str, command: str, environment: Mapping[str, str]) -> AwsKeys:
    """The keys printed by a `credential_process`; raises CredentialsError with the program's own words."""
    import shlex

    try:
        words = shlex.split(command)
    except ValueError:
        words = []
    if not words:
        raise CredentialsError(f"{who}: its credential_process is no command", hint="see ~/.aws/config")
    return _run_for_keys(who, words, environment)


def ask_aws_cli(name: str, environment: Mapping[str, str]) -> AwsKeys | None:
    """The keys by the `aws` command, which supports every kind of login; None where the command is not installed."""
    import shutil

    program = shutil.which("aws", path=environment.get("PATH"))
    if program is None:
        return None
    words = [program, "configure", "export-credentials", "--profile", name, "--format", "process"]
    return _run_for_keys(f"the AWS profile {name!r}", words, environment)


def ask_boto3(name: str) -> AwsKeys | None:
    """The keys by boto3; None where boto3 is not installed. boto3 reads the process's own environment."""
    try:
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        return None
    who = f"the AWS profile {name!r}"
    try:
        found = boto3.Session(profile_name=name).get_credentials()
        if found is None:
            raise CredentialsError(f"{who} has no credentials", hint=_renewal(name))
        frozen = found.get_frozen_credentials()
    except (BotoCoreError, ClientError) as error:
        raise CredentialsError(f"{who} gives no credentials: {error}", hint=_renewal(name)) from None
    # boto3 keeps the end of temporary keys in a private field alone.
    end = getattr(found, "_expiry_time", None)
    return AwsKeys(
        access_key=frozen.access_key,
        secret=frozen.secret_key,
        token=frozen.token or "",
        expires_at=end.timestamp() if end else None,
    )


def _renewal(name: str) -> str:
    return f"`aws sso login --profile {name}` renews it where it is an SSO profile; see ~/.aws/config"


def _run_for_keys(who: str, words: Sequence[str], environment: Mapping[str, str]) -> AwsKeys:
    import subprocess

    failed = f"{who}: {words[0]} gives no credentials"
    try:
        done = subprocess.run(
            words,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=AWS_TOOL_DEADLINE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CredentialsError(f"{failed}: no answer in {AWS_TOOL_DEADLINE_S:.0f} s", hint="run it by hand") from None
    except OSError as error:
        raise CredentialsError(f"{failed}: {error.strerror}", hint="see ~/.aws/config") from None
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise CredentialsError(
            f"{failed}: {said[-1][:300] if said else f'exit {done.returncode}'}", hint=_RUN_BY_HAND_HINT
        )
    try:
        answer = json.loads(done.stdout)
        keys = AwsKeys(
            access_key=str(answer["AccessKeyId"]),
            secret=str(answer["SecretAccessKey"]),
            token=str(answer.get("SessionToken") or ""),
            expires_at=AwsKeys.moment(answer.get("Expiration")),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CredentialsError(f"{failed}: what it printed are no keys", hint=_RUN_BY_HAND_HINT) from None
    return keys


_RUN_BY_HAND_HINT = "run it by hand to see why; `aws sso login` renews an SSO profile"
