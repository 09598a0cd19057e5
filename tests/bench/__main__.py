"""`python -m tests.bench [-n ROUNDS] [NAME…]`: the named figures, or all, in one table. Fails for no figure."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench import many, peers, push, runs, startup, store
from tests.bench.measure import Row, table
from tests.bench.place import Place, Unavailable, opened
from tests.support.hosts.image import EngineMissing

FIGURES: dict[str, tuple[Callable[[Place, int], Iterator[Row]], int]] = {
    "startup": (startup.startup, 15),
    "many": (many.many, 15),
    "cold": (runs.cold, 9),
    "logs": (runs.logs, 3),
    "push": (push.push, 9),
    "fan": (runs.fan, 3),
    "reuse": (runs.reuse, 9),
    "turns": (peers.turns, 3),
    "peers": (peers.peers, 5),
    "store": (store.store, 3),
}
"""What is measured, and in how many rounds by default."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(FIGURES)}; all of them without one")
    parser.add_argument("-n", type=int, default=0, metavar="ROUNDS", help="rounds of each figure")
    given = parser.parse_args()
    unknown = [name for name in given.names if name not in FIGURES]
    if unknown:
        parser.error(f"no such figure: {', '.join(unknown)} (there are {', '.join(FIGURES)})")
    rows: list[Row] = []
    try:
        with tempfile.TemporaryDirectory(prefix="b") as folder, opened(Path(folder)) as place:
            for name in given.names or FIGURES:
                rows += _measured(name, place, given.n)
    finally:
        # Also what was measured before a store filled up, or somebody lost patience.
        if rows:
            print(table(rows))
    return 0


def _measured(name: str, place: Place, rounds: int) -> list[Row]:
    measure, usual = FIGURES[name]
    print(f"measuring {name}; load {os.getloadavg()[0]:.1f}", file=sys.stderr)
    rows: list[Row] = []
    try:
        rows.extend(measure(place, rounds or usual))
    except (Unavailable, EngineMissing) as reason:
        print(f"{name} is NOT measured: {reason}", file=sys.stderr)
    return rows


if __name__ == "__main__":
    sys.exit(main())
