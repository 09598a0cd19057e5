"""asyncssh, imported without starting a compiler and a linker. To be imported before any other part of asyncssh.

asyncssh looks for liboqs by `ctypes.util.find_library`, which asks ldconfig, gcc and ld for every missing name: six
processes in each start of dstack, for a single key exchange (sntrup761) never needed beside the others of every sshd.
"""

from __future__ import annotations

import ctypes.util

__all__ = ["asyncssh"]

_OPTIONAL = ("oqs", "liboqs")
_find = ctypes.util.find_library


def _unless_optional(name: str) -> str | None:
    return None if name in _OPTIONAL else _find(name)


ctypes.util.find_library = _unless_optional
try:
    import asyncssh
finally:
    ctypes.util.find_library = _find
