"""Artifacts over the real wire: a job on one host leaves them, a job on another finds them in place."""

from __future__ import annotations

from pathlib import Path

import pytest

from dstack.adapters.artifact_folder import SafeFolder
from dstack.adapters.bucket.folder import FolderBucket
from dstack.app.transfer.artifacts import collect_artifacts, pull, stage_inputs
from dstack.core.artifacts import manifests
from dstack.core.format.keys import ProjectKeys
from dstack.model import Fingerprint
from tests.support.runners.bench import Bench, LocalOpener, Repository, play

KEYS = ProjectKeys.of("p").job(Fingerprint("f"), 1).attempt(1)
MAKE = """
mkdir -p out/many out/empty && cd out
i=0; while [ $i -lt 3000 ]; do echo "file $i" > many/$i; i=$((i+1)); done
head -c 20000000 /dev/urandom > large; : > nothing; echo x > "$(printf 'odd \\377\\n name')"
ln -s many/7 link; chmod 750 many; chmod 755 large
"""
LIST = r"""
cd out; find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum -z | tr '\0\n' '\n~'
find . ! -type f | LC_ALL=C sort; readlink link; ls -ld many large | cut -c1-10
"""


def test_what_one_job_leaves_another_finds_on_another_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The judge is the same shell script, run by both jobs and on what was pulled."""
    monkeypatch.setenv("DSTACK_SLOTS_DIR", str(tmp_path / "slots"))
    bucket, project = FolderBucket(tmp_path / "bucket"), Repository(tmp_path)

    async def scene() -> None:
        async with (
            Bench(LocalOpener(tmp_path / "one"), project) as one,
            Bench(LocalOpener(tmp_path / "two"), project) as two,
        ):
            first, second = await one.client(), await two.client()
            nonce, said, end = await one.finished(first, f"({MAKE}) && {LIST.strip()}", artifacts=["out"])
            assert end.succeeded, said
            assert said.count(b"\n") > 3000
            named = await collect_artifacts(first, bucket, KEYS, nonce, partial=False)
            manifest = manifests.decode(KEYS.manifest, bucket.get(KEYS.manifest) or b"", sha256=named.manifest)
            entries = await stage_inputs(second, bucket, [("make", KEYS, manifest)])
            _, found, end = await two.finished(second, LIST, inputs=entries)
            assert end.succeeded, found
            assert found == said
            with SafeFolder(tmp_path / "pulled") as tree:
                await pull(bucket, KEYS, manifest, tree)
            _, here, _ = await one.finished(first, f"cd '{tmp_path / 'pulled'}' && {LIST.strip()}")
            assert here == said

    play(scene())
