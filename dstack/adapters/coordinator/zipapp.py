"""The coordinator as one zip file for hosts: use cases, core, adapters for hosts, and the runner inside."""

from __future__ import annotations

import hashlib
from functools import cache

from dstack.adapters.runner.zipapp import bootstrap_source, modules, runner_zipapp, zipped

ENTRY_MODULE = "dstack.coordinator.__main__"
SINGLE_MODULES = ("__init__.py", "bounds.py", "errors.py", "model.py", "ports.py", "private_folder.py")
ADAPTER_MODULES = ("__init__.py", "deadline.py", "process_identity.py", "unwatched_screen.py")
SHIPPED_PACKAGES = ("wire", "core", "app", "coordinator", "adapters/bucket", "adapters/runner")
EMBEDDED_MODULE = "dstack/coordinator/zipapp_contents.py"


@cache
def coordinator_zipapp() -> tuple[bytes, str]:
    """The zip file and the sha256 in hex, built once in a process. The same sources give the same bytes."""
    sources = modules([*SINGLE_MODULES, *(f"adapters/{name}" for name in ADAPTER_MODULES)], SHIPPED_PACKAGES)
    # Makes zip files of an installed package: a laptop's work, and beyond the oldest Python of hosts.
    del sources["dstack/adapters/runner/zipapp.py"]
    runner, _ = runner_zipapp()
    brought = f"BOOTSTRAP = {bootstrap_source()!r}\nRUNNER = {runner!r}\n".encode()
    # Two versions of dstack on one host get coordinators of their own: the socket has this name.
    program = hashlib.sha256(b"".join(sources[name] for name in sorted(sources)) + brought).hexdigest()
    return zipped({**sources, EMBEDDED_MODULE: f'PROGRAM = "{program}"\n'.encode() + brought})
