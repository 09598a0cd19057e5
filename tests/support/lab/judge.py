"""The rules of the lab, each judged from outside: by the jobs' own marks, by /proc of the hosts, by their disks.

A rule gives a list of sentences, one for each time it was broken; an empty list is good.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.support.lab.lab import Lab
from tests.support.lab.machines import PEOPLE, LabHost
from tests.support.lab.work import RETRIED, TICK, Tried

MOMENT = 5 * TICK
"""Seconds between what happens on a host and what is written down about it."""
ENDED = "after the first one had come to its end"
PULLED = 2
"""Results that are pulled; all of them are read where they lie."""
NAME = re.compile(r"^([a-z]+-[a-z]+-[0-9]+)\b", re.MULTILINE)
LIVING = """
for environ in /proc/[0-9]*/environ; do
  process=${environ%/environ}
  if tr '\\0' '\\n' < $environ | grep -q '^DSTACK_ATTEMPT='; then
    echo "$(id -un) ${process#/proc/} $(tr '\\0' ' ' < $process/cmdline | head -c 200)"
  fi
done 2> /dev/null
true
"""
"""Every process of a job of the account that asks: its environment names its attempt. In a container root is not shown
the environments of others."""


@dataclass(slots=True)
class Words:
    """What people said that only they can know. The times are times of day."""

    stopped: set[str] = field(default_factory=set)
    """Names of runs."""
    lost: list[tuple[float, str]] = field(default_factory=list)
    """When somebody called a run's jobs lost, and which run."""


def doubles(lab: Lab, words: Words) -> list[str]:
    """0 double: no two attempts of one job are alive at the same time, and none follows one that came to its end."""
    jobs: dict[tuple[str, str], list[Tried]] = {}
    for one in lab.tried():
        jobs.setdefault((one.job, one.seed), []).append(one)
    found = []
    for tried in jobs.values():
        for number, first in enumerate(tried):
            for second in tried[number + 1 :]:
                wrong = _double(first, second)
                if wrong and not _excused(lab, words, first, second, wrong):
                    found.append(f"double: {second} began at {lab.story.at(second.began)}, {wrong} ({first})")
    return found


def _double(first: Tried, second: Tried) -> str:
    """What is wrong with a second attempt after the first one; "" when nothing is."""
    if first.last > second.began:
        return f"while the first one was at work, which began {second.began - first.began:.1f} s earlier"
    if first.ended:
        return ENDED
    return ""


def _excused(lab: Lab, words: Words, first: Tried, second: Tried, wrong: str) -> bool:
    """Whether the second one was right to begin: a person said truly that the first is lost, or `retry` says that so
    long a silence of its host, or its restart, is enough, or the first was stopped or cut off at the last moment."""
    host = lab.hosts[first.host]
    if wrong == ENDED and (first.run in words.stopped or was_cut(lab, first)):
        return True
    dead = any(first.began < boot < second.began for boot in host.boots)
    told = any(first.began < moment < second.began + MOMENT for moment, _ in words.lost)
    retried = first.job in RETRIED and (dead or was_silent(host, first.began, second.began))
    return (dead and told) or retried


def was_cut(lab: Lab, one: Tried) -> bool:
    """Whether its host was started again just when it came to its end, so that nobody could write that down."""
    return any(one.ended <= boot < one.ended + MOMENT for boot in lab.hosts[one.host].boots)


def was_silent(host: LabHost, begin: float, end: float) -> bool:
    """Whether the host gave no sign of life for as long as the documents say, at some time in between."""
    return any(min(end, thaw) - max(begin, freeze) >= host.silence for freeze, thaw in host.frozen)


def orphans(lab: Lab, *, seconds: float = 0.0) -> list[str]:
    """0 orphans: no process of any job lives on a host, by /proc, once `seconds` have gone by."""
    end = time.monotonic() + seconds
    while True:
        found = [
            f"orphan: on {host.name} there is still: {line}"
            for host in lab.hosts.values()
            for user in PEOPLE
            for line in host.inside.run(["sh", "-c", LIVING], user=user).decode().splitlines()
        ]
        if not found or time.monotonic() > end:
            return found
        time.sleep(0.2)


def left_behind(lab: Lab) -> list[str]:
    """0 results left behind: no attempt that was started lies in a spool."""
    look = "cd /home/$0/.dstack/spool 2> /dev/null && grep -l started */verdict 2> /dev/null || true"
    return [
        f"left behind: {line.split('/')[0]} lies in the spool of {user} on {host.name}"
        for host in lab.hosts.values()
        for user in PEOPLE
        for line in host.inside.run(["sh", "-c", look, user]).decode().split()
    ]


def runs(lab: Lab) -> list[dict[str, Any]]:
    """All runs, as `ps` shows them."""
    found: list[dict[str, Any]] = json.loads(lab.laptops["alice"].dstack("ps", "-a", "--json").output())
    return found


def views_of(lab: Lab, names: Iterable[str] | None = None) -> dict[str, dict[str, Any]]:
    """These runs, or all, by their names."""
    found = {view["run"]: view for view in runs(lab)}
    return found if names is None else {name: found[name] for name in names}


def outcomes(lab: Lab, words: Words, views: Mapping[str, dict[str, Any]]) -> list[str]:
    """Each run has come to an end, and to a good one unless somebody stopped it or its host really failed it."""
    found = []
    for name, view in views.items():
        if view["status"] == "running":
            found.append(f"no end: {name} is still running: {_line(view)}")
        elif view["status"] != "succeeded" and name not in words.stopped and not _failed_by_host(lab, view):
            found.append(f"wrong end: nobody stopped {name} and no host failed it, and it is {_line(view)}")
    return found


def _line(view: Mapping[str, Any]) -> str:
    jobs = [f"{job['workflow']} {job['status']} ({job.get('reason') or '-'})" for job in view["jobs"]]
    return f"{view['status']}: {', '.join(jobs)}"


def _failed_by_host(lab: Lab, view: Mapping[str, Any]) -> bool:
    """Whether every job of the run that failed by itself did so where its host was started again, or fell silent."""
    bad = [job for job in view["jobs"] if job["status"] in ("failed", "lost")]
    hosts = [lab.hosts[job["host"]] for job in bad if job.get("host") in lab.hosts]
    return len(hosts) == len(bad) > 0 and all(host.boots or was_silent(host, 0.0, 1e12) for host in hosts)


def missing(lab: Lab, views: Mapping[str, dict[str, Any]]) -> list[str]:
    """Every success has a result in the bucket: what the job says that it made is what a colleague pulls."""
    good = {(name, job["workflow"]) for name, view in views.items() for job in view["jobs"] if _is_new(job)}
    made = {(one.run, one.job): one for one in lab.tried() if one.ended}
    found = [f"no mark: {job} succeeded in {name}, and never ended" for name, job in good - set(made)]
    laptop = lab.laptops["bob"]
    chosen = [one for key, one in made.items() if key in good][:PULLED]
    pulls = [laptop.start("artifacts", "pull", one.run, one.job, "-o", f"/tmp/pulled/{one.id}") for one in chosen]
    for one, pull in zip(chosen, pulls, strict=True):
        assert pull is not None
        laptop.wait(pull)
        look = f"cat $(find /tmp/pulled/{one.id} -name made) /dev/null"
        text = laptop.inside.run(["sh", "-c", look]).decode()
        if text != f"{one.job} of {one.seed}\n":
            found.append(f"wrong result: {one} made {one.job} of {one.seed}, and what is pulled is {text!r}\n{pull}")
    return found


def _is_new(job: Mapping[str, Any]) -> bool:
    """Whether a job succeeded in this very run."""
    return bool(job["status"] == "succeeded")


def finished(lab: Lab, words: Words, views: Mapping[str, dict[str, Any]]) -> list[str]:
    """What came to its end by its own mark is a success of the run that it was tried for."""
    status = {(name, job["workflow"]): job["status"] for name, view in views.items() for job in view["jobs"]}
    excused = {run for _, run in words.lost} | words.stopped
    ended = [one for one in lab.tried() if one.ended and one.run not in excused and not was_cut(lab, one)]
    return [
        f"lost work: {one} came to its end, and there it is {status.get((one.run, one.job))}"
        for one in ended
        if status.get((one.run, one.job)) not in ("succeeded", "reused")
    ]


def checked(lab: Lab) -> list[str]:
    """`fsck` finds nothing wrong, every byte read."""
    command = lab.laptops["alice"].dstack("fsck", "--deep", code=None)
    return [] if command.code() == 0 else [f"fsck says:\n{command.output()}"]


def tracebacks(lab: Lab) -> list[str]:
    """No command dies of an error of its own."""
    commands = [command for laptop in lab.laptops.values() for command in laptop.commands]
    return [f"traceback:\n{command}" for command in commands if "Traceback" in command.output()]


def hung(lab: Lab) -> list[str]:
    """Once all is healed and all runs have ended, no command goes on."""
    commands = [command for laptop in lab.laptops.values() for command in laptop.commands]
    return [f"hangs: {command}" for command in commands if not command.is_over()]


def names_in(texts: Sequence[str]) -> list[str]:
    """The names of runs that began in these outputs."""
    return [match.group(1) for text in texts if (match := NAME.search(text))]
