"""The lab: hosts gpu1 and gpu2 with accounts alice and bob, a laptop of each of them, and a bucket.

All of them are containers on one network, each with a boot id of its own, so that nothing is taken for a neighbour's.
A host gets its boot id from its sshd, a laptop from whoever logs in there: see CONTRIBUTING.md.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import dstack
from tests.support.hosts.farm import Farm, TestHost
from tests.support.hosts.home import ClientKey, make_key
from tests.support.lab.machines import BUCKET, LOGIN, PEOPLE, QUEUES, LabHost, LabLaptop, Story, accounts, lay
from tests.support.lab.work import HOME_FILES, MARKS, PROJECT, Tried, inventory, read_marks
from tests.support.waiting import until

SITE = Path(pytest.__file__).parents[1]
PACKAGE = Path(dstack.__file__).parent
HOST_PYTHON = (3, 11)
"""Of the image of the test hosts, by which laptops run dstack with the libraries of this environment."""
NEEDS_HOST_PYTHON = pytest.mark.skipif(
    sys.version_info[:2] != HOST_PYTHON, reason="the image's Python cannot load these libraries"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a lab is made of. `store` is "folder" or "s3", `queue` whether root made a queue that all accounts of a
    host share, `silence` the lease in seconds, `named` whether each inventory names its user for the hosts."""

    store: str = "folder"
    queue: bool = True
    silence: int = 6
    named: bool = True


@dataclass(slots=True)
class Lab:
    """All of it. `folder` is the test's own, on this machine."""

    folder: Path
    farm: Farm
    key: ClientKey
    setting: Setting = field(default_factory=Setting)
    story: Story = field(default_factory=Story)
    hosts: dict[str, LabHost] = field(default_factory=dict)
    laptops: dict[str, LabLaptop] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)

    def open(self) -> Lab:
        """Start everything; returns itself."""
        told = self.folder / "told"
        told.mkdir()
        told.chmod(0o777)
        keys = {"alice": self.key, "bob": make_key(self.folder / "bob-key")}
        network = self.farm.network()
        bucket = {self.farm.volume(): {"bind": BUCKET, "mode": "rw"}} if self.setting.store == "folder" else {}
        url = BUCKET if bucket else self._store(network)
        inside = [self.farm.inside(network, name, volumes=bucket) for name in ("gpu1", "gpu2")]
        for host in inside:
            self.hosts[host.name] = LabHost(host, self.story, self.setting.silence)
        source = {str(SITE): "/lab/site", str(PACKAGE): "/lab/package/dstack"}
        volumes = {path: {"bind": bind, "mode": "ro"} for path, bind in source.items()} | bucket
        volumes |= {str(told): {"bind": "/told", "mode": "rw"}}
        for user in PEOPLE:
            box = self.farm.inside(network, f"{user}-laptop", command=["sleep", "infinity"], volumes=volumes)
            self.laptops[user] = LabLaptop(box, user, told, self.story, self.environment)
        for host in inside:
            host.wait_ready()
            self._prepare(host, keys)
            self.hosts[host.name].wake()
        for user, laptop in self.laptops.items():
            self._furnish(laptop, url, keys[user])
        return self

    def _store(self, network: str) -> str:
        """An S3 emulator in a container -> the URL of a bucket there."""
        serve = ["python3", "-W", "ignore", "-m", "hypercorn", "ministack.app:app", "--bind", "0.0.0.0:4566"]
        path = {"PYTHONPATH": "/lab/site", "SERVICES": "s3", "PYTHONDONTWRITEBYTECODE": "1"}
        volumes = {str(SITE): {"bind": "/lab/site", "mode": "ro"}}
        store = self.farm.inside(network, "store", command=serve, volumes=volumes, environment=path)
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://{store.address}:4566",
            "AWS_ACCESS_KEY_ID": "testkey",
            "AWS_SECRET_ACCESS_KEY": "testsecret1",
            "AWS_REGION": "us-east-1",
        }
        make = ["python3", "-c", "import boto3; boto3.client('s3').create_bucket(Bucket='lab')"]
        environment = {**self.environment, **path, "AWS_DEFAULT_REGION": "us-east-1"}
        until("the store answers", lambda: store.exec(make, environment=environment).code == 0, told=store.sshd_log)
        return "s3://lab/lab"

    def _prepare(self, host: TestHost, keys: Mapping[str, ClientKey]) -> None:
        accounts(host)
        if self.setting.queue:
            host.run(["sh", "-c", QUEUES])
        for user, key in keys.items():
            host.run(["sh", "-c", LOGIN, "login", user, key.public])

    def _furnish(self, laptop: LabLaptop, url: str, key: ClientKey) -> None:
        inside, user = laptop.inside, laptop.user
        accounts(inside)
        hosts = {name: host.inside.address for name, host in self.hosts.items()}
        lent = self.setting.store != "folder"
        known = "".join(host.inside.known_hosts_line() for host in self.hosts.values())
        files = {
            ".ssh/id": key.file.read_text(),
            ".ssh/known_hosts": known,
            ".dstack/hosts.yaml": inventory(hosts, user if self.setting.named else None, lent=lent),
            ".dstack/config.yaml": f"bucket: {url}\n",
            **HOME_FILES,
            **{f"project/{path}": text for path, text in PROJECT.items()},
        }
        lay(inside, user, files)
        commit = "cd ~/project && git init -q -b main && git add -A && git commit -q -m work"
        inside.run(["su", user, "-c", commit])
        laptop._environment |= {
            **self.environment,
            "DSTACK_SILENCE": str(self.setting.silence),
            "PYTHONPATH": "/lab/package:/lab/site",
            "PYTHONDONTWRITEBYTECODE": "1",
            "COLUMNS": "120",
            "TERM": "dumb",
            "LANG": "C.UTF-8",
        }

    # -- what stands outside of dstack ---------------------------------------------------------------

    def tried(self) -> list[Tried]:
        """Every attempt that began, by its own marks."""
        look = f"cd {MARKS} && grep -H '' * 2> /dev/null || true"
        said = {host.name: host.inside.run(["sh", "-c", look]).decode() for host in self.hosts.values()}
        found = [one for name, text in said.items() for one in read_marks(name, text)]
        return sorted(found, key=lambda one: one.began)

    def tried_of(self, seed: str) -> list[Tried]:
        return [one for one in self.tried() if one.seed == seed]

    def is_quiet(self) -> bool:
        """Whether no command of anybody goes on."""
        return all(command.is_over() for laptop in self.laptops.values() for command in laptop.commands)

    def heal(self) -> None:
        """Everything goes on that was frozen, and everything is started that was killed."""
        for host in self.hosts.values():
            host.thaw()
        for laptop in self.laptops.values():
            laptop.heal()

    def report(self) -> str:
        """All that is known, for who reads a failure."""
        commands = [command for laptop in self.laptops.values() for command in laptop.commands]
        telling = [str(command) for command in commands if "--json" not in command.words or command.code()]
        return "\n".join(["the story:", *self.story.lines, *telling])
