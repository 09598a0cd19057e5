"""What was seen in a real lab of two accounts, step by step: a colleague attaches, stops, and says what is lost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hosts.farm import Farm
from tests.support.hosts.home import ClientKey
from tests.support.lab import judge as labjudge
from tests.support.lab.lab import NEEDS_HOST_PYTHON, Lab, Setting
from tests.support.lab.machines import Command, LabLaptop, lay
from tests.support.lab.work import GATE, Tried, inventory
from tests.support.waiting import until

pytestmark = [NEEDS_HOST_PYTHON, pytest.mark.docker, pytest.mark.timeout(240)]
SILENCE = 3
BEYOND = 4 * SILENCE
"""Seconds after which everybody who could take a silence for a death has done so."""


@pytest.fixture
def lab(farm: Farm, client_key: ClientKey, tmp_path: Path) -> Iterator[Lab]:
    opened = Lab(folder=tmp_path, farm=farm, key=client_key, setting=Setting(silence=SILENCE))
    try:
        yield opened.open()
    finally:
        print(opened.report())  # pytest shows it where the test fails


def begin(lab: Lab, laptop: LabLaptop, *arguments: str, seed: str) -> tuple[str, Tried]:
    """An attached run whose job is at work -> its name, and the attempt."""
    command = laptop.start("run", *arguments, "--seed", seed)
    assert command is not None
    [tried] = until(f"the job of seed {seed} begins", lambda: lab.tried_of(seed), told=command.output)
    return tried.run, tried


def started(laptop: LabLaptop, *arguments: str) -> Command:
    command = laptop.start(*arguments)
    assert command is not None
    return command


def open_gate(lab: Lab) -> None:
    for host in lab.hosts.values():
        host.inside.run(["touch", GATE])


def once(lab: Lab, seed: str, what: str) -> list[str]:
    """The rule that the job of a seed was started once, as sentences."""
    tried = lab.tried_of(seed)
    return [] if len(tried) == 1 else [f"{what}: started {len(tried)} times: " + "; ".join(map(str, tried))]


def test_a_colleague_who_attaches_starts_no_second_training(lab: Lab) -> None:
    """Alice's laptop is gone, her jobs go on; Bob attaches. He can log in to the host, and sees into none of hers."""
    alice, bob = lab.laptops["alice"], lab.laptops["bob"]
    cases = {"1": ("hard", "with `retry: lost`"), "2": ("long", "without `retry`")}
    names = {seed: begin(lab, alice, job, seed=seed)[0] for seed, (job, _) in cases.items()}
    alice.kill()
    attached = {seed: started(bob, "attach", name) for seed, name in names.items()}
    _watch_for_second_starts(lab, set(cases))
    assert len(labjudge.orphans(lab)) >= 2, "the judge sees the processes of jobs"
    assert len(labjudge.left_behind(lab)) >= 2, "the judge sees what lies in spools"
    problems = [wrong for seed, (_, what) in cases.items() for wrong in once(lab, seed, what)]
    for seed, command in attached.items():
        said = command.output()
        if "unreachable" in said:
            problems.append(f"{cases[seed][1]}: a host that answers is called unreachable")
        if f"dstack attach {names[seed]}" not in said or "alice" not in said:
            problems.append(f"{cases[seed][1]}: nothing says that alice must type `dstack attach {names[seed]}`")
    problems += _return(lab, [["attach", name] for name in names.values()])
    problems += [wrong for seed, (_, what) in cases.items() for wrong in once(lab, seed, f"{what}, alice is back")]
    for command in attached.values():
        bob.wait(command)
    views = labjudge.views_of(lab, names.values())
    problems += [*labjudge.outcomes(lab, labjudge.Words(), views), *labjudge.missing(lab, views)]
    problems += [*labjudge.orphans(lab), *labjudge.left_behind(lab), *labjudge.checked(lab)]
    assert not problems, "\n".join(problems)


def test_another_entry_for_the_host_changes_nothing(lab: Lab) -> None:
    """Alice's entry names no user. Bob's, given by --hosts, says he is alice there, and her account lets him in."""
    alice, bob = lab.laptops["alice"], lab.laptops["bob"]
    addresses = {name: host.inside.address for name, host in lab.hosts.items()}
    lay(alice.inside, "alice", {"plain.yaml": inventory(addresses, None)})
    lay(bob.inside, "bob", {"as-alice.yaml": inventory(addresses, "alice")})
    for host in lab.hosts.values():
        host.inside.run(["sh", "-c", "cat /home/bob/.ssh/authorized_keys >> /home/alice/.ssh/authorized_keys"])
    runs = {seed: begin(lab, alice, "hard", "--hosts", "/home/alice/plain.yaml", seed=seed)[0] for seed in ("1", "2")}
    alice.kill()
    attached = [
        started(bob, "attach", runs["1"], "--hosts", "/home/bob/as-alice.yaml"),
        started(bob, "attach", runs["2"]),
    ]
    _watch_for_second_starts(lab, set(runs))
    problems = [*once(lab, "1", "with --hosts naming user: alice"), *once(lab, "2", "with bob's own entry")]
    problems += _return(lab, [["attach", name, "--hosts", "/home/alice/plain.yaml"] for name in runs.values()])
    problems += [*once(lab, "1", "with --hosts, alice is back"), *once(lab, "2", "alice is back")]
    for command in attached:
        bob.wait(command)
    problems += [*labjudge.orphans(lab), *labjudge.left_behind(lab)]
    assert not problems, "\n".join(problems)


def test_a_colleague_s_stop_ends_and_the_owner_s_attach_does_the_rest(lab: Lab) -> None:
    alice, bob = lab.laptops["alice"], lab.laptops["bob"]
    stopped, _ = begin(lab, alice, "long", seed="1")
    kept, _ = begin(lab, alice, "long", seed="2")
    alice.kill()
    problems = []
    refused = bob.dstack("stop", stopped, code=None, seconds=30)
    if refused.code() != 2:
        problems.append(f"`stop` of a colleague's run without a terminal exits {refused.code()}, not 2")
    stop = started(bob, "stop", stopped, "-y")
    try:
        bob.wait(stop, seconds=30)
    except AssertionError:
        problems.append(f"`stop -y` hangs: {stop.output()}")
    alice.revive()
    back = alice.dstack("attach", stopped, code=None, seconds=30)
    if labjudge.views_of(lab, [stopped])[stopped]["status"] != "stopped":
        problems.append(f"the run that bob stopped did not stop when alice came back: {back.output()}")
    host = lab.tried_of("1")[0].host
    open_gate(lab)
    until("the other job ends", lambda: lab.tried_of("2")[0].ended)
    back = alice.dstack("attach", kept, code=None, seconds=30)
    if back.code() != 0:
        problems.append(f"alice's own attach does not bring her result in from {host}: {back.output()}")
    problems += [*once(lab, "1", "the stopped one"), *once(lab, "2", "the other one")]
    views = labjudge.views_of(lab, [kept])
    problems += [*labjudge.missing(lab, views), *labjudge.orphans(lab), *labjudge.left_behind(lab)]
    assert not problems, "\n".join(problems)


def test_an_attached_run_obeys_what_is_said_of_a_host_that_is_away(lab: Lab) -> None:
    """One person says that a job is lost, another job's `retry` says so by itself: both on a host that is gone."""
    alice, bob = lab.laptops["alice"], lab.laptops["bob"]
    _, hard = begin(lab, alice, "hard", seed="1")
    address = lab.hosts[hard.host].inside.address
    lay(alice.inside, "alice", {"one.yaml": inventory({hard.host: address}, "alice")})
    name, long = begin(lab, alice, "long", "--hosts", "/home/alice/one.yaml", seed="2")
    assert long.host == hard.host
    attached = {command.words.split()[1]: command for command in alice.commands}
    gone = lab.hosts[hard.host].inside
    gone.kill()
    lab.story.tell(f"{hard.host} is gone")
    said = time.monotonic()
    bob.dstack("lost", name, "--yes")
    problems = []
    try:
        alice.wait(attached["long"], seconds=20)
        lab.story.tell(f"the attached run ended {time.monotonic() - said:.1f} s after it was called lost")
        if attached["long"].code() != 1 or "lost" not in attached["long"].output():
            problems.append(f"bob said lost, and alice's run said: {attached['long'].output()}")
    except AssertionError:
        problems.append("bob said lost, and alice's attached run does not end")
    there = next(host for host in lab.hosts.values() if host.name != hard.host)
    look = ["sh", "-c", "cat /var/lib/lab/* 2> /dev/null || true"]
    try:
        until("`retry: lost` begins anew", lambda: b"begin hard 1" in there.inside.run(look), seconds=45)
    except AssertionError as error:
        problems.append(f"{error}")
    there.inside.run(["touch", GATE])
    if not problems:
        alice.wait(attached["hard"], seconds=30)
        assert attached["hard"].code() == 0, attached["hard"].output()
    assert not problems, "\n".join(problems)


def _return(lab: Lab, attaching: list[list[str]]) -> list[str]:
    """Alice is back and attaches while her jobs still run; then they may end -> what is wrong with how her runs end."""
    alice = lab.laptops["alice"]
    alice.revive()
    commands = [started(alice, *arguments) for arguments in attaching]
    for command in commands:
        until("she sees it run", lambda: "running on" in command.output(), told=lab.report)
    _watch_for_second_starts(lab, {one.seed for one in lab.tried()}, seconds=2.0)
    open_gate(lab)
    for command in commands:
        alice.wait(command, seconds=30)
    return [f"alice is back, and {command}" for command in commands if command.code() != 0]


def _watch_for_second_starts(lab: Lab, seeds: set[str], *, seconds: float = BEYOND) -> None:
    """Let the longest silence go by, and more; end at once when a job began a second time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and all(len(lab.tried_of(seed)) < 2 for seed in seeds):
        time.sleep(0.5)
