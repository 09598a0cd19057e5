"""Whole runs on a host: to the first line, with a long log, many jobs, and all of it reused."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from dstack.adapters.git.index_layer import QUIET_TIME_S
from tests.bench.measure import Row, interleaved, scaled, seconds
from tests.bench.place import Place, dstack_script, first_and_last, run_to_end

FIRST_LINE = "first-line-of-the-job"
HELLO = f"""
workflows:
  - name: hello
    commands: [echo {FIRST_LINE}]
"""
LOG_BYTES = 200_000_000
LOG_FILE = "/home/alice/log.txt"
LOG = f"""
workflows:
  - name: talk
    reuse: false
    commands: [cat {LOG_FILE}]
"""
FAN = 50


def cold(place: Place, rounds: int) -> Iterator[Row]:
    """A new process, a changed line of code, no open connection: until the job's first byte is on standard output."""
    laptop = place.laptop("cold", slots=4)
    laptop.write({".dstack/workflows.yaml": HELLO, "model.py": "rate = 0\n"})
    laptop.commit()
    script, numbers = str(dstack_script()), count(1)

    def first_line() -> float:
        laptop.write({"model.py": f"rate = {next(numbers)}\n"})
        time.sleep(2 * QUIET_TIME_S)
        return _until_line([script, "run", "hello"], laptop.root, laptop.environment)

    anchor = seconds(lambda: run_to_end(place.ssh("true"), laptop))
    ours, theirs = interleaved(first_line, anchor, rounds=rounds)
    yield Row(
        name="cold run to first log line",
        against="ssh host true",
        unit="ms",
        subject=scaled(ours, 1e3),
        anchor=scaled(theirs, 1e3),
        goal=2.0,
    )


def _until_line(command: list[str], cwd: Path, environment: dict[str, str]) -> float:
    """Seconds until the job's line has come; the run is then brought to its end, outside of the figure."""
    start = time.perf_counter()
    with subprocess.Popen(
        command,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        assert process.stdout is not None
        said, took = b"", None
        for line in process.stdout:
            said += line
            if took is None and FIRST_LINE.encode() in line:
                took = time.perf_counter() - start
    if took is None or process.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: exit {process.returncode}\n{said!r}")
    return took


def logs(place: Place, rounds: int) -> Iterator[Row]:
    """MB/s from the first to the last byte of a log of `LOG_BYTES`, without the start of either side."""
    make = "yes 'a line of a log, about as long as a line of a log of a training job is, with figures 0.123 0.456'"
    place.host.run(["sh", "-c", f"{make} | head -c {LOG_BYTES} > {LOG_FILE}"])
    laptop = place.laptop("logs", slots=4)
    laptop.write({".dstack/workflows.yaml": LOG})
    laptop.commit()

    def rate(command: list[str]) -> float:
        first, last, size = first_and_last(command, cwd=laptop.root, environment=laptop.environment)
        if size < LOG_BYTES:
            raise RuntimeError(f"{' '.join(command)}: only {size} bytes came")
        return size / (last - first) / 1e6

    script = str(dstack_script())
    ours, theirs = interleaved(
        lambda: rate([script, "run", "talk"]), lambda: rate(place.ssh("cat", LOG_FILE)), rounds=rounds
    )
    yield Row(
        name="log of an attached run",
        against="ssh host cat, AES-GCM",
        unit="MB/s",
        subject=ours,
        anchor=theirs,
        goal=0.8,
        more=True,
    )


def fan(place: Place, rounds: int) -> Iterator[Row]:
    """Wall time of a run of `FAN` jobs that do nothing, by their number, above that of a run of one of them."""
    names = [f"job-{number:02}" for number in range(FAN)]
    jobs = "".join(f'  - {{name: {name}, reuse: false, commands: [": {name}"]}}\n' for name in names)
    last = f'  - {{name: all, reuse: false, depends-on: {{workflows: [{", ".join(names)}]}}, commands: ["true"]}}\n'
    script = str(dstack_script())
    for slots in (4, None):
        laptop = place.laptop(f"fan-{slots or 'default'}", slots=slots)
        laptop.write({".dstack/workflows.yaml": f"workflows:\n{jobs}{last}"})
        laptop.commit()
        many, one = interleaved(
            seconds(lambda laptop=laptop: run_to_end([script, "run", "all"], laptop)),  # type: ignore[misc]
            seconds(lambda laptop=laptop: run_to_end([script, "run", names[0]], laptop)),  # type: ignore[misc]
            rounds=rounds,
        )
        each = tuple((whole - single) * 1e3 / FAN for whole, single in zip(many, one, strict=True))
        yield Row(
            name=f"a job of {FAN}, {f'{slots} slots' if slots else 'default slots'}",
            against="",
            unit="ms",
            subject=each,
            goal=25.0,
        )


def reuse(place: Place, rounds: int) -> Iterator[Row]:
    """Wall time of a run of three jobs of which every one is reused."""
    laptop = place.laptop("reuse", slots=4)
    steps = [("one", ""), ("two", "depends-on: [one], "), ("three", "depends-on: [two], ")]
    jobs = "".join(
        f"  - {{name: {name}, {needs}artifacts: [{name}.txt], commands: [date > {name}.txt]}}\n"
        for name, needs in steps
    )
    laptop.write({".dstack/workflows.yaml": f"workflows:\n{jobs}"})
    laptop.commit()
    script = str(dstack_script())
    run_to_end([script, "run", "three"], laptop)
    sessions = place.host.sessions()
    took = seconds(lambda: run_to_end([script, "run", "three"], laptop))
    took()
    values = tuple(took() for _ in range(rounds))
    if place.host.sessions() != sessions:
        raise RuntimeError("a reused run has reached for the host")
    yield Row(name="reused rerun of 3 jobs", against="", unit="s", subject=values, goal=0.5)
