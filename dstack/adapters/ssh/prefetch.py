"""Loads the SSH adapter ahead of its use, while something else is waited for. Costs nothing to import itself."""

from __future__ import annotations

import importlib
import threading


def prefetch() -> threading.Thread:
    """Import `dstack.adapters.ssh.connections` in a thread of its own; whoever imports it meanwhile waits for that.

    An import that fails is silent here and fails again where the adapter is needed.
    """
    thread = threading.Thread(target=_load, name="prefetch-ssh", daemon=True)
    thread.start()
    return thread


def _load() -> None:
    try:
        importlib.import_module("dstack.adapters.ssh.connections")
    except ImportError:
        return
