"""The short-lived process at the end of a laptop's connection: brings hand-overs to the detached coordinator.

Starts a detached coordinator when none is awake. docs/format.md §2 describes the talk.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

from dstack import wire
from dstack.coordinator import bucket_reach, coordinator_socket, library_wheels
from dstack.core.format.codec import build
from dstack.core.handover import HandOver
from dstack.errors import DstackError
from dstack.wire import Refusal
from dstack.wire.coordinator_messages import (
    HandRequest,
    LibraryHaveAnswer,
    LibraryHaveRequest,
    LibraryPushRequest,
    LookRequest,
)
from dstack.wire.message_form import DoneAnswer, Message, MisfitError

STREAM_READ_BYTES = 1 << 18


def serve(first: bytes, stdin: int, stdout: int, root: str) -> None:
    """Answer requests in their order until `stdin` ends."""
    frames = _frames(first, stdin)
    for frame in frames:
        if frame.kind != wire.MESSAGE:
            continue  # the rest of a library that was refused
        message = wire.unpack_message(frame.payload)
        if message.get("op") == wire.CANCEL:
            continue
        try:
            answer: dict[str, Any] = {"ok": _answer(message, frames, root).to_json()}
        except Refusal as refusal:
            answer = {"error": refusal.to_json()}
        except MisfitError as misfit:
            answer = {"error": Refusal(misfit.kind, f"{message.get('op')}: {misfit}", misfit.hint).to_json()}
        except (DstackError, OSError) as error:
            hint = getattr(error, "hint", None) or "look at the disk and the limits of the host"
            answer = {"error": Refusal("host", str(error), hint).to_json()}
        except Exception as error:
            traceback.print_exc()
            answer = {"error": Refusal("bug", f"{type(error).__name__}: {error}", "report this").to_json()}
        _write(stdout, wire.pack_message({"id": message.get("id"), **answer}))


def _answer(message: dict[str, Any], frames: Iterator[wire.Frame], root: str) -> Message:
    match message.get("op"):
        case wire.LIBRARY_HAVE:
            return LibraryHaveAnswer(
                have=library_wheels.has_library(root, LibraryHaveRequest.from_envelope(message).sha256)
            )
        case wire.LIBRARY_PUSH:
            library_wheels.receive_library(root, LibraryPushRequest.from_envelope(message).sha256, _data(frames))
            return DoneAnswer()
        case wire.LOOK:
            look = LookRequest.from_envelope(message)
            return bucket_reach.probe_bucket(_handover(look.handover), _library(root, look.library))
        case wire.HAND:
            hand = HandRequest.from_envelope(message)
            return coordinator_socket.hand_over(root, _handover(hand.handover), _library(root, hand.library))
    raise Refusal("request", f"this coordinator knows no operation {message.get('op')!r}", "update dstack")


def _handover(fields: Mapping[str, Any]) -> HandOver:
    return build(HandOver, fields, "the hand-over")


def _library(root: str, sha256: str | None) -> str | None:
    """The folder to import the library from; None where the bucket needs no library."""
    return library_wheels.trusted_library_folder(root, sha256) if sha256 else None


def _frames(first: bytes, stdin: int) -> Iterator[wire.Frame]:
    reader = wire.FrameReader()
    data = first or os.read(stdin, STREAM_READ_BYTES)
    while data:
        try:
            yield from reader.feed(data)
        except wire.ProtocolError as error:
            sys.stderr.write(f"dstack: the laptop's stream is broken: {error}\n")
            return
        data = os.read(stdin, STREAM_READ_BYTES)


def _data(frames: Iterator[wire.Frame]) -> Iterator[bytes]:
    """The bytes after a request; raises Refusal when the stream ends, or the laptop gives up, before the last byte."""
    for frame in frames:
        if frame.kind != wire.DATA:
            break
        _, piece = wire.unpack_data(frame.payload)
        if not piece:
            return
        yield piece
    raise Refusal("request", "the stream ended early", "try again")


def _write(stdout: int, data: bytes) -> None:
    while data:
        data = data[os.write(stdout, data) :]
