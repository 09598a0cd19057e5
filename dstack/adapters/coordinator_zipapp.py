"""The coordinator as one zip file for hosts: use cases, core, the adapters that a host needs, and the runner inside."""

from __future__ import annotations

import hashlib
from functools import cache

from dstack.adapters.runner_zipapp import bootstrap_source, modules, runner_zipapp, zipped

ENTRY = "dstack.coordinator.__main__"
SINGLE = ("__init__.py", "bounds.py", "errors.py", "model.py", "ports.py", "private_folder.py", "wire.py")
PACKAGES = ("core", "app", "coordinator")
ADAPTERS = (
    "__init__.py",
    "aws_profile.py",
    "aws_tools.py",
    "bucket_folder.py",
    "bucket_folder_files.py",
    "bucket_folder_writing.py",
    "bucket_obstore.py",
    "bucket_open.py",
    "bucket_options.py",
    "bucket_remote.py",
    "bucket_renewed.py",
    "bucket_waiting.py",
    "deadline.py",
    "identity.py",
    "local.py",
    "log_screen.py",
    "runner_answers.py",
    "runner_channel.py",
    "runner_client.py",
    "runner_start.py",
    "runner_streams.py",
)
SHIPPED = "dstack/coordinator/shipped.py"


@cache
def coordinator_zipapp() -> tuple[bytes, str]:
    """The zip file and its sha256 in hex; built once in a process. The same sources give the same bytes."""
    sources = modules([*SINGLE, *(f"adapters/{name}" for name in ADAPTERS)], PACKAGES)
    runner, _ = runner_zipapp()
    brought = f"BOOTSTRAP = {bootstrap_source()!r}\nRUNNER = {runner!r}\n".encode()
    program = hashlib.sha256(b"".join(sources[name] for name in sorted(sources)) + brought).hexdigest()
    return zipped({**sources, SHIPPED: f'PROGRAM = "{program}"\n'.encode() + brought})
