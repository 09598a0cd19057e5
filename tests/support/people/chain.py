"""A laptop with a chain of jobs that leave marks."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from tests.support.people.laptop import Laptop

JOBS = ("prepare", "train")


def chain(folder: Path) -> Laptop:
    """A chain of jobs; each appends its name and attempt to the marks, as its first command."""
    laptop = Laptop(folder)
    lines = ["workflows:"]
    for name, before in zip(JOBS, ("", *JOBS), strict=False):
        lines += [
            f"  - name: {name}",
            f"    depends-on: {{repo: {{include: []}}, workflows: [{before}]}}",
            "    commands:",
            f"      - echo {name} >> {laptop.marks}",
            f"      - echo log of {name}",
            f"      - echo out of {name} > {name}.txt",
            f"    artifacts: [{name}.txt]",
        ]
    laptop.write({".dstack/workflows.yaml": "\n".join(lines) + "\n"})
    laptop.commit()
    return laptop


def slots_are_free(laptop: Laptop) -> bool:
    """Whether no supervisor and no job holds a slot of the laptop."""
    for path in Path(laptop.environment["DSTACK_SLOTS_DIR"]).glob("*"):
        fd = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(fd)
    return True
