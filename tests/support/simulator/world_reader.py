"""The bucket of the simulated world, as everybody reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dstack.app.effects import catalogue as fx
from dstack.model import Nonce

if TYPE_CHECKING:
    from tests.support.simulator.world import World


class WorldReader:
    """A `BucketReader`; and gives nonces."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def read(self, effect: fx.Read, /) -> bytes | None:
        return self.world.objects.get(effect.key)

    async def list_keys(self, effect: fx.ListKeys, /) -> list[str]:
        return self.world.faults.listed(effect.prefix)

    async def sizes(self, effect: fx.Sizes, /) -> dict[str, int]:
        return self.world.faults.sizes(effect.prefix)

    async def reaches(self, effect: fx.Reaches, /) -> bool:
        return self.world.faults.reaches(effect.key, effect.size)

    async def children(self, effect: fx.Children, /) -> list[str]:
        tails = {key[len(effect.prefix) :] for key in self.world.faults.listed(effect.prefix)}
        return sorted({tail.partition("/")[0] + ("/" if "/" in tail else "") for tail in tails})

    async def bucket_trouble(self, effect: fx.BucketTrouble, /) -> str:
        return ""

    async def new_nonce(self, effect: fx.NewNonce, /) -> Nonce:
        self.world.nonces += 1
        return Nonce(f"n{self.world.nonces}")
