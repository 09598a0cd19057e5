"""One changed line in a repository of many files: snapshot and push on an open connection, against a warm rsync."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from dstack.adapters.git.index_layer import QUIET_TIME_S
from dstack.adapters.git.snapshots import GitCode
from dstack.adapters.runner.client import RunnerClient
from dstack.adapters.runner.zipapp import bootstrap_source, runner_zipapp
from dstack.adapters.ssh.config import SshSurroundings
from dstack.adapters.ssh.connections import SshHosts
from dstack.project.hosts.inventory import read_inventory
from tests.bench.measure import Row, interleaved, scaled, seconds
from tests.bench.place import Place, Unavailable
from tests.support.people.laptop import Laptop

FILES = 2000
PROJECT = "bench"


def push(place: Place, rounds: int) -> Iterator[Row]:
    """Both bring the same changed line; rsync has the tree there, dstack the commit before."""
    _need_rsync(place)
    laptop = place.laptop("push", slots=4)
    laptop.write({f"package_{n % 40:02}/module_{n:04}.py": f"value = {n}\n" * (n % 97 + 3) for n in range(FILES)})
    laptop.commit()
    control = place.folder / "c"
    master = subprocess.run([*place.ssh()[:-1], "-M", "-N", "-f", "-S", str(control), place.ssh()[-1]], check=False)
    if master.returncode != 0:
        raise Unavailable("OpenSSH's ControlMaster does not start")
    saved, os.environ["HOME"] = os.environ["HOME"], str(place.home.path)
    try:
        yield asyncio.run(_measured(place, laptop, control, rounds))
    finally:
        os.environ["HOME"] = saved
        subprocess.run(["ssh", "-S", str(control), "-O", "exit", "bench"], capture_output=True, check=False)


async def _measured(place: Place, laptop: Laptop, control: Path, rounds: int) -> Row:
    (host,) = read_inventory(home=laptop.home, root=laptop.root, file=None)
    code = GitCode(laptop.root, place.folder / "snapshots.git")
    numbers = count(1)
    loop = asyncio.get_running_loop()
    async with SshHosts({str(host.name): host}, around=SshSurroundings.here()) as hosts:
        client = RunnerClient(
            str(host.name), lambda: hosts.open_transport(host), zipapp=runner_zipapp(), bootstrap=bootstrap_source()
        )
        await client.connect()

        async def bring() -> None:
            sent = await client.push_code(PROJECT, await asyncio.to_thread(code.snapshot), code)
            assert sent > 0

        def ours() -> float:
            _change(laptop, next(numbers))
            return seconds(lambda: asyncio.run_coroutine_threadsafe(bring(), loop).result())()

        shell = f"ssh -F {place.home.config} -S {control}"
        source = [f"{laptop.root}/", "bench:tree/"]
        command = ["rsync", "-a", "--exclude=.git", "-e", shell, *source]

        def theirs() -> float:
            _change(laptop, next(numbers))
            return seconds(lambda: subprocess.run(command, check=True))()

        subject, anchor = await asyncio.to_thread(interleaved, ours, theirs, rounds=rounds)
        await client.close()
    return Row(
        name=f"one line of {FILES} files pushed",
        against="rsync -a, ControlMaster",
        unit="ms",
        subject=scaled(subject, 1e3),
        anchor=scaled(anchor, 1e3),
        goal=0.6,
    )


def _change(laptop: Laptop, number: int) -> None:
    """Write the line, and let the moment pass in which a snapshot would wait for a second write of the same tick."""
    laptop.write({"package_07/module_0007.py": f"changed = {number}\n"})
    time.sleep(2 * QUIET_TIME_S)


def _need_rsync(place: Place) -> None:
    if shutil.which("rsync") is None:
        raise Unavailable("there is no rsync on this machine")
    script = "command -v rsync || { apt-get update && apt-get install -y --no-install-recommends rsync; }"
    done = place.host.exec(["sh", "-c", f"({script}) 2>&1"])
    if done.code != 0:
        raise Unavailable(f"the host has no rsync and cannot install it: {done.output.decode(errors='replace')[-300:]}")
