"""The part of an inventory to share in a team, and the merge of a shared inventory into a file. Pure.

A team shares the addresses of hosts and their limits, but no way to log in. An entry with `identity-file`, `jump`,
`local` or a `dir` outside of the home folder is private: a push leaves the entry out, and a pull leaves it unchanged.
So a writer of the bucket can choose neither a reader's keys, nor the machines on a reader's way, nor the reader's own
machine for jobs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dstack.core.format.records import Inventory, SharedHost
from dstack.errors import BucketError, ConfigError
from dstack.model import Host, HostName
from dstack.project.hosts.editor import add_host, hosts_text, remove_host
from dstack.project.hosts.inventory import read_hosts
from dstack.project.yaml.parser import parse_yaml
from dstack.project.yaml.report import Report

MAX_SHARED_HOSTS = 1000


def private_setting(host: Host) -> str | None:
    """The setting that makes an entry private; None for an entry to share."""
    settings = {
        "local": host.local,
        "identity-file": host.identity_file is not None,
        "jump": host.jump is not None,
        "dir": host.dir is not None and not _below_home(host.dir),
        # The zone of an IPv6 address (`fe80::1%eth0`) is a network interface of a single machine.
        "address": host.address is not None and "%" in host.address,
    }
    return next((name for name, found in settings.items() if found), None)


def _below_home(directory: str) -> bool:
    return directory.startswith("~/") and ".." not in directory.split("/")


def shared_part(hosts: Sequence[Host]) -> tuple[SharedHost, ...]:
    """The shared part of an inventory, in ascending order of names."""
    return tuple(
        SharedHost(
            name=host.name,
            address=host.address,
            user=host.user,
            port=host.port,
            labels=host.labels,
            slots=host.slots,
            gpu_shares=host.gpu_shares,
            dir=host.dir,
        )
        for host in sorted(hosts, key=lambda host: host.name)
        if private_setting(host) is None
    )


def check_inventory(inventory: Inventory) -> tuple[Host, ...]:
    """The hosts of an inventory from the bucket, with each setting checked like a setting in a file; raises
    BucketError."""
    if len(inventory.hosts) > MAX_SHARED_HOSTS:
        raise BucketError(
            f"the inventory in the bucket has {len(inventory.hosts)} hosts; at most {MAX_SHARED_HOSTS} are read"
        )
    hosts = tuple(_host(shared) for shared in inventory.hosts)
    report = Report()
    read = read_hosts(report, parse_yaml(hosts_text(hosts), "the inventory in the bucket"))
    told = [problem.message for problem in report.problems]
    told += [f"{host.name}: {own} cannot be shared" for host in hosts if (own := private_setting(host)) is not None]
    # A value that is allowed, but reads from YAML as another value, is refused too.
    if not told and [replace(host, position=None) for host in read] != list(hosts):
        told = ["its settings do not read as they were written"]
    if told:
        raise BucketError(
            f"the inventory in the bucket is refused: {told[0]}", hint="nothing was changed; ask who pushed it"
        )
    return hosts


def _host(shared: SharedHost) -> Host:
    return Host(
        name=HostName(shared.name),
        address=shared.address,
        user=shared.user,
        port=shared.port,
        labels=shared.labels,
        slots=shared.slots,
        gpu_shares=shared.gpu_shares,
        dir=shared.dir,
    )


def merge_inventory(source: bytes, wanted: Sequence[Host], shown: str) -> bytes:
    """The file with `wanted` as the shared entries; private entries and comments stay unchanged.

    Raises ConfigError for a file with problems, UsageError for an entry that cannot be edited.
    """
    report = Report()
    before = {host.name: replace(host, position=None) for host in read_hosts(report, parse_yaml(source, shown))}
    if report.problems:
        raise ConfigError(report.problems)
    own = {name for name, host in before.items() if private_setting(host) is not None}
    for name, host in before.items():
        # Also a changed entry: the editor changes none in place, so the loop below adds the entry anew.
        if name not in own and host not in wanted:
            source = remove_host(source, name, shown)
    for host in wanted:
        if host.name not in own and before.get(host.name) != host:
            source = add_host(source, host, shown)
    return source
