"""One look at the queue: its work is bounded whatever lies there, and it ends when nobody wants it any more."""

from __future__ import annotations

import contextlib
import os
import random
import stat
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from dstack.runner.base import file_locks
from dstack.runner.queue import sightings, slots, tickets
from dstack.runner.queue.scheduler import Capacity, ResourceDemand, Ticket
from dstack.runner.queue.tickets import QueueScan, ScanCancelledError
from dstack.wire import UNSEEN, Refusal
from tests.support.runners.tickets import files_left, locked

NONCE = "0123456789abcdef" * 2
WANTED = slots.SlotRequest(NONCE, ResourceDemand(), Capacity(1, 8, 1 << 34, ()), 0, "mine")
ACCOUNTS = (os.getuid(), 20_001, 20_002) if os.getuid() == 0 else (os.getuid(),)


class Table:
    """The path of a list of the kernel, which counts how often the list is opened."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.opened = 0

    def __fspath__(self) -> str:
        self.opened += 1
        return self.path


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> tuple[Table, Table]:
    """The lists of locks and of mounts."""
    if not Path(file_locks.LOCK_LIST).exists():
        pytest.skip("this system does not list its locks")
    found = Table(file_locks.LOCK_LIST), Table(file_locks.MOUNT_LIST)
    monkeypatch.setattr(file_locks, "LOCK_LIST", found[0])
    monkeypatch.setattr(file_locks, "MOUNT_LIST", found[1])
    return found


def stray(path: Path, kind: str, uid: int) -> None:
    """What can be no ticket; nobody, root neither, can open the first two."""
    if kind == "link":
        path.symlink_to("/x")
    elif kind == "socket":
        os.mknod(path, stat.S_IFSOCK | 0o600)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    if uid != os.getuid():
        os.chown(path, uid, -1, follow_symlinks=False)


def links(folder: Path, count: int) -> None:
    for number in range(count):
        stray(folder / f"{number:020d}-x", "link", os.getuid())


@pytest.mark.parametrize("seed", range(20))
def test_every_locked_ticket_counts_among_any_strays_and_each_list_is_read_once(
    tmp_path: Path, tables: tuple[Table, Table], monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(tickets, "MAX_STRAYS", 5)
    chance = random.Random(seed)
    planted: Counter[str] = Counter()
    cards: dict[str, tuple[int, ...]] = {}
    with contextlib.ExitStack() as stack:
        for number in chance.sample(range(1000), 60):
            path = tmp_path / f"{number:020d}-x"
            kind = chance.choice(["link", "link", "socket", "pipe", "folder", "ticket"])
            if kind == "ticket":
                cards[path.name] = (len(cards),)
                path.write_bytes(tickets.encode(Ticket(path.name, ResourceDemand(gpus=1), 0, cards[path.name])))
                locked(path, stack)
            else:
                uid = chance.choice(ACCOUNTS)
                stray(path, kind, uid)
                planted[tickets.account_name(uid)] += 1
        look = QueueScan()
        found = tickets.read_folder(str(tmp_path), look)
    assert {each.ticket.order: each.ticket.gpus for each in found if each.counts} == cards
    assert Counter(each.ticket.user for each in found if each.fault) == {
        user: min(count, 5) for user, count in planted.items()
    }
    assert look.skipped_files == sum(max(0, count - 5) for count in planted.values())
    assert [table.opened <= 1 for table in tables] == [True, True]


def test_two_folders_of_one_look_share_its_lists(tmp_path: Path, tables: tuple[Table, Table]) -> None:
    look = QueueScan()
    for name in "ab":
        (tmp_path / name).mkdir()
        links(tmp_path / name, 10)
        assert len(tickets.read_folder(str(tmp_path / name), look)) == 10
    assert [table.opened for table in tables] == [1, 1]


@pytest.mark.parametrize("kind", ["000000", "ticket"])
def test_a_look_that_nobody_wants_any_more_ends_within_a_step(tmp_path: Path, kind: str) -> None:
    """Whatever the names are: all of them cost the look something."""
    for number in range(tickets.CANCEL_CHECK_FILES * 3):
        name = f"{number:020d}-x" if kind == "ticket" else f"{kind}{number}"
        (tmp_path / name).symlink_to("/x")
    asked: list[int] = []

    def given_up() -> bool:
        asked.append(len(asked))
        return len(asked) == 2

    with pytest.raises(ScanCancelledError):
        tickets.read_folder(str(tmp_path), QueueScan(given_up))
    assert asked == [0, 1]


def test_a_wait_is_given_up_during_a_look_and_leaves_no_ticket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSTACK_SLOTS_DIR", str(tmp_path))
    links(tmp_path, tickets.CANCEL_CHECK_FILES * 3)
    before = {*os.listdir(tmp_path), "lock"}
    asked: list[float] = []

    def given_up(seconds: float) -> bool:
        asked.append(seconds)
        return True

    assert slots.take_slot(str(tmp_path), WANTED, given_up) is None
    assert asked[0] == 0
    assert len(asked) == 2
    assert set(os.listdir(tmp_path)) == before


def test_nothing_is_taken_while_files_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The only slot is taken by a ticket that a process without free descriptors cannot open."""
    monkeypatch.setenv("DSTACK_SLOTS_DIR", str(tmp_path))
    path = tmp_path / f"{1:020d}-x"
    path.write_bytes(tickets.encode(Ticket(path.name, ResourceDemand(), 0, ())))
    said: list[str] = []
    with contextlib.ExitStack() as stack:
        locked(path, stack)
        shortage = contextlib.ExitStack()
        steps: list[Callable[[], object]] = [
            lambda: shortage.enter_context(files_left(2)),  # for the queue's lock, and for its folder
            shortage.close,
        ]

        def given_up(seconds: float) -> bool:
            if seconds and not steps:
                return True
            if seconds:
                steps.pop(0)()
            return False

        assert slots.take_slot(str(tmp_path), WANTED, given_up, said.append) is None
    assert said[1:] == [""]
    assert said[0].startswith("the queue cannot be read: too many open files in a process of this account; close some")


def test_a_list_of_the_queue_that_cannot_be_read_is_no_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSTACK_SLOTS_DIR", str(tmp_path))
    slots.list_queue(str(tmp_path), WANTED.capacity)
    (tmp_path / f"{1:020d}-x").write_bytes(b"{}")
    with files_left(2), pytest.raises(Refusal, match="the queue cannot be read: too many open files") as refused:
        slots.list_queue(str(tmp_path), WANTED.capacity)
    assert refused.value.hint == "try again later"


def test_the_list_counts_what_it_does_not_look_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSTACK_SLOTS_DIR", str(tmp_path))
    links(tmp_path, tickets.MAX_STRAYS + 20)
    answer = slots.list_queue(str(tmp_path), WANTED.capacity)
    assert (len(answer.tickets), answer.more) == (tickets.MAX_STRAYS, 20)


def test_a_sighting_reads_the_locks_once_and_keeps_no_file_open(
    tmp_path: Path, tables: tuple[Table, Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSTACK_SLOTS_DIR", str(tmp_path))
    for number in range(300):
        (tmp_path / f"{number:020d}-{NONCE[:16]}").write_text("{}")
    open_before = len(os.listdir("/proc/self/fd"))
    assert sightings.sighting(NONCE, tickets.account_name(os.getuid())) == UNSEEN
    assert [table.opened for table in tables] == [1, 1]
    assert len(os.listdir("/proc/self/fd")) == open_before
