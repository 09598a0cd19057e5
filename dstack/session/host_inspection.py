"""The condition of a host: its tools and devices, and the view of the bucket from there."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass

from dstack.adapters.bucket.registry import is_path
from dstack.adapters.bucket.remote_errors import redact_url
from dstack.app.maintenance.bucket_access import try_bucket
from dstack.app.maintenance.bucket_probe import check_format, writable
from dstack.core.handover import unseen_text
from dstack.errors import BucketError, DstackError
from dstack.model import Host, HostFacts
from dstack.ports import RunnerPort
from dstack.session.handover import HostCoordinators
from dstack.session.hosts import HostOpener
from dstack.session.session import Session

MOUNT_BUCKET = (
    "mount it there at the same path, or name a storage that all machines reach (docs/how-to/share-a-bucket.md)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostCondition:
    """The facts of a host, and the view of the bucket from there.

    `who` is the identity under which the host sees the bucket, "" without a view of the bucket. `unseen` then says why:
    "" for the default folder, which only this machine ever sees. `trouble` is the failure of a read or write of a
    present bucket. `help` is the way out of either. `fresh`: the bucket is unused, also as seen from this machine.
    """

    facts: HostFacts
    who: str = ""
    unseen: str = ""
    help: str = ""
    trouble: str = ""
    fresh: bool = False


class HostInspection:
    """Asks hosts for their condition."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def at(self, host: Host, runner: RunnerPort, opener: HostOpener) -> HostCondition:
        """The condition of `host`. A host without a view of the bucket is no error: most buckets are folders of one
        machine."""
        facts = await runner.facts()
        if host.local:
            return await asyncio.to_thread(self._here, facts)
        sight, bucket = HostCoordinators(self._session, opener), self._session.settings.bucket
        try:
            seeing = await sight.look(host, facts)
            if seeing.used:
                return HostCondition(facts=facts, who=seeing.who, trouble=seeing.trouble)
            if await self._is_fresh():
                return HostCondition(facts=facts, who=seeing.who, fresh=True)
            return HostCondition(facts=facts, unseen=unseen_text(redact_url(bucket)))
        except DstackError as error:
            if is_path(bucket) and await self._is_fresh():
                return HostCondition(facts=facts, fresh=True)
            if not self._session.settings.is_chosen:
                return HostCondition(facts=facts)
            fix = error.hint or (MOUNT_BUCKET if is_path(bucket) else "")
            return HostCondition(facts=facts, unseen=error.detail, help=fix)
        finally:
            await sight.close()

    def _here(self, facts: HostFacts) -> HostCondition:
        """The condition of this machine, by a real read and write; nothing is written to a bucket before its first
        use."""
        try:
            if not writable(self._session.bucket):
                return HostCondition(facts=facts, who=facts.user)
        except BucketError as error:
            return HostCondition(facts=facts, trouble=str(error), help=error.hint or "")
        try:
            try_bucket(self._session.bucket, os.urandom(16).hex())
        except BucketError as error:
            return HostCondition(facts=facts, who=facts.user, trouble=str(error), help=error.hint or "")
        return HostCondition(facts=facts, who=facts.user)

    async def _is_fresh(self) -> bool:
        """Whether the bucket is unused as seen from here; nothing is written to find out."""

        def look() -> bool:
            try:
                return check_format(self._session.bucket) is None
            except BucketError:
                return False

        return await asyncio.to_thread(look)
