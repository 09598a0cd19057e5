"""The committed manifest of a result: read and verified. Blocking; reads only."""

from __future__ import annotations

from dstack.app.protocol.complete_lists import reaches_now
from dstack.core.artifacts import manifests
from dstack.core.format.keys import JobKeys
from dstack.core.format.records import Result, Tomb, unpack
from dstack.errors import DamagedObjectError
from dstack.model import Manifest
from dstack.ports import Bucket


def committed_manifest(bucket: Bucket, generation: JobKeys, attempt: int, digest: str = "") -> Manifest:
    """The manifest of the result of `attempt` of the generation, with this digest of its content ("": any).

    Raises DamagedObjectError when the result or its manifest is gone, or differs from the committed bytes; BucketError
    when the store does not answer.
    """
    body = bucket.get(generation.result)
    if body is None:
        raise DamagedObjectError(generation.result, f"{generation.result} is gone")
    result = unpack(Result, generation.result, body)
    if result.attempt != attempt or digest not in ("", result.digest):
        raise DamagedObjectError(generation.result, f"{generation.result} is another one than the run had")
    key = generation.attempt(attempt).manifest
    body = bucket.get(key)
    if body is None:
        raise DamagedObjectError(key, f"{key} is gone")
    manifest = manifests.decode(key, body, sha256=result.manifest)
    if manifests.content_digest(manifest) != result.digest:
        raise DamagedObjectError(key, f"{key} lists other artifacts than its result says")
    return manifest


def was_pruned(bucket: Bucket, generation: JobKeys) -> bool:
    """Whether the generation was closed by a prune, so that no object of the generation need be there."""
    body = bucket.get(generation.tomb)
    return body is not None and not unpack(Tomb, generation.tomb, body).damaged


def require_manifest(bucket: Bucket, generation: JobKeys, attempt: int) -> None:
    """Raises DamagedObjectError when the manifest of a job that succeeded is gone without having been pruned."""
    key = generation.attempt(attempt).manifest
    if not reaches_now(bucket, key, 1) and not was_pruned(bucket, generation):
        raise DamagedObjectError(key, f"{key} is gone")
