"""The manifest of a result, as it was committed: read and verified. Blocking; reads only."""

from __future__ import annotations

from dstack.core import manifests
from dstack.core.keys import JobKeys
from dstack.core.records import Outcome, Result, unpack
from dstack.errors import DamagedObjectError
from dstack.model import Manifest
from dstack.ports import Bucket


def committed_manifest(bucket: Bucket, generation: JobKeys, outcome: Outcome) -> Manifest:
    """The manifest of the result that an outcome names.

    Raises DamagedObjectError when the result or its manifest is gone, or is not what was committed; BucketError when
    the store does not answer.
    """
    body = bucket.get(generation.result)
    if body is None:
        raise DamagedObjectError(generation.result, f"{generation.result} is gone")
    result = unpack(Result, generation.result, body)
    manifest = manifest_of_result(bucket, generation, result)
    if (result.attempt, result.digest) != (outcome.attempt, outcome.digest):
        raise DamagedObjectError(generation.result, f"{generation.result} is another one than the outcome names")
    return manifest


def manifest_of_result(bucket: Bucket, generation: JobKeys, result: Result) -> Manifest:
    """The manifest that a result names; raises as `committed_manifest`."""
    key = generation.attempt(result.attempt).manifest
    body = bucket.get(key)
    if body is None:
        raise DamagedObjectError(key, f"{key} is gone")
    manifest = manifests.decode(key, body, sha256=result.manifest)
    if manifests.content_digest(manifest) != result.digest:
        raise DamagedObjectError(key, f"{key} lists other artifacts than its result says")
    return manifest
