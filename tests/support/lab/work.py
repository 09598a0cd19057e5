"""What people of the lab work on: the project, and the marks that its jobs make by themselves, outside of dstack.

Each attempt writes to a file of its own on its host a line when it begins, one every 0.2 s, and one at its end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MARKS = "/var/lib/lab"
GATE = f"{MARKS}/gate"
"""The long jobs of a host end when it is there."""
TICK = 0.2
"""Seconds between two marks of a job that is at work."""
JOBS = {"prep": 4, "train": 30, "plain": 20, "both": 4, "tidy": 60, "long": 0, "hard": 0}
"""Ticks of each job; those of 0 wait for the gate."""
INPUTS = {"train": ["prep"], "plain": ["prep"], "both": ["train", "plain"]}
RETRIED = ("train", "hard")
"""Those that are tried again when they are lost."""
SCRIPT = f"""
        mark={MARKS}/$job_id ticks=0
        echo "$EPOCHREALTIME begin JOB $seed $run_name $(id -un)" >> $mark
        while [ $ticks != TICKS ] && [ ! -e {GATE} ]; do
          sleep {TICK}
          ticks=$((ticks + 1))
          echo "$EPOCHREALTIME tick" >> $mark
        done
        mkdir -p JOB
        echo "JOB of $seed" > JOB/made
        echo "$EPOCHREALTIME end" >> $mark
"""


def _workflow(name: str, ticks: int) -> str:
    needs = ", ".join(INPUTS.get(name, []))
    retry = "    retry: {attempts: 2, on: [lost]}\n" if name in RETRIED else ""
    script = SCRIPT.replace("JOB", name).replace("TICKS", str(ticks or -1))
    return (
        f"  - name: {name}\n    depends-on: {{repo: {{include: []}}, workflows: [{needs}]}}\n{retry}"
        f"    artifacts: [{name}]\n    commands:\n      - |{script}"
    )


HOME_FILES = {".gitconfig": "[user]\nname = A Person\nemail = person@example.org\n"}
PROJECT = {
    ".dstack/workflows.yaml": "workflows:\n" + "".join(_workflow(name, ticks) for name, ticks in JOBS.items()),
    ".dstack/variables.yaml": "variables:\n  global:\n    seed: 0\n",
    ".dstack/config.yaml": "project: lab\n",
}


def inventory(hosts: Mapping[str, str], user: str | None, *, lent: bool = False, slots: int = 4) -> str:
    """A `hosts.yaml` of these hosts; `lent` is whether the user's keys for the bucket go with a run. Without a user
    it is the one of the laptop."""
    more = (f", user: {user}" if user else "") + (", forward-credentials: true" if lent else "")
    lines = [
        f"  {name}: {{address: {address}, identity-file: ~/.ssh/id, slots: {slots}{more}}}"
        for name, address in hosts.items()
    ]
    return "\n".join(["hosts:", *lines, ""])


@dataclass(slots=True)
class Tried:
    """One attempt, by its own marks alone. Times are times of day, in seconds."""

    id: str
    host: str
    job: str = ""
    seed: str = ""
    run: str = ""
    user: str = ""
    began: float = 0.0
    last: float = 0.0
    ended: float = 0.0

    def __str__(self) -> str:
        return f"{self.id} of {self.job} {self.seed} ({self.run}, {self.user} on {self.host})"


def read_marks(host: str, text: str) -> list[Tried]:
    """The attempts of a host, of lines `<attempt>:<time> <what> …`; the earliest first."""
    found: dict[str, Tried] = {}
    for line in text.splitlines():
        attempt, _, rest = line.partition(":")
        words = rest.split()
        if len(words) < 2:
            continue
        one, moment = found.setdefault(attempt, Tried(attempt, host)), float(words[0])
        one.last = max(one.last, moment)
        if words[1] == "begin":
            assert not one.began, f"attempt {attempt} began twice on {host}"
            one.began = moment
            one.job, one.seed, one.run, one.user = words[2:6]
        elif words[1] == "end":
            one.ended = moment
    return sorted(found.values(), key=lambda one: one.began)
