"""The bytes inside the zipapp: a copy of this module there has the values filled in."""

from __future__ import annotations

PROGRAM = ""
"""The version of all shipped code, by hash; "" in the package itself."""
BOOTSTRAP = b""
"""The bootstrap's source, in the form for `wire.LAUNCHER`."""
RUNNER = b""
"""The runner's zipapp."""
