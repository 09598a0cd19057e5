"""The user's credentials as plain values, for handing them on; and refused ones told from a lacking right."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dstack.adapters.bucket.host_access import lend_credentials
from dstack.adapters.bucket.opener import open_bucket
from dstack.errors import BucketError, CredentialsError
from tests.support.buckets.refusing_store import Refusing


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    for name in ("boto3", "google.auth", "google.auth.transport.requests"):
        monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / "bin").mkdir()
    return {"HOME": str(tmp_path), "PATH": str(tmp_path / "bin")}


def program(env: dict[str, str], name: str, body: str) -> None:
    path = Path(env["HOME"], "bin", name)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def profile(env: dict[str, str], text: str) -> None:
    Path(env["HOME"], ".aws").mkdir()
    Path(env["HOME"], ".aws/config").write_text(text)


def test_a_profile_becomes_options_that_need_no_profile(env: dict[str, str]) -> None:
    profile(env, "[profile lab]\nregion=eu-x\naws_access_key_id=A\naws_secret_access_key=S\naws_session_token=T\n")
    here = env | {"AWS_ENDPOINT_URL": "https://s3.example.org"}
    found = lend_credentials("s3://b/p", {"profile": "lab", "virtual_hosted_style_request": "true"}, here)
    assert found.options == {
        "endpoint": "https://s3.example.org",
        "virtual_hosted_style_request": "true",
        "access_key_id": "A",
        "secret_access_key": "S",
        "session_token": "T",
        "region": "eu-x",
    }
    assert found.who == "the AWS profile 'lab'"
    assert "S'" not in repr(found)
    open_bucket("s3://b/p", found.options, "/nowhere")


def test_keys_of_the_environment_and_of_the_options(env: dict[str, str]) -> None:
    here = env | {"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7", "AWS_SECRET_ACCESS_KEY": "S", "AWS_REGION": "eu-x"}
    found = lend_credentials("s3://b", {}, here)
    assert found.options == {"access_key_id": "AKIAIOSFODNN7", "secret_access_key": "S", "region": "eu-x"}
    assert found.who == "AWS_ACCESS_KEY_ID (AKIAIOSF…)"
    written = lend_credentials("s3://b", {"key": "K", "secret": "W"}, here)
    assert written.options["access_key_id"] == "K"


def test_the_end_is_told_and_what_is_over_is_not_handed_on(env: dict[str, str]) -> None:
    def ends(at: float) -> None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
        answer = {"Version": 1, "AccessKeyId": "A", "SecretAccessKey": "S", "SessionToken": "T", "Expiration": stamp}
        program(env, "give", f"echo '{json.dumps(answer)}'")

    profile(env, f"[default]\ncredential_process={env['HOME']}/bin/give\n")
    soon = float(int(time.time()) + 3600)
    ends(soon)
    assert lend_credentials("s3://b", {}, env).expires_at == soon
    ends(time.time() - 5)
    with pytest.raises(CredentialsError, match=r"'default'.*over"):
        lend_credentials("s3://b", {}, env)


def test_a_role_of_the_machine_cannot_be_handed_on(env: dict[str, str]) -> None:
    with pytest.raises(CredentialsError, match="no AWS credentials here"):
        lend_credentials("s3://b", {}, env)


def test_a_folder_has_no_credentials(env: dict[str, str]) -> None:
    with pytest.raises(CredentialsError, match="no credentials to hand on"):
        lend_credentials("/mnt/lab", {}, env)


def test_google_gives_a_token_by_its_command(env: dict[str, str]) -> None:
    with pytest.raises(CredentialsError, match="neither google-auth nor `gcloud`"):
        lend_credentials("gs://b", {}, env)
    program(env, "gcloud", 'echo "ya29.$2"')
    found = lend_credentials("gs://b", {}, env)
    assert found.options == {"token": "ya29.print-access-token"}
    program(env, "gcloud", "echo 'Reauthentication failed' >&2; exit 1")
    with pytest.raises(CredentialsError, match="Reauthentication failed"):
        lend_credentials("gs://b", {}, env)


def test_azure_gives_a_key_of_the_environment_or_a_token(env: dict[str, str]) -> None:
    with pytest.raises(CredentialsError, match="no Azure credentials"):
        lend_credentials("az://c", {}, env)
    found = lend_credentials("az://c", {"account_name": "n"}, env | {"AZURE_STORAGE_SAS_TOKEN": "sv=1&sig=x"})
    assert found.options == {"account_name": "n", "sas_token": "sv=1&sig=x"}
    program(env, "az", """echo '{"accessToken": "eyJ", "expires_on": 4102444800}'""")
    found = lend_credentials("az://c", {}, env | {"AZURE_STORAGE_ACCOUNT_NAME": "n"})
    assert (found.options, found.expires_at) == ({"account_name": "n", "token": "eyJ"}, 4102444800.0)
    open_bucket("az://c", found.options, "/nowhere")
    program(env, "az", "echo nothing")
    with pytest.raises(CredentialsError, match="no token"):
        lend_credentials("az://c", {}, env)


@pytest.fixture
def refusing() -> Iterator[list[Refusing]]:
    servers: list[Refusing] = []
    yield servers
    for server in servers:
        server.close()


S3 = {"key": "AKIA", "secret": "topsecret", "token": "toptoken", "region": "x"}
GCS = {"token": "topsecret"}
AZURE = {"account_name": "a", "access_key": "dG9wc2VjcmV0"}


def bucket_at(refusing: list[Refusing], url: str, options: dict[str, str], status: int, code: str) -> Any:
    refusing.append(Refusing(status, code))
    where = "base_url" if url.startswith("gs") else "endpoint"
    return open_bucket(url, {**options, where: refusing[-1].url}, "/nowhere")


@pytest.mark.parametrize(
    ("url", "options", "status", "code"),
    [
        ("s3://b", S3, 400, "ExpiredToken"),
        ("s3://b", S3, 400, "TokenRefreshRequired"),
        ("s3://b", S3, 400, "InvalidToken"),
        ("s3://b", S3, 403, "InvalidAccessKeyId"),
        ("s3://b", S3, 403, "SignatureDoesNotMatch"),
        ("gs://b", GCS, 401, "AuthenticationRequired"),
        ("az://b", AZURE, 403, "AuthenticationFailed"),
        ("az://b", AZURE, 401, "InvalidAuthenticationInfo"),
    ],
)
def test_refused_credentials_are_told_from_other_refusals(
    refusing: list[Refusing], url: str, options: dict[str, str], status: int, code: str
) -> None:
    bucket = bucket_at(refusing, url, options, status, code)
    calls: list[Any] = [
        lambda: bucket.get("a/b"),
        lambda: bucket.create("a/b", b"x"),
        lambda: bucket.create_from("a/b", [b"x"]),
        lambda: bucket.put("a/b", b"x"),
        lambda: bucket.list("a/"),
    ]
    for call in calls:
        with pytest.raises(CredentialsError, match=code) as caught:
            call()
        assert "under `bucket:`" in str(caught.value)
        assert "topsecret" not in str(caught.value)
        assert "aws sso login" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("url", "options", "code"),
    [("s3://b", S3, "AccessDenied"), ("gs://b", GCS, "AccessDenied"), ("az://b", AZURE, "AuthorizationFailure")],
)
def test_a_right_that_lacks_is_no_matter_of_credentials(
    refusing: list[Refusing], url: str, options: dict[str, str], code: str
) -> None:
    bucket = bucket_at(refusing, url, options, 403, code)
    calls: tuple[Callable[[], object], ...] = (lambda: bucket.get("a/b"), lambda: bucket.create("a/b", b"x"))
    for call in calls:
        with pytest.raises(BucketError) as caught:
            call()
        assert not isinstance(caught.value, CredentialsError)


def test_a_profile_that_gives_nothing_any_more_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "give"
    tool.write_text("#!/bin/sh\necho 'the session of alice is over' >&2\nexit 1\n")
    tool.chmod(0o755)
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/config").write_text(f"[profile lab]\nregion=x\ncredential_process={tool}\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.delenv(name, raising=False)
    bucket = open_bucket("s3://b", {"profile": "lab", "endpoint_url": "http://127.0.0.1:9"}, str(tmp_path))
    for call in (lambda: bucket.get("a/b"), lambda: bucket.create("a/b", b"x"), lambda: bucket.list("")):
        with pytest.raises(CredentialsError, match=r"'lab'.*session of alice is over"):
            call()
