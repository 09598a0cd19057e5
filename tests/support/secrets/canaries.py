"""A secret and all the ways in which it may leak, and the places of this machine where it is sought."""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

VALUE = "canary/4R+w9 Zq\"81'é-7f3c"

SAY = """\
import base64, json, os, sys, time, urllib.parse
token = os.environ["TOKEN"]
print("raw", token)
print("json", json.dumps({"token": token}))
print("json", json.dumps({"token": token}, ensure_ascii=False))
print("url", urllib.parse.quote(token, safe=""))
for before in ("", "u", "u:"):
    print("base64", base64.b64encode((before + token + "tail").encode()).decode())
print("hex", token.encode().hex())
for character in token:
    print(character, end="", flush=True)
print("", file=sys.stderr, flush=True)
"""
"""Prints the value in every encoding, and once in a write for each character. Holds no value itself."""


def encodings() -> dict[str, bytes]:
    """Name -> the bytes that stand in whatever the value leaked into, by that encoding."""
    raw = VALUE.encode()
    found = {
        "raw": raw,
        "json": json.dumps(VALUE)[1:-1].encode(),
        "json as it is": json.dumps(VALUE, ensure_ascii=False)[1:-1].encode(),
        "url": quote(VALUE, safe="").encode(),
        "hex": raw.hex().encode(),
    }
    for before in range(3):
        # Without the digits that depend on the neighbours.
        digits = base64.b64encode(bytes(before) + raw)
        found[f"base64 {before}"] = digits[4 if before else 0 : -4]
    return found


def leaks(data: bytes) -> list[str]:
    """The encodings of the value that stand in `data`."""
    return [name for name, canary in encodings().items() if canary in data]


def leaks_below(*folders: Path) -> list[str]:
    """The files below folders that hold the value, in their content or their path."""
    found = []
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                found += [f"{path}: {name}" for name in leaks(path.read_bytes() + os.fsencode(path))]
    return found


def leaks_in_processes() -> list[str]:
    """Processes of this machine with the value on their command line; or, but for the job's own, in their
    environment, where this account may read it."""
    found = []
    for folder, faces in _processes():
        seen = [*leaks(faces["cmdline"])]
        if b"DSTACK_ATTEMPT=" not in faces["environ"]:
            seen += leaks(faces["environ"])
        found += [f"{folder}: {name} {faces['cmdline'][:200]!r}" for name in seen]
    return found


class Sampler:
    """Looks at all processes again and again while the block runs; `found` are the leaks that were seen."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.looks = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._over.is_set():
            self.found += leaks_in_processes()
            self.looks += 1

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def _processes() -> Iterator[tuple[Path, dict[str, bytes]]]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            faces = {}
            for face in ("cmdline", "environ"):
                try:
                    faces[face] = (folder / face).read_bytes()
                except OSError:
                    faces[face] = b""
            yield folder, faces
