"""Lays the world of an earlier dstack out in a folder, as if this machine had made it."""

from __future__ import annotations

import os
import socket
import tarfile
from pathlib import Path

from dstack.adapters.process_identity import boot_id, user_name
from tests.support.earlier.make import BOOT, MACHINE, ROOT, USER

ARCHIVE = Path(__file__).with_name("world.tar.xz")


def lay_out(folder: Path) -> None:
    """Make `home` and `project` in `folder`. The project has no repository: whoever works in it makes one."""
    words = {ROOT: str(folder), USER: user_name(), MACHINE: socket.gethostname(), BOOT: boot_id()}

    def here(text: str) -> str:
        for word, own in words.items():
            text = text.replace(word, own)
        return text

    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_symlink():
            continue
        if path.is_file() and (body := path.read_bytes()).isascii() and (text := here(body.decode())) != body.decode():
            status = path.stat()
            path.write_text(text)
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        if path.name != here(path.name):
            path.rename(path.with_name(here(path.name)))
