"""Objects of a bucket are damaged, each kind in each way, and then everything that reads them is asked.

The judge: marks that jobs make, exit codes, and bytes that were pulled. Nothing hangs, nothing is called whole that is
not, and what can be made anew is made anew once. DSTACK_ROUNDS plays more seeds.
"""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.faults.damage import DAMAGES, PREPARED, WORKFLOWS, Store

ROUNDS = int(os.environ.get("DSTACK_ROUNDS", "1"))
PIECES = {"pack": "a/000001/data/*", "manifest": "a/000001/manifest", "result": "result"}
CASES = [(kind, damage) for kind in PIECES for damage in DAMAGES]
SAMPLE = [("pack", "flip"), ("pack", "cut"), ("manifest", "forge"), ("result", "empty")]
RECORDS = (
    "jobs/*/*/claim/*",
    "jobs/*/*/a/*/end",
    "jobs/*/*/wants/*",
    "jobs/*/*/result",
    "runs/*/final",
    "runs/*/jobs/*",
)
CHOSEN = SAMPLE if ROUNDS < 5 else CASES


def struck(folder: Path, kind: str, damage: str, seed: int = 0) -> tuple[Store, str, str]:
    """A store in which something of `prepare` is damaged -> it, the name of the run that made it, and the key."""
    store = Store(folder, seed)
    run = store.laptop.run_json("train")["run"]
    path = sorted(store.made_by("prepare").glob(PIECES[kind]))[0]
    store.strike(path, damage)
    return store, run, str(path.relative_to(store.bucket))


def pulled(store: Store, run: str, workflow: str) -> dict[str, bytes]:
    """What `artifacts pull` brings of one job, by path."""
    folder = store.laptop.root.parent / "out"
    shutil.rmtree(folder, ignore_errors=True)
    store.laptop.dstack("artifacts", "pull", run, workflow, "-o", str(folder))
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("kind", "damage"), CHOSEN)
def test_a_run_that_takes_what_is_damaged_has_it_made_anew_once(tmp_path: Path, kind: str, damage: str) -> None:
    store, _, key = struck(tmp_path, kind, damage)
    store.forget_bytes()
    run = store.laptop.run_json("train", "--lr", "0.5")["run"]
    # A bit of a result that nothing follows from, such as its host's name, may flip unseen.
    assert store.jobs("prepare") in ({1, 2} if (kind, damage) == ("result", "flip") else {2}), key
    assert store.jobs("train") == 2
    assert pulled(store, run, "train") == {"model": PREPARED.encode() + b"lr=0.5\n"}


@pytest.mark.parametrize("damage", ["flip", "remove"])
def test_every_reader_names_what_is_damaged_and_the_way_out(tmp_path: Path, damage: str) -> None:
    store, run, key = struck(tmp_path, "manifest", damage)
    out = tmp_path / "out"
    asked = [("artifacts", "ls", run), ("artifacts", "pull", run, "-o", str(out))]
    asked += [("why", run)] if damage == "remove" else []
    for words in asked:
        done = store.laptop.dstack(*words, code=6)
        assert key in done.stderr
        assert "dstack run prepare --rerun" in done.stderr
        assert "left nothing behind" not in done.stderr
    assert (out / "train" / "model").read_text() == f"{PREPARED}lr=0.1\n"
    assert not (out / "prepare").exists()
    assert key in store.laptop.dstack("fsck", code=8).stdout


def test_a_log_that_lacks_a_piece_is_an_error_behind_all_that_there_is(tmp_path: Path) -> None:
    store = Store(tmp_path, 0)
    run = store.laptop.run_json("train")["run"]
    piece = sorted(store.made_by("prepare").glob("a/000001/log/*"))[0]
    store.strike(piece, "empty")
    done = store.laptop.dstack("logs", run, code=6)
    assert "trained with 0.1" in done.stdout
    assert str(piece.relative_to(store.bucket)) in done.stderr


def test_runs_at_the_same_time_make_a_damaged_input_anew_once(tmp_path: Path) -> None:
    store, _, _ = struck(tmp_path, "pack", "flip")
    store.forget_bytes()
    rates = ("0.5", "0.6", "0.7")
    with ThreadPoolExecutor(len(rates)) as pool:
        found = list(pool.map(lambda rate: store.laptop.run_json("train", "--lr", rate), rates))
    assert [run["status"] for run in found] == ["succeeded"] * len(rates)
    assert store.jobs("prepare") == 2
    assert store.jobs("train") == 1 + len(rates)


def test_what_cannot_be_made_anew_with_the_same_content_fails_the_job_and_names_the_way_out(tmp_path: Path) -> None:
    store = Store(tmp_path, 0)
    made = WORKFLOWS.format(marks=store.laptop.marks)
    other = made.replace("printf '1 2 3\\n'", "cat /proc/sys/kernel/random/uuid")
    assert "uuid" in other
    store.laptop.write({".dstack/workflows.yaml": other})
    store.laptop.run_json("train")
    pack = next(store.made_by("prepare").glob("a/000001/data/*"))
    store.strike(pack, "flip")
    store.forget_bytes()
    done = store.laptop.dstack("run", "train", "--lr", "0.5", code=6)
    assert pack.name in done.stdout + done.stderr
    assert "dstack run prepare --rerun" in done.stdout + done.stderr
    assert (store.jobs("prepare"), store.jobs("train")) == (2, 1)
    store.laptop.run_json("train", "--lr", "0.5")
    assert (store.jobs("prepare"), store.jobs("train")) == (2, 2)


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_no_damage_of_a_record_makes_a_command_hang_or_lie(tmp_path: Path, seed: int) -> None:
    """Any record of the bucket, any damage: each command ends, and a run that says it succeeded has the right bytes."""
    store = Store(tmp_path, seed)
    store.laptop.run_json("train")
    path = store.chance.choice(store.objects(store.chance.choice(RECORDS)))
    store.strike(path, store.chance.choice(sorted(DAMAGES)))
    store.forget_bytes()
    for words in (("ps",), ("fsck",), ("why",)):
        done = store.laptop.dstack(*words, code=None)
        assert done.returncode in (0, 2, 6, 8), done.stderr
        assert "Traceback" not in done.stderr
    done = store.laptop.dstack("run", "train", "--lr", "0.5", "--json", code=None)
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, 6), done.stderr
    if done.returncode == 0:
        assert pulled(store, "-", "train") == {"model": PREPARED.encode() + b"lr=0.5\n"}
