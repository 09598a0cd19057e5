"""Several "hosts" in folders of this machine, a bucket that they share, and a laptop whose runs go to them both ways:
driven by its own command line, and handed to the coordinators as they are shipped."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from dstack.adapters.bucket.host_access import lend_credentials, location_options
from dstack.adapters.bucket.object_stores.arguments import HOST_PACKAGES
from dstack.adapters.coordinator.client import CoordinatorClient
from dstack.adapters.coordinator.wheel import Library, pack_library
from dstack.adapters.runner.client import RunnerClient
from dstack.adapters.runner.local import open_local
from dstack.adapters.runner.zipapp import bootstrap_source, runner_zipapp
from dstack.app.coordination.run import submit
from dstack.app.queries.run_views import RunView
from dstack.app.queries.runs import run_ids, run_view
from dstack.cli.command_session import say
from dstack.cli.runs.run_arguments import read_arguments
from dstack.core.format.records import RunRecord, pack, unpack
from dstack.core.handover import HandOver, digest
from dstack.core.placement import Peer
from dstack.errors import DstackError
from dstack.model import Host, HostFacts
from dstack.session.session import Session
from dstack.session.submission import plan_run, rename
from tests.support.people.laptop import Laptop

_LIBRARIES: list[Library] = []
JOBS = ("prepare", "left", "right", "join")
INPUTS = {"prepare": (), "left": ("prepare",), "right": ("prepare",), "join": ("left", "right")}
SCRIPT = """
        exec 9>>$JUDGE/$JOB.lock
        flock -n 9 || echo "TWICE $JOB $job_id" >> $JUDGE/marks
        echo "begin $JOB $job_id" >> $JUDGE/marks
        echo "log of $JOB"
        sleep $NAP
        if [ -e $JUDGE/fail-$JOB ]; then echo "failing $JOB $job_id" >> $JUDGE/marks; exit 3; fi
        mkdir -p $JOB/deep
        { cat INPUTS < /dev/null; echo $JOB; } | sha256sum > $JOB/sum
        head -c 300000 /dev/zero | tr '\\0' "${JOB:0:1}" > $JOB/deep/big
        echo "end $JOB $job_id" >> $JUDGE/marks
"""
"""A job: its lock is the test's own, and is held for as long as any process of the job lives."""


class Crowded:
    """`folder` is this round's own. The environment of this process names its slots when this is made."""

    def __init__(self, folder: Path, bucket: str, *, hosts: int, naps: dict[str, float]) -> None:
        self.folder = folder
        self.judge = folder / "judge"
        self.judge.mkdir(parents=True)
        self.laptop = Laptop(folder)
        assert os.environ["DSTACK_SLOTS_DIR"] == self.laptop.environment["DSTACK_SLOTS_DIR"]
        lines = [f"  h{number}: {{local: true, dir: {folder}/h{number}, slots: 2}}" for number in range(1, hosts + 1)]
        self.laptop.write(
            {
                ".dstack/workflows.yaml": "workflows:\n" + "".join(self._job(job, naps[job]) for job in JOBS),
                ".dstack/hosts.yaml": "\n".join(["hosts:", *lines, ""]),
                ".dstack/config.yaml": f"{{bucket: '{bucket}', project: chaos}}\n",
            }
        )
        self.laptop.commit()
        self.bucket = bucket
        if "://" not in bucket:
            Path(bucket).mkdir()
        self.session = Session(
            root=self.laptop.root, home=self.laptop.home, environ=self.laptop.environment, hosts_file=None, notify=say
        )
        self.started: list[tuple[subprocess.Popen[bytes], Path]] = []

    def _job(self, job: str, nap: float) -> str:
        inputs = " ".join(f"{name}/sum" for name in INPUTS[job])
        script = SCRIPT.replace("INPUTS", inputs)
        return (
            f"  - name: {job}\n    depends-on: {{repo: {{include: []}}, workflows: [{', '.join(INPUTS[job])}]}}\n"
            f"    env: {{JOB: {job}, NAP: '{nap:.2f}', JUDGE: {self.judge}}}\n"
            f"    retry: {{attempts: 30, on: [lost]}}\n    artifacts: [{job}]\n    commands:\n      - |{script}"
        )

    # -- what people do ---------------------------------------------------------------------------

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """A command of the laptop's, whose words go to a file."""
        told = self.folder / f"told-{len(self.started)}-{arguments[0]}"
        with told.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "dstack", *arguments],
                cwd=self.laptop.root,
                env=self.laptop.environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
            )
        self.started.append((process, told))
        return process

    def submit(self) -> RunRecord:
        _, submission = plan_run(self.session, read_arguments([JOBS[-1]]).request())
        self.session.storage.probe()
        return submit(self.session.bucket, self.session.keys, submission, rename=rename)

    def hand(self, record: RunRecord) -> list[str]:
        """Hand the run to every host -> what could not be done, in words: a host may be under attack."""

        async def one(host: Host, peers: tuple[Peer, ...]) -> None:
            is_url = "://" in self.bucket
            environment = self.laptop.environment
            given = HandOver(
                bucket=self.bucket,
                options=location_options(self.bucket, {}, environment),
                credentials=lend_credentials(self.bucket, {}, environment).options if is_url else {},
                project=self.session.name,
                run=record.id,
                record=digest(pack(record)),
                host=host,
                peers=peers,
            )
            client = await CoordinatorClient.open(await open_local(host, sys.executable), host.dir)
            try:
                await client.hand(given, _library(peers[0].facts) if is_url else None)
            finally:
                await client.close()

        async def scene() -> list[str]:
            hosts = self.session.inventory()
            facts = await asyncio.gather(*(self._push(host, record) for host in hosts), return_exceptions=True)
            ready = [(host, there) for host, there in zip(hosts, facts, strict=True) if isinstance(there, HostFacts)]
            peers = tuple(Peer(name=host.name, facts=there) for host, there in ready)
            answers = await asyncio.gather(*(one(host, peers) for host, _ in ready), return_exceptions=True)
            failed = [answer for answer in [*facts, *answers] if isinstance(answer, BaseException)]
            for error in failed:
                if not isinstance(error, DstackError):
                    raise error
            return [str(error) for error in failed]

        return asyncio.run(scene())

    async def _push(self, host: Host, record: RunRecord) -> HostFacts:
        runner = RunnerClient(
            host.name,
            lambda: open_local(host, sys.executable),
            zipapp=runner_zipapp(),
            bootstrap=bootstrap_source(),
            directory=host.dir,
        )
        try:
            await runner.connect()
            await runner.push_code(self.session.name, record.snapshot, self.session.code)
            return await runner.facts()
        finally:
            await runner.close()

    # -- what stands in the bucket, and what was said -----------------------------------------------

    def runs(self) -> list[RunRecord]:
        bucket, keys = self.session.bucket, self.session.keys
        found = []
        for run in run_ids(bucket, keys):
            body = bucket.get(keys.run(run).record)
            if body is not None:
                found.append(unpack(RunRecord, keys.run(run).record, body))
        return found

    def view(self, record: RunRecord) -> RunView:
        return run_view(self.session.bucket, self.session.keys, record)

    def marks(self) -> list[list[str]]:
        path = self.judge / "marks"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def logs(self) -> dict[str, str]:
        """What coordinators and command lines said."""
        files = [*self.folder.glob("*/coordinators/*.log"), *self.folder.glob("home/.dstack/coordinators/*.log")]
        files += [told for _, told in self.started]
        return {str(path.relative_to(self.folder)): path.read_text(errors="replace") for path in files}


def _library(facts: HostFacts) -> Library:
    """Packed once in this process: all hosts here are one machine."""
    if not _LIBRARIES:
        _LIBRARIES.append(pack_library(HOST_PACKAGES, facts, Path(tempfile.mkdtemp(prefix="dstack-libraries-"))))
    return _LIBRARIES[0]
