"""The requests to the coordinator on a host, and the answers."""

from __future__ import annotations

from typing import Any, Mapping, Optional

from dstack import wire
from dstack.wire.field_kinds import flag, optional, text, unread_object, whole
from dstack.wire.message_form import DoneAnswer, Message, RequestMessage, field


class LibraryHaveAnswer(Message):
    have: bool = field(flag())


class LibraryHaveRequest(RequestMessage[LibraryHaveAnswer], op=wire.LIBRARY_HAVE, answer=LibraryHaveAnswer):
    """Whether the host has the library with this sha256."""

    sha256: str = field(text())


class LibraryPushRequest(RequestMessage[DoneAnswer], op=wire.LIBRARY_PUSH, answer=DoneAnswer):
    """The bytes of the library follow: a zip file to be imported from."""

    sha256: str = field(text())


class LookAnswer(Message):
    """How a host sees a bucket: the account, whether a dstack has used the bucket, and the trouble of the account with
    the bucket, "" without any."""

    who: str = field(text())
    used: bool = field(flag())
    trouble: str = field(text(), absent="")


class LookRequest(RequestMessage[LookAnswer], op=wire.LOOK, answer=LookAnswer):
    """Look at the bucket of a hand-over (core/handover.py), with the library of that sha256."""

    handover: Mapping[str, Any] = field(unread_object())
    library: Optional[str] = field(text(), default=None)


class HandAnswer(Message):
    """The id of the coordinator of the run, with the process and the machine of the coordinator."""

    coordinator: str = field(text())
    pid: Optional[int] = field(optional(whole()), absent=None)
    machine: str = field(text(), absent="")


class HandRequest(RequestMessage[HandAnswer], op=wire.HAND, answer=HandAnswer):
    """Give the run of a hand-over (core/handover.py) to the coordinator of its bucket."""

    handover: Mapping[str, Any] = field(unread_object())
    library: Optional[str] = field(text(), default=None)
