"""Two people with accounts of their own on one host: neither takes the other's living job for one that never was."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.hosts.farm import Farm, TestHost
from tests.support.hosts.home import ClientKey, Home
from tests.support.people.laptop import Laptop
from tests.support.waiting import until

MARKS = "/tmp/marks"
GATE = "/tmp/gate"
WORKFLOWS = f"""
workflows:
  - name: long
    commands:
      - echo "$(id -un)" >> {MARKS}
      - while [ ! -e {GATE} ]; do sleep 0.05; done
      - echo done > out.txt
    artifacts: [out.txt]
"""
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def host(farm: Farm) -> TestHost:
    made = farm.start()[0]
    made.run(["useradd", "--create-home", "--shell", "/bin/bash", "--password", "*", "bob"])
    made.run(["cp", "-r", "/home/alice/.ssh", "/home/bob/.ssh"])
    made.run(["chown", "-R", "bob:bob", "/home/bob/.ssh"])
    made.run(["sh", "-c", f"touch {MARKS} && chmod 666 {MARKS}"])
    return made


def laptop_of(folder: Path, key: ClientKey, host: TestHost, user: str) -> Laptop:
    """Both use one bucket and one project, and one entry for the host: who they are there says their ssh."""
    home = Home(folder / user / "home", key)
    home.trust(host)
    home.config.write_text(f"Host {host.address}\n  User {user}\n  IdentityFile {key.file}\n")
    laptop = Laptop(folder / user, home=home.path)
    (folder / "bucket").mkdir(exist_ok=True)
    laptop.write(
        {
            ".dstack/workflows.yaml": WORKFLOWS,
            ".dstack/config.yaml": f"{{bucket: {folder / 'bucket'}, project: shared}}",
            "hosts.yaml": f"hosts:\n  gpu: {{address: {host.address}, port: {host.port}, slots: 2}}\n",
        }
    )
    (laptop.root / ".gitignore").write_text("hosts.yaml\n.dstack/config.yaml\n")
    laptop.commit()
    return laptop


def test_a_colleague_with_another_account_starts_no_second_job(
    host: TestHost, client_key: ClientKey, tmp_path: Path
) -> None:
    """Alice's laptop is gone. Bob's account has never heard of her attempt, which says nothing of it."""
    alice, bob = (laptop_of(tmp_path, client_key, host, user) for user in ("alice", "bob"))
    first = alice.start("run", "long", "--hosts", "hosts.yaml")
    until("her job runs", lambda: host.run(["cat", MARKS]) == b"alice\n", seconds=60)
    first.kill()
    first.communicate()
    heard = tmp_path / "heard"
    with heard.open("wb") as stream:
        second = subprocess.Popen(
            [sys.executable, "-P", "-m", "dstack", "run", "long", "--hosts", "hosts.yaml"],
            cwd=bob.root,
            env=bob.environment,
            stdout=stream,
            stderr=stream,
        )
    until("he is told", lambda: "runs on as alice" in heard.read_text(), told=heard.read_text)
    assert "alice must type: dstack attach" in heard.read_text()
    assert "unreachable" not in heard.read_text()
    assert host.run(["cat", MARKS]) == b"alice\n", "nothing was started twice"
    host.run(["touch", GATE])
    second.terminate()
    second.wait(timeout=60)
    back = alice.dstack("run", "long", "--hosts", "hosts.yaml")
    assert "succeeded" in back.stdout or "reused" in back.stdout
    assert host.run(["cat", MARKS]) == b"alice\n", "she came back to her own attempt"


def test_what_will_never_come_back_is_called_lost(host: TestHost, client_key: ClientKey, tmp_path: Path) -> None:
    alice = laptop_of(tmp_path, client_key, host, "alice")
    first = alice.start("run", "long", "--hosts", "hosts.yaml")
    until("her job runs", lambda: host.run(["cat", MARKS]) == b"alice\n", seconds=60)
    first.kill()
    first.communicate()
    host.kill()
    [run] = json.loads(alice.dstack("ps", "--json").stdout)
    asked = alice.dstack("lost", run["run"], code=None)
    assert asked.returncode == 2
    assert "--yes says that you are sure" in asked.stderr
    told = alice.dstack("lost", run["run"], "--yes", "--hosts", "hosts.yaml").stdout
    assert "long: attempt 1 on gpu, looked after by" in told
    assert "long: lost" in told
    until("the run has ended", lambda: alice.show(run["run"])["status"] != "running", seconds=60)
    [job] = alice.show(run["run"])["jobs"]
    assert (job["status"], job["attempt"]) == ("lost", 1)
    assert job["reason"].startswith("called lost by ")
    assert "nothing of it runs" in alice.dstack("lost", run["run"], "--yes").stdout
