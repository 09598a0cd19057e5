"""A storm over the lab: people work while machines are killed, frozen and started again; all of it follows a seed."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from tests.support.lab.judge import Words, names_in, runs
from tests.support.lab.lab import Lab
from tests.support.lab.machines import PEOPLE, LabLaptop
from tests.support.lab.work import Tried
from tests.support.waiting import until

T = TypeVar("T")
ACTS = {
    "run": 3, "attach": 5, "look": 1, "stop": 1, "lost": 2,
    "kill a laptop": 2, "freeze a laptop": 1, "kill a coordinator": 4, "freeze a host": 2, "reboot a host": 1,
}  # fmt: skip
"""What may happen next, and how often."""
LENGTH = 12
"""Acts of one storm."""
COORDINATORS = """
for out in /proc/[0-9]*/fd/1; do
  case $(cat ${out%/fd/1}/comm) in python*) ;; *) continue;; esac
  case $(readlink $out) in /told/*-run|/told/*-attach|*/coordinators/*.log) out=${out%/fd/1}; echo ${out#/proc/};; esac
done 2> /dev/null
true
"""
"""Processes of the account that asks which look after runs, attached or not, by where they write to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One thing that happens after `wait` seconds; the shares choose among what is there by then."""

    wait: float
    kind: str
    who: float
    what: float
    seconds: float

    @staticmethod
    def draw(chance: random.Random) -> Act:
        kind = chance.choices(list(ACTS), weights=list(ACTS.values()))[0]
        seconds = chance.uniform(8.0, 12.0) if chance.random() < 0.3 else chance.uniform(0.4, 3.0)
        return Act(wait=chance.uniform(0.1, 1.1), kind=kind, who=chance.random(), what=chance.random(), seconds=seconds)


class Storm:
    """Acts one after the other; what was killed or frozen is healed when its time has come, and all at the end."""

    def __init__(self, lab: Lab, seed: str) -> None:
        chance = random.Random(seed)
        self.words = Words()
        self._lab = lab
        self._acts = [Act.draw(chance) for _ in range(LENGTH)]
        self._people = chance.sample(list(lab.laptops.values()), 2)
        self._due: list[tuple[float, Callable[[], None]]] = []

    def rage(self) -> None:
        self._begin()
        for act in self._acts:
            self._pass(act.wait)
            self._carry_out(act)
        self._lab.heal()

    def _begin(self) -> None:
        """A laptop dies while its job is at work, the colleague attaches for longer than any silence is waited for,
        and then the owner comes back: what ran a training twice in a real lab."""
        owner, colleague = self._people
        owner.start("run", "train", "--seed", "1")
        colleague.start("run", "both", "--seed", "2")
        [tried] = until("a training begins", self._trainings, seconds=90, told=self._lab.report)
        owner.kill()
        attached = colleague.start("attach", tried.run)
        assert attached is not None
        # First that the owner looks after the job, then what is made of the owner's silence.
        until("the owner's silence is seen", lambda: attached.output().count("train: ") > 2, told=attached.output)
        self._pass(3.0 * self._lab.setting.silence)
        owner.heal()
        back = owner.start("attach", tried.run)
        assert back is not None
        until("the owner sees it", lambda: back.is_over() or "train: " in back.output(), told=back.output)

    def _trainings(self) -> list[Tried]:
        return [one for one in self._lab.tried() if (one.job, one.seed) == ("train", "1")]

    def _pass(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while True:
            for entry in [entry for entry in self._due if entry[0] <= time.monotonic()]:
                self._due.remove(entry)
                entry[1]()
            if time.monotonic() >= end:
                return
            time.sleep(0.05)

    def _after(self, seconds: float, heal: Callable[[], None]) -> None:
        self._due.append((time.monotonic() + seconds, heal))

    def _carry_out(self, act: Act) -> None:
        laptop = _share([one for one in self._lab.laptops.values() if one.state == "up"], act.who)
        host = _share([one for one in self._lab.hosts.values() if not one.is_frozen], act.who)
        match act.kind:
            case "kill a coordinator":
                self._kill_coordinator(act)
            case "freeze a host" if host:
                host.freeze()
                self._after(act.seconds, host.thaw)
            case "reboot a host" if host:
                host.reboot()
            case "kill a laptop" if laptop:
                laptop.kill()
                self._after(act.seconds, laptop.heal)
            case "freeze a laptop" if laptop:
                laptop.freeze()
                self._after(act.seconds, laptop.heal)
            case _ if laptop:
                self._type(laptop, act)

    def _type(self, laptop: LabLaptop, act: Act) -> None:
        """A person's command."""
        commands = [command for one in self._lab.laptops.values() for command in one.commands]
        name = _share(names_in([one.output() for one in commands if one.words.startswith("run ")]), act.what)
        if act.kind == "run":
            seed, away = str(1 + int(act.what * 3)), ["-d"] if act.seconds < 1.5 else []
            workflow = ("both", "train", "plain")[int(act.what * 1000) % 3]
            laptop.start("run", *away, workflow, "--seed", seed)
        elif act.kind == "lost":
            self._call_lost(laptop)
        elif name and act.kind == "attach":
            laptop.start("attach", name)
        elif name and act.kind == "stop":
            self.words.stopped.add(name)
            laptop.start("stop", name, "-y")
        elif act.kind == "look":
            laptop.start(*(["show", name] if name and act.seconds < 2 else ["ps"]))

    def _call_lost(self, laptop: LabLaptop) -> None:
        """A person says what is true: that an attempt will never come back, for its host was started again."""
        if any(host.is_frozen for host in self._lab.hosts.values()):
            return
        latest = {(one.job, one.seed): one for one in self._lab.tried()}
        for one in latest.values():
            boots = self._lab.hosts[one.host].boots
            if not one.ended and boots and one.began < boots[-1]:
                self.words.lost.append((time.time(), one.run))
                laptop.start("lost", one.run, one.job, "--yes")
                return

    def _kill_coordinator(self, act: Act) -> None:
        laptops = [one.inside for one in self._lab.laptops.values() if one.state == "up"]
        hosts = [one.inside for one in self._lab.hosts.values() if not one.is_frozen]
        machine = _share([*laptops, *hosts], act.who)
        if machine is None:
            return
        look = ["sh", "-c", COORDINATORS]
        pid = _share([pid for user in PEOPLE for pid in machine.run(look, user=user).decode().split()], act.what)
        if pid:
            machine.exec(["kill", "-9", pid])
            self._lab.story.tell(f"a coordinator on {machine.name} was killed, process {pid}")


def make_peace(lab: Lab, seconds: float) -> None:
    """Both come back and attach to each run that has not ended, until all have and no command goes on, or the time is
    over. A run may be recorded late: by a command that was frozen, or by a slow machine."""
    end = time.monotonic() + seconds
    attached: set[str] = set()
    while time.monotonic() < end:
        was_quiet = lab.is_quiet()
        names = {view["run"] for view in runs(lab) if view["status"] == "running"} - attached
        for name in sorted(names):
            for laptop in lab.laptops.values():
                laptop.start("attach", name)
        attached |= names
        while not lab.is_quiet() and time.monotonic() < end:
            time.sleep(0.1)
        if was_quiet and not names:
            return


def _share(things: list[T], share: float) -> T | None:
    return things[int(share * len(things))] if things else None
