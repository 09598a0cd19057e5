"""Who looks after a run, as ps and show tell it at once, and which run is meant by what somebody typed."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dstack.app.protocol.lease import TAKEOVER_S
from dstack.app.queries.coordinators import NEW_RUN_S, SILENT_BEAT_S, Presence
from dstack.app.queries.run_lookup import find_run, last_run
from dstack.app.queries.run_views import Caretakers, JobView, RunView
from dstack.app.queries.runs import own_run_ids, run_ids, run_view, views_of
from dstack.cli.runs.ps import not_begun
from dstack.cli.runs.table_notes import left_alone, out_of_sight
from dstack.core.fingerprint import fingerprint, ingredients
from dstack.core.foreign_attempts import Sighting
from dstack.core.format.keys import AttemptKeys, ProjectKeys
from dstack.core.format.records import Claim, Coordinator, Owner, RunRecord, Started, Want, pack, unpack
from dstack.core.time_spans import CLOCK_SKEW_S
from dstack.errors import NotFoundError, UsageError
from dstack.model import JobStatus, RunId, RunName, RunStatus, WorkflowName
from dstack.ui.tables import notes
from tests.support.buckets.memory import MemoryBucket
from tests.support.buckets.request_log import OPEN, documented
from tests.support.records.specs import spec
from tests.support.records.story import ME, Story

NOW = 1_790_009_000.0
BOB = Coordinator(id="c2", user="bob", machine="desk", boot_id="b2", pid=2, lock="/nowhere")


@pytest.fixture
def bucket() -> MemoryBucket:
    return MemoryBucket()


@pytest.fixture
def story(bucket: MemoryBucket) -> Story:
    return Story(bucket)


def look(story: Story, *, now: float = NOW, sure: bool | None = None) -> Presence:
    return Presence(story.bucket, story.keys, sure=lambda _: sure, now=now)


def beats(story: Story, coordinator: Coordinator, at: object, **more: object) -> None:
    story.bucket.put(story.keys.heartbeat(coordinator.id), json.dumps({"beat": 3, "at": at, **more}).encode())


def attends(story: Story, record: RunRecord, coordinator: Coordinator) -> None:
    story.put(story.keys.run(record.id).coordinator(coordinator.id), pack(coordinator))


def running(story: Story) -> tuple[RunRecord, AttemptKeys]:
    """A run of one job that has run for 100 seconds, looked after by alice@laptop."""
    record = story.run("a-1", spec("train"))
    attempt = story.attempt(record, spec("train"))
    attends(story, record, ME)
    story.put(attempt.started, pack(Started(nonce="n1", at=NOW - 100)))
    return record, attempt


def view(story: Story, record: RunRecord, **changes: object) -> RunView:
    return run_view(story.bucket, story.keys, record, look=lambda: look(story, **changes))  # type: ignore[arg-type]


def job(story: Story, record: RunRecord, **changes: object) -> JobView:
    return view(story, record, **changes).jobs[0]


def test_a_running_job_says_since_when_and_where(story: Story) -> None:
    record, _ = running(story)
    beats(story, ME, NOW - 10)
    told = view(story, record)
    assert (told.jobs[0].started, told.hosts, told.took(NOW)) == (NOW - 100, ("gpu-1",), 100)
    assert told.caretakers == Caretakers(by=("alice@laptop",))
    assert (told.alone, told.jobs[0].ownerless) == (False, False)


def test_who_is_heard_or_known_to_live_looks_after_it(story: Story) -> None:
    record, _ = running(story)
    assert view(story, record, sure=True).caretakers == Caretakers(by=("alice@laptop",))
    beats(story, ME, NOW - SILENT_BEAT_S + 1)
    assert view(story, record).caretakers == Caretakers(by=("alice@laptop",))


def test_whose_process_is_gone_does_not_whatever_its_heartbeat(story: Story) -> None:
    record, _ = running(story)
    beats(story, ME, NOW)
    assert view(story, record, sure=False).alone
    assert job(story, record, sure=False).ownerless


def test_without_a_heartbeat_nobody_does(story: Story) -> None:
    record, _ = running(story)
    told = view(story, record)
    assert told.caretakers == Caretakers(last="alice@laptop")
    assert told.alone
    assert told.jobs[0].ownerless


def test_a_heartbeat_that_is_old_says_since_when(story: Story) -> None:
    record, _ = running(story)
    beats(story, ME, NOW - 3600)
    assert view(story, record).caretakers == Caretakers(last="alice@laptop", last_beat=NOW - 3600)


def test_lent_credentials_that_ended_are_the_reason_of_a_silence_from_that_moment_on(story: Story) -> None:
    record, _ = running(story)
    beats(story, ME, NOW - 12, until=NOW - 5)
    assert view(story, record).caretakers == Caretakers(
        last="alice@laptop", last_beat=NOW - 12, credentials_end=NOW - 5
    )
    assert job(story, record).ownerless
    assert view(story, record, sure=True).caretakers == Caretakers(by=("alice@laptop",)), (
        "a detector that is sure knows better"
    )


@pytest.mark.parametrize("until", [NOW + 60, NOW - 20, None, "x", {}])
def test_who_beats_on_has_credentials(story: Story, until: object) -> None:
    record, _ = running(story)
    beats(story, ME, NOW - 12, until=until)
    assert view(story, record).caretakers == Caretakers(by=("alice@laptop",))


def test_an_owner_says_since_when_it_cannot_reach_a_host(story: Story) -> None:
    record, attempt = running(story)
    nonce = unpack(Claim, attempt.claim, story.bucket.get(attempt.claim) or b"").nonce
    beats(story, ME, NOW - 12, unreachable={nonce: NOW - 300, "another": NOW - 200})
    for sure in (None, True):
        told = job(story, record, sure=sure)
        assert (told.unreachable, told.unheard, told.ownerless) == (NOW - 300, 0.0, False)
    beats(story, ME, NOW - 12, unreachable={nonce: "x"})
    assert job(story, record).unreachable == 0.0
    beats(story, ME, NOW - 12, unreachable=[nonce])
    assert job(story, record).unreachable == 0.0


def test_an_owner_that_misses_some_beats_is_named_before_it_counts_as_silent(story: Story) -> None:
    record, _ = running(story)
    beats(story, ME, NOW - 46)
    told = job(story, record)
    assert (told.unheard, told.ownerless) == (NOW - 46, False)
    beats(story, ME, NOW - 44)
    assert job(story, record).unheard == 0.0


@pytest.mark.parametrize(
    ("silent", "sure"), [(50, None), (SILENT_BEAT_S - 1, None), (5, False), (SILENT_BEAT_S - 1, False)]
)
def test_hosts_that_stand_by_are_named_once_their_attendant_is_silent(
    story: Story, silent: float, sure: bool | None
) -> None:
    record, _ = running(story)
    beats(story, ME, NOW - silent, standby=["gpu-1", "gpu-2"])
    by = () if sure is False else ("alice@laptop",)
    told = Caretakers(by=by, last="alice@laptop", last_beat=NOW - silent, standby=("gpu-1", "gpu-2"))
    assert view(story, record, sure=sure).caretakers == told


@pytest.mark.parametrize(
    ("silent", "sure"), [(5, None), (50, True), (SILENT_BEAT_S, None), (SILENT_BEAT_S, False), (-3600, False)]
)
def test_hosts_that_stand_by_are_not_named_while_the_attendant_lives_nor_when_they_should_have_gone_on(
    story: Story, silent: float, sure: bool | None
) -> None:
    record, _ = running(story)
    beats(story, ME, NOW - silent, standby=["gpu-1"])
    caretakers = view(story, record, sure=sure).caretakers
    assert caretakers is not None
    assert caretakers.standby == ()


def test_who_works_on_a_run_beside_a_silent_attendant_looks_after_it(story: Story) -> None:
    record, _ = running(story)
    beats(story, ME, NOW - 100, standby=["gpu-1"])
    attends(story, record, BOB)
    beats(story, BOB, NOW)
    assert view(story, record).caretakers == Caretakers(by=("alice@laptop", "bob@desk"))


@pytest.mark.parametrize("standby", [None, "gpu-1", {"gpu-1": 1}, [1, None, ["gpu-1"], "", "g" * 1000], 7])
def test_damaged_names_of_hosts_are_no_names(story: Story, standby: object) -> None:
    record, _ = running(story)
    beats(story, ME, NOW - 50, standby=standby)
    assert view(story, record).caretakers == Caretakers(by=("alice@laptop",))


def test_people_are_told_that_hosts_go_on_by_themselves_and_not_to_attach(story: Story) -> None:
    record, _ = running(story)
    beats(story, ME, NOW - 50, standby=["gpu-1"])
    line = "a-1: no sign of alice@laptop for 50 s; gpu-1 stands by and goes on with it within 2 min"
    for sure in (None, False):
        told = view(story, record, sure=sure)
        assert [*out_of_sight(told, NOW), *left_alone(told, NOW)] == [line]
    beats(story, ME, NOW - SILENT_BEAT_S + 1, standby=["gpu-1", "gpu-2"])
    told = view(story, record)
    assert out_of_sight(told, NOW)[0].endswith("; gpu-1, gpu-2 stand by, but have not gone on with it yet")
    beats(story, ME, NOW - SILENT_BEAT_S, standby=["gpu-1"])
    told = view(story, record)
    assert left_alone(told, NOW)[0] == "a-1: no sign of alice@laptop for 4 min: dstack attach a-1"


def foreign_notes(story: Story, record: RunRecord, text: str) -> list[str]:
    """The lines below the table of `ps` where a host, a heartbeat, a claim or an end says `text`."""
    told = view(story, record, now=NOW + 5)
    (one,) = told.jobs
    waiting = replace(one, status=JobStatus.QUEUED, reason=text, host=text, account=text)
    away = replace(one, host=text, unreachable=NOW - 50)
    seen = replace(one, host=text, account=text, sighting=Sighting.ALIVE.value)
    unheard = replace(one, host=text, owner=text, unheard=NOW - 50)
    left = replace(one, host=text, account=text, ownerless=True)
    standing = Caretakers(by=(text,), last=text, last_beat=NOW - 50, standby=(text, text))
    views = (
        replace(told, jobs=(waiting, away, seen, unheard)),
        replace(told, jobs=(left,), caretakers=Caretakers(last=text, last_beat=NOW - 500)),
        replace(told, jobs=(one,), caretakers=standing),
        replace(told, jobs=(one,), caretakers=replace(standing, by=())),
    )
    texts = not_begun([replace(told, jobs=(waiting,))])
    for each in views:
        texts += [*out_of_sight(each, NOW), *left_alone(each, NOW)]
    return notes(texts, io.StringIO()).splitlines()


@given(st.text(st.characters() | st.sampled_from("\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\x1b"), max_size=60))
@example("gpu-1\nample-ferret-60: dstack lost ample-ferret-60")
def test_no_text_of_a_host_a_heartbeat_a_claim_or_an_end_makes_a_line_of_its_own(text: str) -> None:
    story = Story(MemoryBucket())
    record, _ = running(story)
    beats(story, ME, NOW)
    assert len(foreign_notes(story, record, f"x{text}")) == len(foreign_notes(story, record, "x")) == 8


@pytest.mark.parametrize(
    ("silent", "words"),
    [
        (TAKEOVER_S - 60, "stands by and goes on with it within 1 min"),
        (TAKEOVER_S - 61, "stands by and goes on with it within 2 min"),
        (TAKEOVER_S - 1, "stands by and goes on with it within 1 min"),
        (TAKEOVER_S, "stands by, but has not gone on with it yet"),
        (TAKEOVER_S + 60, "stands by, but has not gone on with it yet"),
    ],
)
def test_no_minute_is_promised_that_is_over(story: Story, silent: float, words: str) -> None:
    record, _ = running(story)
    beats(story, ME, NOW - silent, standby=["gpu-1"])
    assert out_of_sight(view(story, record), NOW)[0].endswith(f"; gpu-1 {words}")


@pytest.mark.parametrize("text", ["x" * 10**6, "é" * 10**6, "\u0301" * 10**6, "x " * 10**6])
def test_a_long_text_of_somebody_else_hides_nothing_that_stands_beside_it(story: Story, text: str) -> None:
    record, _ = running(story)
    beats(story, ME, NOW)
    lines = foreign_notes(story, record, text)
    assert max(map(len, lines)) < 1000, "300 characters each"
    assert [line for line in lines if line.endswith("dstack lost a-1 train")], "what to do is not cut"


@pytest.mark.parametrize("at", [None, "x", True, -5, 1e300, [], {}])
def test_a_heartbeat_without_a_sensible_time_is_a_sign_of_life(story: Story, at: object) -> None:
    record, _ = running(story)
    beats(story, ME, at)
    assert view(story, record).caretakers == Caretakers(by=("alice@laptop",))


@pytest.mark.parametrize("body", [b"", b"[]", b"\xff", b"{", b"[" * 100_000])
def test_damaged_heartbeats_do_no_harm(story: Story, body: bytes) -> None:
    record, _ = running(story)
    story.bucket.put(story.keys.heartbeat(ME.id), body)
    assert not view(story, record).alone


def test_a_young_run_may_have_no_coordinator_yet(story: Story) -> None:
    record = story.run("a-1", spec("train"))
    assert view(story, record, now=record.submitted + NEW_RUN_S - 1).caretakers is None
    assert view(story, record, now=record.submitted + NEW_RUN_S + 1).alone


def test_a_queued_run_is_looked_after_by_who_says_so(story: Story) -> None:
    record = story.run("a-1", spec("train"))
    attends(story, record, BOB)
    assert view(story, record).alone
    beats(story, BOB, NOW)
    assert view(story, record).caretakers == Caretakers(by=("bob@desk",))


def test_the_one_who_adopted_the_attempt_looks_after_it(story: Story) -> None:
    record, attempt = running(story)
    story.put(attempt.owner(1), pack(Owner(nonce="n", coordinator=BOB)))
    assert job(story, record).ownerless
    beats(story, BOB, NOW)
    told = view(story, record)
    assert (told.jobs[0].owner, told.jobs[0].ownerless) == ("bob@desk", False)
    assert told.caretakers == Caretakers(by=("bob@desk",))


def test_an_attempt_of_another_run_is_joined(story: Story) -> None:
    first, _ = running(story)
    other = story.run("b-2", spec("train"))
    story.attempt(other, spec("train"), 2)
    assert job(story, first).reason == "joins b-2 of alice@laptop"


def test_a_queued_job_says_why_it_waits(story: Story) -> None:
    record = story.run("a-1", spec("train"))
    assert job(story, record).reason == "no coordinator has looked at it yet"
    attempt = story.attempt(record, spec("train"))
    story.end(attempt, "void")
    told = job(story, record)
    assert (told.status, told.reason) == (JobStatus.QUEUED, "attempt 1 never started")


def test_a_run_of_which_no_job_has_begun_is_called_what_it_is(story: Story) -> None:
    prepare, train = spec("prepare"), spec("train", ["prepare"])
    record = story.run("a-1", prepare, train)
    stages = [view(story, record).stage]
    attempt = story.attempt(record, prepare)
    stages.append(view(story, record).stage)
    story.put(attempt.started, pack(Started(nonce="n1", at=NOW - 100)))
    stages.append(view(story, record).stage)
    story.outcome(record, prepare, started=NOW - 100, ended=NOW)
    stages.append(view(story, record).stage)
    assert stages == ["queued", "placed", "running", "running"]


def test_a_result_of_another_run_is_no_beginning(story: Story) -> None:
    prepare, train = spec("prepare"), spec("train", ["prepare"])
    record = story.run("a-1", prepare, train)
    story.outcome(record, prepare, "reused", started=NOW - 100, ended=NOW)
    assert (view(story, record).stage, view(story, record).status) == ("queued", "running")


@pytest.mark.parametrize("status", list(JobStatus))
def test_a_run_has_one_word_whatever_its_jobs_do(status: JobStatus) -> None:
    job = JobView(workflow=WorkflowName("w"), status=status)
    other = JobView(workflow=WorkflowName("v"), status=JobStatus.WAITING)
    told = RunView(
        id=RunId("1"), run=RunName("r"), workflow=WorkflowName("w"), status=RunStatus.RUNNING, user="u",
        submitted=1.0, jobs=(job, other),
    )  # fmt: skip
    assert (told.stage == "running") == job.began
    assert replace(told, status=RunStatus.FAILED).stage == "failed"


def test_a_stopping_job_says_who_asked(story: Story) -> None:
    record, _ = running(story)
    story.stop(record)
    assert job(story, record).status is JobStatus.STOPPING


def test_who_is_asked_nothing_of_coordinators_makes_no_requests_for_them(story: Story, bucket: MemoryBucket) -> None:
    record, _ = running(story)
    bucket.requests.clear()
    assert run_view(bucket, story.keys, record).caretakers is None
    assert (bucket.requests["list"], bucket.requests["get"]) == (4, 4)


def test_an_open_run_costs_ps_what_the_table_says(story: Story, bucket: MemoryBucket) -> None:
    running(story)
    beats(story, ME, NOW)
    bucket.requests.clear()
    newest = run_ids(bucket, story.keys, 20)
    told = list(views_of(bucket, story.keys, newest, look=lambda: look(story, sure=True)))
    assert len(told) == 1
    # One list and the read of `final` are those of any run.
    assert (bucket.requests["list"] - 1, bucket.requests["get"] - 1) == (
        documented()[OPEN].lists,
        documented()[OPEN].reads,
    )


def test_coordinators_that_ended_cost_nothing(story: Story, bucket: MemoryBucket) -> None:
    record, _ = running(story)
    bucket.requests.clear()
    view(story, record)
    before = bucket.requests["get"]
    for number in range(50):
        attends(story, record, Coordinator(id=f"x{number}", user="u", machine="m", boot_id="", pid=1, lock="/x"))
    bucket.requests.clear()
    view(story, record)
    assert bucket.requests["get"] == before


def test_a_name_that_would_do_more_than_name_is_not_proposed(story: Story) -> None:
    for name in ("x; rm -rf ~", "-x", "$(id)"):
        record = replace(story.run("a-1", spec("train")), name=RunName(name))
        story.bucket.delete(story.keys.name(RunName("a-1")))
        told = view(story, record)
        assert (told.run, told.handle) == (name, record.id)


# -- which run is meant --------------------------------------------------------------------------------


def of(story: Story, name: str, user: str, machine: str = "laptop") -> RunRecord:
    """A run of that person's, with its place in the person's own list."""
    record = story.run(name, spec("train"), user=user, machine=machine)
    story.put(f"{story.keys.runs_of(user, machine)}{record.id}", b"{}")
    return record


def test_the_beginning_of_a_name_is_enough_where_no_other_begins_so(story: Story) -> None:
    otter, ox = story.run("calm-otter-7", spec("train")), story.run("calm-ox-1", spec("train"))
    assert find_run(story.bucket, story.keys, "calm-ot") == otter
    assert find_run(story.bucket, story.keys, "calm-ox-1") == ox
    with pytest.raises(UsageError, match="calm-otter-7, calm-ox-1"):
        find_run(story.bucket, story.keys, "calm-o")


def test_a_whole_name_is_that_run_whatever_begins_so(story: Story) -> None:
    one = story.run("calm-otter-1", spec("train"))
    story.run("calm-otter-12", spec("train"))
    assert find_run(story.bucket, story.keys, "calm-otter-1") == one


def test_many_that_begin_so_are_not_all_named(story: Story) -> None:
    for number in range(9):
        story.run(f"calm-otter-{number}", spec("train"))
    with pytest.raises(UsageError, match=r"calm-otter-4, …$"):
        find_run(story.bucket, story.keys, "calm")


def test_the_last_run_is_ones_own(story: Story) -> None:
    mine = of(story, "a-1", "alice")
    of(story, "b-2", "bob")
    of(story, "c-3", "alice", "desk")
    assert last_run(story.bucket, story.keys, "alice", "laptop", now=NOW) == mine
    with pytest.raises(NotFoundError, match="carol@laptop"):
        last_run(story.bucket, story.keys, "carol", "laptop", now=NOW)


def test_a_run_of_a_time_to_come_is_the_last_one_only_where_there_is_no_other(story: Story) -> None:
    """The clock of the laptop was years ahead once, or is years behind now."""
    first = of(story, "a-1", "alice")
    of(story, "b-2", "alice")
    story.runs = 1_000_000
    ahead = of(story, "c-3", "alice")
    mine = (story.bucket, story.keys, "alice", "laptop")
    assert last_run(*mine, now=1_000_001.0 + 1) == ahead
    assert last_run(*mine, now=3.0).name == "b-2"
    assert last_run(*mine, now=1.0 - CLOCK_SKEW_S) == first
    assert last_run(*mine, now=-1e9) == ahead


def test_the_last_run_is_found_without_the_list_of_ones_own(story: Story) -> None:
    mine = story.run("a-1", spec("train"), user="alice", machine="laptop")
    story.run("b-2", spec("train"), user="bob", machine="laptop")
    assert last_run(story.bucket, story.keys, "alice", "laptop", now=NOW) == mine


def test_a_list_of_ones_own_cannot_name_somebody_elses_run(story: Story) -> None:
    theirs = story.run("b-2", spec("train"), user="bob", machine="desk")
    story.put(f"{story.keys.runs_of('alice', 'laptop')}{theirs.id}", b"{}")
    with pytest.raises(NotFoundError):
        last_run(story.bucket, story.keys, "alice", "laptop", now=NOW)


@pytest.mark.parametrize("name", ["alice", "Jürgen", "a/b", "..", "=", "a@b", "x" * 300, "\udcff"])
def test_any_account_has_a_list_of_its_own(bucket: MemoryBucket, name: str) -> None:
    keys = ProjectKeys.of("p")
    folder = keys.runs_of(name, "m")
    bucket.create(f"{folder}0000000000001-aaaaaaaaaa", b"{}")
    assert own_run_ids(bucket, keys, name, "m") == ["0000000000001-aaaaaaaaaa"]
    assert own_run_ids(bucket, keys, f"{name}2"[-300:], "m") in ([], ["0000000000001-aaaaaaaaaa"] * (len(name) > 90))


def queued(story: Story, *coordinators: Coordinator) -> RunRecord:
    """A run whose job has no attempt yet."""
    record = story.run("a-1", spec("train"))
    for each in coordinators:
        attends(story, record, each)
    return record


SLOT = "waits for a slot; `dstack queue` says who has them"


def wanted(story: Story, record: RunRecord) -> RunRecord:
    keys = story.keys.job(fingerprint(ingredients(spec("train"), {})), 1)
    story.put(keys.want(record.id), pack(Want(nonce="n", run=record.id, workflow=WorkflowName("train"), ended=0)))
    return record


def test_a_queued_job_says_which_silent_host_it_waits_for(story: Story) -> None:
    record = wanted(story, queued(story, ME))
    beats(story, ME, NOW - 5, waits={record.id: {"train": "waits for gone, which cannot be reached"}})
    assert job(story, record).reason == "waits for gone, which cannot be reached"
    assert job(story, record, sure=False).reason == SLOT, "who has left waits for nothing"


def test_a_job_in_the_queue_of_a_host_waits_for_a_slot_whatever_another_coordinator_lacks(story: Story) -> None:
    record = wanted(story, queued(story, ME, BOB))
    beats(story, ME, NOW - 5, waits={record.id: {"train": "waits for gone, which cannot be reached"}})
    beats(story, BOB, NOW - 5)
    assert job(story, record).reason == SLOT
    beats(story, BOB, NOW - 5, waits={record.id: {"train": "waits for secret TOKEN of alice"}})
    assert "waits for gone, which cannot be reached" in job(story, record).reason


@pytest.mark.parametrize(
    "jobs", [7, [], None, {"train": 3}, {"train": ""}, {"train": ["x"]}, {"other": "x"}, {"train": " \n\t "}]
)
def test_a_heartbeat_that_says_nonsense_of_waiting_says_nothing(story: Story, jobs: object) -> None:
    record = wanted(story, queued(story, ME))
    beats(story, ME, NOW - 5, waits={record.id: jobs})
    assert job(story, record).reason == SLOT
    beats(story, ME, NOW - 5, waits=jobs)
    assert job(story, record).reason == SLOT


@pytest.mark.parametrize("reason", ["", " ", "\n", "\x1b[2J", "\u202e \x9b1m", "\u2028"])
def test_a_reason_of_which_nothing_can_be_shown_makes_no_note(story: Story, reason: str) -> None:
    beats(story, ME, NOW - 5)
    told = view(story, wanted(story, queued(story, ME)))
    blank = replace(told, jobs=(replace(told.jobs[0], reason=reason),))
    assert not_begun([blank]) == []
    assert not_begun([blank, told]) == [f"a-1: {SLOT}"]


def test_what_a_heartbeat_says_of_waiting_has_a_bound(story: Story) -> None:
    record = wanted(story, queued(story, ME))
    beats(story, ME, NOW - 5, waits={record.id: {"train": "x" * 100_000}})
    assert job(story, record).reason == "x" * 300
