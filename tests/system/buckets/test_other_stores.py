"""Whole runs whose bucket is Azure Blob or Google Cloud Storage, as far as their emulators go."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.buckets.kinds import store_of
from tests.support.people.laptop import Laptop

LARGE = 70_000_000
WORKFLOWS = f"""
workflows:
  - name: prepare
    commands: [mkdir data, head -c {LARGE} /dev/zero > data/large, echo small > data/small, echo prepare >> $MARKS]
    env: [MARKS]
    artifacts: [data]
  - name: train
    depends-on: [prepare]
    commands: [wc -c < data/large > model.txt, cat data/small, echo train >> $MARKS]
    env: [MARKS]
    artifacts: [model.txt]
"""


@pytest.mark.parametrize("kind", ["gcs-emulator", "azure-azurite"])
def test_a_run_whose_artifacts_are_large_and_a_colleague_who_reuses_it(tmp_path: Path, kind: str) -> None:
    store = store_of(kind)
    options = {"url": store.make("team") + "/lab", "options": store.options}
    alice, bob = (Laptop(tmp_path / name) for name in ("alice", "bob"))
    for laptop in (alice, bob):
        laptop.environment |= {"MARKS": str(tmp_path / "marks")}
        laptop.write(
            {
                ".dstack/workflows.yaml": WORKFLOWS,
                # JSON is YAML.
                ".dstack/config.yaml": json.dumps({"bucket": options, "project": "shared"}, indent=1),
            }
        )
        laptop.commit()
    run = alice.run_json("train")
    assert run["status"] == "succeeded"
    assert [job["reused_from"] for job in bob.run_json("train")["jobs"]] == [run["run"]] * 2
    bob.dstack("artifacts", "pull", run["run"], "prepare", "-o", str(tmp_path / "out"))
    assert (tmp_path / "out/data/large").stat().st_size == LARGE
    bob.dstack("artifacts", "pull", run["run"], "train", "-o", str(tmp_path / "out"))
    assert int((tmp_path / "out/model.txt").read_text()) == LARGE
    assert (tmp_path / "marks").read_text() == "prepare\ntrain\n"
    assert bob.dstack("logs", run["run"], "train").stdout == "small\n"
