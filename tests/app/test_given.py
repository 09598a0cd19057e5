"""What a job is given from memory: an inherited variable and a secret of the same name are two values."""

from __future__ import annotations

from dataclasses import replace

from dstack.app.given import environment, lacking, secret_key
from tests.app.simulator import spec_of


def test_a_secret_is_no_variable_of_the_same_name() -> None:
    inherits = replace(spec_of("a"), env_from_caller=("TOKEN",))
    asks = replace(spec_of("b"), secrets=("TOKEN",))
    caller = {"TOKEN": "from the environment", secret_key("TOKEN"): "from the keyring"}
    assert environment(inherits, caller) == {"TOKEN": "from the environment"}
    assert environment(asks, caller) == {"TOKEN": "from the keyring"}
    del caller["TOKEN"]
    assert lacking(inherits, caller, "alice") == "waits for the value of TOKEN from alice"
    assert lacking(asks, caller, "alice") is None
    assert lacking(asks, {}, "alice") == "waits for secret TOKEN of alice"
