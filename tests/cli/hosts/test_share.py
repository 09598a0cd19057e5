"""`dstack hosts push` and `pull`, by two people in two projects on one bucket; whole outputs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.people.laptop import Laptop

HOSTS = """\
hosts:
  gpu-1:
    address: 10.0.0.5
    user: ubuntu
  mine: {address: x, jump: bastion}
"""


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Laptop, Laptop]:
    made = []
    (tmp_path / "bucket").mkdir()
    for name in ("alice", "bob"):
        (tmp_path / name).mkdir()
        project = Laptop(tmp_path / name, user="alice", columns=80)
        project.environment["DSTACK_BUCKET"] = str(tmp_path / "bucket")
        project.write({".dstack/workflows.yaml": "workflows: []\n"})
        made.append(project)
    made[0].write({".dstack/hosts.yaml": HOSTS})
    return made[0], made[1]


def hosts(project: Laptop) -> str:
    path = project.root / ".dstack/hosts.yaml"
    return path.read_text() if path.exists() else ""


def test_what_one_pushes_the_other_pulls_after_a_look(pair: tuple[Laptop, Laptop]) -> None:
    alice, bob = pair
    assert bob.run("hosts", "pull").code == 2
    done = alice.run("hosts", "push")
    assert done.out == (
        "mine stays here: jump is your own (what is in ~/.ssh/config need not be in it)\n"
        "pushed gpu-1; the others run: dstack hosts pull\n"
    )
    refused = bob.run("hosts", "pull")
    assert (refused.code, hosts(bob)) == (2, "")
    assert "+    address: 10.0.0.5\n" in refused.err
    assert "bastion" not in refused.err
    declined = bob.terminal("hosts", "pull", answer="n\n")
    assert (declined.code, hosts(bob)) == (2, "")
    agreed = bob.terminal("hosts", "pull", answer="y\n")
    assert (agreed.code, hosts(bob)) == (0, "hosts:\n  gpu-1:\n    address: 10.0.0.5\n    user: ubuntu\n")
    assert bob.run("hosts", "pull").out == ".dstack/hosts.yaml has them already\n"
    assert "gpu-1" in bob.run("hosts", "ls").out
    assert hosts(alice) == HOSTS


def test_a_pull_shows_what_changes_and_keeps_what_is_ones_own(pair: tuple[Laptop, Laptop]) -> None:
    alice, bob = pair
    bob.write({".dstack/hosts.yaml": "# bob's\nhosts:\n  gpu-1: {address: 10.0.0.4}\n  here: {local: true}\n"})
    alice.run("hosts", "push")
    done = bob.run("hosts", "pull", "--yes")
    assert done.code == 0
    assert "-  gpu-1: {address: 10.0.0.4}\n" in done.err
    assert hosts(bob).startswith("# bob's\nhosts:\n  here: {local: true}\n  gpu-1:\n")


def test_nobody_drops_what_another_pushed_unasked(pair: tuple[Laptop, Laptop]) -> None:
    alice, bob = pair
    alice.run("hosts", "push")
    bob.write({".dstack/hosts.yaml": "hosts: {gpu-2: {}}\n"})
    refused = bob.run("hosts", "push")
    assert refused.code == 2
    assert "Change or drop gpu-1, as " in refused.err
    assert bob.run("hosts", "push", "--yes").code == 0
    assert "gpu-2" in alice.run("hosts", "pull").err


def test_a_personal_inventory_is_not_pushed_unasked(pair: tuple[Laptop, Laptop]) -> None:
    _, bob = pair
    (bob.home / ".dstack").mkdir(mode=0o700)
    (bob.home / ".dstack/hosts.yaml").write_text("hosts: {my-server: {}}\n")
    assert bob.run("hosts", "push").code == 2
    done = bob.run("hosts", "push", "--hosts", str(bob.home / ".dstack/hosts.yaml"))
    assert "pushed my-server" in done.out


def test_a_hostile_inventory_changes_nothing(pair: tuple[Laptop, Laptop], tmp_path: Path) -> None:
    alice, bob = pair
    alice.run("hosts", "push")
    (record,) = (tmp_path / "bucket").rglob("hosts/999999")
    fields = json.loads(record.read_text())
    fields["hosts"][0]["address"] = "x\n    local: true"
    record.write_text(json.dumps(fields))
    done = bob.run("hosts", "pull", "--yes")
    assert (done.code, hosts(bob)) == (6, "")
    assert "the inventory in the bucket is refused: " in done.err
    assert "Traceback" not in done.err


def test_what_a_terminal_shows_of_a_name_steers_nothing(pair: tuple[Laptop, Laptop], tmp_path: Path) -> None:
    alice, bob = pair
    alice.run("hosts", "push")
    (record,) = (tmp_path / "bucket").rglob("hosts/999999")
    record.write_text(json.dumps({**json.loads(record.read_text()), "user": "\x1b[2Jbob"}))
    assert "\x1b" not in bob.run("hosts", "pull").err


def test_outside_a_project_there_is_nothing_to_share(project: Callable[..., Laptop]) -> None:
    made = project()
    for command in ("push", "pull"):
        done = made.run("hosts", command)
        assert (done.code, "no .dstack folder" in done.err) == (2, True)
