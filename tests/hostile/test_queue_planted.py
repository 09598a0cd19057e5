"""The private folder of the queue, taken by another account first: the next is used, and no GPU is given twice."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.faults import villain
from tests.support.faults.villain import ALICE, BOB, PYTHON
from tests.support.runners.client import Client, Refused, until

OWN = Path(f"/var/tmp/dstack-slots-{ALICE}")
SMI = '#!/bin/sh\ncase "$*" in *query-gpu*) echo "0, GPU-0, NVIDIA A100, 40960" ;; esac\n'
GPU = {"gpus": 1}


class Home:
    """The home of alice on a host with one GPU and without a queue for all accounts."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "alice"
        self.path.mkdir()
        os.chown(self.path, ALICE, ALICE)
        tools = folder / "bin"
        tools.mkdir()
        (tools / "nvidia-smi").write_text(SMI)
        (tools / "nvidia-smi").chmod(0o755)
        self._environment = {"HOME": str(self.path), "PATH": f"{tools}:/usr/bin:/bin"}
        self._clients: list[Client] = []

    def connect(self, directory: str = ".dstack") -> Client:
        client = Client(self.path / directory, None, python=PYTHON, environment=self._environment, uid=ALICE)
        self._clients.append(client)
        return client.start()

    def close(self) -> None:
        for client in self._clients:
            client.close()
            client.discard()


@pytest.fixture
def home() -> Iterator[Home]:
    villain.need_accounts()
    if Path("/var/lib/dstack-slots").exists():
        pytest.skip("this machine has a queue for all accounts")
    shutil.rmtree(OWN, ignore_errors=True)
    with villain.common_folder("dstack-planted-") as folder:
        made = Home(folder)
        try:
            yield made
        finally:
            made.close()
            shutil.rmtree(OWN, ignore_errors=True)


def as_bob(*command: str) -> None:
    subprocess.run(command, check=True, user=BOB, group=BOB, extra_groups=[], cwd="/")


def test_a_planted_folder_is_refused_with_its_owner_and_the_next_one_is_taken(home: Home) -> None:
    as_bob("mkdir", "-m", "0777", str(OWN))
    client = home.connect()
    assert client.call("hold", nonce="a" * 16, slots=1) == {"gpus": []}
    answer = client.call("queue", slots=1)
    assert answer["unfit"] == [f"{OWN} belongs to {BOB}"]
    assert len(answer["tickets"]) == 1
    assert list(OWN.iterdir()) == []
    place = home.path / ".dstack" / "slots"
    assert (place.stat().st_uid, place.stat().st_mode & 0o777) == (ALICE, 0o700)


def test_a_gpu_is_not_given_twice_when_the_place_of_the_queue_changes(home: Home) -> None:
    as_bob("mkdir", str(OWN))
    first, second, third = home.connect(), home.connect(), home.connect("elsewhere")
    assert first.call("hold", nonce="a" * 16, slots=4, demand=GPU) == {"gpus": [0]}
    as_bob("rmdir", str(OWN))
    waiting = [second.ask("hold", nonce="b" * 16, slots=4, demand=GPU)]
    until(lambda: OWN.exists() and len(list(OWN.iterdir())) == 2, "the second has a ticket in the other place")
    waiting.append(third.ask("hold", nonce="c" * 16, slots=4, demand=GPU))
    until(lambda: len(third.call("queue", slots=4)["tickets"]) == 3, "the third sees all")
    assert all(stream.frames.empty() for stream in waiting)
    first.call("drop", nonce="a" * 16)
    assert waiting[0].result() == {"gpus": [0]}
    assert waiting[1].frames.empty()


def test_where_no_place_is_private_the_refusal_names_every_owner(home: Home) -> None:
    as_bob("mkdir", str(OWN))
    (home.path / ".dstack").mkdir()
    os.chown(home.path / ".dstack", ALICE, ALICE)
    (home.path / ".dstack" / "slots").mkdir()
    with pytest.raises(Refused, match=f"{OWN} belongs to {BOB}; .*slots belongs to (root|0)") as refused:
        home.connect().call("hold", nonce="a" * 16, slots=1)
    assert refused.value.hint


def test_a_link_in_the_place_of_the_folder_is_not_followed(home: Home) -> None:
    target = home.path.parent / "target"
    target.mkdir()
    os.chown(target, ALICE, ALICE)
    as_bob("ln", "-s", str(target), str(OWN))
    try:
        client = home.connect()
        assert client.call("hold", nonce="a" * 16, slots=1) == {"gpus": []}
        assert client.call("queue", slots=1)["unfit"] == [f"{OWN} belongs to {BOB}"]
        assert list(target.iterdir()) == []
    finally:
        OWN.unlink()
