"""Artifacts between hosts, an object store and folders: one large file, and many small ones, against rclone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from tests.bench.measure import Probe, Row, interleaved, seconds
from tests.bench.place import Place, Unavailable, dstack_script, run_to_end
from tests.support.buckets.object_stores import ObjectStore, ministack

LARGE = 1_000_000_000
FILES, SMALL = 10_000, 4_000
GOAL = 0.8
WORKFLOWS = """
workflows:
  - name: nothing
    commands: ["cp -r $FROM/$WHAT out"]
    env: [FROM, WHAT]
  - name: leave
    commands: ["cp -r $FROM/$WHAT out"]
    env: [FROM, WHAT]
    artifacts: [out]
  - name: idle
    commands: ["true"]
  - name: take
    depends-on: {workflows: [leave]}
    commands: ["ls out | wc -l"]
"""


def store(place: Place, rounds: int) -> Iterator[Row]:
    """Six rows: up, down, and to another host; in MB/s of the large file and files/s of the small ones."""
    if shutil.which("rclone") is None:
        raise Unavailable("there is no rclone on this machine")
    with tempfile.TemporaryDirectory(prefix="dstack-bench-", dir="/var/tmp") as folder:
        source = Path(folder)
        (source / "large").mkdir()
        _random(source / "large/file", LARGE)
        (source / "small").mkdir()
        for number in range(FILES):
            _random(source / f"small/{number:05}", SMALL)
        for what, amount, unit in (("large", LARGE / 1e6, "MB/s"), ("small", float(FILES), "files/s")):
            bench = _Bench(place, source, what=what, amount=amount, unit=unit)
            bench.laptop.environment |= _RCLONE | {"RCLONE_CONFIG_BENCH_ENDPOINT": bench.server.endpoint}
            bench.laptop.environment.pop("AWS_CA_BUNDLE", None)  # rclone takes none, and there is no TLS here
            yield from bench.rows(rounds)


_RCLONE = {
    "RCLONE_CONFIG_BENCH_TYPE": "s3",
    "RCLONE_CONFIG_BENCH_PROVIDER": "Other",
    "RCLONE_CONFIG_BENCH_ENV_AUTH": "true",
    "RCLONE_CONFIG_BENCH_REGION": "us-east-1",
    "RCLONE_CONFIG": "/dev/null",
}


def _random(path: Path, size: int) -> None:
    with path.open("wb") as file:
        while size:
            block = os.urandom(min(size, 1 << 20))
            size -= file.write(block)


class _Bench:
    """A project on this machine, which is its host too: no SSH in the figures. Start-up and the job are taken off."""

    def __init__(self, place: Place, source: Path, *, what: str, amount: float, unit: str) -> None:
        self.what, self.amount, self.unit = what, amount, unit
        self.source, self.folder = source / what, source
        self.server = server()
        self.numbers = count(1)
        self.url = self.server.make(f"bench-{what}-{os.getpid()}")
        self.laptop = place.laptop(f"store-{what}", local=True)
        self.laptop.environment |= self.server.environment | {"FROM": str(source), "WHAT": what}
        self.laptop.write({".dstack/workflows.yaml": WORKFLOWS, ".dstack/config.yaml": f"bucket: {self.url}\n"})
        self.laptop.commit()

    def rows(self, rounds: int) -> Iterator[Row]:
        yield self._row("host to store", interleaved(self._more("leave", "nothing"), self._rclone_up, rounds=rounds))
        yield self._row("artifacts pull", interleaved(self._pull, self._rclone_down, rounds=rounds))
        yield self._row("store to host", interleaved(self._more("take", "idle"), self._rclone_down, rounds=rounds))

    def _row(self, name: str, took: tuple[tuple[float, ...], tuple[float, ...]]) -> Row:
        ours, theirs = (tuple(self.amount / each for each in side) for side in took)
        return Row(
            name=f"{name}, {self.what}",
            against="rclone copy",
            unit=self.unit,
            subject=ours,
            anchor=theirs,
            goal=GOAL,
            more=True,
        )

    def _more(self, workflow: str, without: str) -> Probe:
        """Seconds that a run takes above one of a job that does the same and moves nothing."""

        def probe() -> float:
            return self._run(workflow) - self._run(without)

        return probe

    def _run(self, workflow: str) -> float:
        """The host has none of the bytes that it needs; what was left in earlier rounds stays in the bucket."""
        shutil.rmtree(self.laptop.home / ".dstack/store", ignore_errors=True)
        command = [str(dstack_script()), "run", workflow, f"--rerun={workflow}"]
        return seconds(lambda: run_to_end(command, self.laptop))()

    def _pull(self) -> float:
        listed = subprocess.run(
            [str(dstack_script()), "ps", "-a", "--json"],
            cwd=self.laptop.root,
            env=self.laptop.environment,
            capture_output=True,
            check=True,
        )
        run = next(run["run"] for run in json.loads(listed.stdout) if "leave" in json.dumps(run))
        target = self._target()
        command = [str(dstack_script()), "artifacts", "pull", run, "leave", "-o", str(target)]
        return self._timed(command, target)

    def _rclone_up(self) -> float:
        """To a new place each time: what is there already is not sent again."""
        return self._rclone(str(self.source), f"{self._remote}/rclone-{next(self.numbers)}")

    def _rclone_down(self) -> float:
        """Of what the last upload left."""
        target = self._target()
        last = max(int(name.rsplit("-", 1)[1]) for name in self._places())
        return self._timed(self._command(f"{self._remote}/rclone-{last}", str(target)), target)

    def _places(self) -> list[str]:
        with self.server.client() as client:
            pages = client.list_objects_v2(Bucket=self.url.removeprefix("s3://"), Prefix="rclone-", Delimiter="/")
            return [place["Prefix"].rstrip("/") for place in pages["CommonPrefixes"]]

    @property
    def _remote(self) -> str:
        return f"bench:{self.url.removeprefix('s3://')}"

    def _command(self, source: str, target: str) -> list[str]:
        # As many streams as dstack has packs under way, times the parts of each.
        return ["rclone", "copy", "--transfers", "8", "--s3-no-check-bucket", source, target]

    def _rclone(self, source: str, target: str) -> float:
        return seconds(lambda: run_to_end(self._command(source, target), self.laptop))()

    def _timed(self, command: list[str], target: Path) -> float:
        took = seconds(lambda: run_to_end(command, self.laptop))()
        found = sum(1 for path in target.rglob("*") if path.is_file())
        shutil.rmtree(target)
        if found != (1 if self.what == "large" else FILES):
            raise RuntimeError(f"{' '.join(command)}: {found} files came")
        return took

    def _target(self) -> Path:
        return self.folder / f"target-{next(self.numbers)}"


def server() -> ObjectStore:
    """A real store where the environment names one, as for the contract suite; else the emulator."""
    endpoint = os.environ.get("DSTACK_S3_ENDPOINT")
    if endpoint is None:
        return ministack()
    key, secret = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
    return ObjectStore(endpoint=endpoint, key=key, secret=secret)
