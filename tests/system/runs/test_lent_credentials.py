"""A host that works alone with credentials that its user lent it, when those end: nothing is lost, and it is said."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.buckets.object_stores import ministack
from tests.support.faults.faulty_proxy import FaultyProxy
from tests.support.hosts.farm import Farm, TestHost
from tests.support.hosts.home import Home
from tests.support.people.laptop import Laptop
from tests.support.people.pipeline import GATE, MARKS, entry, marks, write_inventory
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(300)

WORKFLOWS = f"""
workflows:
  - name: first
    commands:
      - echo first >> {MARKS}
      - while [ ! -e {GATE} ]; do sleep 0.05; done
      - echo made > out.txt
    artifacts: [out.txt]
  - name: second
    depends-on: [first]
    commands:
      - echo second >> {MARKS}
      - cat out.txt
  - name: apart
    commands:
      - while [ ! -e {GATE} ]; do sleep 0.05; done
"""
SHORT = 75
"""Seconds: credentials that end within a minute are lent to nobody."""


def sign_in(laptop: Laptop, key: str, seconds: float) -> float:
    """The profile of the laptop gives this key, with its end -> when that is."""
    end = time.time() + seconds
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(end))
    keys = {"Version": 1, "AccessKeyId": key, "SecretAccessKey": "s", "SessionToken": "t", "Expiration": moment}
    (laptop.home / "keys.json").write_text(json.dumps(keys))
    return end


@pytest.fixture
def host(farm: Farm) -> TestHost:
    return farm.start(1)[0]


@pytest.fixture
def proxy(farm: Farm) -> Iterator[FaultyProxy]:
    with FaultyProxy(ministack(farm.gateway()).endpoint, rate=0) as proxy:
        yield proxy


@pytest.fixture
def laptop(host: TestHost, farm: Farm, proxy: FaultyProxy, ssh_home: Home, tmp_path: Path) -> Laptop:
    made = Laptop(tmp_path, home=ssh_home.path)
    ssh_home.trust(host)
    write_inventory(made, {"gpu": entry(host, ssh_home.key.file, slots=2, more={"forward-credentials": "true"})})
    (made.home / ".aws").mkdir(mode=0o700)
    keys = made.home / "keys.json"
    (made.home / ".aws/config").write_text(f"[default]\nregion = us-east-1\ncredential_process = cat {keys}\n")
    made.environment["AWS_ENDPOINT_URL"] = proxy.url
    url = ministack(farm.gateway()).make(f"lent-{farm.id}")
    (made.home / ".dstack/config.yaml").write_text(f"bucket: {url}\n")
    made.write({".dstack/workflows.yaml": WORKFLOWS})
    made.commit()
    return made


def test_results_wait_on_the_host_and_new_credentials_bring_them(
    laptop: Laptop, host: TestHost, proxy: FaultyProxy
) -> None:
    end = sign_in(laptop, "OLD", SHORT)
    told = laptop.dstack("run", "-d", "second").stdout
    name = told.split()[0]
    clock = time.strftime("%H:%M", time.localtime(int(end)))
    assert f"gpu has your credentials for the bucket until {clock}: what ends later waits there" in told
    apart = laptop.dstack("run", "-d", "apart").stdout.split()[0]
    until("it runs", lambda: marks([host]) == ["first"], seconds=60)

    proxy.over.add("OLD")
    host.run(["touch", GATE], user="alice")
    sign_in(laptop, "NEW", 3600)
    saying = "the credentials that alice@gpu had been lent ended just now"
    machine = host.run(["hostname"]).decode().strip()
    saying = saying.replace("@gpu", f"@{machine}")
    until("ps says why nothing comes", lambda: saying in laptop.dstack("ps").stdout, seconds=100)
    shown = laptop.dstack("show", name).stdout
    assert saying in shown
    assert "1 result waits on gpu for account alice, or is still being made there" in shown
    assert marks([host]) == ["first"], "what it cannot record it does not build on"

    attached = laptop.start("attach", name)
    _, errors = attached.communicate(timeout=100)
    assert attached.returncode == 0, errors
    assert "gpu has your credentials for the bucket until" in errors
    assert laptop.statuses(name) == {"first": "succeeded", "second": "succeeded"}
    assert marks([host]) == ["first", "second"], "each ran once"
    assert laptop.dstack("logs", name, "second").stdout == "made\n"
    until("its other run goes on too", lambda: laptop.show(apart)["status"] != "running", seconds=60)
    assert laptop.statuses(apart) == {"apart": "succeeded"}
