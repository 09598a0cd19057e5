"""What a job is given from memory: an inherited variable and a secret of the same name are two values."""

from __future__ import annotations

from dataclasses import replace

from dstack.app.protocol.job_secrets import environment, for_host, lacking, secret_key
from dstack.model import Gpu, HostFacts, Resources
from tests.support.simulator.world import spec_of


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


def facts(cpus: int = 4, docker: bool = False) -> HostFacts:
    return HostFacts(
        boot_id="b", hostname="h", user="alice", uid=1, python="3.11.2", platform="linux-x86_64", cpus=cpus,
        memory=1 << 34, gpus=(), git="2", docker=docker, disk_free=1 << 40, dir="/d",
    )  # fmt: skip


def test_a_host_is_told_the_values_of_the_jobs_that_it_can_run_and_no_others() -> None:
    specs = (
        replace(spec_of("plain"), secrets=("HERE",), env_from_caller=("HOME_OF_DATA",)),
        replace(spec_of("large"), secrets=("LARGE", "BOTH"), resources=Resources(cpu=64)),
        replace(spec_of("image"), secrets=("IMAGE", "BOTH"), image="torch:2"),
        replace(spec_of("gpu"), secrets=("GPU",), resources=Resources(gpu=Gpu(count=1))),
    )
    names = ("HERE", "LARGE", "BOTH", "IMAGE", "GPU", "OF_NO_JOB")
    caller = {**{secret_key(name): name for name in names}, "HOME_OF_DATA": "/data", "HERE": "not asked for"}
    small = {secret_key("HERE"): "HERE", "HOME_OF_DATA": "/data"}
    assert for_host(specs, caller, facts()) == small
    both = {secret_key("BOTH"): "BOTH"}
    assert for_host(specs, caller, facts(docker=True)) == {**small, **both, secret_key("IMAGE"): "IMAGE"}
    assert for_host(specs, caller, facts(cpus=64)) == {**small, **both, secret_key("LARGE"): "LARGE"}
