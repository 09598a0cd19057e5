"""`dstack prune` beside real runs: on a folder, against processes that reuse; and on an object store."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import boto3
import pytest

from dstack.adapters.bucket.opener import abort_uploads
from tests.support.buckets.object_stores import ObjectStore, ministack
from tests.support.people.laptop import Laptop
from tests.support.waiting import until

ROUNDS = int(os.environ.get("DSTACK_ROUNDS", "4"))
WORKFLOWS = """
workflows:
  - name: prepare
    depends-on: {repo: {include: []}}
    commands: [mkdir data; for i in 1 2 3 4 5 6; do head -c 5000000 /dev/urandom > data/$i; done]
    artifacts: [data]
  - name: train
    depends-on: {repo: {include: []}, workflows: [prepare]}
    commands: [cat data/* | wc -c > model, '[ "$(cat model)" -eq 30000000 ]']
    artifacts: [model]
"""


def ready(folder: Path, environment: dict[str, str] | None = None, *, home: Path | None = None) -> Laptop:
    laptop = Laptop(folder, home=home)
    laptop.environment |= environment or {}
    laptop.write({".dstack/workflows.yaml": WORKFLOWS, ".dstack/config.yaml": "project: shared\n"})
    laptop.commit()
    return laptop


def test_no_run_fails_beside_a_prune_that_takes_all_it_can(tmp_path: Path) -> None:
    """Two people run the same again and again; a third process removes whatever it may, as often as it can."""
    first = ready(tmp_path / "one")
    bucket = first.home / ".dstack/bucket"
    bucket.mkdir(parents=True, exist_ok=True)
    second = ready(tmp_path / "two", {"DSTACK_BUCKET": str(bucket)})
    second.environment["DSTACK_SLOTS_DIR"] = first.environment["DSTACK_SLOTS_DIR"]
    ended = threading.Event()
    pruned: list[subprocess.CompletedProcess[str]] = []

    def prune() -> None:
        while not ended.is_set():
            pruned.append(first.dstack("prune", "--older-than", "0s", "--yes", code=None))

    collector = threading.Thread(target=prune)
    collector.start()
    outcomes: list[str] = []
    try:
        for _ in range(ROUNDS):
            processes = [laptop.start("run", "train", "--json") for laptop in (first, second)]
            for process in processes:
                out, err = process.communicate(timeout=180)
                assert process.returncode == 0, out + err
                outcomes += [job["status"] for job in json.loads(out)["jobs"]]
    finally:
        ended.set()
        collector.join()
    assert set(outcomes) == {"succeeded", "reused"}
    assert [done.stderr for done in pruned if done.returncode] == []
    removed = [line for done in pruned for line in done.stdout.splitlines() if line.startswith("removed")]
    assert removed, "it never removed anything: the race was none"
    assert first.dstack("fsck", "--deep").stdout == "nothing is wrong\n"


def test_a_pull_is_whole_or_refused_beside_a_prune(tmp_path: Path) -> None:
    laptop = ready(tmp_path)
    whole = refused = 0
    for number in range(ROUNDS):
        run = laptop.run_json("train")["run"]
        target = tmp_path / f"out{number}"
        pull = laptop.start("artifacts", "pull", run, "prepare", "-o", str(target))
        prune = laptop.start("prune", "--keep", "0", "--yes")
        _, err = pull.communicate(timeout=120)
        out, wrong = prune.communicate(timeout=200)
        assert prune.returncode == 0, out + wrong
        if pull.returncode == 0:
            assert sum(path.stat().st_size for path in target.rglob("data/*")) == 30_000_000
            whole += 1
        else:
            assert "prune" in err, err
            assert "Traceback" not in err
            refused += 1
    assert whole + refused == ROUNDS
    assert laptop.dstack("fsck", "--deep").stdout == "nothing is wrong\n"


@pytest.mark.parametrize("ends", ["well", "killed"])
def test_what_a_pull_has_pinned_stays_until_it_ends(tmp_path: Path, ends: str) -> None:
    laptop = ready(tmp_path)
    run = laptop.run_json("train")["run"]
    bucket = laptop.home / ".dstack/bucket"

    def packs() -> set[Path]:
        return {path for path in bucket.rglob("*") if "/data/" in path.as_posix() and path.is_file()}

    def pins() -> list[Path]:
        return [path for path in bucket.rglob("*") if path.parent.name == "pins" and "-" not in path.name]

    target = tmp_path / "out"
    pull = laptop.start("artifacts", "pull", run, "prepare", "-o", str(target))
    until("it pins", pins, seconds=60)
    pull.send_signal(signal.SIGSTOP)
    kept = {path for path in packs() if path.is_relative_to(pins()[0].parent.parent)}
    assert "1 job stayed" in laptop.dstack("prune", "--keep", "0", "--yes").stdout
    assert packs() == kept != set()
    if ends == "well":
        pull.send_signal(signal.SIGCONT)
        out, err = pull.communicate(timeout=120)
        assert pull.returncode == 0, out + err
        assert sum(path.stat().st_size for path in target.rglob("data/*")) == 30_000_000
        assert pins() == []
    else:
        pull.kill()
        pull.communicate()
        assert pins() != []
    assert "removed" in laptop.dstack("prune", "--keep", "0", "--yes").stdout
    assert packs() == set()
    assert laptop.dstack("fsck", "--deep").stdout == "nothing is wrong\n"


def test_a_killed_prune_is_finished_by_the_next(tmp_path: Path) -> None:
    laptop = ready(tmp_path)
    laptop.run_json("train")
    for _ in range(ROUNDS):
        process = laptop.start("prune", "--older-than", "0s", "--yes")
        try:
            process.wait(timeout=0.4)
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()
        laptop.run_json("train")
    laptop.dstack("prune", "--older-than", "0s", "--yes")
    bucket = laptop.home / ".dstack/bucket"
    left = {path.name for path in bucket.rglob("*") if path.is_file() and ".tmp" not in path.parts}
    assert left <= {"dstack.json", "tomb", "diff", "files"}
    assert laptop.dstack("fsck", "--deep").stdout == "nothing is wrong\n"


@pytest.fixture(scope="module")
def store() -> ObjectStore:
    return ministack()


def test_whole_commands_on_an_object_store(tmp_path: Path, store: ObjectStore) -> None:
    url = store.make("keeping") + "/team"
    laptop = ready(tmp_path, {**store.environment, "DSTACK_BUCKET": url})
    laptop.run_json("train")
    assert json.loads(laptop.dstack("du", "--json").stdout)["workflows"][0]["workflow"] == "prepare"
    assert laptop.dstack("fsck", "--deep").stdout == "nothing is wrong\n"
    assert "nothing was removed" in laptop.dstack("prune", "--older-than", "0s").stdout
    assert [job["status"] for job in laptop.run_json("train")["jobs"]] == ["reused", "reused"]
    assert "removed" in laptop.dstack("prune", "--older-than", "0s", "--yes").stdout
    keys = [each["Key"].rsplit("/", 1)[1] for each in client(store).list_objects_v2(Bucket="keeping")["Contents"]]
    assert sorted(set(keys) - {"diff", "files"}) == ["dstack.json", "tomb"]
    assert [job["status"] for job in laptop.run_json("train")["jobs"]] == ["succeeded", "succeeded"]
    assert laptop.dstack("fsck", "--deep").stdout == "nothing is wrong\n"


def client(store: ObjectStore):  # type: ignore[no-untyped-def]
    return boto3.client(
        "s3",
        endpoint_url=store.endpoint,
        aws_access_key_id=store.key,
        aws_secret_access_key=store.secret,
        region_name="us-east-1",
    )


def test_uploads_that_were_broken_off_are_ended_below_the_project_alone(store: ObjectStore) -> None:
    url = store.make("uploads")
    s3 = client(store)
    for key in ("team/projects/p/jobs/x", "team/projects/other/x"):
        s3.create_multipart_upload(Bucket="uploads", Key=key)
    assert abort_uploads(f"{url}/team", store.options, "projects/p/", now=time.time()) == 0  # they may go on still
    assert abort_uploads(f"{url}/team", store.options, "projects/p/", now=time.time(), older_than=-60) == 1
    left = [each["Key"] for each in s3.list_multipart_uploads(Bucket="uploads")["Uploads"]]
    assert left == ["team/projects/other/x"]
    assert abort_uploads("/some/folder", {}, "projects/p/", now=0.0) == 0


def test_light_commands_stay_light() -> None:
    code = "import sys, dstack.cli.runs.ps; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {
        "dstack.app.maintenance.prune_plan",
        "dstack.app.maintenance.fsck.bucket",
        "boto3",
        "concurrent.futures",
    } & set(done.stdout.split())
