"""What a job is given from memory: an inherited variable and a secret of the same name are two values."""

from __future__ import annotations

from dataclasses import replace

from dstack.app.protocol.job_secrets import environment, for_host, missing_value, secret_key
from dstack.model import Gpu, Resources
from tests.support.records.specs import LARGE_FACTS, spec


def test_a_secret_is_no_variable_of_the_same_name() -> None:
    inherits = spec("a", env_from_caller=("TOKEN",))
    asks = spec("b", secrets=("TOKEN",))
    caller = {"TOKEN": "from the environment", secret_key("TOKEN"): "from the keyring"}
    assert environment(inherits, caller) == {"TOKEN": "from the environment"}
    assert environment(asks, caller) == {"TOKEN": "from the keyring"}
    del caller["TOKEN"]
    assert missing_value(inherits, caller, "alice") == "waits for the value of TOKEN from alice"
    assert missing_value(asks, caller, "alice") is None
    assert missing_value(asks, {}, "alice") == "waits for secret TOKEN of alice"


def test_a_host_is_told_the_values_of_the_jobs_that_it_can_run_and_no_others() -> None:
    specs = (
        spec("plain", secrets=("HERE",), env_from_caller=("HOME_OF_DATA",)),
        spec("large", secrets=("LARGE", "BOTH"), resources=Resources(cpu=64)),
        spec("image", secrets=("IMAGE", "BOTH"), image="torch:2"),
        spec("gpu", secrets=("GPU",), resources=Resources(gpu=Gpu(count=1))),
    )
    names = ("HERE", "LARGE", "BOTH", "IMAGE", "GPU", "OF_NO_JOB")
    caller = {**{secret_key(name): name for name in names}, "HOME_OF_DATA": "/data", "HERE": "not asked for"}
    small = {secret_key("HERE"): "HERE", "HOME_OF_DATA": "/data"}
    assert for_host(specs, caller, LARGE_FACTS) == small
    both = {secret_key("BOTH"): "BOTH"}
    assert for_host(specs, caller, replace(LARGE_FACTS, docker=True)) == {**small, **both, secret_key("IMAGE"): "IMAGE"}
    assert for_host(specs, caller, replace(LARGE_FACTS, cpus=64)) == {**small, **both, secret_key("LARGE"): "LARGE"}
