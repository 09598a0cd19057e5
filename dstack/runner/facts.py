"""The facts of a host for `hello`. No question may hang: each has a time-out."""

from __future__ import annotations

import getpass
import hashlib
import os
import shutil
import socket
import sys
import threading
from typing import Any, Dict, List, Optional

from dstack.runner.base.processes import boot_id
from dstack.runner.base.program_query import QUERY_TIMEOUT_S, ask_program
from dstack.runner.base.spool import write_durably
from dstack.runner.queue import devices, folders
from dstack.runner.queue.scheduler import Capacity
from dstack.wire import WIRE_VERSION
from dstack.wire.host_messages import GpuAnswer, HelloAnswer


def describe_host(root: str) -> HelloAnswer:
    """The facts of this host."""
    asked: Dict[str, Any] = {}
    questions = [("git", git_version), ("gpus", list_gpus), ("docker", has_docker)]
    # Side by side: programs that hang cost a start one time-out, and not one each.
    threads = [threading.Thread(target=lambda name, ask: asked.update({name: ask()}), args=each) for each in questions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return HelloAnswer(
        wire=WIRE_VERSION,
        boot_id=boot_id(),
        machine=machine_id(),
        hostname=socket.gethostname(),
        user=account_name(),
        uid=os.getuid(),
        python=sys.version.split()[0],
        platform="%s-%s" % (sys.platform, os.uname().machine),
        cpus=count_cpus(),
        memory=memory_bytes(),
        disk_free=shutil.disk_usage(root).free,
        dir=root,
        git=asked.get("git"),
        gpus=tuple(asked.get("gpus", ())),
        docker=asked.get("docker", False),
        shared_slots=folders.is_shared(),
        place=folder_id(root),
    )


def machine_id() -> str:
    """32 hex digits, the same over boots and for all accounts, and different between machines; "" where the system has
    no machine id. The id itself is confidential (machine-id(5)), so the digits are a hash of the id and the host's
    name."""
    number = _line("/etc/machine-id") or ""
    if len(number) != 32:
        return ""
    return hashlib.sha256(("dstack %s %s" % (number, socket.gethostname())).encode("utf-8")).hexdigest()[:32]


def folder_id(root: str) -> str:
    """The name of this folder of dstack and no other folder, made at the first question: verdicts belong to the spool
    of a folder."""
    path = os.path.join(root, "place")
    while True:
        try:
            with open(path, encoding="ascii") as file:
                return file.read()
        except FileNotFoundError:
            fresh = "%s.%s" % (path, os.urandom(8).hex())
        write_durably(fresh, os.urandom(16).hex().encode("ascii"))
        try:
            # Of several runners one makes the name, and all of them read what stands there.
            os.link(fresh, path)
        except FileExistsError:
            pass
        finally:
            os.unlink(fresh)


def host_capacity(slots_: int, shares: int) -> Capacity:
    """The capacity of this host for jobs, without the GPUs: `slots_` jobs at a time, `shares` jobs on a GPU."""
    return Capacity(slots_, count_cpus(), memory_bytes(), (), max(1, shares))


def account_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def count_cpus() -> int:
    """The processors that a process of this user may use: affinity, and the limit of a control group."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = _cpu_limit()
    return max(1, min(count, limit)) if limit else count


def _cpu_limit() -> Optional[int]:
    quota, _, period = (_line("/sys/fs/cgroup/cpu.max") or "").partition(" ")
    if not period:
        quota = _line("/sys/fs/cgroup/cpu/cpu.cfs_quota_us") or ""
        period = _line("/sys/fs/cgroup/cpu/cpu.cfs_period_us") or ""
    if quota.isdigit() and period.isdigit() and int(period):
        return -(-int(quota) // int(period))
    return None


def memory_bytes() -> int:
    """Bytes of memory of this host, or of its control group's limit where the limit is lower."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        limit = _line(path) or ""
        # Without a limit cgroup v2 says `max`, and cgroup v1 a number beyond any memory.
        if limit.isdigit():
            return min(total, int(limit))
    return total


def _line(path: str) -> Optional[str]:
    try:
        with open(path, encoding="ascii") as file:
            return file.readline().strip()
    except (OSError, ValueError):
        return None


def list_gpus() -> List[GpuAnswer]:
    """Name and memory of each NVIDIA GPU; none where nvidia-smi is absent, fails or hangs."""
    return [GpuAnswer(name=card.name, memory=card.memory) for card in devices.list_cards() or []]


def git_version() -> Optional[str]:
    """Such as "2.39.5"; None without git."""
    words = (ask_program(["git", "--version"]) or "").split()
    return words[2] if len(words) >= 3 else None


def has_docker() -> bool:
    """Whether this user may use Docker here. A local socket is asked without starting a client."""
    if shutil.which("docker") is None:
        return False
    where = os.environ.get("DOCKER_HOST", "")
    if where and not where.startswith("unix://"):
        return ask_program(["docker", "version", "--format", "{{.Server.Version}}"]) is not None
    if where:
        return _pings(where[len("unix://") :])
    usual = ["/var/run/docker.sock", os.path.expanduser("~/.docker/run/docker.sock")]
    if os.environ.get("XDG_RUNTIME_DIR"):
        usual.append(os.path.join(os.environ["XDG_RUNTIME_DIR"], "docker.sock"))
    return any(_pings(path) for path in usual)


def _pings(path: str) -> bool:
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(QUERY_TIMEOUT_S)
            connection.connect(path)
            connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return b" 200 " in connection.recv(64)
    except OSError:
        return False
