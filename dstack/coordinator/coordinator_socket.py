"""One detached coordinator for each user, host and bucket: found by its socket, started when its lock is free."""

from __future__ import annotations

import fcntl
import os
import socket
import sys
import time
from itertools import pairwise
from typing import Any

from dstack import wire
from dstack.adapters.process_identity import boot_id
from dstack.coordinator import zipapp_contents
from dstack.core.format.codec import plain
from dstack.core.handover import HandOver, rendezvous_name
from dstack.private_folder import make_folder, open_file
from dstack.wire import Refusal
from dstack.wire.coordinator_messages import HandAnswer, HandRequest

RENDEZVOUS_DEADLINE_S = 45.0
"""Seconds for a coordinator to answer, including the end of an old coordinator and the start of a new coordinator."""
ANSWER_DEADLINE_S = 40.0
RENDEZVOUS_PAUSE_S = 0.02
LOG_LIMIT_BYTES = 4 << 20
"""Bytes of a log above which a new coordinator empties the log first."""


def hand_over(root: str, hand: HandOver, library: str | None) -> HandAnswer:
    """Hand a run to the coordinator of its bucket, starting a coordinator if need be -> the answer.

    The coordinator is a process and a session of its own, and outlives this process and the connection. Raises the
    coordinator's Refusal, and Refusal (kind `busy`) when no answer comes in time.
    """
    name = rendezvous_name(hand, boot_id(), zipapp_contents.PROGRAM)
    folder = os.path.join(root, "coordinators")
    make_folder(folder)
    deadline = time.monotonic() + RENDEZVOUS_DEADLINE_S
    while time.monotonic() < deadline:
        _start_if_none(root, folder, name, library)
        answer = _ask(folder, name, hand)
        if answer is not None:
            return answer
        time.sleep(RENDEZVOUS_PAUSE_S)  # it has just ended, or is about to listen
    raise Refusal("busy", "the coordinator of this host does not answer", f"see {folder}/{name}.log there")


def _start_if_none(root: str, folder: str, name: str, library: str | None) -> None:
    """Become the parent of a coordinator unless its lock is taken. Lock and socket exist before the process runs."""
    # The coordinator inherits the locked descriptor: the lock lasts exactly as long as the coordinator.
    lock = open_file(os.path.join(folder, name + ".held"), os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _ShortSocketPath(folder) as short:
            place = short(name)
            # Left by a coordinator that was killed: the lock is ours, so no process listens there.
            if os.path.lexists(place):
                os.unlink(place)
            listener.bind(place)
        # Listening before the fork: a hand-over right after this waits in the queue, and is not refused.
        listener.listen(64)
        _fork_detached(root, os.path.join(folder, name), library, {lock, listener.fileno()}, listener)
    finally:
        listener.close()
        os.close(lock)


def _fork_detached(root: str, place: str, library: str | None, descriptors: set[int], listener: socket.socket) -> None:
    """Fork twice. The grandchild keeps the descriptors `descriptors` and its log open, and nothing of this process's
    connection."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        os.setsid()
        # The second fork: a session leader that exits leaves a process that can never get a terminal.
        if os.fork():
            os._exit(0)
        _redirect(place + ".log", descriptors)
        if library is not None:
            sys.path.append(library)
        from dstack.coordinator.detached import run_detached

        run_detached(root, listener, place + ".sock")
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _redirect(log: str, descriptors: set[int]) -> None:
    # Append: an older coordinator that is about to end may still write to the same log.
    out = open_file(log, os.O_WRONLY | os.O_APPEND)
    if os.fstat(out).st_size > LOG_LIMIT_BYTES:
        os.ftruncate(out, 0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    # The pipes of the SSH connection go, too: sshd ends a session only when nobody holds them open.
    edges = [2, *sorted(descriptors), os.sysconf("SC_OPEN_MAX")]
    for low, high in pairwise(edges):
        os.closerange(low + 1, high)
    os.chdir("/")


def _ask(folder: str, name: str, hand: HandOver) -> HandAnswer | None:
    """The coordinator's answer, None when the coordinator ended first; raises the coordinator's Refusal."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(ANSWER_DEADLINE_S)
        try:
            with _ShortSocketPath(folder) as short:
                client.connect(short(name))
            client.sendall(wire.pack_message(HandRequest(handover=plain(hand)).envelope(1)))
            reader = wire.FrameReader()
            while data := client.recv(1 << 16):
                for frame in reader.feed(data):
                    return _unpack_answer(wire.unpack_message(frame.payload))
        except (ConnectionError, FileNotFoundError):
            return None
        except TimeoutError:
            raise Refusal(
                "busy", f"the coordinator did not answer within {ANSWER_DEADLINE_S:.0f} s", "try again"
            ) from None
    return None


def _unpack_answer(message: dict[str, Any]) -> HandAnswer:
    error = message.get("error")
    if isinstance(error, dict):
        raise Refusal(str(error.get("kind")), str(error.get("message")), str(error.get("hint") or ""))
    return HandAnswer.from_other_version(message.get("ok"))


class _ShortSocketPath:
    """A short path to a socket in a folder with a long path: the system allows 107 bytes."""

    def __init__(self, folder: str) -> None:
        self._fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)

    def __enter__(self) -> _ShortSocketPath:
        return self

    def __call__(self, name: str) -> str:
        return f"/proc/self/fd/{self._fd}/{name}.sock"

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
