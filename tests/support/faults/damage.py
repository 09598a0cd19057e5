"""A bucket in a folder whose objects are damaged on purpose, beside the real `dstack`."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.support.people.laptop import Laptop

PREPARED = "1 2 3\n"
WORKFLOWS = """
workflows:
  - name: prepare
    depends-on: {{repo: {{include: []}}}}
    commands: ["echo prepare $$ >> {marks}", "mkdir -p data", "printf '1 2 3\\n' > data/numbers", echo prepared]
    artifacts: [data]
  - name: train
    depends-on: {{repo: {{include: []}}, workflows: [prepare]}}
    commands: ["echo train $$ >> {marks}", "(cat data/numbers; echo lr=$lr) > model", "echo trained with $lr"]
    artifacts: [model]
"""


def flip(body: bytes, chance: random.Random) -> bytes:
    """One bit is another one."""
    at = chance.randrange(len(body))
    return body[:at] + bytes([body[at] ^ (1 << chance.randrange(8))]) + body[at + 1 :]


def cut(body: bytes, chance: random.Random) -> bytes:
    """The end is missing."""
    return body[: chance.randrange(1, len(body))]


def empty(body: bytes, chance: random.Random) -> bytes:
    return b""


def swap(body: bytes, chance: random.Random) -> bytes:
    """The bytes of something else, of the same length."""
    return chance.randbytes(len(body))


def forge(body: bytes, chance: random.Random) -> bytes:
    """A JSON document that is well formed, and none that dstack would write there."""
    return json.dumps({"v": 1, "kind": chance.choice(["result", "manifest", "claim"]), "partial": 7}).encode()


def remove(body: bytes, chance: random.Random) -> None:
    return None


Damage = Callable[[bytes, random.Random], bytes | None]
DAMAGES: dict[str, Damage] = {each.__name__: each for each in (flip, cut, empty, swap, forge, remove)}


class Store:
    """One person's project, and the folder that is its bucket."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.laptop = Laptop(folder)
        self.bucket = folder / "bucket"
        self.bucket.mkdir()
        self.laptop.environment["DSTACK_BUCKET"] = str(self.bucket)
        self.laptop.write(
            {
                ".dstack/workflows.yaml": WORKFLOWS.format(marks=self.laptop.marks),
                ".dstack/variables.yaml": "variables:\n  train:\n    lr: 0.1\n",
            }
        )
        self.laptop.commit()

    def jobs(self, workflow: str) -> int:
        """How often the job of that workflow began, by its own marks."""
        return sum(line.startswith(f"{workflow} ") for line in self.laptop.local_marks())

    def objects(self, pattern: str) -> list[Path]:
        """The objects below the project, by a glob of their keys, oldest generation first."""
        return sorted(self.bucket.glob(f"projects/*/{pattern}"))

    def made_by(self, workflow: str) -> Path:
        """The folder of the first generation of the workflow's only job so far."""
        wants = [path for path in self.objects("jobs/*/000001/wants/*") if f'"{workflow}"' in path.read_text()]
        return wants[0].parent.parent

    def strike(self, path: Path, damage: str) -> None:
        """Damage one object; what is left differs from what was there."""
        body = path.read_bytes()
        path.chmod(0o600)
        found = DAMAGES[damage](body, self.chance)
        for _ in range(19):
            if found != body:
                break
            found = DAMAGES[damage](body, self.chance)
        if found is None:
            path.unlink()
        else:
            path.write_bytes(found)

    def forget_bytes(self) -> None:
        """This host loses what it holds of artifacts, so that it must take them from the bucket."""
        shutil.rmtree(self.laptop.home / ".dstack" / "store", ignore_errors=True)
