"""Hosts that reach the bucket work by themselves: whoever started the run is not needed any more."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from dstack.core.liveness import LONGEST_SILENCE_S
from tests.support.hosts.farm import Farm, TestHost
from tests.support.hosts.home import Home
from tests.support.people.laptop import Laptop
from tests.support.people.pipeline import FILES, GATE, MARKS, coordinators, entry, marks, write_inventory
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(400)

SHORT_SILENCE_S = 40
"""Seconds instead of the 120 that count elsewhere; long enough for a look before the take-over on a busy machine."""

PARTS = "".join(
    f"""
  - name: part-{number}
    depends-on: {{repo: {{include: []}}}}
    commands:
      - echo part-{number} >> {MARKS}
      - while [ ! -e {GATE} ]; do sleep 0.05; done
      - echo {number} > {number}.txt
    artifacts: ["{number}.txt"]"""
    for number in (1, 2, 3)
)
WIDE = f"""workflows:{PARTS}
  - name: join
    depends-on: [part-1, part-2, part-3]
    commands: [cat 1.txt 2.txt 3.txt > all.txt]
    artifacts: [all.txt]
"""
AGAIN = f"""
workflows:
  - name: once
    retry: {{attempts: 2, on: [lost]}}
    commands:
      - echo once >> {MARKS}
      - while [ ! -e {GATE} ]; do sleep 0.05; done
"""


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    """A folder that hosts and laptops share."""
    folder = tmp_path / "bucket"
    folder.mkdir()
    return folder


@pytest.fixture
def hosts(farm: Farm, bucket: Path) -> list[TestHost]:
    return farm.start(3, shared=bucket)


@pytest.fixture
def laptop(hosts: list[TestHost], bucket: Path, ssh_home: Home, tmp_path: Path) -> Laptop:
    made = Laptop(tmp_path, home=ssh_home.path)
    ssh_home.trust(*hosts)
    key = ssh_home.key.file
    write_inventory(made, {f"gpu-{number}": entry(host, key) for number, host in enumerate(hosts, 1)})
    (made.home / ".dstack/config.yaml").write_text(f"bucket: {bucket}\n")
    made.write(FILES)
    made.commit()
    return made


def open_gates(hosts: list[TestHost]) -> None:
    for host in hosts:
        host.run(["touch", GATE], user="alice")


def test_a_run_that_was_left_goes_on_without_a_process_of_this_machine(laptop: Laptop, hosts: list[TestHost]) -> None:
    told = laptop.dstack("run", "-d", "evaluate").stdout
    name = told.split()[0]
    assert "goes on by itself on gpu-1, gpu-2, gpu-3: this machine may be shut" in told
    assert not list((laptop.home / ".dstack/coordinators").glob("*")), "nothing was started here"
    open_gates(hosts)
    until("the run is final", lambda: laptop.show(name)["status"] != "running", seconds=90)
    assert [job["status"] for job in laptop.show(name)["jobs"]] == ["succeeded"] * 4
    assert sorted(marks(hosts)) == ["baseline", "evaluate", "prepare", "train"]
    until("the coordinators have ended", lambda: not any(coordinators(host) for host in hosts), seconds=30)
    assert "picture" in laptop.dstack("logs", name, "evaluate").stdout


def test_hosts_that_do_not_see_the_bucket_are_driven_from_here_in_the_same_run(
    farm: Farm, hosts: list[TestHost], laptop: Laptop, ssh_home: Home
) -> None:
    """Three jobs at once on three hosts with one slot each, of which one is out of the bucket's reach."""
    apart = farm.start(1)[0]
    ssh_home.trust(apart)
    key = ssh_home.key.file
    fleet = [*hosts[:2], apart]
    write_inventory(
        laptop, {name: entry(host, key) for name, host in zip(("near-1", "near-2", "far"), fleet, strict=True)}
    )
    laptop.write({".dstack/workflows.yaml": WIDE, ".dstack/variables.yaml": ""})
    laptop.commit()
    # A host that is new to dstack gets the runner now: a hand-over waits ten seconds for a host and no longer.
    laptop.dstack("hosts", "check", "far")
    told = laptop.dstack("run", "-d", "join").stdout
    name = told.split()[0]
    assert "by itself on near-1, near-2, and on far as long as this machine is awake" in told
    assert "far: this host does not see the bucket" in told
    until("all three run at once", lambda: sorted(marks(fleet)) == ["part-1", "part-2", "part-3"], seconds=60)
    assert all(len(marks([host])) == 1 for host in fleet)
    open_gates(fleet)
    until("the run is final", lambda: laptop.show(name)["status"] != "running", seconds=90)
    shown = laptop.show(name)
    assert [job["status"] for job in shown["jobs"]] == ["succeeded"] * 4
    assert {job["host"] for job in shown["jobs"][:3]} == {"near-1", "near-2", "far"}
    assert len(marks(fleet)) == 3


def test_a_job_whose_host_died_runs_again_where_retry_says_lost(laptop: Laptop, hosts: list[TestHost]) -> None:
    """Its coordinator died with it: the others see the silence, and the next attempt is made without anybody's word."""
    for host in hosts:
        host.configure(f"SetEnv DSTACK_SILENCE={SHORT_SILENCE_S}")
    laptop.environment["DSTACK_SILENCE"] = str(SHORT_SILENCE_S)
    laptop.write({".dstack/workflows.yaml": AGAIN, ".dstack/variables.yaml": ""})
    laptop.commit()
    name = laptop.dstack("run", "-d", "once").stdout.split()[0]
    until("it runs", lambda: marks(hosts) == ["once"], seconds=60)
    died = next(host for host in hosts if marks([host]))
    died.kill()
    others = [host for host in hosts if host is not died]
    until("ps says so long before", lambda: "no sign of " in laptop.dstack("ps").stdout, seconds=100)
    assert marks(others) == []
    until("it runs elsewhere", lambda: marks(others) == ["once"], seconds=3 * SHORT_SILENCE_S)
    open_gates(others)
    until("the run is final", lambda: laptop.show(name)["status"] != "running", seconds=60)
    [job] = laptop.show(name)["jobs"]
    assert (job["status"], job["attempt"]) == ("succeeded", 2)


def test_whoever_attaches_takes_over_from_killed_coordinators_without_waiting_for_their_silence(
    laptop: Laptop, hosts: list[TestHost]
) -> None:
    """The job lives, its host knows that its coordinator does not, and the laptop may ask it."""
    laptop.write({".dstack/workflows.yaml": AGAIN, ".dstack/variables.yaml": ""})
    laptop.commit()
    name = laptop.dstack("run", "-d", "once").stdout.split()[0]
    until("it runs", lambda: marks(hosts) == ["once"], seconds=60)
    for host in hosts:
        host.run(["pkill", "-9", "-f", "^python3 -I -S"])  # runners and supervisors were started by their full path
    open_gates(hosts)
    begin = time.monotonic()
    process = laptop.start("attach", name)
    out, told = process.communicate(timeout=100)
    assert process.returncode == 0, out + told
    assert time.monotonic() - begin < LONGEST_SILENCE_S - 20
    [job] = laptop.show(name)["jobs"]
    assert (job["status"], job["attempt"]) == ("succeeded", 1)
    assert marks(hosts) == ["once"]


def test_ctrl_c_leaves_the_run_to_the_hosts_which_go_on_at_once(laptop: Laptop, hosts: list[TestHost]) -> None:
    process = laptop.start("run", "evaluate")
    until("it runs", lambda: marks(hosts) == ["prepare"] or "train" in marks(hosts), seconds=60)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "this machine may be shut" in told
    name = told.split("detached: ")[1].split()[0]
    open_gates(hosts)
    begin = time.monotonic()
    until("the run is final", lambda: laptop.show(name)["status"] != "running", seconds=100)
    assert time.monotonic() - begin < 60, "nobody waits for the silence of a coordinator that said goodbye"
    assert laptop.show(name)["status"] == "succeeded"
    assert sorted(marks(hosts)) == ["baseline", "evaluate", "prepare", "train"]


def test_ctrl_c_of_attach_leaves_the_run_to_the_hosts_again(
    laptop: Laptop, hosts: list[TestHost], bucket: Path
) -> None:
    name = laptop.dstack("run", "-d", "evaluate").stdout.split()[0]
    process = laptop.start("attach", name)
    places = "projects/*/runs/*/coordinators/*"
    until("it is attached", lambda: len([*bucket.glob(places)]) == 1 + len(hosts), seconds=60)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert f"detached: {name} goes on by itself on gpu-1, gpu-2, gpu-3: this machine may be shut" in told
    open_gates(hosts)
    until("the run is final", lambda: laptop.show(name)["status"] != "running", seconds=100)
    assert sorted(marks(hosts)) == ["baseline", "evaluate", "prepare", "train"]


def test_stop_reaches_a_run_that_only_hosts_look_after(laptop: Laptop, hosts: list[TestHost]) -> None:
    laptop.write({".dstack/workflows.yaml": AGAIN, ".dstack/variables.yaml": ""})
    laptop.commit()
    name = laptop.dstack("run", "-d", "once").stdout.split()[0]
    until("it runs", lambda: marks(hosts) == ["once"], seconds=60)
    assert "stopped" in laptop.dstack("stop", name).stdout
    assert laptop.show(name)["status"] == "stopped"
    until("nothing of it is left", lambda: not any(coordinators(host) for host in hosts), seconds=30)


def test_what_was_called_lost_and_lives_is_ended_when_nobody_waits_for_it(
    laptop: Laptop, hosts: list[TestHost]
) -> None:
    """A wrong word costs the job, and not the slot for days."""
    laptop.write({".dstack/workflows.yaml": AGAIN.replace("attempts: 2", "attempts: 1"), ".dstack/variables.yaml": ""})
    laptop.commit()
    name = laptop.dstack("run", "-d", "once").stdout.split()[0]
    until("it runs", lambda: marks(hosts) == ["once"], seconds=60)
    assert "once: lost" in laptop.dstack("lost", name, "--yes").stdout
    until("the run has ended", lambda: laptop.show(name)["status"] == "lost", seconds=60)
    until("nothing of it is left", lambda: not any(coordinators(host) for host in hosts), seconds=60)
    assert not any("script.sh" in line for host in hosts for line in host.processes())
