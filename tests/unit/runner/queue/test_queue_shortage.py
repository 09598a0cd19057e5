"""Whatever a shortage strikes at in the queue, no slot is given twice, and people are told what is lacking."""

from __future__ import annotations

import builtins
import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dstack.runner.base import file_locks
from dstack.runner.queue import folders, queue_lock, slots, tickets
from dstack.runner.queue.queue_lock import WaitPolicy
from dstack.runner.queue.scheduler import Capacity, ResourceDemand, Ticket
from dstack.wire import Refusal
from tests.support.runners.tickets import files_left, locked

CAPACITY = Capacity(1, 8, 1 << 34, ())
WANTED = slots.SlotRequest("0123456789abcdef" * 2, ResourceDemand(), CAPACITY, 0, "mine")
SHORTAGES = [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOLCK]
LACKS = ("open files", "memory", "file lock")
ROUNDS = 4
"""Looks after which a wait is given up."""


class Faults:
    """Makes one call of the operating system fail, the `at`-th from `strike` on; nobody can read the file `hidden`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        self.hidden = ""
        self._number, self._at = 0, 0
        for module, name in ((os, "open"), (os, "scandir"), (builtins, "open"), (fcntl, "flock")):
            monkeypatch.setattr(module, name, self._guarded(getattr(module, name)))

    @contextlib.contextmanager
    def strike(self, number: int, at: int) -> Iterator[None]:
        self.calls, self._number, self._at = 0, number, at
        yield
        self._at = 0

    def _guarded(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(subject: Any, *rest: Any, **named: Any) -> Any:
            self.calls += 1
            if self.calls == self._at:
                raise OSError(self._number, os.strerror(self._number), str(subject))
            if subject == self.hidden and not rest[0] & getattr(os, "O_PATH", 0):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), subject)
            return call(subject, *rest, **named)

        return guarded


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    return Faults(monkeypatch)


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The two private places of a host without a queue for all accounts."""
    monkeypatch.delenv("DSTACK_SLOTS_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name, place in (
        ("SHARED_QUEUE", "shared"),
        ("PRIVATE_QUEUE", "own-%d"),
        ("RUNTIME_FOLDER", "run-%d"),
        ("LINGER_FOLDER", "linger"),
    ):
        monkeypatch.setattr(folders, name, str(tmp_path / place))
    found = tmp_path / f"own-{os.getuid()}", tmp_path / "home/.dstack/slots"
    for folder in found:
        folder.mkdir(parents=True)
        folder.chmod(0o700)
    if not folders.is_local(str(found[1])):
        pytest.skip("the folder of the tests is not on a file system of this host")
    return found


def ticket_in(folder: Path, stack: contextlib.ExitStack) -> Path:
    """A ticket that has the only slot."""
    path = folder / f"{1:020d}-x"
    path.write_bytes(tickets.encode(Ticket(path.name, ResourceDemand(), 0, ())))
    locked(path, stack)
    return path


def try_to_take(said: list[str]) -> slots.Slot | None:
    rounds: list[float] = []

    def given_up(seconds: float) -> bool:
        rounds.append(seconds)
        return len(rounds) > ROUNDS

    return slots.take_slot("", WANTED, given_up, said.append)


def check_words(text: str) -> None:
    """People learn what is lacking and how to get it, and are not told to take anything away."""
    assert any(lack in text for lack in LACKS), text
    assert any(advice in text for advice in ("close some", "end there")), text
    assert "remove" not in text
    assert "make room" not in text


def wait_for_a_slot() -> list[str]:
    """What a job is told that waits for the only slot in vain."""
    said: list[str] = []
    try:
        assert try_to_take(said) is None
    except Refusal as refusal:
        said.append(f"{refusal.message}; {refusal.hint}")
    return said


def look_at_the_queue() -> list[str]:
    """What a person is told who lists the queue; the ticket is in every list."""
    try:
        assert len(slots.list_queue("", CAPACITY).tickets) == 1
    except Refusal as refusal:
        return [f"{refusal.message}; {refusal.hint}"]
    return []


@pytest.mark.parametrize("number", SHORTAGES, ids=errno.errorcode.get)
@pytest.mark.parametrize("use", [wait_for_a_slot, look_at_the_queue])
@pytest.mark.parametrize("readable", [True, False], ids=["readable", "unreadable"])
def test_a_shortage_at_any_call_hides_no_ticket(
    places: tuple[Path, Path], faults: Faults, readable: bool, use: Callable[[], list[str]], number: int
) -> None:
    """Every single call of a whole use of the queue fails once; a ticket in the second folder has the only slot."""
    if not readable and not Path(file_locks.LOCK_LIST).exists():
        pytest.skip("this system does not list its locks")
    with contextlib.ExitStack() as stack:
        held = ticket_in(places[1], stack)
        faults.hidden = "" if readable else str(held)
        open_before = len(os.listdir("/dev/fd"))
        at = 0
        while faults.calls >= at:
            at += 1
            with faults.strike(number, at):
                said = list(filter(None, use()))
            for text in said:
                check_words(text)
            assert [path for folder in places for path in folder.iterdir() if path.name != "lock"] == [held]
            assert len(os.listdir("/dev/fd")) == open_before
            if use is wait_for_a_slot:
                assert bool(said) == (faults.calls >= at), f"call {at}: {said}"
        assert at > 6


@pytest.mark.parametrize("free", range(8))
def test_with_few_files_left_nothing_is_taken_and_the_advice_is_true(places: tuple[Path, Path], free: int) -> None:
    with contextlib.ExitStack() as stack:
        held = ticket_in(places[1], stack)
        with files_left(free):
            said = wait_for_a_slot()
        assert len(said) == len(set(said)), "once, not at each look"
        for text in filter(None, said):
            check_words(text)
        assert bool(said) == (free < 5), "two locks, the ticket of this process, a folder and the ticket in it"
        assert [path for folder in places for path in folder.iterdir() if path.name != "lock"] == [held]


def test_past_the_limit_a_lock_that_a_shortage_keeps_is_refused_with_what_is_lacking(
    places: tuple[Path, Path],
) -> None:
    with files_left(1), pytest.raises(Refusal) as refused:
        queue_lock.take_lock(lambda: list(map(str, places)), WaitPolicy(lambda seconds: False, timeout_s=0.05))
    check_words(refused.value.message)
    assert (refused.value.kind, refused.value.hint) == ("slots", "try again later")


def test_a_lock_is_had_once_its_shortage_is_over(places: tuple[Path, Path], faults: Faults) -> None:
    said: list[str] = []
    with faults.strike(errno.ENFILE, 2):
        lock = queue_lock.take_lock(lambda: list(map(str, places)), WaitPolicy(lambda seconds: False, said.append))
    assert lock is not None
    with lock:
        assert lock.folders == list(map(str, places))
    assert [text[:47] for text in said] == ["the queue cannot be locked: too many open files", ""]
