"""How often a coordinator looks at what it looks after."""

from __future__ import annotations

from typing import Any

from dstack.app import attempts
from dstack.app import effects as fx
from dstack.app.jobs import Job
from dstack.core.records import Claim, unpack
from tests.app.bucket_story import Story, spec
from tests.fakes.bucket_memory import MemoryBucket

TRAIN = spec("train")
HOUR = 3600.0


def test_a_job_of_hours_is_looked_at_less_often_but_soon_enough_for_a_stop() -> None:
    bucket = MemoryBucket()
    story = Story(bucket)
    record = story.run("one", TRAIN)
    job = Job(run=record, spec=TRAIN, fingerprint=story.fingerprint(TRAIN), project=story.keys)
    mine = story.attempt(record, TRAIN)
    claim = unpack(Claim, mine.claim, bucket.get(mine.claim) or b"")
    steps = attempts.look_after(job, mine, claim)
    now, looks, reads = 0.0, [], 0
    answer: Any = None
    while now < HOUR:
        effect = steps.send(answer)
        answer = None
        match effect:
            case fx.Watch(patience=patience):
                looks.append(patience)
                now += patience
            case fx.HowSilent():
                answer = fx.Silence(seconds=0.0, since="12:00")
            case fx.PutNew(key, body):
                answer = bucket.create(key, body)
            case fx.Read(key):
                reads += 1
                answer = bucket.get(key)
    assert looks[0] == 1.0  # of a short job every second counts
    assert max(looks) <= 3.0
    assert reads < HOUR * 1.1
    steps.close()
