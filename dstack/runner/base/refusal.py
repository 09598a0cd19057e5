"""How the runner says no to a coordinator."""

from __future__ import annotations


class Refusal(Exception):
    """A request that cannot be done: becomes `{"error": {"kind", "message", "hint"}}` on the wire.

    `kind` is a word of docs/format.md that the coordinator may branch on; `message` says what failed and where
    on this host; `hint` says what to do next.
    """

    def __init__(self, kind: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.hint = hint
