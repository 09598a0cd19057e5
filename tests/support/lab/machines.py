"""The machines of the lab: hosts with sshd, and laptops whose commands are processes of theirs; each is a container."""

from __future__ import annotations

import io
import tarfile
import threading
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from docker.errors import APIError  # type: ignore[import-untyped]

from tests.support.hosts.farm import TestHost
from tests.support.lab.work import MARKS
from tests.support.waiting import until

PEOPLE = {"alice": 1000, "bob": 3002}
GROUP = 3100
BUCKET = "/lab/bucket"
QUEUE = "/var/lib/dstack-slots"
WAIT = 60.0

ACCOUNTS = """
set -e
tr -d - < /proc/sys/kernel/random/uuid > /etc/machine-id
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

    def start(self, *arguments: str) -> Command | None:
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
