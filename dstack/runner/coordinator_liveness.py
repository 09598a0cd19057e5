"""The ended coordinators of this host. Each coordinator holds a lock for its whole life."""

from __future__ import annotations

import fcntl
import os
from typing import List, Sequence

from dstack.runner.base import safe_paths
from dstack.runner.base.spool import try_lock
from dstack.wire import is_nonce


def ended_coordinators(root: str, ids: Sequence[str]) -> List[str]:
    """The coordinators of `ids` with a lock file here, and without a process that holds the lock. A coordinator without
    a file is unknown, and left out."""
    return [name for name in ids if is_nonce(name) and _is_free(os.path.join(root, "coordinators", name + ".lock"))]


def _is_free(path: str) -> bool:
    try:
        fd = os.open(path, safe_paths.FILE_FLAGS)
    except OSError:
        return False
    try:
        # Shared, so that two observers do not take one another for a living coordinator.
        return try_lock(fd, fcntl.LOCK_SH)
    finally:
        os.close(fd)
