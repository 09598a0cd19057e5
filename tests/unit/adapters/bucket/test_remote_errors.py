"""What a person reads when an object store says no: plain words, and never its XML."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dstack.adapters.bucket.opener import open_bucket
from dstack.adapters.bucket.remote_errors import short_message
from dstack.errors import BucketError, CredentialsError
from dstack.ports import Bucket
from tests.support.buckets.refusing_store import Refusing

S3 = {"key": "AKIA", "secret": "s", "region": "x"}
GCS = {"token": "s"}
AZURE = {"account_name": "a", "access_key": "dG9wc2VjcmV0"}


@pytest.fixture
def store() -> Iterator[Callable[[str, dict[str, Any], int, str], Bucket]]:
    servers: list[Refusing] = []

    def opened(url: str, options: dict[str, Any], status: int, code: str) -> Bucket:
        servers.append(Refusing(status, code))
        where = "base_url" if url.startswith("gs") else "endpoint"
        return open_bucket(url, {**options, where: servers[-1].url}, "/nowhere")

    yield opened
    for server in servers:
        server.close()


CALLS: dict[str, Callable[[Bucket], object]] = {
    "get": lambda bucket: bucket.get("a/b"),
    "create": lambda bucket: bucket.create("a/b", b"x"),
    "create_from": lambda bucket: bucket.create_from("a/b", [b"x"]),
    "put": lambda bucket: bucket.put("a/b", b"x"),
    "list": lambda bucket: bucket.list("a/"),
    "children": lambda bucket: bucket.children("a/"),
    "survey": lambda bucket: list(bucket.survey("a/")),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=list(CALLS))
@pytest.mark.parametrize(
    ("url", "options", "code", "message", "hint"),
    [
        ("s3://hang/p", S3, "NoSuchBucket", "there is no bucket s3://hang", "`aws s3 mb s3://hang`"),
        ("gs://hang", GCS, "NoSuchBucket", "there is no bucket gs://hang", "`gcloud storage buckets create gs://hang`"),
        (
            "az://hang/p/q",
            AZURE,
            "ContainerNotFound",
            "there is no container az://hang",
            "`az storage container create --name hang`",
        ),
    ],
)
def test_a_bucket_that_does_not_exist_is_said_plainly(
    store: Any, call: Callable[[Bucket], object], url: str, options: dict[str, Any], code: str, message: str, hint: str
) -> None:
    with pytest.raises(BucketError) as caught:
        call(store(url, options, 404, code))
    assert str(caught.value) == message
    assert caught.value.hint == f"make it, as by {hint}, or correct `bucket:`"


@pytest.mark.parametrize("call", CALLS.values(), ids=list(CALLS))
@pytest.mark.parametrize(("url", "options"), [("s3://b", S3), ("gs://b", GCS), ("az://b", AZURE)])
def test_no_xml_reaches_a_person(store: Any, call: Callable[[Bucket], object], url: str, options: Any) -> None:
    with pytest.raises(BucketError) as caught:
        call(store(url, options, 403, "AllAccessDisabled"))
    assert "403 Forbidden: AllAccessDisabled (no)" in str(caught.value)
    assert "<" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("502 Bad Gateway: <html>\r\n<head><title>502</title></head></html>", "502 Bad Gateway"),
        ("403: <?xml version='1.0'?>\n<Error><Code>No</Code><Message>a\n  b</Message></Error>", "403: No (a b)"),
        ("400: \ufeff<?xml version='1.0'?><Error><Code>\n No </Code></Error>", "400: No"),
        ("it broke\n<Error><Code>No</Code></Error>", "it broke"),
        ("<Error><Code>No</Code></Error>", "No"),
        ("<Response [404]> of a library", "<Response [404]> of a library"),
        ("x" * 400 + "<?xml?><Code>No</Code>", "x" * 300),
    ],
)
def test_an_error_in_brief(text: str, told: str) -> None:
    assert short_message(RuntimeError(text)) == told


def test_a_machine_without_credentials_is_told_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is asked last is the service for machines of a cloud, here one that has none to give."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    bucket = open_bucket("s3://lab/team", {"region": "x", "endpoint": "http://127.0.0.1:9"}, "/nowhere")
    with pytest.raises(CredentialsError, match=r"^no credentials for s3://lab/team are found here: no keys"):
        bucket.get("a/b")
