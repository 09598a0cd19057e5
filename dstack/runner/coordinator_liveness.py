"""Which coordinators of this host have ended: each holds a lock for as long as it lives."""

from __future__ import annotations

import fcntl
import os
from typing import List, Sequence

from dstack.runner.base import safe_paths
from dstack.runner.base.spool import try_lock
from dstack.wire import is_nonce


def ended(root: str, ids: Sequence[str]) -> List[str]:
    """Those whose lock file is here and held by nobody. One without a file is not known, and so not among them."""
    return [name for name in ids if is_nonce(name) and _is_free(os.path.join(root, "coordinators", name + ".lock"))]


def _is_free(path: str) -> bool:
    try:
        fd = os.open(path, safe_paths.FILE_FLAGS)
    except OSError:
        return False
    try:
        return try_lock(fd, fcntl.LOCK_SH)
    finally:
        os.close(fd)
