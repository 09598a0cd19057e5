"""A survey that a store cuts off in the middle goes on behind what was given, and never ends as if that were all."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from dstack.adapters.bucket.opener import open_bucket
from dstack.errors import BucketError
from tests.support.buckets.refusing_store import Served

KEYS = [f"a/{number:04}" for number in range(2500)]


class Listing(Served):
    """An S3 server that lists KEYS a thousand at a time, and refuses as often as `refusals` says once a page was
    given."""

    def __init__(self, refusals: int) -> None:
        outer = self
        self.refusals = refusals

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
                after = asked.get("continuation-token") or asked.get("start-after") or ""
                if after and outer.refusals:
                    outer.refusals -= 1
                    self._answer(403, "<Error><Code>AccessDenied</Code></Error>")
                    return
                left = [key for key in KEYS if key > after]
                page, more = left[:1000], len(left) > 1000
                entries = "".join(
                    f"<Contents><Key>{key}</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified>"
                    f"<Size>1</Size></Contents>"
                    for key in page
                )
                token = f"<NextContinuationToken>{page[-1]}</NextContinuationToken>" if more else ""
                self._answer(200, f"<ListBucketResult>{entries}{token}</ListBucketResult>")

            def _answer(self, status: int, text: str) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: Any) -> None:
                return

        super().__init__(Handler)


@pytest.fixture
def listing(request: pytest.FixtureRequest) -> Iterator[Listing]:
    server = Listing(request.param)
    yield server
    server.close()


def surveyed(listing: Listing) -> list[str]:
    bucket = open_bucket("s3://b", {"key": "k", "secret": "s", "region": "x", "endpoint": listing.url}, "/")
    return [each.key for each in bucket.survey("a/")]


@pytest.mark.parametrize("listing", [0, 1, 2], indirect=True)
def test_it_goes_on_where_it_was_cut_off(listing: Listing) -> None:
    assert surveyed(listing) == KEYS


@pytest.mark.parametrize("listing", [1000], indirect=True)
def test_it_fails_where_the_rest_cannot_be_had(listing: Listing) -> None:
    with pytest.raises(BucketError, match="cannot list s3://b/a/"):
        surveyed(listing)
