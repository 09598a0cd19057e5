"""Real processes at one bucket, judged from outside.

`python -m tests.support.buckets.crowd race KIND PATH PROCESSES KEYS` or `… kill KIND PATH ROUNDS SEED`. This
program has one thread and forks, which a test process must not. It prints one JSON list of complaints. KIND `url` is
any bucket: PATH is then JSON of `{"url", "options"}`.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from dstack.adapters.bucket.opener import open_bucket
from dstack.ports import Bucket, Put
from tests.support.buckets.kinds import FOLDERS


def body_of(nonce: str, size: int) -> bytes:
    """A body that shows whose it is and whether it is whole."""
    filling = hashlib.shake_256(nonce.encode()).digest(size)
    return f"{nonce}\n".encode() + filling + hashlib.sha256(filling).hexdigest().encode()


def writer_of(body: bytes) -> str | None:
    """Whose body it is; None when it is not whole."""
    nonce, _, rest = body.partition(b"\n")
    filling, digest = rest[:-64], rest[-64:]
    return nonce.decode() if hashlib.sha256(filling).hexdigest().encode() == digest else None


def forked(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    finally:
        os._exit(code)


def race(opened: Callable[[], Bucket], *, processes: int, keys: int) -> list[str]:
    """Everybody wants every key at the same moment, key after key. Each process opens the bucket for itself."""
    told_in, told_out = os.pipe()
    gates = [os.pipe() for _ in range(keys)]
    ready_in, ready_out = os.pipe()

    def want(number: int) -> None:
        for _, end in gates:
            os.close(end)
        bucket = opened()
        for index, (gate, _) in enumerate(gates):
            nonce = f"{number}-{index}"
            body = body_of(nonce, 3000)
            os.write(ready_out, b".")
            os.read(gate, 1)
            answer = bucket.create(f"race/deep-{index}/key", body)
            os.write(told_out, f"{index} {nonce} {answer.value}\n".encode())

    children = [forked(lambda number=number: want(number)) for number in range(processes)]  # type: ignore[misc]
    os.close(told_out)
    for _, end in gates:
        for _ in range(processes):
            os.read(ready_in, 1)
        os.close(end)
    lines = _all_lines(told_in)
    complaints = [f"process {pid} failed" for pid in children if os.waitpid(pid, 0)[1]]
    bucket = opened()
    for index in range(keys):
        told = [line[1:] for line in lines if line[0] == str(index)]
        winners = [nonce for nonce, answer in told if answer == "created"]
        body = bucket.get(f"race/deep-{index}/key") or b""
        if len(told) != processes or len(winners) != 1 or winners[0] != writer_of(body):
            complaints.append(f"key {index}: {len(told)} answers, winners {winners}, bytes of {writer_of(body)}")
    return complaints


def kill(bucket: Bucket, *, rounds: int, seed: int) -> list[str]:
    """Two writers at the same keys are killed at random moments, again and again, while a reader looks on."""
    chance = random.Random(seed)
    told_in, told_out = os.pipe()
    keys = [[f"kill/{number}/{index}/key" for index in range(6)] for number in range(rounds)]
    everything = [key for group in keys for key in group]
    reader = forked(lambda: _watch(bucket, everything))
    for number, group in enumerate(keys):
        writers = [
            forked(lambda who=who: _write(bucket, group, f"{number}-{who}", told_out))  # type: ignore[misc]
            for who in range(2)
        ]
        for pid in writers:
            time.sleep(chance.uniform(0.0, 0.006))
            os.kill(pid, signal.SIGKILL)
        for pid in writers:
            os.waitpid(pid, 0)
    complaints = []
    finished, status = os.waitpid(reader, os.WNOHANG)
    if finished:
        complaints.append(f"the reader saw a part of an object, or failed: {status}")
    else:
        os.kill(reader, signal.SIGKILL)
        os.waitpid(reader, 0)
    os.close(told_out)
    told = _all_lines(told_in)
    there = 0
    for key in everything:
        winners = [nonce for name, nonce in told if name == key]
        body = bucket.get(key)
        there += body is not None
        if body is None and winners:
            complaints.append(f"{key} is gone, and {winners} had created it")
        elif body is None and bucket.create(key, body_of("late", 10)) is not Put.CREATED:
            complaints.append(f"{key} cannot be created any more")
        elif body is not None and (writer_of(body) is None or winners not in ([], [writer_of(body)])):
            complaints.append(f"{key}: winners {winners}, bytes of {writer_of(body)}")
    if not 0 < there < len(everything):
        complaints.append(f"the kills came at no interesting moment: {there} of {len(everything)} objects exist")
    return complaints


def _write(bucket: Bucket, keys: Sequence[str], nonce: str, told: int) -> None:
    body = body_of(nonce, 300_000)
    for key in keys:
        if bucket.create(key, body) is Put.CREATED:
            os.write(told, f"{key} {nonce}\n".encode())


def _watch(bucket: Bucket, keys: Sequence[str]) -> None:
    """Ends, with an error, only when it sees what is not whole."""
    while True:
        for key in bucket.list("kill/"):
            body = bucket.get(key)
            if body is not None and writer_of(body) is None:
                raise AssertionError(key)


def _all_lines(fd: int) -> list[list[str]]:
    with os.fdopen(fd) as stream:
        return [line.split() for line in stream]


def _opened(kind: str, path: str) -> Bucket:
    if kind == "url":
        given = json.loads(path)
        return open_bucket(given["url"], given["options"], "/nowhere")
    return FOLDERS[kind](Path(path))


def main() -> None:
    what, kind, path, first, second = sys.argv[1:]
    if what == "race":
        complaints = race(lambda: _opened(kind, path), processes=int(first), keys=int(second))
    else:
        complaints = kill(_opened(kind, path), rounds=int(first), seed=int(second))
    print(json.dumps(complaints))


if __name__ == "__main__":
    main()
