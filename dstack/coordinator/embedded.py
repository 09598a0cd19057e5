"""What the zipapp brings along. It holds a copy of this module in which the values are filled in."""

from __future__ import annotations

PROGRAM = ""
"""Names this version of all that is shipped; "" in the package itself."""
BOOTSTRAP = b""
"""The bootstrap's source, as `wire.LAUNCHER` takes it."""
RUNNER = b""
"""The runner's zipapp."""
