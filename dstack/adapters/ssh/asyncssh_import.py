"""asyncssh, imported without the compiler and the linker that it would start. To be imported before anything of it.

asyncssh looks for liboqs by `ctypes.util.find_library`, which asks ldconfig, gcc and ld for every name it does not
find: six processes in each start of dstack, for the one key exchange (sntrup761) that every sshd offers beside others.
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
