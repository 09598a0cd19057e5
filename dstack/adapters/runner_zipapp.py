"""What the laptop ships to a host: the bootstrap's source and the runner's zipapp, named by its hash."""

from __future__ import annotations

import hashlib
import io
import zipfile
from functools import cache
from importlib.resources import files

_FIXED_DATE = (2020, 1, 1, 0, 0, 0)


@cache
def bootstrap_source() -> bytes:
    """The source text that `wire.LAUNCHER` executes; goes over the wire after a line with its length in bytes."""
    return files("dstack.runner").joinpath("bootstrap.py").read_bytes() + b"\n\nboot(sys.stdin.buffer)\n"


@cache
def runner_zipapp() -> tuple[bytes, str]:
    """The runner as one zip file, and its sha256 in hex.

    The same sources give the same bytes: fixed dates, order and modes. Built once in a process.
    """
    package = files("dstack")
    sources = {f"dstack/{name}": package.joinpath(name).read_bytes() for name in ("__init__.py", "wire.py")}
    for entry in package.joinpath("runner").iterdir():
        if entry.name.endswith(".py") and entry.name != "bootstrap.py":
            sources[f"dstack/runner/{entry.name}"] = entry.read_bytes()
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name in sorted(sources):
            info = zipfile.ZipInfo(name, _FIXED_DATE)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o600 << 16
            archive.writestr(info, sources[name])
    data = body.getvalue()
    return data, hashlib.sha256(data).hexdigest()
