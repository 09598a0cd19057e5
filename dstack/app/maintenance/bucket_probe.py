"""The probe of a bucket at its first use, against the promises of `ports.Bucket`; recorded once, in `dstack.json`.

A probe can refute and cannot prove. The probe catches stores that ignore the condition of a conditional write, look and
then write, list late, or give old bytes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dstack.core.format.keys import FORMAT_KEY, probe_folder
from dstack.core.format.records import RECORD_VERSION, pack, unpack
from dstack.errors import BucketError
from dstack.ports import Bucket, Exclusion, Put


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeEffort:
    """How hard the probe races: `rounds` keys, each wanted by `writers` threads at once."""

    rounds: int
    writers: int


FULL_PROBE = ProbeEffort(rounds=3, writers=16)
LIGHT_PROBE = ProbeEffort(rounds=1, writers=4)
"""For a folder, where the kernel excludes writers: the open question is whether this file system has links at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatRecord:
    """`dstack.json`: the versions of dstack for this bucket, and the effort of the probe. `made` is for people."""

    nonce: str
    min_reader: int
    min_writer: int
    rounds: int
    writers: int
    made: float


def effort_for(exclusion: Exclusion) -> ProbeEffort:
    """The effort of the probe at the first use of a bucket, by the kind of exclusion between its writers."""
    return LIGHT_PROBE if exclusion is Exclusion.KERNEL else FULL_PROBE


def check_format(bucket: Bucket) -> FormatRecord | None:
    """The format record of the bucket, None before the first use; costs one small read.

    Raises BucketError when this version may not read the bucket.
    """
    body = bucket.get(FORMAT_KEY)
    if body is None:
        return None
    found = unpack(FormatRecord, FORMAT_KEY, body)
    if found.min_reader > RECORD_VERSION:
        raise BucketError("the bucket was made by a later version of dstack", hint="upgrade this dstack")
    return found


def require_writer(found: FormatRecord) -> None:
    """Raises BucketError when this version may not write to the bucket."""
    if found.min_writer > RECORD_VERSION:
        raise BucketError(
            "the bucket may be read but not written by this version of dstack",
            hint="upgrade this dstack to run and stop jobs",
        )


def writable(bucket: Bucket) -> bool:
    """Whether the bucket was found good before; raises as `check_format` and `require_writer` do."""
    found = check_format(bucket)
    if found is not None:
        require_writer(found)
    return found is not None


def ensure_probed(bucket: Bucket, *, nonce: str, now: float, effort: ProbeEffort = FULL_PROBE) -> None:
    """Return only for a bucket found good: a new bucket is probed, and the answer recorded.

    `nonce` is fresh randomness of this caller, `now` seconds since the epoch. Safe beside other first users. Raises
    BucketError with the reason when the bucket fails, and then records nothing; likewise as `check_format` does.
    """
    if writable(bucket):
        return
    probe(bucket, nonce=nonce, effort=effort)
    record = FormatRecord(
        nonce=nonce, min_reader=1, min_writer=1, rounds=effort.rounds, writers=effort.writers, made=now
    )
    # Imported here on purpose: `dstack ps` opens a bucket, and creates nothing.
    from dstack.app.protocol.create_if_absent import create_now

    create_now(bucket, FORMAT_KEY, pack(record))
    writable(bucket)  # another process may have been faster, with a later version


def probe(bucket: Bucket, *, nonce: str, effort: ProbeEffort) -> None:
    """Try the bucket below `probe/<nonce>/` and leave nothing there; raises BucketError when it fails."""
    folder = probe_folder(nonce)
    keys = [f"{folder}{name}" for name in ("once", *(f"race{index}" for index in range(effort.rounds)))]
    try:
        _try_one_after_another(bucket, keys[0], nonce)
        for key in keys[1:]:
            _try_at_once(bucket, key, effort.writers, nonce)
        _expect(list(bucket.list(folder)) == sorted(keys), "a list does not show what was created before it")
        _expect(
            list(bucket.list(folder, limit=1)) == sorted(keys)[:1], "a limited list does not begin at the beginning"
        )
        _try_overwriting(bucket, keys[0], folder)
    finally:
        _clean(bucket, keys)


def _try_one_after_another(bucket: Bucket, key: str, nonce: str) -> None:
    body = f"{nonce} first".encode()
    _expect(bucket.get(key) is None, "it shows something under a name that nobody used")
    _expect(bucket.create(key, body) is Put.CREATED, "it does not say that a new object was created")
    _expect(bucket.get(key) == body, "it does not show an object that was just created")
    # The empty one: some clients write it by another call, without the condition.
    for other in (f"{nonce} second".encode(), b""):
        _expect(bucket.create(key, other) is Put.EXISTS, "it does not refuse to create an object that exists")
        _expect(bucket.get(key) == body, "it overwrites an object that exists, although told not to")


def _try_at_once(bucket: Bucket, key: str, writers: int, nonce: str) -> None:
    bodies = [f"{nonce} writer {index}".encode() for index in range(writers)]
    answers = _together([lambda body=body: bucket.create(key, body) for body in bodies])  # type: ignore[misc]
    found = bucket.get(key)
    _expect(found in bodies, "after several writers at once it holds what none of them wrote")
    winners = [body for body, answer in zip(bodies, answers, strict=True) if answer is Put.CREATED]
    _expect(len(winners) <= 1, f"{len(winners)} of {writers} writers at once were told that they created one object")
    _expect(not winners or winners == [found], "it holds the bytes of another writer than the one it said had won")
    unsure = [body for body, answer in zip(bodies, answers, strict=True) if answer is Put.UNKNOWN]
    _expect(bool(winners) or found in unsure, "an object came into being, and no writer was told so")


def _try_overwriting(bucket: Bucket, key: str, folder: str) -> None:
    for body in (b"one", b"two"):
        bucket.put(key, body)
        _expect(bucket.get(key) == body, "it shows old bytes after an overwrite")
    bucket.delete(key)
    _expect(bucket.get(key) is None, "it shows an object that was deleted")
    _expect(key not in bucket.list(folder), "a list shows an object that was deleted")


def _together(calls: Sequence[Callable[[], Put]]) -> list[Put]:
    """Make all calls at the same moment; raises the first error."""
    barrier = threading.Barrier(len(calls))
    answers: list[Put | BaseException] = [Put.UNKNOWN] * len(calls)

    def one(index: int) -> None:
        barrier.wait()
        try:
            answers[index] = calls[index]()
        except BaseException as error:
            # The error of a thread reaches no caller by itself.
            answers[index] = error

    threads = [threading.Thread(target=one, args=(index,), daemon=True) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    good = []
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
        good.append(answer)
    return good


def _expect(holds: bool, reason: str) -> None:
    if not holds:
        raise BucketError(
            f"this storage cannot be a bucket: {reason}",
            hint="several people cannot share state there; name a folder that all machines see, or s3://, gs:// or "
            "az:// of a store with conditional writes (If-None-Match)",
        )


def _clean(bucket: Bucket, keys: Sequence[str]) -> None:
    for key in keys:
        try:
            bucket.delete(key)
        except BucketError:
            # Whatever stopped the probe is the news; a left-over harms nobody.
            return
