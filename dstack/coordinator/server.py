"""The short-lived process that a laptop talks to: brings its hand-over to the detached coordinator, starting one if
none is awake. docs/format.md §2 describes the talk."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from typing import Any

from dstack import wire
from dstack.coordinator import bucket_probe, rendezvous, wheel
from dstack.coordinator.refusal import Refusal
from dstack.core.format.codec import build
from dstack.core.handover import HandOver
from dstack.errors import DstackError

PIECE = 1 << 18


def serve(first: bytes, stdin: int, stdout: int, root: str) -> None:
    """Answer requests, one after the other, until `stdin` ends."""
    frames = _frames(first, stdin)
    for frame in frames:
        if frame.kind != wire.MESSAGE:
            continue  # the rest of a library that was refused
        message = wire.unpack_message(frame.payload)
        if message.get("op") == wire.CANCEL:
            continue
        try:
            answer: dict[str, Any] = {"ok": _answer(message, frames, root)}
        except Refusal as refusal:
            answer = {"error": refusal.fields()}
        except (DstackError, OSError) as error:
            hint = getattr(error, "hint", None) or "look at the disk and the limits of the host"
            answer = {"error": {"kind": "host", "message": str(error), "hint": hint}}
        except Exception as error:
            traceback.print_exc()
            answer = {"error": {"kind": "bug", "message": f"{type(error).__name__}: {error}", "hint": "report this"}}
        _write(stdout, wire.pack_message({"id": message.get("id"), **answer}))


def _answer(message: dict[str, Any], frames: Iterator[wire.Frame], root: str) -> dict[str, Any]:
    match message.get("op"):
        case wire.LIBRARY_HAVE:
            return {"have": wheel.is_there(root, str(message.get("sha256")))}
        case wire.LIBRARY_PUSH:
            wheel.receive(root, str(message.get("sha256")), _data(frames))
            return {}
        case wire.HAND | wire.LOOK as op:
            hand = build(HandOver, message.get("handover"), "the hand-over")
            wanted = str(message.get("library") or "")
            folder = wheel.importable(root, wanted) if wanted else None
            return rendezvous.hand(root, hand, folder) if op == wire.HAND else bucket_probe.look(hand, folder)
    raise Refusal("request", f"this coordinator knows no operation {message.get('op')!r}", "update dstack")


def _frames(first: bytes, stdin: int) -> Iterator[wire.Frame]:
    reader = wire.FrameReader()
    data = first or os.read(stdin, PIECE)
    while data:
        try:
            yield from reader.feed(data)
        except wire.ProtocolError as error:
            sys.stderr.write(f"dstack: the laptop's stream is broken: {error}\n")
            return
        data = os.read(stdin, PIECE)


def _data(frames: Iterator[wire.Frame]) -> Iterator[bytes]:
    """The bytes that follow a request; raises Refusal when the stream ends, or is given up, before they do."""
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
