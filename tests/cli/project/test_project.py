"""check, init, and the helps that read the project."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

import pytest

from tests.support.people.laptop import Laptop

Make = Callable[..., Laptop]


def test_init_writes_a_project_that_is_right(project: Make) -> None:
    made = project()
    done = made.run("init")
    assert (done.code, done.err) == (0, "")
    assert done.out == (
        "wrote .dstack/workflows.yaml\n"
        "wrote .dstack/variables.yaml\n"
        "next: `dstack run --help` lists the workflows, `dstack run train` runs one\n"
    )
    assert made.run("check").out == "2 workflows, 1 host: nothing is wrong\n"


def test_init_leaves_what_is_there(project: Make) -> None:
    text = "workflows:\n  - name: mine\n    commands: [echo]\n"
    made = project({".dstack/workflows.yaml": text})
    assert made.run("init").out == (
        "kept  .dstack/workflows.yaml\nnext: `dstack run --help` lists the workflows, `dstack run mine` runs one\n"
    )
    assert made.run("check").out == "1 workflow, 1 host: nothing is wrong\n"
    assert (made.root / ".dstack/workflows.yaml").read_text() == text


def test_init_names_no_workflow_where_none_can_be_read(project: Make) -> None:
    made = project({".dstack/workflows.yaml": "workflows: []\n"})
    assert made.run("init").out.endswith("next: `dstack check` says what is wrong in .dstack/\n")


def test_check_tells_the_problems_of_all_files_at_once(project: Make) -> None:
    made = project(
        {
            ".dstack/workflows.yaml": "workflows:\n  - name: train\n    comands: [echo]\n    commands: [echo]\n",
            ".dstack/variables.yaml": "variables:\n  trian:\n    lr: 1\n",
            ".dstack/hosts.yaml": "hosts:\n  gpu-1: {prot: 22}\n",
            ".dstack/config.yaml": "bukcet: x\n",
        }
    )
    done = made.run("check")
    assert (done.code, done.out) == (2, "")
    for place in ("workflows.yaml:3:5: ", "variables.yaml:2:3: ", "hosts.yaml:2:11: ", "config.yaml:1:1: "):
        assert f".dstack/{place}" in done.err
    assert done.err.count("did you mean") == 4
    assert "Traceback" not in done.err


def test_check_tells_an_include_that_matches_nothing(project: Make) -> None:
    text = "workflows:\n  - name: w\n    depends-on: {repo: {include: [w.sh, gone.sh]}}\n    commands: [sh w.sh]\n"
    made = project({".dstack/workflows.yaml": text, "w.sh": "true\n"})
    made.git()
    done = made.run("check")
    assert (done.code, done.out) == (2, "")
    assert '.dstack/workflows.yaml:3:41: include "gone.sh" matches no file of the project' in done.err
    assert "w.sh, " not in done.err


def test_check_tells_a_bucket_that_cannot_be_read(project: Make) -> None:
    text = "workflows:\n  - {name: w, commands: [echo]}\n"
    made = project({".dstack/workflows.yaml": text, "file": "no folder"})
    done = made.run("check", env={"DSTACK_BUCKET": str(made.root / "file")})
    assert (done.code, done.out) == (6, "")
    assert "Traceback" not in done.err


@pytest.mark.parametrize("where", ["project", "home", "environment"])
def test_a_named_folder_that_is_not_there_is_refused_and_only_init_makes_it(project: Make, where: str) -> None:
    made = project({".dstack/workflows.yaml": "workflows:\n  - {name: w, commands: [echo]}\n"})
    made.git()
    bucket = made.root.parent / "not mounted" / "state"
    if where == "environment":
        made.environment["DSTACK_BUCKET"] = str(bucket)
    else:
        folder = (made.root if where == "project" else made.home) / ".dstack"
        folder.mkdir(exist_ok=True)
        (folder / "config.yaml").write_text(f"bucket: {bucket}\n")
    told = f"error: the bucket {bucket} does not exist here\n  mount it, or make it: dstack init --bucket '{bucket}'\n"
    for command in (["run", "w"], ["run", "w", "-d"], ["check"], ["ps"], ["du"]):
        done = made.run(*command)
        assert (done.code, done.out) == (6, ""), command
        assert done.err.endswith(told), command
    assert not bucket.parent.exists()
    assert f"{bucket}: good" in made.run("init", "--bucket", str(bucket)).out
    assert made.run("run", "w").code == 0


def test_init_says_how_a_private_folder_becomes_a_team_s_and_that_works(project: Make) -> None:
    made = project({".dstack/workflows.yaml": "workflows:\n  - {name: w, commands: [echo]}\n"})
    bucket = made.root.parent / "lab" / "b"
    told = [made.run("init", "--bucket", str(bucket)).out.splitlines()[1] for _ in ("made", "found")]
    assert told[0] == told[1]
    assert told[0].startswith(f"only your account can use it; for a team: chgrp -R GROUP {bucket} && ")
    command = told[0].partition("team: ")[2].replace("GROUP", str(os.getgid()))
    assert f" && chmod a+x {bucket.parent}" in command
    subprocess.run(["sh", "-c", command.partition(" && chmod a+x")[0]], check=True)
    modes = {path.name: path.stat().st_mode & 0o070 for path in (bucket, *bucket.rglob("*"))}
    assert modes == {"b": 0o070, ".tmp": 0o070, "swept": 0o060, "dstack.json": 0o060}
    assert bucket.stat().st_mode & (bucket / ".tmp").stat().st_mode & 0o2000
    assert "only your account" not in made.run("init", "--bucket", str(bucket)).out


def test_init_keeps_quiet_about_a_folder_that_a_team_can_use(project: Make) -> None:
    made = project()
    bucket = made.root.parent / "b"
    bucket.mkdir()
    bucket.chmod(0o2770)
    assert "only your account" not in made.run("init", "--bucket", str(bucket)).out


def test_a_folder_that_is_there_and_the_default_need_no_init(project: Make) -> None:
    made = project({".dstack/workflows.yaml": "workflows:\n  - {name: w, commands: [echo]}\n"})
    made.git()
    assert made.run("run", "w").code == 0
    bucket = made.root.parent / "bucket"
    bucket.mkdir()
    assert made.run("run", "w", env={"DSTACK_BUCKET": str(bucket)}).code == 0
    assert (bucket / "dstack.json").exists()


def test_an_option_with_a_typing_error_is_named_as_one(project: Make) -> None:
    made = project({".dstack/workflows.yaml": "workflows:\n  - {name: w, commands: [echo]}\n"})
    made.git()
    assert 'no option "--detatch" (did you mean "--detach"?)' in made.run("run", "w", "--detatch").err
    assert "did you mean the option --detach?" in made.run("run", "--detatch", "w").err


def test_run_help_lists_the_workflows(project: Make) -> None:
    made = project()
    made.run("init")
    done = made.run("run", "--help")
    assert (done.code, done.err) == (0, "")
    assert "Leave the run to the hosts that see the bucket, else to the" in done.out
    assert "\nWorkflows:\n  WORKFLOW  ABOUT\n  prepare   Make the data\n  train     Add up the numbers\n" in done.out
    assert max(len(line) for line in done.out.splitlines()) <= 80


def test_run_help_of_a_workflow_lists_its_variables(project: Make) -> None:
    made = project()
    made.run("init")
    done = made.run("run", "train", "--help")
    assert (done.code, done.err) == (0, "")
    assert "Runs or reuses, in this order: prepare, train\n" in done.out
    assert "--epochs" in done.out
    assert "--size" in done.out
