"""A host that answers, and the words for a job that only a silent one might run."""

from __future__ import annotations

from dataclasses import replace

from dstack.model import Gpu, HostFacts, Resources
from tests.support.records.specs import FACTS, spec

LARGE = spec("large", resources=Resources(gpu=Gpu(count=1)))
WITH_GPU = replace(FACTS, gpus=(Gpu(count=2),))
BARE = "near has 0 fitting GPUs, 1 are asked for"
WAITS = f"waits for far, which cannot be reached; no other host can run it: {BARE}"


class Answering:
    """A host that is reached, and has what `has` says."""

    def __init__(self, has: HostFacts) -> None:
        self._has = has

    async def facts(self) -> HostFacts:
        return self._has

    async def close(self) -> None: ...
