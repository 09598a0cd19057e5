"""The lab: hosts gpu1 and gpu2 with accounts alice and bob, a laptop of each of them, and a bucket.

All of them are containers on one network, each with a boot id of its own, so that nothing is taken for a neighbour's.
A host gets its boot id from its sshd, a laptop from whoever logs in there: see CONTRIBUTING.md.
"""

from __future__ import annotations

import io
import tarfile
import threading
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from docker.errors import APIError  # type: ignore[import-untyped]

import dstack
from tests.hostile.labwork import HOME_FILES, MARKS, PROJECT, Tried, inventory, read_marks
from tests.system.hosts.farm import Farm, TestHost
from tests.system.hosts.home import ClientKey, make_key
from tests.system.hosts.waiting import until

PEOPLE = {"alice": 1000, "bob": 3002}
GROUP = 3100
SITE = Path(pytest.__file__).parents[1]
PACKAGE = Path(dstack.__file__).parent
BUCKET = "/lab/bucket"
QUEUE = "/var/lib/dstack-slots"
WAIT = 60.0

ACCOUNTS = """
set -e
groupadd --gid $GROUP lab
useradd --uid $BOB --create-home --shell /bin/bash --password '*' bob
usermod --append --groups lab alice
usermod --append --groups lab bob
mkdir -p $BUCKET $MARKS
chown alice:lab $BUCKET
chmod 2770 $BUCKET
chmod 1777 $MARKS
chmod 0700 /home/alice /home/bob
"""
QUEUES = f"install -d -m 1777 {QUEUE} && install -m 0444 /dev/null {QUEUE}/lock"
LOGIN = """
set -e
install -d -m 0700 -o $1 -g $1 /home/$1/.ssh
printf '%s\\n' "$2" > /home/$1/.ssh/authorized_keys
chown $1:$1 /home/$1/.ssh/authorized_keys
chmod 0600 /home/$1/.ssh/authorized_keys
"""
BOOT = """
set -e
listener=$(cat /run/sshd.pid)
kill -STOP $listener
living() {
  for stat in /proc/[0-9]*/stat; do
    read -r line < $stat || continue
    pid=${line%% *}; rest=${line##*) }
    case $pid in 1|$listener|$$) continue;; esac
    case $rest in Z*) continue;; esac
    echo $pid
  done 2> /dev/null
}
"""
RESTART = """
for try in 1 2 3 4 5 6 7 8; do
  for pid in $(living); do kill -9 $pid 2> /dev/null || true; done
done
"""
WAKE = """
echo "SetEnv DSTACK_BOOT_ID=$1 DSTACK_SILENCE=$2" > /etc/ssh/sshd_config.d/lab.conf
kill -HUP $listener
kill -CONT $listener
"""
RUN = '"$@" > /told/$TOLD 2>&1 < /dev/null; echo $? > /told/$TOLD.code'


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a lab is made of. `store` is "folder" or "s3", `queue` whether root made a queue that all accounts of a
    host share, `silence` the lease in seconds, `named` whether each inventory names its user for the hosts."""

    store: str = "folder"
    queue: bool = True
    silence: int = 6
    named: bool = True


class Story:
    """What was done, and when: the seconds since the lab was opened."""

    def __init__(self) -> None:
        self._began = time.time()
        self._lock = threading.Lock()
        self.lines: list[str] = []

    def tell(self, text: str) -> None:
        with self._lock:
            self.lines.append(f"{time.time() - self._began:6.2f} {text}")

    def at(self, moment: float) -> str:
        """A time of day as the seconds of this story."""
        return f"{moment - self._began:.2f}"


def new_boot() -> str:
    return str(uuid.uuid4())


class LabHost:
    """One host with sshd. `boots` are the times of day at which it was started again."""

    def __init__(self, inside: TestHost, story: Story, silence: int) -> None:
        self.inside = inside
        self.name = inside.name
        self.silence = silence
        self.boots: list[float] = []
        self.frozen: list[tuple[float, float]] = []
        self._since = 0.0
        self._story = story

    def wake(self) -> None:
        """The first boot."""
        self.inside.run(["sh", "-c", BOOT + WAKE, "wake", new_boot(), str(self.silence)])

    def reboot(self) -> None:
        """Every process is killed, and what is started from now on has another boot id."""
        self.inside.run(["sh", "-c", BOOT + RESTART + WAKE, "reboot", new_boot(), str(self.silence)])
        self.boots.append(time.time())
        self._story.tell(f"{self.name} was started again")

    @property
    def is_frozen(self) -> bool:
        return self._since > 0

    def freeze(self) -> None:
        """Stop every process; nothing is done where the engine cannot."""
        since = time.time()
        if frozen(self.inside):
            self._since = since
            self._story.tell(f"{self.name} is frozen")

    def thaw(self) -> None:
        if self._since:
            self.inside.unpause()
            self.frozen.append((self._since, time.time()))
            self._since = 0.0
            self._story.tell(f"{self.name} goes on")


@dataclass(slots=True)
class Command:
    """One command of a laptop; what it said is in `told`."""

    user: str
    words: str
    told: Path
    killed: bool = False

    def code(self) -> int | None:
        """The exit code, None while it runs, or when its laptop was killed under it."""
        with suppress(OSError, ValueError):
            return int(self.told.with_name(self.told.name + ".code").read_text())
        return None

    def output(self) -> str:
        return self.told.read_text(errors="replace") if self.told.exists() else ""

    def is_over(self) -> bool:
        return self.killed or self.code() is not None

    def __str__(self) -> str:
        state = "killed" if self.killed else f"exit {self.code()}"
        return f"--- {self.user}$ dstack {self.words}   [{state}]\n{self.output()[-3000:]}"


class LabLaptop:
    """A person's laptop: commands begin there and go on there, and end with it."""

    def __init__(self, inside: TestHost, user: str, told: Path, story: Story, environment: Mapping[str, str]) -> None:
        self.inside = inside
        self.user = user
        self.state = "up"
        self.commands: list[Command] = []
        self._told = told
        self._story = story
        self._environment = dict(environment)
        self._boot = new_boot()

    def start(self, *arguments: str, tell: bool = True) -> Command | None:
        """Begin `dstack ARGUMENTS`; None when the laptop is not there to begin it."""
        told = self._told / f"{len(self.commands):03}-{self.user}-{arguments[0]}"
        command = Command(self.user, " ".join(arguments), told)
        environment = {
            **self._environment,
            "HOME": f"/home/{self.user}",
            "DSTACK_BOOT_ID": self._boot,
            "TOLD": told.name,
        }
        argv = ["sh", "-c", RUN, "sh", "python3", "-P", "-m", "dstack", *arguments]
        api, where = self.inside.container.client.api, f"/home/{self.user}/project"
        try:
            begun = api.exec_create(
                self.inside.container.id, argv, user=self.user, workdir=where, environment=environment
            )
            api.exec_start(begun["Id"], detach=True)
        except APIError:
            return None  # it was killed or frozen at this moment
        self.commands.append(command)
        if tell:
            self._story.tell(f"{self.user}$ dstack {command.words}")
        return command

    def dstack(self, *arguments: str, code: int | None = 0, seconds: float = WAIT) -> Command:
        """A command to its end; `code` None takes any exit code. AssertionError when it does not end."""
        command = self.start(*arguments)
        assert command is not None, f"{self.user}'s laptop is not there"
        self.wait(command, seconds=seconds)
        if code is not None:
            assert command.code() == code, str(command)
        return command

    def wait(self, command: Command, *, seconds: float = WAIT) -> None:
        until(f"`dstack {command.words}` ends", command.is_over, seconds=seconds, told=command.output)

    def kill(self) -> None:
        """Every process of the laptop ends at once; its disk stays."""
        self.inside.kill()
        self.state = "dead"
        for command in self.commands:
            command.killed = command.killed or command.code() is None
        self._story.tell(f"{self.user}'s laptop was killed")

    def revive(self) -> None:
        self.inside.container.start()
        self._boot = new_boot()
        self.state = "up"
        self._story.tell(f"{self.user}'s laptop was started again")

    def freeze(self) -> None:
        """Stop every process; nothing is done where the engine cannot."""
        if frozen(self.inside):
            self.state = "frozen"
            self._story.tell(f"{self.user}'s laptop is frozen")

    def thaw(self) -> None:
        self.inside.unpause()
        self.state = "up"
        self._story.tell(f"{self.user}'s laptop goes on")

    def heal(self) -> None:
        if self.state == "dead":
            self.revive()
        elif self.state == "frozen":
            self.thaw()


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


def accounts(host: TestHost) -> None:
    """The two accounts and their group, which the bucket belongs to."""
    environment = {"GROUP": str(GROUP), "BOB": str(PEOPLE["bob"]), "BUCKET": BUCKET, "MARKS": MARKS}
    done = host.exec(["sh", "-c", ACCOUNTS], environment=environment)
    assert done.code == 0, done.output.decode()


def frozen(host: TestHost) -> bool:
    """Freeze a container; False when the engine could not: it gives up where processes begin and end all the time."""
    with suppress(APIError):
        host.pause()
        return True
    return False


def lay(host: TestHost, user: str, files: Mapping[str, str]) -> None:
    """Files below the user's home, 0600 in folders of 0700, that are the user's own."""
    packed = io.BytesIO()
    folders = sorted({str(parent) for name in files for parent in Path(name).parents if str(parent) != "."})
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name in [*folders, *files]:
            member = tarfile.TarInfo(name)
            member.uid = member.gid = PEOPLE[user]
            member.mtime = int(time.time())
            if name in files:
                body = files[name].encode()
                member.size, member.mode = len(body), 0o600
                archive.addfile(member, io.BytesIO(body))
            else:
                member.type, member.mode = tarfile.DIRTYPE, 0o700
                archive.addfile(member)
    assert host.container.put_archive(f"/home/{user}", packed.getvalue())
