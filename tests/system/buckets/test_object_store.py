"""Runs whose bucket is an object store: a real process that speaks S3, found as AWS's own tools find it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.buckets.object_stores import ObjectStore, ministack, nanio
from tests.support.people.laptop import Laptop

WORKFLOWS = """
workflows:
  - name: prepare
    commands: [echo prepared, echo data > data.txt, echo prepare >> $MARKS]
    env: [MARKS]
    artifacts: [data.txt]
  - name: train
    depends-on: [prepare]
    commands: [cat data.txt data.txt > model.txt, echo trained, echo train >> $MARKS]
    env: [MARKS]
    artifacts: [model.txt]
"""


@pytest.fixture(scope="module")
def store() -> ObjectStore:
    return ministack()


def laptop_at(folder: Path, environment: dict[str, str]) -> Laptop:
    laptop = Laptop(folder)
    laptop.environment |= {**environment, "MARKS": str(laptop.marks)}
    laptop.write({".dstack/workflows.yaml": WORKFLOWS})
    laptop.commit()
    return laptop


def test_init_tries_a_bucket_names_it_and_runs_work_in_it(tmp_path: Path, store: ObjectStore) -> None:
    url = store.make("first") + "/team"
    laptop = laptop_at(tmp_path / "one", store.environment)
    told = laptop.dstack("init", "--bucket", url).stdout
    assert f"{url}: good (3 × 16 writers at once, one winner each" in told
    assert "wrote .dstack/config.yaml" in told
    assert laptop.run_json("train")["status"] == "succeeded"
    assert [job["status"] for job in laptop.run_json("train")["jobs"]] == ["reused", "reused"]
    newest, oldest = json.loads(laptop.dstack("ps", "-a", "--json").stdout)
    assert laptop.dstack("logs", oldest["run"], "train").stdout == "trained\n"
    laptop.dstack("artifacts", "pull", newest["run"], "train", "-o", str(tmp_path / "out"))
    assert (tmp_path / "out/model.txt").read_text() == "data\ndata\n"
    assert laptop.marks.read_text() == "prepare\ntrain\n"


def test_a_colleague_reuses_what_stands_in_the_shared_bucket(tmp_path: Path, store: ObjectStore) -> None:
    url = store.make("shared")
    alice, bob = (laptop_at(tmp_path / name, store.environment) for name in ("alice", "bob"))
    assert "good" in alice.dstack("init", "--bucket", url).stdout
    assert "in use already" in bob.dstack("init", "--bucket", url).stdout
    run = alice.run_json("train")
    bobs = bob.run_json("train")
    assert [job["reused_from"] for job in bobs["jobs"]] == [run["run"]] * 2
    assert not bob.marks.exists()


def test_a_profile_of_the_aws_tools_counts(tmp_path: Path, store: ObjectStore) -> None:
    url = store.make("profiled")
    laptop = laptop_at(tmp_path / "one", {"AWS_ENDPOINT_URL": store.endpoint, "AWS_PROFILE": "lab"})
    aws = laptop.home / ".aws"
    aws.mkdir()
    (aws / "credentials").write_text(f"[lab]\naws_access_key_id={store.key}\naws_secret_access_key={store.secret}\n")
    (aws / "config").write_text("[profile lab]\nregion=us-east-1\n")
    assert "good" in laptop.dstack("init", "--bucket", url).stdout
    laptop.environment["AWS_PROFILE"] = "lba"
    done = laptop.dstack("ps", code=None)
    assert done.returncode == 6
    assert "lba" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_store_that_ignores_conditions_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    store = nanio()
    laptop = laptop_at(tmp_path / "one", store.environment)
    done = laptop.dstack("init", "--bucket", store.make("careless"), code=None)
    assert done.returncode == 6
    assert "cannot be a bucket" in done.stderr
    assert "a folder that all machines see" in done.stderr
    assert not (laptop.root / ".dstack/config.yaml").exists()


def test_another_bucket_in_the_file_is_left_as_it_is(tmp_path: Path, store: ObjectStore) -> None:
    laptop = laptop_at(tmp_path / "one", store.environment)
    laptop.write({".dstack/config.yaml": "# ours\nbucket: s3://elsewhere\n"})
    done = laptop.dstack("init", "--bucket", store.make("other"), code=None)
    assert done.returncode == 2
    assert "config.yaml:2" in done.stderr
    assert (laptop.root / ".dstack/config.yaml").read_text() == "# ours\nbucket: s3://elsewhere\n"


def test_a_store_that_does_not_answer_is_said_in_a_line(tmp_path: Path) -> None:
    laptop = laptop_at(tmp_path / "one", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "k"})
    done = laptop.dstack("init", "--bucket", "s3://b", code=None)
    assert done.returncode == 6
    assert "Traceback" not in done.stderr
