"""Who a process is, by /proc and by `ps`, which must agree."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from dstack.runner.base import processes
from tests.support.runners.client import until


def test_name_of_a_process_may_hold_anything(tmp_path: Path) -> None:
    strange = tmp_path / "a) S 1 (b"
    strange.symlink_to(str(shutil.which("sleep")))
    with subprocess.Popen([str(strange), "1000"]) as child:
        until(lambda: processes.table()[child.pid].name == "a) S 1 (b", "it was started")
        assert processes.table()[child.pid].parent == os.getpid()
        child.kill()


def test_zombie_is_not_alive() -> None:
    with subprocess.Popen(["sleep", "1000"]) as child:
        named = processes.identity(child.pid)
        assert processes.is_alive(named)
        child.kill()
        until(lambda: processes.table()[child.pid].state == "Z", "it is a zombie")
        assert not processes.is_alive(named)
        assert child.pid not in {process.pid for process in processes.descendants(os.getpid())}


@pytest.mark.parametrize("changed", [{"boot_id": "another"}, {"started": "1"}, {"pid": "1"}, {"pid": None}])
def test_other_boot_start_or_pid_is_another_process(changed: dict[str, object]) -> None:
    assert processes.is_alive(processes.identity(os.getpid()))
    assert not processes.is_alive({**processes.identity(os.getpid()), **changed})


def test_a_host_of_a_test_names_its_boot_in_the_environment_of_the_account(monkeypatch: pytest.MonkeyPatch) -> None:
    before, kernels = processes.identity(os.getpid()), processes.boot_id()
    other = "0b007000-0000-4000-8000-000000000001"
    monkeypatch.setenv("DSTACK_BOOT_ID", other)
    assert processes.boot_id() == other
    assert not processes.is_alive(before), "that process ran before the host was started again"
    for malformed in ("", "1", other + "0", other + "\n", other.upper(), "../" + other, "\u0660" * 36):
        monkeypatch.setenv("DSTACK_BOOT_ID", malformed)
        assert processes.boot_id() == kernels


def test_parents_hear_of_the_end_before_their_children() -> None:
    """A pid says nothing of age: they wrap around."""
    chain = [(50, 1), (7, 50), (900, 7), (3, 900), (4, 50)]
    everyone = {pid: processes.Process(pid, parent, 50, "S", "0", "p") for pid, parent in chain}
    order = [process.pid for process in processes.below(everyone, [1])]
    assert sorted(order) == [3, 4, 7, 50, 900]
    assert all(order.index(parent) < order.index(pid) for pid, parent in chain[1:])


@pytest.mark.skipif(shutil.which("ps") is None, reason="there is no ps")
def test_systems_without_proc_ask_ps(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen(["sh", "-c", "sleep 1000 & wait"], start_new_session=True) as child:
        by_proc = until(lambda: processes.descendants(child.pid), "its child runs")
        monkeypatch.setattr(processes, "HAS_PROC", False)
        by_ps = processes.descendants(child.pid)
        assert [process[:3] for process in by_ps] == [process[:3] for process in by_proc]
        in_group = {process.pid for process in processes.descendants(os.getpid(), child.pid)}
        assert {child.pid, by_ps[0].pid} <= in_group
        named = processes.identity(child.pid)
        assert processes.is_alive(named)
        processes.end_all(
            lambda: [
                process for process in processes.table().values() if process.group == child.pid and process.state != "Z"
            ],
            lambda seconds: None,
            until=lambda: 0.0,
        )
        child.wait(30)
        assert not processes.is_alive(named)
