"""An attended run whose laptop falls silent: the hosts stood by, go on by themselves, and the laptop may come back."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from dstack.app.coordination.run import submit
from dstack.app.coordination.standby import STANDBY_POLL_S
from dstack.cli.command_session import say
from dstack.cli.runs.run_arguments import read_arguments
from dstack.core.liveness import LONGEST_SILENCE_S
from dstack.session.session import Session
from dstack.session.standby import STANDBY_DELAY_S
from dstack.session.submission import plan_run, rename
from dstack.wire import LEASE_S
from tests.support.buckets.object_stores import ministack
from tests.support.buckets.request_log import STANDBY, RequestLog, Requests, documented
from tests.support.hosts.farm import Farm, TestHost
from tests.support.hosts.home import Home
from tests.support.people.laptop import Laptop
from tests.support.people.pipeline import GATE, MARKS, entry, marks, write_inventory
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(600)


def parts(run: str) -> str:
    """Three jobs at once, more than two hosts of one slot can hold, and one after them that needs a secret."""
    text = ""
    for number in (1, 2, 3):
        text += f"""
  - name: {run}-{number}
    depends-on: {{repo: {{include: []}}}}
    commands:
      - echo {run}-{number} >> {MARKS}
      - while [ ! -e {GATE} ]; do sleep 0.05; done
      - echo {number} > {number}.txt
    artifacts: ["{number}.txt"]"""
    return f"""{text}
  - name: {run}
    depends-on: [{run}-1, {run}-2, {run}-3]
    secrets: [TOKEN]
    commands:
      - echo {run} with $TOKEN >> {MARKS}
      - cat 1.txt 2.txt 3.txt > all.txt
    artifacts: [all.txt]"""


ONE = f"""workflows:
  - name: one
    commands:
      - echo one >> {MARKS}
      - while [ ! -e {GATE} ]; do sleep 0.05; done
  - {{name: quick, commands: [echo quick]}}
"""


def log_of(host: TestHost) -> str:
    """The log of the coordinators of a host; "" where there was none."""
    done = host.exec(["sh", "-c", "cat /home/alice/.dstack/coordinators/*.log"])
    return done.output.decode() if done.code == 0 else ""


def work_on(laptop: Laptop, hosts: dict[str, TestHost], home: Home, bucket: str, workflows: str, **more: str) -> Laptop:
    """Give the laptop these hosts, this bucket, and a project."""
    home.trust(*hosts.values())
    write_inventory(laptop, {name: entry(host, home.key.file, more=more) for name, host in hosts.items()})
    (laptop.home / ".dstack/config.yaml").write_text(f"bucket: {bucket}\n")
    laptop.write({".dstack/workflows.yaml": workflows})
    laptop.commit()
    return laptop


def set_secrets(laptop: Laptop, values: dict[str, str]) -> None:
    (laptop.root / ".env").write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    (laptop.root / ".gitignore").write_text(".env\n")


def end(process: subprocess.Popen[str], seconds: float = 90) -> str:
    """All that an attended run printed, which must succeed."""
    out, err = process.communicate(timeout=seconds)
    assert process.returncode == 0, out + err
    return out + err


def newest(laptop: Laptop, count: int) -> list[str]:
    return [line.split()[0] for line in laptop.dstack("ps").stdout.splitlines()[1 : count + 1]]


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    """A folder that hosts and laptops share."""
    folder = tmp_path / "bucket"
    folder.mkdir()
    return folder


def test_hosts_go_on_when_laptops_fall_silent_and_one_of_them_comes_back(
    farm: Farm, ssh_home: Home, bucket: Path, tmp_path: Path
) -> None:
    """One laptop is killed, the other freezes with jobs that run, and with places in the queues of both hosts."""
    hosts = farm.start(2, shared=bucket)
    workflows = f"workflows:{parts('killed')}{parts('frozen')}\n"
    laptop = Laptop(tmp_path, home=ssh_home.path)
    work_on(laptop, {"gpu-1": hosts[0], "gpu-2": hosts[1]}, ssh_home, str(bucket), workflows)
    set_secrets(laptop, {"TOKEN": "Quiet-Fjord-88121"})
    killed, frozen = laptop.start("run", "killed"), laptop.start("run", "frozen")
    for host in hosts:
        until("both runs are left to it", lambda host=host: log_of(host).count("stands by") == 2, seconds=60)  # type: ignore[misc]
    running = marks(hosts)
    assert len(running) == 2, "each host has one slot"

    def standing_by() -> int:
        beats = [path.read_text() for path in bucket.glob("projects/*/coordinators/*/hb")]
        return sum('"standby"' in beat for beat in beats)

    until("both laptops name who stands by", lambda: standing_by() == 2, seconds=60)
    killed.kill()
    killed.communicate()
    said = laptop.dstack("ps").stdout
    assert "gpu-1, gpu-2 stand by and go on with it within 3 min" in said, said
    assert "dstack attach" not in said
    os.kill(frozen.pid, signal.SIGSTOP)
    begin = time.monotonic()
    try:
        for host in hosts:
            host.run(["touch", GATE], user="alice")
        last = {f"{run} with Quiet-Fjord-88121" for run in ("killed", "frozen")}
        until(
            "the steps are done",
            lambda: last <= {*marks(hosts)},
            seconds=LONGEST_SILENCE_S + 4 * STANDBY_POLL_S + LEASE_S,
        )
        assert time.monotonic() - begin > LONGEST_SILENCE_S - STANDBY_POLL_S, (
            "nobody took it while the laptop may have lived"
        )
        names = newest(laptop, 2)
        for name in names:
            until("it is final", lambda name=name: laptop.show(name)["status"] != "running", seconds=60)  # type: ignore[misc]
    finally:
        os.kill(frozen.pid, signal.SIGCONT)
    assert "frozen" in end(frozen)
    steps = [f"{run}-{part}" for run in ("killed", "frozen") for part in (1, 2, 3)]
    assert Counter(marks(hosts)) == Counter([*steps, *last]), "each step started once"
    for name in names:
        assert {job["status"] for job in laptop.show(name)["jobs"]} == {"succeeded"}
        assert laptop.dstack("artifacts", "ls", name).stdout.count("all.txt") == 1
    for host in hosts:
        until("nobody is left", lambda host=host: not at_work(host), seconds=60)  # type: ignore[misc]


def at_work(host: TestHost) -> list[str]:
    """Whatever of dstack is at work on a host, as /proc shows it."""
    return [line for line in host.processes() if "python3 -I -S" in line]


def test_stand_by_reads_one_key_each_half_minute_and_ends_with_the_run(
    farm: Farm, ssh_home: Home, tmp_path: Path
) -> None:
    """While the laptop is frozen all that the store is asked for comes from the host."""
    host = farm.start(1)[0]
    store = ministack(farm.gateway())
    name = f"standby-{farm.id}"
    url = store.make(name)
    laptop = Laptop(tmp_path, home=ssh_home.path)
    laptop.environment |= store.environment
    work_on(laptop, {"gpu": host}, ssh_home, url, ONE, **{"forward-credentials": "true"})
    log = RequestLog(store, name)
    process = laptop.start("run", "one")
    until("it stands by", lambda: "stands by" in log_of(host) and marks([host]) == ["one"], seconds=60)
    shown = laptop.dstack("show").stdout
    assert host.run(["hostname"]).decode().strip() not in shown, "whoever stands by looks after nothing"
    os.kill(process.pid, signal.SIGSTOP)
    try:
        log.since()
        begin = time.monotonic()
        until(
            "it has looked twice more",
            lambda: time.monotonic() - begin > 2 * STANDBY_POLL_S + 5,
            seconds=3 * STANDBY_POLL_S,
        )
        asked, each = log.since(), documented()[STANDBY]
    finally:
        os.kill(process.pid, signal.SIGCONT)
    assert asked in (
        Requests(lists=looks * each.lists, reads=looks * each.reads, writes=looks * each.writes) for looks in (2, 3)
    )
    assert marks([host]) == ["one"]
    host.run(["touch", GATE], user="alice")
    assert "gpu would go on without this machine: it may be shut" in end(process)
    until("stand-by ends with the run", lambda: not at_work(host), seconds=STANDBY_POLL_S + 15)
    assert log_of(host).count("takes it up") == 0


def test_attach_leaves_ones_own_run_to_hosts_again_and_a_colleagues_to_none(
    farm: Farm, ssh_home: Home, bucket: Path, tmp_path: Path
) -> None:
    own, theirs = farm.start(2, shared=bucket)
    laptop = work_on(Laptop(tmp_path, home=ssh_home.path), {"gpu": own}, ssh_home, str(bucket), ONE)
    killed = laptop.start("run", "one")
    until("it stands by", lambda: log_of(own).count("stands by") == 1, seconds=60)
    killed.kill()
    killed.communicate()
    [name] = newest(laptop, 1)
    attached = laptop.start("attach", name)
    until("it stands by for attach", lambda: log_of(own).count("stands by") == 2, seconds=60)

    (laptop.root / "theirs.yaml").write_text(f"hosts:\n  far: {entry(theirs, ssh_home.key.file)}\n")
    ssh_home.trust(theirs)
    colleague = record_for_somebody_else(laptop)
    helper = laptop.start("attach", colleague, "--hosts", str(laptop.root / "theirs.yaml"))
    until("it runs there", lambda: marks([theirs]) == ["one"], seconds=60)
    begin = time.monotonic()
    until("longer than hosts are waited for", lambda: time.monotonic() - begin > 2 * STANDBY_DELAY_S, seconds=60)
    assert theirs.exec(["ls", "/home/alice/.dstack/coordinators"]).code != 0, "a colleague hands nothing over"
    for host in (own, theirs):
        host.run(["touch", GATE], user="alice")
    for process in (attached, helper):
        end(process)
    assert marks([own, theirs]) == ["one", "one"]


def record_for_somebody_else(laptop: Laptop) -> str:
    """A run of this project as Bob has recorded it on his machine, and left -> its name."""
    session = Session(root=laptop.root, home=laptop.home, environ=laptop.environment, hosts_file=None, notify=say)
    _, submission = plan_run(session, read_arguments(["one", "--rerun=one"]).request())
    theirs = replace(submission.record, user="bob", machine="elsewhere")
    made = submit(session.bucket, session.keys, replace(submission, record=theirs), rename=rename)
    return made.name


def test_a_short_run_is_left_to_nobody_and_a_host_without_the_bucket_is_named(
    farm: Farm, ssh_home: Home, tmp_path: Path
) -> None:
    host = farm.start(1)[0]
    laptop = Laptop(tmp_path, home=ssh_home.path)
    work_on(laptop, {"gpu": host}, ssh_home, str(tmp_path / "bucket"), ONE)
    laptop.dstack("init", "--bucket", str(tmp_path / "bucket"))
    laptop.dstack("run", "quick")
    assert host.exec(["ls", "/home/alice/.dstack/coordinators"]).code != 0, "not even the coordinator was brought"
    process = laptop.start("run", "one")
    until("it runs", lambda: marks([host]) == ["one"], seconds=60)
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "needs this machine" in line:
            break
    assert "the run needs this machine: this host does not see the bucket" in lines[-1].replace("gpu: ", "")
    host.run(["touch", GATE], user="alice")
    assert "needs this machine" not in end(process), "it is said once"
    assert STANDBY_DELAY_S < 10


MEMORY = """
import os, sys, glob
value = sys.argv[1].encode()
logs = [fd for fd in glob.glob("/proc/[0-9]*/fd/1") if "/.dstack/coordinators/" in os.readlink(fd)]
[pid] = {fd.split("/")[2] for fd in logs}
found = 0
with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
    for line in maps:
        span, mode = line.split()[:2]
        begin, end = (int(number, 16) for number in span.split("-"))
        if "r" in mode and "[v" not in line:
            try:
                memory.seek(begin)
                found += memory.read(end - begin).count(value)
            except OSError:
                continue
print("times", found)
"""
"""How often a value stands in the memory of the detached coordinator, as the kernel shows it to its own account."""


def holds(host: TestHost, value: str) -> bool:
    """Whether the detached coordinator has the value; skips where the kernel lets no account read its processes."""
    done = host.exec(["python3", "-c", MEMORY, value], user="alice")
    if done.code != 0 and b"PermissionError" in done.output:
        pytest.skip("this kernel shows an account no memory of its own processes: /proc/sys/kernel/yama/ptrace_scope")
    assert done.code == 0, done.output
    word, times = done.output.decode().split()
    assert word == "times"
    return int(times) > 0


def test_a_host_gets_the_secrets_of_the_jobs_that_it_can_run_and_no_others(
    farm: Farm, ssh_home: Home, bucket: Path, tmp_path: Path
) -> None:
    """The small host has not the memory that the second job asks for."""
    large, small = farm.start(2, shared=bucket)
    small.container.update(mem_limit="512m", memswap_limit="512m")
    workflows = f"""workflows:
  - name: plain
    secrets: [PLAIN]
    commands:
      - echo plain >> {MARKS}
      - while [ ! -e {GATE} ]; do sleep 0.05; done
  - name: heavy
    depends-on: [plain]
    secrets: [HEAVY]
    resources: {{memory: 1GB}}
    commands: ["echo heavy ${{#HEAVY}} >> {MARKS}"]
"""
    laptop = Laptop(tmp_path, home=ssh_home.path)
    work_on(laptop, {"large": large, "small": small}, ssh_home, str(bucket), workflows)
    values = {"PLAIN": "Quiet-Fjord-88121", "HEAVY": "Loud-Meadow-40917"}
    set_secrets(laptop, values)
    process = laptop.start("run", "heavy")
    try:
        for host in (large, small):
            until("it stands by", lambda host=host: "stands by" in log_of(host), seconds=60)  # type: ignore[misc]
        assert {name: holds(large, value) for name, value in values.items()} == {"PLAIN": True, "HEAVY": True}
        assert {name: holds(small, value) for name, value in values.items()} == {"PLAIN": True, "HEAVY": False}
    finally:
        for host in (large, small):
            host.run(["touch", GATE], user="alice")
        end(process)
    assert Counter(marks([large, small])) == Counter(["plain", "heavy 17"])
