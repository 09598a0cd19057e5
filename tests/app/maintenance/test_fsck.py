"""`fsck` on a bucket in memory: each way to break it is told once, at its key, and what can be derived is mended."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import fields

import pytest

from dstack.app.maintenance.blocking_driver import BlockingPerformer
from dstack.app.maintenance.bucket_probe import FormatRecord
from dstack.app.maintenance.fsck.bucket import check_bucket
from dstack.app.maintenance.fsck.findings import Finding
from dstack.app.protocol.liveness import Observer
from dstack.core.format.records import Claim, End, Final, Outcome, Pin, Result, Tomb, User, Want, pack, unpack
from dstack.model import JobStatus, RunId
from dstack.ports import Listed
from tests.support.buckets.memory import MemoryBucket
from tests.support.records.finished import TRAIN, age, finished, generation
from tests.support.records.specs import spec
from tests.support.records.story import ME, Story

OTHER = spec("other", script="x")


@pytest.fixture
def story() -> Story:
    """Two runs that ended well, one of them with `train`, some time ago."""
    bucket = MemoryBucket()
    bucket.create(
        "dstack.json", pack(FormatRecord(nonce="n", min_reader=1, min_writer=1, rounds=1, writers=4, made=0.0))
    )
    made = Story(bucket)
    finished(made, "one")
    finished(made, "two", OTHER)
    age(made)
    return made


def told(story: Story, *, deep: bool = False) -> list[Finding]:
    return list(check_bucket(story.bucket, now=time.time(), deep=deep, pause=0.0))


def mend(story: Story, findings: list[Finding]) -> None:
    observer = Observer(story.bucket, story.keys, sure=lambda _: False, boottime=time.monotonic)
    performer = BlockingPerformer(story.bucket, observer, lambda: "fresh")
    for each in findings:
        if each.repair is not None:
            performer.take(each.repair())
    performer.close()


def test_a_good_bucket_is_good(story: Story) -> None:
    assert told(story) == told(story, deep=True) == []


def _rid(story: Story) -> str:
    return str(json.loads(story.bucket.get("projects/p/names/one") or b"")["run"])


def _change(story: Story, key: str, cls: type, **fields: object) -> None:
    from dataclasses import replace

    story.bucket.put(key, pack(replace(unpack(cls, key, story.bucket.get(key) or b""), **fields)))


Break = Callable[[Story], tuple[str, str]]
"""Damages a bucket -> the key at which it is told, and a word of what is told."""
BREAKS: dict[str, Break] = {}
MENDED: set[str] = set()


def breaking(*, mended: bool) -> Callable[[Break], Break]:
    def add(each: Break) -> Break:
        BREAKS[each.__name__] = each
        if mended:
            MENDED.add(each.__name__)
        return each

    return add


@breaking(mended=True)
def no_name(story: Story) -> tuple[str, str]:
    story.bucket.delete("projects/p/names/one")
    return "projects/p/names/one", "cannot be found by its name"


@breaking(mended=False)
def name_of_another(story: Story) -> tuple[str, str]:
    story.bucket.put("projects/p/names/one", story.bucket.get("projects/p/names/two") or b"")
    return "projects/p/names/one", "leads to another run"


@breaking(mended=True)
def name_of_nothing(story: Story) -> tuple[str, str]:
    story.bucket.put("projects/p/names/gone", b'{"run":"0000000000001-aaaaaaaaaa"}')
    story.bucket.times["projects/p/names/gone"] = 0.0  # type: ignore[attr-defined]
    return "projects/p/names/gone", "which does not exist"


@breaking(mended=True)
def no_final(story: Story) -> tuple[str, str]:
    story.bucket.delete(f"projects/p/runs/{_rid(story)}/final")
    return f"projects/p/runs/{_rid(story)}/final", "counts as running"


@breaking(mended=True)
def no_outcome(story: Story) -> tuple[str, str]:
    key = f"projects/p/runs/{_rid(story)}/jobs/train"
    story.bucket.delete(key)
    return key, "the run has ended"


@breaking(mended=True)
def no_outcome_and_no_final(story: Story) -> tuple[str, str]:
    key = f"projects/p/runs/{_rid(story)}/jobs/train"
    story.bucket.delete(key)
    story.bucket.delete(f"projects/p/runs/{_rid(story)}/final")
    return key, "the run's outcome of it is missing"


@breaking(mended=True)
def no_record(story: Story) -> tuple[str, str]:
    key = f"projects/p/runs/{_rid(story)}/run.json"
    story.bucket.delete("projects/p/names/one")
    story.bucket.delete(key)
    return key, "a prune was broken off"


@breaking(mended=False)
def another_outcome_than_the_summary(story: Story) -> tuple[str, str]:
    key = f"projects/p/runs/{_rid(story)}/jobs/train"
    _change(story, key, Outcome, host="elsewhere")
    return f"projects/p/runs/{_rid(story)}/final", "something else of train"


@breaking(mended=False)
def outcome_of_another_result(story: Story) -> tuple[str, str]:
    rid = _rid(story)
    story.bucket.delete(f"projects/p/runs/{rid}/final")
    _change(story, f"projects/p/runs/{rid}/jobs/train", Outcome, digest="other")
    story.bucket.times[f"projects/p/runs/{rid}/jobs/train"] = time.time()  # type: ignore[attr-defined]
    return f"projects/p/runs/{rid}/jobs/train", "another one"


@breaking(mended=False)
def an_outcome_that_is_no_end(story: Story) -> tuple[str, str]:
    rid = _rid(story)
    story.bucket.delete(f"projects/p/runs/{rid}/final")
    _change(story, f"projects/p/runs/{rid}/jobs/train", Outcome, status=JobStatus.RUNNING)
    return f"projects/p/runs/{rid}/jobs/train", "cannot end as running"


@breaking(mended=False)
def no_result(story: Story) -> tuple[str, str]:
    story.bucket.delete(generation(story).attempt(1).end)
    story.bucket.delete(generation(story).result)
    return f"projects/p/runs/{_rid(story)}/jobs/train", "is gone, and was not pruned"


@breaking(mended=False)
def an_end_without_a_result(story: Story) -> tuple[str, str]:
    attempt = story.attempt(story.run("three", TRAIN), TRAIN, 2)
    story.put(attempt.end, pack(End(nonce="n2", status="succeeded")))
    return attempt.end, "attempt 1 is the result"


@breaking(mended=True)
def no_manifest(story: Story) -> tuple[str, str]:
    story.bucket.delete(generation(story).attempt(1).manifest)
    return generation(story).attempt(1).manifest, "missing"


@breaking(mended=True)
def another_manifest(story: Story) -> tuple[str, str]:
    key = generation(story).attempt(1).manifest
    story.bucket.put(key, (story.bucket.get(key) or b"") + b"\n")
    return key, "not the manifest that the result names"


@breaking(mended=True)
def another_digest(story: Story) -> tuple[str, str]:
    _change(story, generation(story).result, Result, digest="0" * 64)
    rid = _rid(story)
    for key in (f"projects/p/runs/{rid}/jobs/train", f"projects/p/runs/{rid}/final", f"projects/p/runs/{rid}/run.json"):
        story.bucket.delete(key)
    story.bucket.delete("projects/p/names/one")
    return generation(story).result, "not that of the artifacts"


@breaking(mended=True)
def no_pack(story: Story) -> tuple[str, str]:
    key = story.bucket.list(generation(story).attempt(1).pack(""))[0]
    story.bucket.delete(key)
    return key, "5 bytes are missing"


@breaking(mended=True)
def a_short_pack(story: Story) -> tuple[str, str]:
    key = story.bucket.list(generation(story).attempt(1).pack(""))[0]
    story.bucket.put(key, b"hell")
    return key, "it has 4 bytes"


@breaking(mended=True)
def changed_bytes(story: Story) -> tuple[str, str]:
    key = story.bucket.list(generation(story).attempt(1).pack(""))[0]
    story.bucket.put(key, b"hullo")
    return key, "damaged"


@breaking(mended=True)
def a_result_of_nobody(story: Story) -> tuple[str, str]:
    _change(story, generation(story).attempt(1).claim, Claim, nonce="other")
    _change(story, generation(story).attempt(1).end, End, nonce="other")
    return generation(story).result, "not written by the claimant"


@breaking(mended=False)
def an_end_of_another(story: Story) -> tuple[str, str]:
    _change(story, generation(story).attempt(1).end, End, nonce="other")
    return generation(story).attempt(1).end, "another attempt"


@breaking(mended=False)
def a_gap_in_the_claims(story: Story) -> tuple[str, str]:
    story.attempt(story.run("three", TRAIN), TRAIN, 3)
    return generation(story).attempt(2).claim, "no gaps"


@breaking(mended=False)
def an_attempt_of_nobody(story: Story) -> tuple[str, str]:
    story.log(generation(story).attempt(2), b"x")
    return generation(story).attempt(2).folder, "nobody claimed"


@breaking(mended=False)
def a_gap_in_the_log(story: Story) -> tuple[str, str]:
    story.bucket.put(generation(story).attempt(1).log(99), b"x")
    return generation(story).attempt(1).log(99), "should begin at 6"


@breaking(mended=False)
def a_generation_without_a_reason(story: Story) -> tuple[str, str]:
    story.attempt(story.run("three", TRAIN), TRAIN, 1, generation=2)
    return generation(story, 2).why, "nothing says why"


@breaking(mended=False)
def a_want_of_another(story: Story) -> tuple[str, str]:
    key = generation(story).want(_rid(story))  # type: ignore[arg-type]
    _change(story, key, Want, run="other")
    return key, "another run"


@breaking(mended=False)
def a_gap_among_the_users(story: Story) -> tuple[str, str]:
    for number in (1, 3):
        story.put(generation(story).user(number), pack(User(nonce="n", name="reader")))
    return generation(story).user(2), "users have no gaps"


@breaking(mended=False)
def a_user_that_does_not_decode(story: Story) -> tuple[str, str]:
    story.bucket.put(generation(story).user(1), b"[]")
    return generation(story).user(1), "is not a record of kind user"


@breaking(mended=True)
def left_behind_a_tomb(story: Story) -> tuple[str, str]:
    story.put(generation(story).tomb, pack(Tomb(nonce="t", user="u")))
    return generation(story).tomb, "left behind a tomb"


@breaking(mended=False)
def no_record_at_all(story: Story) -> tuple[str, str]:
    story.bucket.put(generation(story).attempt(1).claim, b"\xff{")
    return generation(story).attempt(1).claim, "is not a record of kind claim"


@breaking(mended=False)
def a_pin_that_does_not_decode(story: Story) -> tuple[str, str]:
    story.bucket.put(generation(story).pin("x"), b"[]")
    return generation(story).pin("x"), "is not a record of kind pin"


@breaking(mended=False)
def a_foreign_key(story: Story) -> tuple[str, str]:
    story.bucket.put("projects/p/jobs/readme", b"")
    return "projects/p/jobs/readme", "no dstack of this version"


@breaking(mended=False)
def a_foreign_folder(story: Story) -> tuple[str, str]:
    story.bucket.put("photos/cat.jpg", b"")
    return "photos/", "no dstack of this version"


@breaking(mended=False)
def no_format(story: Story) -> tuple[str, str]:
    story.bucket.delete("dstack.json")
    return "dstack.json", "no format record"


@pytest.mark.parametrize("name", BREAKS)
def test_it_is_told_and_mended(story: Story, name: str) -> None:
    key, words = BREAKS[name](story)
    findings = told(story, deep=name == "changed_bytes")
    assert [each.key for each in findings if words in each.meaning] == [key], findings
    others = [each for each in findings if each.key != key and each.repair is None]
    assert len(others) <= 1, others
    assert (next(each for each in findings if each.key == key).repair is not None) == (name in MENDED)
    if name in MENDED:
        for _ in range(3):
            age(story)
            mend(story, told(story, deep=True))
        assert told(story, deep=True) == []


def test_a_damaged_result_is_made_again_after_its_repair(story: Story) -> None:
    from dstack.app.protocol import generations
    from dstack.app.protocol.jobs import Job

    no_pack(story)
    mend(story, told(story))
    job = Job(run=story.run("three", TRAIN), spec=TRAIN, fingerprint=story.fingerprint(TRAIN), project=story.keys)
    performer = BlockingPerformer(
        story.bucket, Observer(story.bucket, story.keys, sure=lambda _: None, boottime=float), lambda: "n"
    )
    keys = performer.take(generations.first_generation(job))
    assert performer.take(generations.record_want(job, keys)).left
    assert performer.take(generations.next_generation(job, keys)).generation == 2
    performer.close()


def test_a_run_at_work_is_nothing_wrong(story: Story) -> None:
    """Every state that a coordinator passes through, from the first record to the last."""
    record = story.run("three", spec("third", script="y"))
    job = record.plan.jobs[0]
    assert told(story) == []
    keys = story.keys.job(story.fingerprint(job), 1)
    story.put(keys.pin(record.id), pack(Pin(nonce="n")))
    assert told(story) == []
    attempt = story.attempt(record, job)
    assert told(story) == []
    story.log(attempt, b"a", b"bc")
    story.put(attempt.pack("0" * 64), b"half of it")
    assert told(story) == []
    story.put(keys.pin("reader"), pack(Pin(nonce="reader", reader=ME)))
    story.put(story.keys.heartbeat("c1"), b"{}")
    assert told(story) == []


def test_memory_does_not_grow_with_the_number_of_objects(story: Story) -> None:
    class Endless(MemoryBucket):
        """Answers like a bucket of many jobs with a log of many pieces, and holds none of them."""

        def children(self, prefix: str, *, limit: int | None = None, after: str = "") -> list[str]:
            if prefix == "projects/p/jobs/":
                return [f"{number:064x}/" for number in range(JOBS)]
            return list(super().children(prefix, limit=limit, after=after))

        def survey(self, prefix: str) -> Iterator[Listed]:
            if not prefix.startswith("projects/p/jobs/"):
                yield from super().survey(prefix)
                return
            yield Listed(key=f"{prefix}000001/claim/000001", size=len(CLAIM), modified=0.0)
            for piece in range(PIECES):
                key = f"{prefix}000001/a/000001/log/{piece * 10:016x}"
                yield Listed(key=key, size=10, modified=0.0)

        def get(self, key: str) -> bytes | None:
            return CLAIM if key.endswith("/claim/000001") else super().get(key)

    claim = generation(story).attempt(1).claim
    CLAIM = story.bucket.get(claim) or b""
    JOBS, PIECES = 1000, 100
    endless = Endless()
    endless.objects = {"dstack.json": story.bucket.get("dstack.json") or b""}
    endless.objects["projects/p/names/x"] = b'{"run":"0000000000001-aaaaaaaaaa"}'
    tracemalloc.start()
    found = list(check_bucket(endless, now=time.time(), deep=False, pause=0.0))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == []
    assert peak < 12_000_000


def test_an_attempt_that_was_called_lost_and_committed_first_is_right(story: Story) -> None:
    keys = generation(story)
    _change(story, keys.attempt(1).end, End, status="lost")
    assert told(story) == []


def test_a_summary_that_is_written_again_has_all_that_was_in_it(story: Story) -> None:
    key = story.keys.run(RunId(_rid(story))).final
    before = unpack(Final, key, story.bucket.get(key) or b"")
    story.bucket.delete(key)
    age(story)
    mend(story, told(story))
    after = unpack(Final, key, story.bucket.get(key) or b"")
    differing = {each.name for each in fields(Final) if getattr(before, each.name) != getattr(after, each.name)}
    assert differing <= {"nonce", "ended"}  # an outcome of this story has no time, its summary has
    assert (after.machine, after.user) == (before.machine, before.user) != ("", "")


def test_an_outcome_that_is_written_again_has_all_that_was_in_it(story: Story) -> None:
    lost = "the last 5 bytes could not be written"
    _change(story, generation(story).result, Result, log_lost=lost, host="gpu-1")
    no_outcome_and_no_final(story)
    age(story)
    mend(story, told(story))
    key = f"projects/p/runs/{_rid(story)}/jobs/train"
    outcome = unpack(Outcome, key, story.bucket.get(key) or b"")
    assert (outcome.status, outcome.reason, outcome.host) == (JobStatus.SUCCEEDED, lost, "gpu-1")
