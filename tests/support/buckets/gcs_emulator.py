"""A server that speaks Google Cloud Storage's XML interface, which obstore uses, as far as it differs from S3's.

The two have paths, bodies, lists and multipart uploads in common; a condition on a write is a header of its own, and
versions are numbers. So this stands in front of an S3 emulator and translates:
`python -m hypercorn tests.support.buckets.gcs_emulator:app`. Emulators that speak the JSON interface alone
(fake-gcs-server) refuse obstore's PUT.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from ministack.app import app as s3

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

CONDITION = b"x-goog-if-generation-match"


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        await s3(scope, receive, send)
        return
    headers = dict(scope["headers"])
    # An unknown condition must not pass for none.
    if headers.pop(CONDITION, None) == b"0":
        headers[b"if-none-match"] = b"*"
    headers.pop(b"authorization", None)

    async def answer(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), (b"x-goog-generation", b"1")]
        await send(message)

    await s3({**scope, "headers": list(headers.items())}, receive, answer)
