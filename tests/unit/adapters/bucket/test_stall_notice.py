"""A store that does not answer is said, in few lines, and when it answers again. The clock is the test's."""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from dstack.adapters.bucket.stall_notice import StallNoticeBucket
from dstack.errors import BucketError
from dstack.ports import Put
from tests.support.buckets.memory import MemoryBucket

LONG = 30.0
"""Seconds after which a test that waits for another thread has failed."""


class HangingBucket(MemoryBucket):
    """Requests for a key whose gate is shut stay open until it is opened, and fail then where they are told to."""

    def __init__(self) -> None:
        super().__init__()
        self.gates: dict[str, threading.Event] = {}
        self.entered: queue.Queue[str] = queue.Queue()
        self.failing: set[str] = set()

    def shut(self, *keys: str) -> None:
        self.gates |= {key: threading.Event() for key in keys}

    def _wait(self, key: str) -> None:
        if key in self.gates:
            self.entered.put(key)
            assert self.gates[key].wait(LONG)
        if key in self.failing:
            raise BucketError("it gave up")

    def create(self, key: str, body: bytes) -> Put:
        self._wait(key)
        return super().create(key, body)

    def create_from(self, key, chunks):  # type: ignore[no-untyped-def]
        self._wait(key)
        return super().create_from(key, chunks)

    def put(self, key: str, body: bytes) -> None:
        self._wait(key)
        super().put(key, body)

    def get(self, key: str) -> bytes | None:
        self._wait(key)
        return super().get(key)


class Scene:
    """One waiting bucket, its clock, and what it said. Looks are made by the test."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.said: list[str] = []
        self.store = HangingBucket()
        self.never = threading.Event()
        self.bucket = StallNoticeBucket(
            self.store, "s3://hang", self.said.append, clock=lambda: self.now, pause=self._rest
        )
        self._threads: list[threading.Thread] = []

    def _rest(self) -> None:
        self.never.wait()

    def begin(self, request: Callable[[], object]) -> None:
        """Make a request in a thread; returns once the store has it."""

        def ask() -> None:
            try:
                request()
            except BucketError:
                pass

        thread = threading.Thread(target=ask, daemon=True)
        self._threads.append(thread)
        thread.start()
        self.store.entered.get(timeout=LONG)

    def open(self, key: str) -> None:
        """Let requests for the key end; returns once all threads have that should."""
        self.store.gates[key].set()
        thread = self._threads.pop(0)
        thread.join(LONG)
        assert not thread.is_alive()

    def look_at(self, *seconds: float) -> list[str]:
        """What is said by looks at these seconds since the beginning."""
        before = len(self.said)
        for second in seconds:
            self.now = 1000.0 + second
            self.bucket.give_notices()
        return self.said[before:]


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    for gate in made.store.gates.values():
        gate.set()
    made.never.set()


def line(waited: str, kind: str = "write") -> str:
    return f"s3://hang has not answered a {kind} for {waited}; dstack goes on trying"


def test_a_request_without_an_answer_is_said_now_and_then_and_so_is_the_answer(scene: Scene) -> None:
    scene.store.shut("a")
    scene.begin(lambda: scene.bucket.create("a", b"1"))
    assert scene.look_at(0, 9.9) == []
    assert scene.look_at(10, 11, 59) == [line("10 s")]
    assert scene.look_at(60, 61, 300, 359) == [line("60 s")]
    assert scene.look_at(360.5, 659) == [line("6 min")]
    assert scene.look_at(660) == [line("11 min")]
    scene.now = 1000.0 + 674
    scene.open("a")
    assert scene.said[-1] == "s3://hang answers writes again after 11 min"
    assert scene.look_at(700, 2000) == []


def test_a_quick_request_says_nothing(scene: Scene) -> None:
    assert scene.bucket.create("a", b"1") is Put.CREATED
    scene.bucket.put("b", b"2")
    assert scene.bucket.get("a") == b"1"
    assert list(scene.bucket.list("")) == ["a", "b"]
    assert list(scene.bucket.children("")) == ["a", "b"]
    scene.bucket.delete("a")
    assert scene.look_at(100) == []


def test_many_requests_at_once_are_one_line_for_each_kind(scene: Scene) -> None:
    keys = ("a", "b", "c")
    scene.store.shut(*keys, "r")
    for key in keys:
        scene.begin(lambda key=key: scene.bucket.put(key, b""))  # type: ignore[misc]
    assert scene.look_at(20) == [line("20 s")]
    scene.begin(lambda: scene.bucket.get("r"))
    assert scene.look_at(30) == [line("10 s", "read")]
    for key in keys:
        scene.open(key)
    assert scene.said[2:] == ["s3://hang answers writes again after 30 s"]
    scene.open("r")
    assert scene.said[3:] == ["s3://hang answers reads again after 10 s"]


def test_a_request_that_failed_is_no_answer_and_the_next_one_goes_on_with_the_silence(scene: Scene) -> None:
    scene.store.shut("a", "b")
    scene.store.failing.add("a")
    scene.store.lose = 1
    scene.begin(lambda: scene.bucket.put("a", b""))
    assert scene.look_at(12) == [line("12 s")]
    scene.open("a")
    assert scene.bucket.create("x", b"") is Put.UNKNOWN
    assert scene.look_at(90) == [], "nothing is asked of it now"
    scene.begin(lambda: scene.bucket.create("b", b""))
    assert scene.look_at(95) == []
    assert scene.look_at(101) == [line("101 s")]
    scene.open("b")
    assert scene.said[2:] == ["s3://hang answers writes again after 101 s"]


def test_bulk_data_may_take_its_time(scene: Scene) -> None:
    scene.store.shut("a")
    scene.begin(lambda: scene.bucket.create_from("a", [b"1"]))
    assert scene.look_at(1000) == []
    scene.open("a")
    assert b"".join(scene.bucket.read("a", 0, 1)) == b"1"
    assert [each.key for each in scene.bucket.survey("")] == ["a"]


def test_what_the_store_said_last_is_kept_and_else_its_name(scene: Scene) -> None:
    assert scene.bucket.trouble == "s3://hang does not say why"
    scene.store.trouble = "s3://hang said: 503 Slow Down"
    assert scene.bucket.trouble == "s3://hang said: 503 Slow Down"


def test_it_looks_by_itself_while_a_request_is_open_and_rests_otherwise() -> None:
    store, said, paused = HangingBucket(), queue.Queue[str](), threading.Semaphore(0)
    now = [0.0]

    def pause() -> None:
        paused.acquire()

    bucket = StallNoticeBucket(store, "/mnt/lab", said.put, clock=lambda: now[0], pause=pause)
    before = set(threading.enumerate())
    store.shut("a")
    asking = threading.Thread(target=lambda: bucket.get("a"), daemon=True)
    asking.start()
    store.entered.get(timeout=LONG)
    now[0] = 10.0
    paused.release()
    assert said.get(timeout=LONG) == "/mnt/lab has not answered a read for 10 s; dstack goes on trying"
    store.gates["a"].set()
    assert said.get(timeout=LONG) == "/mnt/lab answers reads again after 10 s"
    asking.join(LONG)
    for _ in range(100):
        assert bucket.get("b") is None
    assert len(set(threading.enumerate()) - before - {asking}) == 1, "one thread, however many requests"
    paused.release(1000)


def test_it_imports_nothing_heavy_and_the_version_does_without_it() -> None:
    code = "import sys; import dstack.adapters.bucket.stall_notice;"
    code += "print([name for name in ('asyncio', 'logging', 'obstore', 'rich') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "dstack", "--version"], capture_output=True, text=True, check=True
    )
    assert "stall_notice" not in done.stderr
