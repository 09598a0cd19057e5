"""One round of artifacts on a host, for the oldest Pythons: manifest, packs, adoption, staging. Run as a script."""

from __future__ import annotations

import hashlib
import os
import sys

from dstack.runner.store import artifacts, blob_store, intake


def main(root: str) -> None:
    spool, work = os.path.join(root, "spool"), os.path.join(root, "spool", "work")
    other = os.path.join(root, "other")
    os.makedirs(os.path.join(work, "out", "empty"))
    os.makedirs(other)
    with open(os.path.join(spool, "exit.json"), "w") as file:
        file.write('{"code": 0}')
    for index in range(100):
        with open(os.path.join(os.fsencode(work), b"out", b"\xff%d" % index), "wb") as member:
            member.write(b"%d" % index * 100)
    os.symlink("empty", os.path.join(work, "out", "link"))
    summary = artifacts.write_manifest(root, spool, work, ["out"]).to_json()
    entries = list(artifacts.entries(spool))
    packs = sorted({entry["pack"] for entry in entries if entry.get("pack")})
    whole = b"".join(piece for pack in packs for piece in artifacts.read_pack(root, spool, work, pack))
    intake.adopt(root, spool, work)
    body = b"pushed"
    intake.receive(root, [(hashlib.sha256(body).hexdigest(), len(body))], [body])
    blob_store.stage(root, other, entries)
    same = sorted(os.listdir(os.path.join(os.fsencode(other), b"out")))
    print(
        sys.version_info[:2],
        summary["entries"],
        len(whole),
        len(same),
        os.path.islink(os.path.join(other, "out", "link")),
    )


main(sys.argv[1])
