"""Where the queue lies: root's folder for all, else the first private place that is this account's own."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dstack.runner.queue import folders
from dstack.runner.queue.tickets import account_name
from dstack.wire import Refusal


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host in a folder, without a queue for all accounts."""
    monkeypatch.delenv("DSTACK_SLOTS_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    for name, place in (
        ("SHARED_QUEUE", "shared"),
        ("PRIVATE_QUEUE", "own-%d"),
        ("RUNTIME_FOLDER", "run-%d"),
        ("LINGER_FOLDER", "linger"),
    ):
        monkeypatch.setattr(folders, name, str(tmp_path / place))
    return tmp_path


def own(host: Path) -> Path:
    return host / f"own-{os.getuid()}"


def test_the_first_private_place_is_made_and_used(host: Path) -> None:
    assert folders.ticket_folders() == []
    assert folders.folder_for_new_tickets("") == str(own(host))
    assert own(host).stat().st_mode & 0o777 == 0o700
    assert folders.ticket_folders() == [str(own(host))]
    assert folders.unusable_folders("") == []


@pytest.mark.parametrize("umask", [0, 0o022, 0o077, 0o777])
@pytest.mark.parametrize("planted", ["file", "link", "open"])
def test_what_is_in_the_way_is_named_and_the_next_place_is_used(host: Path, planted: str, umask: int) -> None:
    if planted == "file":
        own(host).touch()
    elif planted == "link":
        own(host).symlink_to(host / "home")
    else:
        own(host).mkdir()
        own(host).chmod(0o777)
    before = os.umask(umask)
    try:
        chosen = folders.folder_for_new_tickets("")
    finally:
        os.umask(before)
    assert chosen == str(host / "home/.dstack/slots")
    assert [Path(chosen).stat().st_mode & 0o777, Path(chosen).parent.stat().st_mode & 0o777] == [0o700, 0o700]
    assert len(folders.unusable_folders("")) == 1
    assert str(own(host)) in folders.unusable_folders("")[0]


def test_a_runtime_folder_counts_only_where_it_stays_after_the_logout(host: Path) -> None:
    own(host).touch()
    (host / "home/.dstack").touch()
    runtime, root = host / f"run-{os.getuid()}", host / "dir"
    runtime.mkdir()
    root.mkdir()
    assert folders.folder_for_new_tickets(str(root)) == str(root / "slots")
    (host / "linger").mkdir()
    (host / "linger" / account_name(os.getuid())).touch()
    assert folders.folder_for_new_tickets(str(root)) == str(runtime / "dstack-slots")
    assert folders.ticket_folders(str(root)) == [str(runtime / "dstack-slots"), str(root / "slots")]


def test_where_nothing_can_be_used_everything_that_is_in_the_way_is_named(host: Path) -> None:
    own(host).touch()
    (host / "home/.dstack").touch()
    with pytest.raises(Refusal) as refused:
        folders.folder_for_new_tickets("")
    assert str(own(host)) in refused.value.message
    assert str(host / "home/.dstack") in refused.value.message


def test_own_tickets_of_before_root_made_a_queue_count_on(host: Path) -> None:
    folders.folder_for_new_tickets("")
    shared = host / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    (shared / "lock").touch()
    if os.getuid() != 0:
        assert not folders.is_shared()
        pytest.skip("only root can make a queue for all accounts")
    assert folders.is_shared()
    assert folders.folder_for_new_tickets("") == str(shared)
    assert folders.ticket_folders() == [str(shared), str(own(host))]


def test_many_that_make_the_place_at_once_use_the_same(host: Path) -> None:
    own(host).touch()
    with ThreadPoolExecutor(16) as pool:
        chosen = set(pool.map(lambda _: folders.folder_for_new_tickets(""), range(64)))
    assert chosen == {str(host / "home/.dstack/slots")}


@pytest.mark.skipif(not Path("/proc/self/mountinfo").exists(), reason="this system does not list its mounts")
def test_a_file_system_of_the_kernel_or_a_network_is_not_a_disk_of_the_host(tmp_path: Path) -> None:
    assert folders.is_local(str(tmp_path))
    assert not folders.is_local("/proc")
    assert not folders.is_local(str(tmp_path / "missing"))
