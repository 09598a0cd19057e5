"""A lab of two accounts on each of two hosts, in a storm: 0 double, 0 orphans, 0 results left behind.

DSTACK_ROUNDS plays more: 1 round by default, 100 in a soak (50). DSTACK_SEED plays the round of one seed.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.support.hosts.farm import Farm
from tests.support.hosts.home import ClientKey
from tests.support.lab import judge as labjudge
from tests.support.lab.lab import NEEDS_HOST_PYTHON, Lab, Setting
from tests.support.lab.storm import Storm, make_peace

ROUNDS = 2 * int(os.environ["DSTACK_ROUNDS"]) if "DSTACK_ROUNDS" in os.environ else 1
SEEDS = [int(os.environ["DSTACK_SEED"])] if "DSTACK_SEED" in os.environ else list(range(1, ROUNDS + 1))
PEACE = 90.0
"""Seconds within which every run ends once its owners are back."""
pytestmark = [NEEDS_HOST_PYTHON, pytest.mark.docker, pytest.mark.timeout(300)]


def setting_of(seed: int) -> Setting:
    """Folders and object stores by turns; with a queue for all accounts and without; users named and not."""
    return Setting(store=("folder", "s3")[seed % 2], queue=seed // 2 % 2 == 0, named=seed // 4 % 2 == 1, silence=3)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_job_runs_twice_and_nothing_is_left(farm: Farm, client_key: ClientKey, tmp_path: Path, seed: int) -> None:
    lab = Lab(folder=tmp_path, farm=farm, key=client_key, setting=setting_of(seed))
    try:
        lab.open()
        storm = Storm(lab, f"lab {seed}")
        storm.rage()
        lab.story.tell("peace")
        make_peace(lab, PEACE)
        tidy(lab)
        problems = judge(lab, storm)
        assert not problems, "\n".join(problems)
    except BaseException:
        print(f"DSTACK_SEED={seed}: {lab.setting}\n{lab.report()}")
        raise


def tidy(lab: Lab) -> None:
    """What was stored, and whose coordinator was killed before it could tell the host, goes with the next run."""
    if labjudge.left_behind(lab):
        lab.story.tell("tidying")
        for seed, laptop in zip("89", lab.laptops.values()):
            laptop.start("run", "tidy", "--seed", seed)
        end = time.monotonic() + PEACE
        while time.monotonic() < end and not lab.is_quiet():
            time.sleep(0.1)


def judge(lab: Lab, storm: Storm) -> list[str]:
    """Every rule that was broken, in words."""
    lab.story.tell("judging")
    views = labjudge.views_of(lab)
    return [
        *labjudge.doubles(lab, storm.words),
        *labjudge.orphans(lab, seconds=20.0),
        *labjudge.left_behind(lab),
        *labjudge.outcomes(lab, storm.words, views),
        *labjudge.finished(lab, storm.words, views),
        *labjudge.missing(lab, views),
        *labjudge.checked(lab),
        *labjudge.hung(lab),
        *labjudge.tracebacks(lab),
    ]
