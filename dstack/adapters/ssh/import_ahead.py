"""Loads the SSH adapter ahead of its use, during other waits. Importing this module costs nothing."""

from __future__ import annotations

import importlib
import threading


def prefetch() -> threading.Thread:
    """Import `dstack.adapters.ssh.connections` in a thread of its own; other importers wait for the thread meanwhile.

    A failed import is silent here and fails again at the adapter's use.
    """
    thread = threading.Thread(target=_load, name="prefetch-ssh", daemon=True)
    thread.start()
    return thread


def _load() -> None:
    try:
        importlib.import_module("dstack.adapters.ssh.connections")
    except ImportError:
        return
