"""Requests that break their declaration: refused with the name of the field, and everything else goes on."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.runners.client import Refused
from tests.support.runners.host import Host


@pytest.mark.parametrize(
    ("op", "fields", "told"),
    [
        ("hold", {"slots": 1, "colour": "red"}, "hold: field 'colour' is unknown"),
        ("hold", {}, "hold: field 'slots' is missing"),
        (
            "hold",
            {"slots": 1, "demand": {"gpus": 257}},
            "hold: field 'demand.gpus' must be a whole number from 0 to 256",
        ),
        ("hold", {"slots": 1, "priority": 101}, "hold: field 'priority' must be a whole number from -100 to 100"),
        ("prepare", {"script": "true"}, "prepare: field 'attempt' is missing"),
        ("go", {"environment": {"A": 1}}, "go: field 'environment' must map names to text"),
        ("stop", {"grace": 1}, "stop: field 'abort' is missing"),
        ("follow", {"offset": -1}, "follow: field 'offset' must be a whole number"),
        ("release", {"window": 1}, "release: field 'window' is unknown"),
    ],
)
def test_a_wrong_field_is_named_and_the_connection_goes_on(
    host: Host, op: str, fields: dict[str, Any], told: str
) -> None:
    client = host.connect()
    with pytest.raises(Refused) as refused:
        client.call(op, nonce=host.nonce(), **fields)
    assert str(refused.value) == f"request: {told}"
    _, end = host.run(client, "exit 7")
    assert end["code"] == 7


def test_a_job_runs_on_when_its_stop_is_refused(host: Host) -> None:
    client = host.connect()
    nonce = host.start(client, "sleep 600")
    with pytest.raises(Refused, match="stop: field 'grace' must be seconds"):
        client.call("stop", nonce=nonce, grace="soon", abort=False)
    assert host.state(client, nonce) == "running"
    assert client.call("stop", nonce=nonce, grace=0, abort=True)["exit"]["stopped"] is True
