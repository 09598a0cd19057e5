"""Python packages for the coordinator on a host to open a bucket, for the host's platform and Python."""

from __future__ import annotations

import hashlib
import io
import os
import platform
import re
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from dstack.errors import DstackError
from dstack.model import HostFacts
from dstack.private_folder import make_folder, open_trusted, temporary_folder, write_file

OLDEST_COORDINATOR_PYTHON = (3, 10)
"""The oldest Python for the shipped coordinator."""
GLIBC_VERSIONS = ("2_17", "2_28", "2_34")
DOWNLOAD_DEADLINE_S = 300.0
"""Seconds for a download."""
_DATE = (2020, 1, 1, 0, 0, 0)
_SKIPPED_ENDINGS = (".pyc", ".pyi", "RECORD", "INSTALLER", "REQUESTED", "direct_url.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """A zip file for a host's import path, and its sha256."""

    body: bytes
    sha256: str


def python_version(facts: HostFacts) -> tuple[int, int]:
    """Major and minor number of a host's python3; (0, 0) when unknown."""
    match = re.match(r"(\d+)\.(\d+)", facts.python)
    return (int(match.group(1)), int(match.group(2))) if match else (0, 0)


def pack_library(
    packages: Sequence[str], facts: HostFacts, cache: Path, given_up: threading.Event | None = None
) -> Library:
    """The `packages` for a host, the main package first, as one library.

    This machine's own copies where they fit, else wheels fetched by pip; stored in `cache`. Blocks for minutes;
    `given_up` ends an unwanted fetch. Raises DstackError, with the next step, when no wheels for the platform exist or
    pip cannot fetch them.
    """
    main = packages[0]
    machine = _machine_name(main, facts)
    major, minor = python_version(facts)
    fits = _fits(main, facts, machine)
    name = f"{metadata.version(main)}-here" if fits else f"{machine}-py{major}{minor}"
    given_up = given_up or threading.Event()
    # By version for our own copy: after an upgrade here the old zip must not be sent.
    kept = cache / f"{main}-{name}.zip"
    if not kept.exists():
        make_folder(str(cache))
        library = _zip(
            _installed_files(packages)
            if fits
            else _fetched_files(packages, machine, f"{major}.{minor}", cache, given_up)
        )
        write_file(str(kept), library.body)
    with os.fdopen(open_trusted(str(kept)), "rb") as file:
        body = file.read()
    return Library(body=body, sha256=hashlib.sha256(body).hexdigest())


def _machine_name(package: str, facts: HostFacts) -> str:
    """`x86_64` or `aarch64`, out of the host's own words about its platform."""
    found = re.search(r"x86_64|amd64|aarch64|arm64", facts.platform, re.IGNORECASE)
    name = found.group(0).lower() if found else ""
    if not name or "linux" not in facts.platform.lower():
        raise DstackError(
            f"there is no {package} for {facts.platform}", hint="the runs of this host stay with this machine"
        )
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(name, name)


def _fits(package: str, facts: HostFacts, machine: str) -> bool:
    """Whether the package installed here also runs there: a wheel serves all later Pythons of the same platform."""
    # Compiled files: built for this libc, so a copy from musl or macOS would not load there.
    if sys.platform != "linux" or platform.machine() != machine or platform.libc_ver()[0] != "glibc":
        return False
    try:
        needed = metadata.distribution(package).metadata["Requires-Python"] or ""
    except metadata.PackageNotFoundError:
        return False
    oldest = re.search(r">=\s*(\d+)\.(\d+)", needed)
    return oldest is not None and python_version(facts) >= (int(oldest.group(1)), int(oldest.group(2)))


def _installed_files(packages: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    for name in packages:
        for file in metadata.distribution(name).files or ():
            path = Path(str(file.locate()))
            if ".." not in file.parts and "__pycache__" not in file.parts and not str(file).endswith(_SKIPPED_ENDINGS):
                yield file.as_posix(), path.read_bytes()


def _fetched_files(
    packages: Sequence[str], machine: str, python: str, cache: Path, given_up: threading.Event
) -> Iterator[tuple[str, bytes]]:
    with temporary_folder(str(cache)) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += ["--implementation=cp", f"--python-version={python}", f"--dest={folder}"]
        command += [f"--platform=manylinux_{version}_{machine}" for version in GLIBC_VERSIONS]
        command += ["--platform=any", f"--platform=manylinux2014_{machine}", *packages]
        why = _run_pip(command, given_up)
        if why:
            raise _fetch_error(packages[0], python, machine, why)
        for wheel in sorted(Path(folder).glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                for name in archive.namelist():
                    if not name.endswith(("/", *_SKIPPED_ENDINGS)):
                        yield name, archive.read(name)


def _run_pip(command: Sequence[str], given_up: threading.Event) -> str:
    """Run pip until its end, or until `given_up` -> the reason of a failure, "" for success."""
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        except OSError as error:
            return str(error)
        deadline = time.monotonic() + DOWNLOAD_DEADLINE_S
        while process.poll() is None:
            if given_up.wait(0.1) or time.monotonic() > deadline:
                process.kill()
                process.wait()
                return "it was given up" if given_up.is_set() else f"pip took longer than {DOWNLOAD_DEADLINE_S:.0f} s"
        said.seek(0)
        lines = said.read().decode("utf-8", "replace").strip().splitlines()
    return "" if process.returncode == 0 else lines[-1] if lines else "pip failed"


def _fetch_error(package: str, python: str, machine: str, why: str) -> DstackError:
    return DstackError(
        f"{package} for Python {python} on {machine} cannot be fetched: {why[:300]}",
        hint=f"its runs stay with this machine; `pip download {package}` must work here for more",
    )


def _zip(files: Iterable[tuple[str, bytes]]) -> Library:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name, data in sorted(files):
            # A fixed date and mode: the same files must give the same sha256, or each host is sent them again.
            info = zipfile.ZipInfo(name, _DATE)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o600 << 16
            archive.writestr(info, data)
    packed = body.getvalue()
    return Library(body=packed, sha256=hashlib.sha256(packed).hexdigest())
