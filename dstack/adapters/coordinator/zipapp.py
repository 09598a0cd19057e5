"""The coordinator as one zip file for hosts: use cases, core, the adapters that a host needs, and the runner inside."""

from __future__ import annotations

import hashlib
from functools import cache

from dstack.adapters.runner.zipapp import bootstrap_source, modules, runner_zipapp, zipped

ENTRY = "dstack.coordinator.__main__"
SINGLE = ("__init__.py", "bounds.py", "errors.py", "model.py", "ports.py", "private_folder.py")
ADAPTERS = ("__init__.py", "deadline.py", "identity.py", "log_screen.py")
PACKAGES = ("wire", "core", "app", "coordinator", "adapters/bucket", "adapters/runner")
SHIPPED = "dstack/coordinator/embedded.py"


@cache
def coordinator_zipapp() -> tuple[bytes, str]:
    """The zip file and its sha256 in hex; built once in a process. The same sources give the same bytes."""
    sources = modules([*SINGLE, *(f"adapters/{name}" for name in ADAPTERS)], PACKAGES)
    runner, _ = runner_zipapp()
    brought = f"BOOTSTRAP = {bootstrap_source()!r}\nRUNNER = {runner!r}\n".encode()
    program = hashlib.sha256(b"".join(sources[name] for name in sorted(sources)) + brought).hexdigest()
    return zipped({**sources, SHIPPED: f'PROGRAM = "{program}"\n'.encode() + brought})
