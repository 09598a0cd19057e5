"""A project like examples/digits with nothing but python3: prepare -> train and baseline -> evaluate with a picture.

Each job appends its name to `~/marks` of its host, outside of dstack, as its first command: what really started, and
how often, stands there. The two middle jobs wait for `~/gate`, so that a test can see them run at the same time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from tests.support.hosts.farm import TestHost
from tests.support.hosts.home import Home
from tests.support.people.laptop import Laptop

MARKS = "/home/alice/marks"
GATE = "/home/alice/gate"
KEPT = "/home/alice/kept.png"

WORKFLOWS = f"""
workflows:
  - name: prepare
    depends-on: {{repo: {{include: [prepare.py, measured/*]}}}}
    commands:
      - echo prepare >> {MARKS}
      - python3 prepare.py
    artifacts: [data]

  - name: train
    depends-on: {{repo: {{include: [train.py]}}, workflows: [prepare]}}
    commands:
      - echo train >> {MARKS}
      - while [ ! -e {GATE} ]; do sleep 0.05; done
      - python3 train.py $variables_as_args
    artifacts: [model]

  - name: baseline
    depends-on: {{repo: {{include: [baseline.py]}}, workflows: [prepare]}}
    commands:
      - echo baseline >> {MARKS}
      - while [ ! -e {GATE} ]; do sleep 0.05; done
      - python3 baseline.py
    artifacts: [baseline.json]

  - name: evaluate
    depends-on: {{repo: {{include: [evaluate.py]}}, workflows: [prepare, train, baseline]}}
    commands:
      - echo evaluate >> {MARKS}
      - python3 evaluate.py
      - cp report/fit.png {KEPT}
    artifacts: [report]
"""

PREPARE = """
import pathlib
rows = []
for file in sorted(pathlib.Path("measured").iterdir()):
    rows += file.read_text().split()
pathlib.Path("data").mkdir()
pathlib.Path("data/rows.csv").write_text("\\n".join(sorted(rows)) + "\\n")
print("prepared", len(rows), "rows")
"""

TRAIN = """
import argparse, json, pathlib
parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, required=True)
parser.add_argument("--lr", type=float, required=True)
arguments = parser.parse_args()
rows = [tuple(map(float, row.split(","))) for row in pathlib.Path("data/rows.csv").read_text().split()]
slope = 0.0
for epoch in range(arguments.epochs):
    for x, y in rows:
        slope += arguments.lr * (y - slope * x) * x
    print(f"epoch {epoch + 1}/{arguments.epochs}: slope {slope:.4f}", flush=True)
pathlib.Path("model").mkdir()
pathlib.Path("model/model.json").write_text(json.dumps({"slope": slope, "lr": arguments.lr}))
"""

BASELINE = """
import json, pathlib
rows = [tuple(map(float, row.split(","))) for row in pathlib.Path("data/rows.csv").read_text().split()]
pathlib.Path("baseline.json").write_text(json.dumps({"mean": sum(y for _, y in rows) / len(rows)}))
print("baseline is the mean")
"""

EVALUATE = """
import hashlib, json, pathlib, struct, zlib
slope = json.loads(pathlib.Path("model/model.json").read_text())["slope"]
mean = json.loads(pathlib.Path("baseline.json").read_text())["mean"]
rows = [tuple(map(float, row.split(","))) for row in pathlib.Path("data/rows.csv").read_text().split()]
error = sum(abs(y - slope * x) for x, y in rows)
print(f"error {error:.4f}, baseline {sum(abs(y - mean) for _, y in rows):.4f}")
SIZE = 64
pixels = [bytearray(b"\\xff" * SIZE) for _ in range(SIZE)]
for x, y in rows:
    pixels[min(SIZE - 1, max(0, SIZE - 1 - int(y)))][min(SIZE - 1, int(x))] = 0
raw = b"".join(b"\\0" + bytes(line) for line in pixels)
def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
picture = b"\\x89PNG\\r\\n\\x1a\\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", SIZE, SIZE, 8, 0, 0, 0, 0))
picture += chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
pathlib.Path("report").mkdir()
pathlib.Path("report/fit.png").write_bytes(picture)
pathlib.Path("report/metrics.json").write_text(json.dumps({"error": error}))
print("picture", hashlib.sha256(picture).hexdigest())
"""

FILES = {
    ".dstack/workflows.yaml": WORKFLOWS,
    ".dstack/variables.yaml": "variables:\n  train:\n    epochs: 3\n    lr: 0.001\n",
    "prepare.py": PREPARE,
    "train.py": TRAIN,
    "baseline.py": BASELINE,
    "evaluate.py": EVALUATE,
    "measured/first.csv": "1,2\n2,4\n3,6\n",
}


def entry(
    host: TestHost, key: Path, *, jump: str = "", slots: int = 1, more: Mapping[str, str] = MappingProxyType({})
) -> str:
    """One host as `hosts.yaml` has it: `{address: …, port: …, …}`; `more` are further settings."""
    fields = {
        "address": host.address,
        "port": str(host.port),
        "user": host.user,
        "identity-file": str(key),
        "slots": str(slots),
        **more,
    }
    if jump:
        fields["jump"] = jump
    return "{" + ", ".join(f"{name}: {value}" for name, value in fields.items()) + "}"


def write_inventory(laptop: Laptop, entries: Mapping[str, str]) -> None:
    """The laptop's own `~/.dstack/hosts.yaml`."""
    folder = laptop.home / ".dstack"
    folder.mkdir(exist_ok=True)
    lines = [f"  {name}: {text}" for name, text in entries.items()]
    (folder / "hosts.yaml").write_text("\n".join(["hosts:", *lines, ""]))


def remote_laptop(folder: Path, home: Home, host: TestHost, *, slots: int = 4) -> Laptop:
    """A laptop that trusts one host, `gpu`, and has no other."""
    made = Laptop(folder, home=home.path)
    home.trust(host)
    write_inventory(made, {"gpu": entry(host, home.key.file, slots=slots)})
    return made


def marks(hosts: Sequence[TestHost]) -> list[str]:
    """All that jobs appended on these hosts, host by host."""
    found: list[str] = []
    for host in hosts:
        done = host.exec(["cat", MARKS])
        found += done.output.decode().split("\n")[:-1] if done.code == 0 else []
    return found


def traffic(hosts: Sequence[TestHost]) -> list[tuple[int, int]]:
    """How many logins and sessions each sshd has logged."""
    return [(host.sshd_log().count("Accepted publickey"), host.sessions()) for host in hosts]


def coordinators(host: TestHost) -> list[str]:
    """Whatever of dstack is at work on a host, as /proc shows it."""
    return [line for line in host.processes() if "python3 -I -S" in line]
