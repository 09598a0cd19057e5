"""`image:` on a host over SSH: the commands run in that Docker image, and nothing of it is left behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.lacking import missing
from tests.support.hosts.farm import SOCKET, Farm, TestHost
from tests.support.hosts.home import Home
from tests.support.people.laptop import Laptop
from tests.support.people.pipeline import entry, write_inventory
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(300)

IMAGE = "python:3.11-slim"
ABSENT = "localhost:9/absent:1"


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """The folder of dstack on the host, at the same path for the engine."""
    folder = tmp_path / "shared"
    folder.mkdir(mode=0o755)
    return folder


@pytest.fixture
def host(farm: Farm, shared: Path) -> TestHost:
    if not Path(SOCKET).is_socket():
        missing("docker", f"this one has no socket at {SOCKET}")
    return farm.with_docker(shared)


@pytest.fixture
def laptop(host: TestHost, ssh_home: Home, shared: Path, tmp_path: Path) -> Laptop:
    made = Laptop(tmp_path, home=ssh_home.path)
    ssh_home.trust(host)
    write_inventory(made, {"gpu": entry(host, ssh_home.key.file).replace("}", f", dir: {shared}/dstack}}")})
    return made


def write_job(laptop: Laptop, *commands: str, image: str = IMAGE) -> None:
    lines = ["workflows:", "  - name: work", f"    image: {image}", "    commands:", "      - |"]
    lines += [f"        {command}" for command in commands]
    laptop.write({".dstack/workflows.yaml": "\n".join([*lines, "    artifacts: [made]", ""])})
    laptop.write({".dstack/variables.yaml": "variables:\n  work:\n    word: \"a 'b' $c\"\n", "code.txt": "shipped\n"})
    laptop.commit()


def containers(farm: Farm, shared: Path) -> list[str]:
    """Names of all containers, running or not, that have something of the shared folder mounted; the host apart."""
    found = []
    for container in farm.client.containers.list(all=True, filters={"label": "dstack.attempt"}, ignore_removed=True):
        if any(str(mount.get("Source", "")).startswith(f"{shared}/") for mount in container.attrs["Mounts"]):
            found.append(container.name)
    return found


def test_a_job_runs_in_its_image_and_its_artifacts_are_the_users(
    laptop: Laptop, host: TestHost, farm: Farm, shared: Path, tmp_path: Path
) -> None:
    """Code, variables, log and artifacts as without an image; the user's uid; no container, no file of root's."""
    write_job(
        laptop,
        "mkdir made; id -u > made/uid; stat -c %u made/uid > made/owner; cat code.txt > made/code",
        'printf %s "$word" > made/word; test -e /usr/sbin/sshd || echo image > made/where',
        "python3 -c 'import sys; print(\"in the image\", sys.version_info[:2])'",
    )
    run = laptop.run_json("work")["run"]
    assert laptop.dstack("logs", run, "work").stdout == "in the image (3, 11)\n"
    laptop.dstack("artifacts", "pull", run, "-o", str(tmp_path / "out"))
    made = {path.name: path.read_text().strip() for path in (tmp_path / "out/made").iterdir()}
    alice = host.run(["id", "-u", "alice"]).decode().strip()
    assert made == {
        "uid": alice,
        "owner": alice,
        "code": "shipped",
        "word": "a 'b' $c",
        "where": "image",
    }
    assert containers(farm, shared) == []
    assert host.run(["find", str(shared), "!", "-user", "alice"]) == b""


def test_stop_leaves_no_container(laptop: Laptop, farm: Farm, shared: Path, host: TestHost) -> None:
    """The program in the container gets TERM and its last words are in the log; then the container is gone."""
    write_job(
        laptop,
        "python3 -u -c '",
        "import signal, sys, time",
        'signal.signal(signal.SIGTERM, lambda *_: sys.exit("last words"))',
        'print("up")',
        "time.sleep(600)",
        "'",
    )
    name = laptop.dstack("run", "work", "-d").stdout.split()[0]
    until("the program is up", lambda: "up\n" in laptop.dstack("logs", name, "work").stdout, seconds=90)
    assert len(containers(farm, shared)) == 1
    laptop.dstack("stop", name)
    assert containers(farm, shared) == []
    until("the run ends", lambda: laptop.show(name)["status"] != "running", seconds=60)
    assert laptop.show(name)["status"] == "stopped"
    assert "last words\n" in laptop.dstack("logs", name, "work").stdout


def test_a_missing_image_is_said_in_the_log(laptop: Laptop, farm: Farm, shared: Path, host: TestHost) -> None:
    """The job fails with the image's name and docker's own words, in its log as in its reason."""
    write_job(laptop, "echo never", image=ABSENT)
    run = laptop.run_json("work", code=1)
    assert f"image: {ABSENT} could not be pulled" in run["jobs"][0]["reason"]
    log = laptop.dstack("logs", run["run"], "work").stdout
    assert f"image: {ABSENT} could not be pulled" in log
    assert "never" not in log.replace(ABSENT, "")
    assert containers(farm, shared) == []


def test_only_a_host_with_docker_is_asked(
    laptop: Laptop, host: TestHost, farm: Farm, ssh_home: Home, shared: Path, tmp_path: Path
) -> None:
    """The other host gets no such job; with that host alone, it is said before anything is recorded."""
    bare = farm.start(1)[0]
    ssh_home.trust(host, bare)
    key = ssh_home.key.file
    with_docker = entry(host, key).replace("}", f", dir: {shared}/dstack}}")
    write_inventory(laptop, {"bare": entry(bare, key), "gpu": with_docker})
    write_job(laptop, "mkdir made")
    assert laptop.run_json("work")["jobs"][0]["host"] == "gpu"
    write_inventory(laptop, {"bare": entry(bare, key)})
    refused = laptop.dstack("run", "work", "--rerun", code=3)
    assert "no host can run work: bare has no Docker that its user can use" in refused.stderr
    assert len(json.loads(laptop.dstack("ps", "-a", "--json").stdout)) == 1
