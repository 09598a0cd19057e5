"""A secret reaches its job and nothing else: sought in every encoding on laptop, host, bucket, screen and engine."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lacking import missing
from tests.support.checkout import ROOT
from tests.support.hosts.farm import SOCKET, Farm, TestHost
from tests.support.hosts.home import Home
from tests.support.people.laptop import Laptop
from tests.support.people.pipeline import entry, write_inventory
from tests.support.secrets import keyring_backends
from tests.support.secrets.canaries import SAY, VALUE, Sampler, encodings, leaks, leaks_below, leaks_in_processes
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(300)

IMAGE = "python:3.11-slim"
LOOK = """
import os, sys
for pid in filter(str.isdigit, os.listdir("/proc")):
    for face in ("cmdline", "environ"):
        try:
            sys.stdout.buffer.write(open(f"/proc/{pid}/{face}", "rb").read() + b"\\n")
        except OSError:
            sys.stdout.buffer.write(face.encode() + b" refused\\n")
"""
"""What another account sees of all processes."""


def with_vault(laptop: Laptop, vault: Path) -> Laptop:
    """A keyring outside of the home, so that nothing in it may hold a value."""
    laptop.environment |= {
        "PYTHON_KEYRING_BACKEND": "tests.support.secrets.keyring_backends.Working",
        keyring_backends.FILE: str(vault),
        "PYTHONPATH": str(ROOT),
    }
    return laptop


def set_secret(laptop: Laptop, name: str = "TOKEN") -> None:
    subprocess.run(
        [sys.executable, "-P", "-m", "dstack", "secrets", "set", name],
        cwd=laptop.root,
        env=laptop.environment,
        input=VALUE.encode(),
        capture_output=True,
        check=True,
    )


def write_job(laptop: Laptop, gate: str, image: str = "") -> None:
    head = f"    image: {image}\n" if image else ""
    laptop.write(
        {
            "say.py": SAY,
            ".dstack/workflows.yaml": f"workflows:\n  - name: use\n{head}    secrets: [TOKEN]\n    commands:\n"
            f'      - python3 say.py\n      - printf %s "$TOKEN" | sha256sum | cut -c1-16\n      - echo said\n'
            f"      - while [ ! -e {gate} ]; do sleep 0.05; done\n      - mkdir made; echo made > made/file\n"
            f"      - echo $TOKEN >&2\n    artifacts: [made]\n",
        }
    )
    laptop.commit()


def assert_log(log: str) -> None:
    digest = hashlib.sha256(VALUE.encode()).hexdigest()[:16]
    assert log.count("***") == 10, log
    assert digest in log
    assert leaks(log.encode()) == []


def as_bob(host: TestHost) -> bytes:
    return host.run(["python3", "-c", LOOK], user="bob")


def disk_of(host: TestHost) -> bytes:
    places = "/home /root /tmp /run /var/tmp /var/lib /var/log /dev/shm"
    script = f"tar cf - --ignore-failed-read {places} 2>/dev/null; true"
    return host.run(["sh", "-c", script])


def test_the_canaries_are_what_the_job_says(tmp_path: Path) -> None:
    """Without a mask every one of them is found: the other tests look for what really would be there."""
    done = subprocess.run(
        [sys.executable, "-c", SAY], env={**os.environ, "TOKEN": VALUE}, capture_output=True, check=True
    )
    assert leaks(done.stdout) == list(encodings())
    (tmp_path / "file").write_bytes(done.stdout)
    assert len(leaks_below(tmp_path)) == len(encodings())


@pytest.mark.parametrize("how", ["attached", "detached", "by itself"])
def test_no_trace_of_a_secret_on_a_host_over_ssh(farm: Farm, ssh_home: Home, tmp_path: Path, how: str) -> None:
    """`by itself`: the host sees the bucket, and its own coordinator got the secret with the run."""
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    host = farm.start(shared=bucket if how == "by itself" else None)[0]
    detached = how != "attached"
    host.run(["useradd", "--create-home", "bob"])
    ssh_home.trust(host)
    laptop = with_vault(Laptop(tmp_path / "laptop", home=ssh_home.path), tmp_path / "vault")
    write_inventory(laptop, {"gpu": entry(host, ssh_home.key.file)})
    write_job(laptop, "/home/alice/gate")
    if how == "by itself":
        (laptop.home / ".dstack/config.yaml").write_text(f"bucket: {bucket}\n")
    set_secret(laptop)
    process = laptop.start("run", "use", *(["-d"] if detached else []))
    log = "cat /home/alice/.dstack/spool/*/log 2>/dev/null || true"
    until("the job has spoken", lambda: b"said\n" in host.run(["sh", "-c", log]), seconds=60)
    seen = as_bob(host)
    assert b"environ refused" in seen
    assert b"DSTACK_ATTEMPT" not in seen
    assert b"script.sh" in seen, "the job is not among the processes that another account sees"
    assert (leaks(seen), leaks_in_processes(), leaks(disk_of(host))) == ([], [], [])
    host.run(["touch", "/home/alice/gate"], user="alice")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    name = laptop.dstack("ps").stdout.splitlines()[1].split()[0]
    until("the run ends", lambda: laptop.show(name)["status"] == "succeeded", seconds=60)
    assert_log(laptop.dstack("logs", name, "use").stdout)
    assert leaks((out + err).encode()) == []
    assert detached or out.count("***") == 10
    assert leaks(disk_of(host)) == []
    assert leaks_below(laptop.home, laptop.root, bucket) == []
    assert ("by itself" in out) == (how == "by itself")


def test_no_trace_of_a_secret_of_a_container(farm: Farm, ssh_home: Home, tmp_path: Path) -> None:
    if not Path(SOCKET).is_socket():
        missing("docker", f"this one has no socket at {SOCKET}")
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    host = farm.with_docker(shared)
    ssh_home.trust(host)
    laptop = with_vault(Laptop(tmp_path / "laptop", home=ssh_home.path), tmp_path / "vault")
    write_inventory(laptop, {"gpu": entry(host, ssh_home.key.file).replace("}", f", dir: {shared}/dstack}}")})
    write_job(laptop, f"{shared}/dstack/spool/*/work/gate", image=IMAGE)
    set_secret(laptop)
    with Sampler() as sampler:
        _run_in_a_container(farm, laptop, shared)
    assert (sampler.found, sampler.looks > 20) == ([], True)
    assert leaks_below(shared, laptop.home, laptop.root) == []
    assert leaks(disk_of(host)) == []


def _run_in_a_container(farm: Farm, laptop: Laptop, shared: Path) -> None:
    process = laptop.start("run", "use")
    spoken = lambda: any(b"said\n" in path.read_bytes() for path in shared.glob("dstack/spool/*/log"))  # noqa: E731
    until("the job has spoken", spoken, seconds=90)
    containers = farm.client.containers.list(filters={"label": "dstack.attempt"})
    mine = [one for one in containers if any(str(shared) in str(mount) for mount in one.attrs["Mounts"])]
    assert len(mine) == 1
    inspected = json.dumps(mine[0].attrs, ensure_ascii=False) + json.dumps(mine[0].attrs)
    assert "dstack.attempt" in inspected
    assert (leaks(inspected.encode()), leaks_below(shared)) == ([], [])
    for work in shared.glob("dstack/spool/*/work"):
        (work / "gate").touch()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    assert leaks((out + err).encode()) == []
    name = laptop.dstack("ps").stdout.splitlines()[1].split()[0]
    assert_log(laptop.dstack("logs", name, "use").stdout)


def test_a_coordinator_that_lacks_the_secret_waits_and_says_for_whose(tmp_path: Path) -> None:
    """The one that had it is killed between two jobs; the next takes the second job only once it has the value."""
    laptop = with_vault(Laptop(tmp_path / "laptop"), tmp_path / "vault")
    laptop.write(
        {
            ".dstack/workflows.yaml": f"workflows:\n  - name: first\n    commands:\n"
            f"      - echo first >> {laptop.marks}\n      - while [ ! -e {tmp_path}/gate ]; do sleep 0.05; done\n"
            f"  - name: second\n    depends-on: [first]\n    secrets: [TOKEN]\n    commands:\n"
            f"      - echo second ${{#TOKEN}} >> {laptop.marks}\n"
        }
    )
    laptop.commit()
    set_secret(laptop)
    process = laptop.start("run", "second")
    until("the first job runs", lambda: laptop.local_marks() == ["first"], seconds=60)
    process.kill()
    process.communicate()
    laptop.dstack("secrets", "rm", "TOKEN")
    (tmp_path / "gate").touch()
    name = laptop.dstack("ps").stdout.splitlines()[1].split()[0]
    waiting = laptop.start("attach", name)
    user = laptop.show(name)["user"]
    assert waiting.stdout is not None
    _until_said(waiting.stdout.readline, f"waits for secret TOKEN of {user}")
    assert laptop.local_marks() == ["first"]
    set_secret(laptop)
    laptop.dstack("attach", name)
    waiting.communicate(timeout=60)
    assert laptop.local_marks() == ["first", f"second {len(VALUE)}"]


def _until_said(read: Callable[[], str], text: str) -> None:
    said = []
    while line := read():
        said.append(line)
        if text in line:
            return
    raise AssertionError(f"{text!r} was not said\n{''.join(said)}")
