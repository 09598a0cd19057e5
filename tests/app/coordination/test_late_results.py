"""What a lost attempt has left on a host, without anybody to look after it, comes into the bucket. The host is real."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

from dstack.app.coordination import host_cleanup
from dstack.app.coordination.host_cleanup import clean_up_host
from dstack.core.artifacts import manifests
from dstack.core.format.keys import AttemptKeys
from dstack.core.format.records import Claim, End, Gone, Result, pack, unpack
from dstack.errors import BucketError
from dstack.model import Nonce, RunId, RunName
from dstack.ports import Put
from tests.support.buckets.memory import MemoryBucket
from tests.support.records.specs import FACTS, spec
from tests.support.records.story import ME, Story
from tests.support.runners.bench import Bench, LocalOpener, Repository, play
from tests.support.runners.reached import reached

TRAIN = spec("train")
MAKE = "mkdir train; echo weights > train/made; echo done"
NUMBER = 1
Record = Callable[[Nonce], None]
"""Writes what the records say of the attempt of this nonce."""


class CutBucket(MemoryBucket):
    """A bucket that takes nothing more once it is `cut`."""

    cut = False

    def create(self, key: str, body: bytes) -> Put:
        if self.cut:
            raise BucketError("away")
        return super().create(key, body)


@pytest.fixture
def bucket() -> CutBucket:
    return CutBucket()


@pytest.fixture
def story(bucket: CutBucket) -> Story:
    return Story(bucket)


@pytest.fixture
def keys(story: Story) -> AttemptKeys:
    """The first attempt of a job whose run is over: it counts as lost."""
    record = story.run("one", TRAIN)
    attempt = story.keys.job(story.fingerprint(TRAIN), 1).attempt(NUMBER)
    story.final(record, "lost", story.outcome(record, TRAIN, "lost"))
    return attempt


NOTHING: Mapping[str, str] = MappingProxyType({})


def call_lost(story: Story, keys: AttemptKeys, nonce: str, claimed: Mapping[str, str] = NOTHING) -> None:
    """The attempt was claimed in the spool of `FACTS`, in an earlier boot, but for `claimed`; and called lost."""
    claim = Claim(
        nonce=nonce,
        run=RunId("r"),
        run_name=RunName("one"),
        host="box",
        address={},
        boot_id="earlier",
        coordinator=ME,
        account=FACTS.user,
        folder=FACTS.dir,
        place=FACTS.place,
        machine=FACTS.machine,
    )
    story.put(keys.claim, pack(replace(claim, **claimed)))  # type: ignore[arg-type]
    story.put(keys.end, pack(End(nonce=nonce, status="lost", reason="the host was started again")))


def tidied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, story: Story, keys: AttemptKeys, script: str, record: Record
) -> tuple[Nonce, list[str], list[str]]:
    """Runs the script as the attempt, lets `record` write what the records say, and tidies -> the attempt's nonce, what
    was said, and what lies in the host's spool afterwards."""
    monkeypatch.setattr(host_cleanup, "RELEASE_GRACE_S", 0.0)
    monkeypatch.setenv("DSTACK_SLOTS_DIR", str(tmp_path / "slots"))
    found: list[tuple[Nonce, list[str], list[str]]] = []

    async def scene() -> None:
        async with Bench(LocalOpener(tmp_path / "host"), Repository(tmp_path)) as bench:
            client = await bench.client()
            nonce, _, _ = await bench.finished(client, script, artifacts=["train"], attempt=keys.folder)
            record(nonce)
            said: list[str] = []
            await clean_up_host(reached(client), story.bucket, story.keys, say=said.append)
            found.append((nonce, said, [each.nonce for each in await client.spool()]))

    play(scene())
    return found[0]


def read(story: Story, key: str) -> bytes:
    body = story.bucket.get(key)
    assert body is not None, key
    return body


def test_a_result_that_nobody_waits_for_is_brought_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, story: Story, keys: AttemptKeys
) -> None:
    nonce, said, spool = tidied(tmp_path, monkeypatch, story, keys, MAKE, lambda nonce: call_lost(story, keys, nonce))
    assert said == ["box: brought in the result of attempt 1 of one, which was called lost"]
    result = unpack(Result, keys.generation.result, read(story, keys.generation.result))
    assert (result.nonce, result.attempt) == (nonce, NUMBER)
    manifest = manifests.decode(keys.manifest, read(story, keys.manifest))
    assert result.digest == manifests.content_digest(manifest)
    assert [entry.path for entry in manifest.entries if entry.size] == ["train/made"]
    assert read(story, keys.log(0)) == b"done\n"
    assert unpack(Gone, keys.gone, read(story, keys.gone)).nonce == nonce
    assert spool == []


def test_what_a_failed_one_has_left_is_kept_and_is_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, story: Story, keys: AttemptKeys
) -> None:
    script = f"{MAKE}; exit 3"
    _, said, spool = tidied(tmp_path, monkeypatch, story, keys, script, lambda nonce: call_lost(story, keys, nonce))
    assert said == ["box: brought in what is left of attempt 1 of one, which was called lost"]
    assert story.bucket.get(keys.generation.result) is None
    assert manifests.decode(keys.manifest, read(story, keys.manifest)).partial
    assert read(story, keys.log(0)) == b"done\n"
    assert spool == []


def test_nothing_is_forgotten_that_the_bucket_did_not_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, story: Story, keys: AttemptKeys, bucket: CutBucket
) -> None:
    def record(nonce: Nonce) -> None:
        call_lost(story, keys, nonce)
        bucket.cut = True

    nonce, said, spool = tidied(tmp_path, monkeypatch, story, keys, MAKE, record)
    assert said == ["box: what a lost attempt has left could not be brought in: away"]
    assert spool == [nonce]


@pytest.mark.parametrize(
    "claimed",
    [{"nonce": "another"}, {"machine": "m2"}, {"place": "there"}, {"account": "bob"}, {"folder": "/home/bob/.dstack"}],
    ids=lambda claimed: next(iter(claimed)),
)
def test_an_attempt_that_was_not_claimed_there_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, story: Story, keys: AttemptKeys, claimed: dict[str, str]
) -> None:
    """A host that has heard of a lost attempt elsewhere cannot give its result."""

    def record(nonce: Nonce) -> None:
        call_lost(story, keys, nonce, claimed)

    nonce, said, spool = tidied(tmp_path, monkeypatch, story, keys, MAKE, record)
    assert (said, spool) == ([], [nonce])
    assert story.bucket.get(keys.generation.result) is None
