"""A small coordinator for tests: starts the bootstrap as a host would, speaks frames, keeps what came."""

from __future__ import annotations

import itertools
import json
import os
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from dstack import wire
from dstack.adapters.runner.zipapp import bootstrap_source, runner_zipapp
from dstack.wire import LAUNCHER

DEADLINE = 60.0


class Refused(Exception):
    def __init__(self, error: dict[str, str]) -> None:
        super().__init__(f"{error['kind']}: {error['message']}")
        self.kind = error["kind"]
        self.hint = error["hint"]


def until(question: Callable[[], Any], what: str, seconds: float = DEADLINE) -> Any:
    """Ask until the answer is true; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (answer := question()):
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.005)
    return answer


class Stream:
    """One request under way: data frames, then the answer."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.frames: queue.Queue[bytes | dict[str, Any]] = queue.Queue()

    def data(self) -> Iterator[bytes]:
        """The pieces up to the answer, which is then in `answer`."""
        while isinstance(item := self.frames.get(timeout=DEADLINE), bytes):
            yield item
        self.answer = item

    def result(self) -> dict[str, Any]:
        for _ in self.data():
            pass
        if "error" in self.answer:
            raise Refused(self.answer["error"])
        ok: dict[str, Any] = self.answer["ok"]
        return ok


LOST = {"error": {"kind": "lost", "message": "the runner ended", "hint": ""}}


class Client:
    """One connection to a freshly started runner."""

    def __init__(
        self,
        root: Path,
        slots: Path | None,
        *,
        python: str = "python3",
        command: list[str] | None = None,
        environment: dict[str, str] | None = None,
        uid: int | None = None,
    ) -> None:
        """`slots` None: where the host has them. `uid` is the account, this one by default."""
        self.root = root
        environment = {**os.environ, **(environment or {})}
        environment.pop("DSTACK_SLOTS_DIR", None)
        if slots is not None:
            environment["DSTACK_SLOTS_DIR"] = str(slots)
        self.process = subprocess.Popen(
            command or [python, "-I", "-S", "-c", LAUNCHER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            bufsize=0,
            start_new_session=True,
            user=uid,
            group=uid,
            extra_groups=None if uid is None else [],
        )
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        self.streams: dict[int, Stream] = {}
        self.sent_zipapp = False
        self.closed: list[str] = []
        """Folders of the host that were open until now."""
        self.reader: threading.Thread | None = None

    def start(self, body: bytes | None = None) -> Client:
        zipapp, sha256 = runner_zipapp()
        source = bootstrap_source()
        greeting = {"sentinel": "sentinel-of-a-test", "dir": str(self.root), "runner": sha256, "size": len(zipapp)}
        self.write(b"%d\n%s%s\n" % (len(source), source, json.dumps(greeting).encode()))
        answer = self.answer()
        if answer.get("need"):
            self.sent_zipapp = True
            self.write(zipapp if body is None else body)
            answer = self.answer()
        if "error" in answer:
            raise Refused({"kind": "bootstrap", "message": answer["error"], "hint": answer["hint"]})
        self.closed = answer.pop("closed", [])
        assert answer == {"ready": True}
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        return self

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        with self._lock:
            view = memoryview(data)
            while view:
                view = view[self.process.stdin.write(view) :]

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        while True:
            line = bytearray()
            while not line.endswith(b"\n"):
                byte = self.process.stdout.read(1)
                assert byte, "the bootstrap ended"
                line += byte
            if line.startswith(b"sentinel-of-a-test"):
                value: dict[str, Any] = json.loads(line[len(b"sentinel-of-a-test") :])
                return value

    def _read(self) -> None:
        assert self.process.stdout is not None
        reader = wire.FrameReader()
        while data := self.process.stdout.read(1 << 18):
            for frame in reader.feed(data):
                if frame.kind == wire.MESSAGE:
                    message = wire.unpack_message(frame.payload)
                    self.streams[message["id"]].frames.put(message)
                else:
                    number, piece = wire.unpack_data(frame.payload)
                    self.streams[number].frames.put(piece)
        for stream in list(self.streams.values()):
            stream.frames.put(LOST)

    def ask(self, op: str, /, **fields: Any) -> Stream:
        number = next(self._ids)
        stream = self.streams[number] = Stream(number)
        try:
            self.write(wire.pack_message({"id": number, "op": op, **fields}))
        except BrokenPipeError:
            stream.frames.put(LOST)  # the reader may have seen the end before it could know of this one
        return stream

    def call(self, op: str, /, **fields: Any) -> dict[str, Any]:
        return self.ask(op, **fields).result()

    def push(self, op: str, chunks: Iterable[bytes], /, **fields: Any) -> dict[str, Any]:
        stream = self.ask(op, **fields)
        for chunk in chunks:
            self.write(wire.pack_data(stream.number, chunk))
        self.write(wire.pack_data(stream.number, b""))
        return stream.result()

    def close(self) -> None:
        """End as a coordinator does that hangs up."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(DEADLINE)

    def kill(self) -> None:
        """End the runner as kill -9 does."""
        self.process.kill()
        self.process.wait(DEADLINE)

    def discard(self) -> None:
        """Let go of the pipes of an ended runner."""
        if self.reader is not None:
            self.reader.join(DEADLINE)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
