"""What of an inventory a team may share, and what a hostile bucket cannot bring into a reader's file."""

from __future__ import annotations

import json

import pytest

from dstack.core.format.records import Inventory, SharedHost, pack, unpack
from dstack.errors import BucketError, ConfigError
from dstack.model import Host, HostName
from dstack.project.hosts.inventory import read_hosts
from dstack.project.hosts.shared_hosts import (
    MAX_SHARED_HOSTS,
    check_inventory,
    merge_inventory,
    private_setting,
    shared_part,
)
from dstack.project.yaml.parser import parse_yaml
from dstack.project.yaml.report import Report

FILE = b"""\
# ours
hosts:
  gpu-1:   # the big one
    address: 10.0.0.5
    slots: 2
  mine: {address: x, identity-file: ~/.ssh/id_x}
  gpu-2: {}
"""


def inventory(*hosts: SharedHost) -> Inventory:
    return Inventory(nonce="n", user="bob", machine="desk", pushed=1.0, hosts=hosts)


def hosts_of(source: bytes) -> dict[str, Host]:
    report = Report()
    found = {host.name: host for host in read_hosts(report, parse_yaml(source, "f"))}
    assert not report.problems
    return {str(name): host for name, host in found.items()}


@pytest.mark.parametrize(
    ("settings", "own"),
    [
        ({}, None),
        ({"address": "10.0.0.5", "user": "u", "port": 22, "slots": 1, "labels": ("a",), "dir": "~/fast"}, None),
        ({"identity_file": "~/.ssh/x"}, "identity-file"),
        ({"jump": "bastion"}, "jump"),
        ({"local": True}, "local"),
        ({"dir": "/data/d"}, "dir"),
        ({"dir": "~/../bob"}, "dir"),
        ({"address": "fe80::1%eth0"}, "address"),
    ],
)
def test_how_one_logs_in_is_ones_own(settings: dict[str, object], own: str | None) -> None:
    host = Host(name=HostName("h"), **settings)  # type: ignore[arg-type]
    assert private_setting(host) == own
    assert len(shared_part([host])) == (own is None)


def test_what_was_shared_comes_back_as_it_was() -> None:
    host = Host(name=HostName("h"), address="10.0.0.5", user="u", port=2222, slots=3, labels=("a", "b"), gpu_shares=2)
    record = unpack(Inventory, "k", pack(inventory(*shared_part([host]))))
    assert check_inventory(record) == (host,)


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "-oProxyCommand=x"},
        {"name": "a b"},
        {"name": "../x"},
        {"name": "x\nhosts: {y: {local: true}}"},
        {"name": "h: {local: true}, x"},
        {"name": ""},
        {"name": "h", "address": "-oProxyCommand=touch /tmp/x"},
        {"name": "h", "address": "x\n    local: true"},
        {"name": "h", "address": "x\n    identity-file: ~/.ssh/id_rsa"},
        {"name": "h", "address": "$(touch x)"},
        {"name": "h", "address": "a%b"},
        {"name": "h", "user": "-l"},
        {"name": "h", "user": "a b"},
        {"name": "h", "user": "\x1b[2J"},
        {"name": "h", "port": 0},
        {"name": "h", "port": 70000},
        {"name": "h", "slots": 0},
        {"name": "h", "slots": 10**9},
        {"name": "h", "labels": ("a b",)},
        {"name": "h", "labels": ("\n",)},
        {"name": "h", "dir": "/etc"},
        {"name": "h", "dir": "~/../../etc"},
        {"name": "h", "dir": "x"},
        {"name": "h", "dir": "~/a\nb"},
    ],
)
def test_what_no_file_may_hold_is_refused_whole(settings: dict[str, object]) -> None:
    good = SharedHost(name="good")
    with pytest.raises(BucketError, match="the inventory in the bucket is refused") as caught:
        check_inventory(inventory(good, SharedHost(**settings)))  # type: ignore[arg-type]
    assert "nothing was changed" in (caught.value.hint or "")


def test_settings_for_logging_in_have_no_place_in_a_record() -> None:
    fields = json.loads(pack(inventory(SharedHost(name="h"))))
    fields["hosts"][0] |= {"identity_file": "~/.ssh/id_rsa", "jump": "evil", "local": True, "proxy_command": "x"}
    (host,) = check_inventory(unpack(Inventory, "k", json.dumps(fields).encode()))
    assert host == Host(name=HostName("h"))


def test_two_of_one_name_are_refused() -> None:
    with pytest.raises(BucketError):
        check_inventory(inventory(SharedHost(name="h"), SharedHost(name="h", address="x")))


def test_too_many_hosts_are_refused() -> None:
    with pytest.raises(BucketError, match="at most 1000"):
        check_inventory(inventory(*(SharedHost(name=f"h{number}") for number in range(MAX_SHARED_HOSTS + 1))))


def test_a_pull_changes_what_differs_and_nothing_else() -> None:
    wanted = check_inventory(inventory(SharedHost(name="gpu-1", address="10.0.0.5", slots=2), SharedHost(name="gpu-3")))
    made = merge_inventory(FILE, wanted, "f")
    assert made == FILE.replace(b"  gpu-2: {}\n", b"  gpu-3:\n")


def test_a_pull_replaces_an_entry_that_differs() -> None:
    wanted = check_inventory(inventory(SharedHost(name="gpu-1", address="10.0.0.6"), SharedHost(name="gpu-2")))
    made = hosts_of(merge_inventory(FILE, wanted, "f"))
    assert made["gpu-1"].address == "10.0.0.6"
    assert (made["gpu-1"].slots, set(made)) == (None, {"gpu-1", "gpu-2", "mine"})


def test_an_entry_of_ones_own_stays_whatever_was_pushed_under_its_name() -> None:
    wanted = check_inventory(inventory(SharedHost(name="mine", address="evil.example.org")))
    made = hosts_of(merge_inventory(FILE, wanted, "f"))
    assert (made["mine"].address, made["mine"].identity_file) == ("x", "~/.ssh/id_x")


def test_a_file_that_is_wrong_is_not_touched() -> None:
    with pytest.raises(ConfigError):
        merge_inventory(b"hosts: {a: {prot: 1}}\n", check_inventory(inventory(SharedHost(name="h"))), "f")


def test_without_a_file_there_will_be_one() -> None:
    assert (
        merge_inventory(b"", check_inventory(inventory(SharedHost(name="h", user="u"))), "f")
        == b"hosts:\n  h:\n    user: u\n"
    )
