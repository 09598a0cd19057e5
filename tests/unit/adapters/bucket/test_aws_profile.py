"""Whose AWS credentials count, by the standard library alone: files, processes, the `aws` command."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from dstack.adapters.bucket.object_stores.aws_profile import KeyProvider, aws_source
from dstack.adapters.bucket.object_stores.aws_tools import AwsKeys
from dstack.adapters.bucket.object_stores.s3 import store_arguments
from dstack.errors import BucketError, CredentialsError

Env = dict[str, str]


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Env:
    """A home without anything of AWS's, and no boto3."""
    monkeypatch.setitem(sys.modules, "boto3", None)
    (tmp_path / "bin").mkdir()
    return {"HOME": str(tmp_path), "PATH": f"{tmp_path}/bin:/usr/bin:/bin"}


def write(env: Env, name: str, text: str) -> None:
    folder = Path(env["HOME"], ".aws")
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)


def program(env: Env, name: str, body: str) -> str:
    path = Path(env["HOME"], "bin", name)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def keys(env: Env, profile: str | None = None) -> AwsKeys:
    source = aws_source(profile, env)
    assert source is not None
    found = source.ask()
    assert found is not None
    return found


def test_without_anything_the_machine_may_have_a_role(env: Env) -> None:
    assert aws_source(None, env) is None
    assert store_arguments({}, env).keywords == {}
    write(env, "config", "[default]\nregion = eu-north-1\n")
    assert aws_source(None, env) is None


def test_keys_of_the_credentials_file_come_before_those_of_config(env: Env) -> None:
    write(env, "config", "[default]\nregion = eu-north-1\naws_access_key_id = CONF\naws_secret_access_key = no\n")
    write(env, "credentials", "[default]\naws_access_key_id = AKIA\naws_secret_access_key = s%cret/+=\n")
    found = keys(env)
    assert (found.access_key, found.secret, found.token, found.expires_at) == ("AKIA", "s%cret/+=", "", None)
    assert store_arguments({}, env).keywords["region"] == "eu-north-1"
    assert "region" not in store_arguments({}, env | {"AWS_DEFAULT_REGION": "x"}).keywords


def test_a_named_profile_is_looked_for_in_both_files(env: Env) -> None:
    write(
        env,
        "config",
        "[profile lab]\nregion = us-west-2\ns3 =\n  max_concurrent_requests = 20\n[default]\nregion = x\n",
    )
    write(env, "credentials", "[lab]\naws_access_key_id=A\naws_secret_access_key=S\naws_session_token=T\n")
    assert keys(env, "lab").token == "T"
    assert keys(env | {"AWS_PROFILE": "lab"}).token == "T"
    source = aws_source("lab", env)
    assert source is not None
    assert (source.who, source.region) == ("the AWS profile 'lab'", "us-west-2")


def test_the_environment_comes_before_a_profile_of_the_environment_and_after_a_named_one(env: Env) -> None:
    write(env, "credentials", "[lab]\naws_access_key_id=A\naws_secret_access_key=S\n")
    here = env | {"AWS_ACCESS_KEY_ID": "ENVIRONMENT", "AWS_SECRET_ACCESS_KEY": "E", "AWS_PROFILE": "lab"}
    here["AWS_CREDENTIAL_EXPIRATION"] = "2030-01-01T00:00:00Z"
    assert keys(here).access_key == "ENVIRONMENT"
    assert keys(here).expires_at == 1893456000.0
    assert keys(here, "lab").access_key == "A"


@pytest.mark.parametrize("files", [{}, {"credentials": "[other]\n"}, {"config": "[lab]\nregion=x\n"}])
def test_a_profile_that_does_not_exist_is_an_error(env: Env, files: dict[str, str]) -> None:
    for name, text in files.items():
        write(env, name, text)
    with pytest.raises(BucketError, match="no AWS profile 'lab'"):
        aws_source("lab", env)


def test_a_profile_without_credentials_is_an_error(env: Env) -> None:
    write(env, "config", "[profile lab]\nregion=x\n")
    with pytest.raises(BucketError, match="'lab' has no credentials"):
        aws_source("lab", env)


def test_a_key_without_its_secret_is_an_error(env: Env) -> None:
    write(env, "config", "[profile lab]\naws_access_key_id=A\n")
    with pytest.raises(CredentialsError, match="'lab' has a key without its secret"):
        keys(env, "lab")


def test_a_file_that_is_none_is_named_and_its_text_is_not_shown(env: Env) -> None:
    write(env, "credentials", "aws_secret_access_key = topsecret\n[default]\n")
    with pytest.raises(BucketError, match=r"\.aws/credentials cannot be read") as caught:
        aws_source(None, env)
    assert "topsecret" not in str(caught.value)


def test_a_credential_process_is_started_without_a_shell(env: Env) -> None:
    answer = json.dumps({"Version": 1, "AccessKeyId": "P", "SecretAccessKey": "S", "SessionToken": "T"})
    tool = program(
        env, "give", f"""echo '{answer[:-1]}, "Expiration": "2030-01-01T00:00:00+00:00"}}'; echo "$1" > $HOME/seen"""
    )
    write(env, "config", f'[profile lab]\ncredential_process = {tool} "$(touch x) ;"\n')
    found = keys(env, "lab")
    assert (found.access_key, found.token, found.expires_at) == ("P", "T", 1893456000.0)
    assert Path(env["HOME"], "seen").read_text() == "$(touch x) ;\n"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("echo SSO session has expired >&2; exit 3", "SSO session has expired"),
        ("exit 3", "exit 3"),
        ("echo hello", "no keys"),
        ("echo '[1]'", "no keys"),
        ("echo '{}'", "no keys"),
    ],
)
def test_a_credential_process_that_fails_is_quoted(env: Env, body: str, said: str) -> None:
    tool = program(env, "give", body)
    write(env, "config", f"[profile lab]\ncredential_process = {tool}\n")
    with pytest.raises(CredentialsError, match=said) as caught:
        keys(env, "lab")
    assert "'lab'" in str(caught.value)
    assert caught.value.exit_code == 6


def test_a_credential_process_that_is_not_there_is_named(env: Env) -> None:
    write(env, "config", "[profile lab]\ncredential_process = /nowhere/at/all\n")
    with pytest.raises(CredentialsError, match="/nowhere/at/all"):
        keys(env, "lab")


SSO = "[profile lab]\nsso_session = s\nsso_account_id = 1\nsso_role_name = r\n"


def test_sso_is_left_to_the_aws_command(env: Env) -> None:
    write(env, "config", SSO)
    answer = json.dumps({"Version": 1, "AccessKeyId": "ASIA", "SecretAccessKey": "S", "SessionToken": "T"})
    program(env, "aws", f"echo \"$@\" > $HOME/seen; echo '{answer}'")
    assert keys(env, "lab").access_key == "ASIA"
    seen = Path(env["HOME"], "seen").read_text()
    assert seen == "configure export-credentials --profile lab --format process\n"


def test_sso_without_any_tool_says_what_to_install(env: Env) -> None:
    write(env, "config", SSO)
    with pytest.raises(CredentialsError, match="neither boto3 nor `aws`"):
        keys(env | {"PATH": f"{env['HOME']}/bin"}, "lab")


def test_secrets_are_not_shown(env: Env) -> None:
    write(env, "credentials", "[default]\naws_access_key_id=A\naws_secret_access_key=SEC\naws_session_token=TOK\n")
    assert "SEC" not in repr(keys(env)) + repr(aws_source(None, env)) + repr(store_arguments({}, env))
    assert "TOK" not in repr(keys(env))


def test_keys_that_are_renewed_in_the_file_count_soon(env: Env, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("dstack.adapters.bucket.object_stores.aws_profile.time.time", lambda: now[0])
    write(env, "credentials", "[default]\naws_access_key_id=OLD\naws_secret_access_key=S\n")
    provider = store_arguments({}, env).keywords["credential_provider"]
    assert provider()["access_key_id"] == "OLD"
    write(env, "credentials", "[default]\naws_access_key_id=NEW\naws_secret_access_key=S\n")
    assert provider()["access_key_id"] == "OLD"
    assert provider()["expires_at"].timestamp() == 1060
    now[0] += 61
    assert provider()["access_key_id"] == "NEW"
    os.remove(Path(env["HOME"], ".aws/credentials"))
    now[0] += 61
    with pytest.raises(CredentialsError, match="any more"):
        provider()
    assert isinstance(provider, KeyProvider)
    assert isinstance(provider.failure, CredentialsError)
    write(env, "credentials", "[default]\naws_access_key_id=NEWER\naws_secret_access_key=S\n")
    assert provider()["access_key_id"] == "NEWER"
    assert provider.failure is None


def test_keys_with_an_end_are_asked_for_again_before_it(env: Env, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1893456000.0 - 3600]
    monkeypatch.setattr("dstack.adapters.bucket.object_stores.aws_profile.time.time", lambda: now[0])
    answer = '{"Version":1,"AccessKeyId":"P","SecretAccessKey":"S","Expiration":"2030-01-01T00:00:00Z"}'
    tool = program(env, "give", f"echo x >> $HOME/asked; echo '{answer}'")
    write(env, "config", f"[default]\ncredential_process = {tool}\n")
    provider = store_arguments({}, env).keywords["credential_provider"]
    for _ in range(3):
        assert provider()["expires_at"].timestamp() == 1893456000.0 - 300
    assert Path(env["HOME"], "asked").read_text() == "x\n"
    now[0] += 3301
    provider()
    assert Path(env["HOME"], "asked").read_text() == "x\nx\n"
