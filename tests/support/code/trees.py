"""Trees of files for tests: made, and described."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path


def described(top: Path) -> dict[bytes, tuple[str, int, str]]:
    """Path -> kind, mode, and sha256 or target, of everything below a folder."""
    found = {}
    base = os.fsencode(top)
    for folder, folders, files in os.walk(base):
        for name in [*folders, *files]:
            path = os.path.join(folder, name)
            state = os.lstat(path)
            if stat.S_ISLNK(state.st_mode):
                entry = ("link", 0, os.fsdecode(os.readlink(path)))
            elif stat.S_ISDIR(state.st_mode):
                entry = ("folder", stat.S_IMODE(state.st_mode), "")
            else:
                with open(path, "rb") as file:
                    entry = ("file", stat.S_IMODE(state.st_mode), hashlib.sha256(file.read()).hexdigest())
            found[os.path.relpath(path, base)] = entry
    return found


def many(top: Path, count: int, size: int) -> None:
    """`count` different files of `size` bytes, a hundred in a folder."""
    for index in range(count):
        folder = top / f"{index // 100:04d}"
        if index % 100 == 0:
            folder.mkdir(parents=True)
        seed = hashlib.sha256(str(index).encode()).digest()
        (folder / f"{index:06d}.bin").write_bytes((seed * (size // 32 + 1))[:size])


def odd(top: Path) -> None:
    """Empty folders, links, modes, and names that are awkward somewhere."""
    top.mkdir(parents=True, exist_ok=True)
    (top / "empty" / "deep").mkdir(parents=True)
    (top / "closed").mkdir(mode=0o750)
    (top / "nothing").write_bytes(b"")
    (top / "run me").write_bytes(b"#!/bin/sh\n")
    (top / "run me").chmod(0o755)
    (top / "read only").write_bytes(b"x")
    (top / "read only").chmod(0o444)
    (top / "Twin").write_bytes(b"upper")
    (top / "twin").write_bytes(b"lower")
    (top / "e\u0301").write_bytes(b"two code points")
    (top / "\u00e9").write_bytes(b"one code point")
    for name in (
        b"not utf-8 \xff\xfe",
        b"line\nbreak",
        b"--option",
        b"$(touch x)",
        b"'\"`",
        b"*",
        b"a" * 255,
        b"\x1b[2J",
    ):
        with open(os.path.join(os.fsencode(top), name), "wb") as file:
            file.write(name)
    (top / "link").symlink_to("run me")
    (top / "empty" / "up").symlink_to("../nothing")
    (top / "dangling").symlink_to("not there")
    (top / "to folder").symlink_to("closed")
