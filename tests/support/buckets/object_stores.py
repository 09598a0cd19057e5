"""Object stores as real processes on loopback, each started when first asked for, ended with the test process."""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

import boto3

from dstack.adapters.bucket.opener import open_bucket
from dstack.ports import Bucket


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectStore:
    """One S3 server. Its keys are accepted by it alone."""

    endpoint: str
    key: str = "testkey"
    secret: str = "testsecret1"
    log: Path = Path("/nowhere")
    """What the server writes; of `ministack` a line for each request, once it is answered."""

    @property
    def environment(self) -> dict[str, str]:
        """What AWS's own tools, and dstack, find it by."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_REGION": "us-east-1",
        }

    @property
    def options(self) -> dict[str, Any]:
        """The storage options that find it, whatever stands in the environment."""
        return {"endpoint_url": self.endpoint, "key": self.key, "secret": self.secret, "region": "us-east-1"}

    @contextmanager
    def client(self) -> Iterator[Any]:
        """boto3's own client: what stands outside of dstack."""
        client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
            region_name="us-east-1",
        )
        try:
            yield client
        finally:
            client.close()

    def make(self, name: str) -> str:
        """A new bucket -> its URL."""
        with self.client() as client:
            client.create_bucket(Bucket=name)
        return f"s3://{name}"

    def bucket(self, path: Path) -> Bucket:
        """A bucket of its own for a test that has `path` for itself."""
        return open_bucket(self.make(name_for(path)), self.options, path)

    def uploads(self, path: Path) -> int:
        """How many uploads in parts are under way in that bucket, or were left there."""
        with self.client() as client:
            return len(client.list_multipart_uploads(Bucket=name_for(path)).get("Uploads") or ())


class Store(Protocol):
    """A running server that holds buckets."""

    @property
    def options(self) -> dict[str, Any]: ...
    def make(self, name: str) -> str: ...
    def bucket(self, path: Path) -> Bucket: ...


Started = TypeVar("Started", bound=Store)


class Unavailable(Exception):
    """What this store needs is not on this machine."""


def name_for(path: Path) -> str:
    return f"b{hashlib.sha256(os.fsencode(path)).hexdigest()[:20]}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@cache
def ministack(address: str = "127.0.0.1") -> ObjectStore:
    """A fast emulator that honours conditions. Bound to loopback by its server, as its own command does not, or to the
    address of this machine's own that test hosts see."""
    port = free_port()
    folder = Path(tempfile.mkdtemp(prefix="dstack-store-log-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    log = folder / "requests"
    command = [sys.executable, "-W", "ignore", "-m", "hypercorn", "ministack.app:app", "--bind", f"{address}:{port}"]
    command += ["--access-logfile", str(log), "--access-logformat", "%(r)s %(q)s"]
    return started(ObjectStore(endpoint=f"http://{address}:{port}", log=log), command, {"SERVICES": "s3"})


@cache
def nanio() -> ObjectStore:
    """A store that ignores conditions: every writer wins."""
    port = free_port()
    store = ObjectStore(endpoint=f"http://127.0.0.1:{port}")
    program = str(Path(sys.executable).with_name("nanio"))
    command = [program, "serve", "--host", "127.0.0.1", "--port", str(port), "--log-level", "error"]
    return started(store, command, {"NANIO_ACCESS_KEY": store.key, "NANIO_SECRET_KEY": store.secret})


def started(store: Started, command: list[str], environment: dict[str, str]) -> Started:
    """Start a server, and wait until it makes a bucket named `ready`."""
    folder = tempfile.mkdtemp(prefix="dstack-store-")
    with Path(folder, "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **environment}, stdout=log, stderr=log, start_new_session=True
        )

    def end() -> None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(end)
    deadline = time.monotonic() + 60
    while True:
        try:
            store.make("ready")
            return store
        except Exception as error:
            if time.monotonic() > deadline or process.poll() is not None:
                raise RuntimeError(f"{command} does not answer: {Path(folder, 'log').read_text()[-2000:]}") from error
            time.sleep(0.1)
