"""Emulators of Google Cloud Storage and Azure Blob on loopback, as real processes."""

from __future__ import annotations

import base64
import email.utils
import hashlib
import hmac
import os
import shutil
import sys
import urllib.request
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from dstack.adapters.bucket.opener import open_bucket
from dstack.ports import Bucket
from tests.support.buckets.object_stores import Unavailable, free_port, name_for, started
from tests.support.checkout import ROOT

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""What every Azurite has: published with it, and no secret."""
VERSION = "2021-08-06"


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureStore:
    endpoint: str

    @property
    def options(self) -> dict[str, Any]:
        return {"account_name": ACCOUNT, "access_key": KEY, "endpoint": f"{self.endpoint}/{ACCOUNT}"}

    def make(self, name: str) -> str:
        """A new container -> its URL. Signed by hand: no library for it is needed for anything else."""
        date, kind = email.utils.formatdate(usegmt=True), "application/octet-stream"
        signed = f"PUT\n\n\n\n\n{kind}\n\n\n\n\n\n\nx-ms-date:{date}\nx-ms-version:{VERSION}\n"
        signed += f"/{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
        mac = hmac.new(base64.b64decode(KEY), signed.encode(), hashlib.sha256).digest()
        request = urllib.request.Request(
            f"{self.endpoint}/{ACCOUNT}/{name}?restype=container",
            method="PUT",
            data=b"",
            headers={
                "x-ms-date": date,
                "x-ms-version": VERSION,
                "Content-Type": kind,
                "Authorization": f"SharedKey {ACCOUNT}:{base64.b64encode(mac).decode()}",
            },
        )
        urllib.request.urlopen(request, timeout=10).close()
        return f"az://{name}"

    def bucket(self, path: Path) -> Bucket:
        return open_bucket(self.make(name_for(path)), self.options, path)


@dataclass(frozen=True, slots=True, kw_only=True)
class GoogleStore:
    endpoint: str

    @property
    def options(self) -> dict[str, Any]:
        return {"base_url": self.endpoint, "token": "a-token-of-nobody"}

    def make(self, name: str) -> str:
        urllib.request.urlopen(urllib.request.Request(f"{self.endpoint}/{name}", method="PUT"), timeout=10).close()
        return f"gs://{name}"

    def bucket(self, path: Path) -> Bucket:
        return open_bucket(self.make(name_for(path)), self.options, path)


@cache
def azurite() -> AzureStore:
    """Microsoft's own emulator (npm's `azurite`); raises Unavailable where it is not installed."""
    program = os.environ.get("DSTACK_AZURITE") or shutil.which("azurite-blob")
    if program is None:
        raise Unavailable("there is no azurite-blob: `npm install -g azurite`, or name one by DSTACK_AZURITE")
    port = free_port()
    command = [program, "--blobHost", "127.0.0.1", "--blobPort", str(port), "--silent", "--inMemoryPersistence"]
    command += ["--disableTelemetry", "--skipApiVersionCheck"]
    return started(AzureStore(endpoint=f"http://127.0.0.1:{port}"), command, {})


@cache
def google() -> GoogleStore:
    port = free_port()
    module = "tests.support.buckets.gcs_emulator:app"
    command = [sys.executable, "-W", "ignore", "-m", "hypercorn", module, "--bind", f"127.0.0.1:{port}"]
    root = str(ROOT)
    return started(GoogleStore(endpoint=f"http://127.0.0.1:{port}"), command, {"SERVICES": "s3", "PYTHONPATH": root})
