"""What the coordinator on a host says no with."""

from __future__ import annotations


class Refusal(Exception):
    """`kind` is a word of docs/format.md §2, for programs; message and hint are for people."""

    def __init__(self, kind: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.hint = hint

    def fields(self) -> dict[str, str]:
        """As it goes over the wire."""
        return {"kind": self.kind, "message": str(self), "hint": self.hint}
