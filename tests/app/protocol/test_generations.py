"""Which generation a run works in, beside reruns, prunes and damage."""

from __future__ import annotations

import pytest

from dstack.app.protocol import generations
from dstack.app.protocol.bucket_performer import read_only
from dstack.app.protocol.jobs import Job
from dstack.core.format.records import RunRecord, Tomb, Want, Why, pack, unpack
from tests.support.buckets.memory import MemoryBucket
from tests.support.records.specs import spec
from tests.support.records.story import Story
from tests.support.simulator.fed_steps import play

TRAIN = spec("train")


class Project:
    """A bucket with runs of one job."""

    def __init__(self) -> None:
        self.bucket = MemoryBucket()
        self.story = Story(self.bucket)

    def job(self, record: RunRecord | None = None, *, fresh: str = "") -> Job:
        record = record or self.story.run("one", TRAIN)
        print_ = self.story.fingerprint(TRAIN)
        return Job(run=record, spec=TRAIN, fingerprint=print_, project=self.story.keys, fresh=fresh)

    def close(self, job: Job, number: int) -> None:
        self.bucket.put(job.generation(number).tomb, pack(Tomb(nonce="t", user="u")))

    def first(self, job: Job) -> int:
        return play(generations.first_generation(job), self.bucket)[0].generation

    def why(self, job: Job, number: int) -> Why:
        key = job.generation(number).why
        return unpack(Why, key, self.bucket.objects[key])


@pytest.fixture
def project() -> Project:
    return Project()


def test_the_first_run_of_a_job_begins_in_the_first_generation_and_opens_nothing(project: Project) -> None:
    job = project.job()
    before = dict(project.bucket.objects)
    assert project.first(job) == 1
    assert project.bucket.objects == before


def test_behind_a_tomb_all_runs_come_to_one_new_shared_generation(project: Project) -> None:
    one, two = project.job(), project.job(project.story.run("two", TRAIN))
    project.close(one, 1)
    assert project.first(one) == project.first(two) == 2
    why = project.why(one, 2)
    assert (why.reason, why.shared, why.run) == (generations.PRUNED_REASON, True, one.run.id)


def test_a_run_stays_where_it_waits_already_whatever_was_closed_since(project: Project) -> None:
    job = project.job()
    project.story.attempt(job.run, TRAIN)
    project.close(job, 1)
    assert project.first(job) == 1


def test_a_want_that_is_damaged_or_has_left_keeps_no_run(project: Project) -> None:
    job = project.job()
    key = job.generation(1).want(job.run.id)
    project.close(job, 1)
    left = Want(nonce="n", run=job.run.id, workflow=TRAIN.workflow, ended=0, left=True)
    for body in (b"damaged", pack(left)):
        project.bucket.put(key, body)
        assert project.first(job) == 2


def test_a_rerun_has_a_generation_of_its_own_and_finds_it_again(project: Project) -> None:
    rerun, other = project.job(fresh="alice asked for it"), project.job(project.story.run("two", TRAIN))
    assert project.first(rerun) == project.first(rerun) == 2
    assert not project.why(rerun, 2).shared
    assert project.first(other) == 1, "a rerun without a result does not count for others"


def test_the_result_of_a_rerun_counts_for_all(project: Project) -> None:
    rerun, other = project.job(fresh="alice asked for it"), project.job(project.story.run("two", TRAIN))
    project.bucket.put(rerun.generation(project.first(rerun)).result, b"a result")
    assert project.first(other) == 2
    state = read_only(generations.current_state(other), project.bucket)
    assert (state.numbers, state.result, state.closed) == ((1, 2), 2, 0)


def test_a_damaged_generation_is_closed_and_the_next_shared_one_is_above_it(project: Project) -> None:
    job = project.job()
    play(generations.close_generation(job, 1, "its pack is cut"), project.bucket)
    tomb = unpack(Tomb, "tomb", project.bucket.objects[job.generation(1).tomb])
    assert (tomb.damaged, tomb.reason) == (True, "its pack is cut")
    project.bucket.put(job.generation(2).why, b"damaged: nobody's")
    assert play(generations.shared_generation(job, 1, "why"), project.bucket)[0].generation == 3


def test_the_first_recorded_want_decides_for_all_coordinators_of_a_run(project: Project) -> None:
    """Two of them look on different sides of the moment when the tomb comes."""
    job = project.job()
    assert not play(generations.record_want(job, job.generation(1)), project.bucket)[0].left
    project.close(job, 1)
    assert not play(generations.record_want(job, job.generation(1)), project.bucket)[0].left
    late = project.job(project.story.run("two", TRAIN))
    assert play(generations.record_want(late, late.generation(1)), project.bucket)[0].left


def test_a_want_comes_after_register_and_pin_and_names_the_attempts_that_had_ended(project: Project) -> None:
    earlier, job = project.job(), project.job(project.story.run("two", TRAIN))
    project.story.end(project.story.attempt(earlier.run, TRAIN, 1))
    project.story.attempt(earlier.run, TRAIN, 2)
    begun, keys = len(project.bucket.order), job.generation(1)
    assert play(generations.record_want(job, keys), project.bucket)[0].ended == 1, "the second one lives"
    assert project.bucket.order[begun:] == [keys.user(1), keys.pin(job.run.id), keys.want(job.run.id)]
