"""GPUs, by a fake nvidia-smi: each job sees its own, and nobody gets one that is in use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.runners.client import Refused, until
from tests.support.runners.host import Host

SMI = """#!/bin/sh
case "$*" in
  *query-gpu*) for i in 0 1 2 3; do echo "$i, GPU-uuid-$i, NVIDIA A100-SXM4-40GB, 40960"; done ;;
  *query-compute-apps*) cat {busy} ;;
esac
"""


class Gpus:
    """The fake: four A100; `use` makes it say that somebody computes on one."""

    def __init__(self, folder: Path) -> None:
        self._busy = folder / "busy"
        self._busy.write_text("")
        program = folder / "bin" / "nvidia-smi"
        program.parent.mkdir()
        program.write_text(SMI.format(busy=self._busy))
        program.chmod(0o755)
        self.path = program.parent

    def use(self, *numbers: int) -> None:
        self._busy.write_text("".join(f"GPU-uuid-{number}, 4711\n" for number in numbers))


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gpus:
    made = Gpus(tmp_path)
    monkeypatch.setenv("PATH", str(made.path), prepend=":")
    return made


SHOW = 'echo "sees <$CUDA_VISIBLE_DEVICES> in $CUDA_DEVICE_ORDER"'


def test_each_job_sees_the_gpus_that_it_was_given_and_no_other(host: Host, gpus: Gpus) -> None:
    client = host.connect()
    seen = []
    for count in (1, 2, 1):
        nonce = host.nonce()
        given = client.call("hold", nonce=nonce, slots=4, demand={"gpus": count})["gpus"]
        host.prepare(client, nonce, f"{SHOW}; sleep 1000")
        client.call("go", nonce=nonce, environment={"CUDA_VISIBLE_DEVICES": "0,1,2,3"})
        host.await_log(client, nonce, f"sees <{','.join(map(str, given))}> in PCI_BUS_ID".encode())
        seen += given
    assert sorted(seen) == [0, 1, 2, 3]
    waiting = client.ask("hold", nonce=host.nonce(), slots=9, demand={"gpus": 1})
    until(lambda: client.call("queue", slots=9)["tickets"][-1]["why"] == "0 of 1 GPUs are free", "it says why")
    assert waiting.frames.empty()


def test_a_job_that_asks_for_none_sees_none_and_is_told_so(host: Host, gpus: Gpus) -> None:
    log, end = host.run(host.connect(), SHOW)
    assert end["code"] == 0
    assert log.endswith(b"sees <> in PCI_BUS_ID\n")
    assert b"resources: {gpu: 1}" in log


def test_on_a_host_without_gpus_nothing_is_said_of_them(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    log, _ = host.run(host.connect(), SHOW)
    assert log == b"sees <> in \n"


def test_a_gpu_that_a_process_from_outside_uses_is_not_given(host: Host, gpus: Gpus) -> None:
    gpus.use(0, 1, 2)
    client = host.connect()
    assert client.call("hold", nonce=host.nonce(), slots=4, demand={"gpus": 1}) == {"gpus": [3]}
    waiting = client.ask("hold", nonce=host.nonce(), slots=4, demand={"gpus": 2})
    until(lambda: client.call("queue", slots=4)["tickets"][-1]["why"] == "0 of 2 GPUs are free", "it says why")
    gpus.use(2)
    assert waiting.result() == {"gpus": [0, 1]}


def test_the_queue_is_listed_while_nvidia_smi_gives_no_answer(host: Host, gpus: Gpus) -> None:
    gpus.use(0, 1, 2)
    client = host.connect()
    client.ask("hold", nonce=host.nonce(), slots=4, demand={"gpus": 2})
    until(lambda: len(client.call("queue", slots=4)["tickets"]) == 1, "it waits")
    (gpus.path / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
    assert client.call("queue", slots=4)["tickets"][0]["why"] == "nvidia-smi does not answer"


def test_a_job_without_gpus_never_takes_the_cores_that_a_gpu_job_before_it_waits_for(host: Host, gpus: Gpus) -> None:
    cores = os.cpu_count()
    gpus.use(0, 1, 2, 3)
    client, later = host.connect(), host.connect()
    first = client.ask("hold", nonce=host.nonce(), slots=4, title="fox-1/train", demand={"gpus": 1, "cpu": cores})
    until(lambda: len(client.call("queue", slots=4)["tickets"]) == 1, "the first waits")
    second = later.ask("hold", nonce=host.nonce(), slots=4, demand={"cpu": cores})
    until(lambda: len(client.call("queue", slots=4)["tickets"]) == 2, "the second has a ticket")
    assert client.call("queue", slots=4)["tickets"][1]["why"].startswith("behind fox-1/train of ")
    gpus.use()
    assert first.result() == {"gpus": [0]}
    assert second.frames.empty()


def test_a_job_without_gpus_passes_a_gpu_job_that_waits_for_gpus_alone(host: Host, gpus: Gpus) -> None:
    gpus.use(0, 1, 2, 3)
    client = host.connect()
    client.ask("hold", nonce=host.nonce(), slots=4, demand={"gpus": 1})
    until(lambda: len(client.call("queue", slots=4)["tickets"]) == 1, "the first waits")
    assert host.connect().call("hold", nonce=host.nonce(), slots=4, demand={"cpu": 1}) == {"gpus": []}


def test_a_gpu_job_whose_gpus_are_gone_holds_nobody_up(host: Host, gpus: Gpus) -> None:
    cores = os.cpu_count()
    gpus.use(0, 1, 2, 3)
    client = host.connect()
    client.ask("hold", nonce=host.nonce(), slots=4, demand={"gpus": 1, "cpu": cores})
    until(lambda: len(client.call("queue", slots=4)["tickets"]) == 1, "the first waits")
    (gpus.path / "nvidia-smi").write_text("#!/bin/sh\n")
    assert host.connect().call("hold", nonce=host.nonce(), slots=4, demand={"cpu": cores}) == {"gpus": []}


def test_the_kind_of_a_gpu_counts(host: Host, gpus: Gpus) -> None:
    client = host.connect()
    wanted = {"gpus": 1, "gpu_name": "a100", "gpu_memory": 40960 << 20}
    assert client.call("hold", nonce=host.nonce(), slots=4, demand=wanted) == {"gpus": [0]}
    with pytest.raises(Refused, match="0 fitting GPUs"):
        client.call("hold", nonce=host.nonce(), slots=4, demand={"gpus": 1, "gpu_name": "H100"})


def test_two_shares_of_one_gpu_are_given_to_two_jobs(host: Host, gpus: Gpus) -> None:
    client = host.connect()
    given = [
        client.call("hold", nonce=host.nonce(), slots=9, gpu_shares=2, demand={"gpus": 4})["gpus"] for _ in range(2)
    ]
    assert given == [[0, 1, 2, 3]] * 2
    waiting = client.ask("hold", nonce=host.nonce(), slots=9, gpu_shares=2, demand={"gpus": 1})
    until(lambda: len(client.call("queue", slots=9, gpu_shares=2)["tickets"]) == 3, "it waits")
    assert waiting.frames.empty()
