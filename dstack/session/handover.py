"""Hands a recorded run to coordinators on the hosts of a session."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from dstack.adapters.bucket.host_access import lend_credentials, location_options
from dstack.adapters.bucket.registry import backend_of, is_path
from dstack.adapters.bucket.remote_errors import redact_url
from dstack.adapters.coordinator.client import CoordinatorClient, HostBucketReport
from dstack.adapters.coordinator.wheel import OLDEST_COORDINATOR_PYTHON, Library, pack_library, python_version
from dstack.app.coordination.handover import HandoverResult, LeftHost, ReadyHosts, hand_out, make_ready, still_awaited
from dstack.app.hosts.fleet import ReachedHost
from dstack.app.protocol.job_secrets import for_host
from dstack.app.queries.open_runs import read_run_folder
from dstack.core.format.records import Coordinator, RunRecord, pack
from dstack.core.handover import HandOver, digest, unseen_text
from dstack.core.placement import Peer
from dstack.errors import HostError
from dstack.model import Host, HostFacts, RunId
from dstack.session.hosts import HostOpener, Hosts
from dstack.session.session import Session


class RunHandover:
    """A run on the way to coordinators of hosts: `ready`, perhaps before the run is recorded, then `hand`, then
    `close`."""

    def __init__(self, session: Session, hosts: Hosts, caller: Mapping[str, str]) -> None:
        self._session = session
        self._hosts = hosts
        self._caller = caller
        self._coordinators = HostCoordinators(session, hosts.opener)

    async def ready(self, run: RunRecord) -> ReadyHosts:
        """The reached hosts that see the bucket and have the code of the run now, and why other hosts are left out."""
        return await make_ready(
            list(self._hosts.fleet.links.values()),
            project=self._session.name,
            snapshot=run.snapshot,
            code=self._session.code,
            look=lambda reached: self._coordinators.able(reached.host, reached.facts),
            images=sorted({job.image for job in run.plan.jobs if job.image}),
        )

    async def hand(
        self, ready: ReadyHosts, record: RunRecord, *, attendant: Coordinator | None = None
    ) -> HandoverResult:
        """Hand the recorded run to the ready hosts, to each host with the values of the jobs for this host.

        The hosts begin at once, or stand by for the `attendant`. A silent host is left out where no other host might
        run an open job of the run, so that this machine goes on waiting for the silent host.
        """

        async def give(reached: ReachedHost, peers: Sequence[Peer]) -> float | None:
            caller = for_host(record.plan.jobs, self._caller, reached.facts)
            hand_over = self._coordinators.hand_over_of(
                reached.host, record, peers=peers, caller=caller, attendant=attendant
            )
            client = await self._coordinators.client(reached.host)
            await client.hand(hand_over, await self._coordinators.library(reached.host, reached.facts))
            return hand_over.until

        handed = await hand_out(ready, give)
        return replace(handed, left=(*handed.left, *await self._awaited(record)))

    async def _awaited(self, record: RunRecord) -> tuple[LeftHost, ...]:
        links = tuple(self._hosts.fleet.links.values())
        if not still_awaited(links, record.plan.jobs):
            return ()
        # A job that is over needs no host, and that alone is worth a look into the bucket.
        found = await asyncio.to_thread(read_run_folder, self._session.bucket, self._session.keys, record)
        return still_awaited(links, [job for job in record.plan.jobs if job.workflow not in found.outcomes])

    async def close(self) -> None:
        await self._coordinators.close()


class HostCoordinators:
    """The coordinators on hosts, each reached through a front process, and the view of the bucket from there."""

    def __init__(self, session: Session, opener: HostOpener) -> None:
        self._session = session
        self._opener = opener
        self._libraries: dict[str, Library | None] = {}
        self._packing = asyncio.Lock()
        # Ends the packing of libraries, whose thread cannot be cancelled.
        self._closed = threading.Event()
        self._clients: dict[str, CoordinatorClient] = {}

    async def client(self, host: Host) -> CoordinatorClient:
        """The client of the host's coordinator, started at the first call for the host."""
        if host.name not in self._clients:
            transport = await self._opener.transport(host)
            self._clients[host.name] = await CoordinatorClient.open(transport, host.dir)
        return self._clients[host.name]

    async def close(self) -> None:
        self._closed.set()
        for client in self._clients.values():
            await client.close()

    async def able(self, host: Host, facts: HostFacts) -> None:
        """Raise DstackError where something keeps the host's coordinator from working alone."""
        seeing = await self.look(host, facts)
        if not seeing.used:
            raise HostError(host.name, unseen_text(redact_url(self._session.settings.bucket)))
        if seeing.trouble:
            raise HostError(host.name, f"its account cannot use the bucket: {seeing.trouble}")

    async def look(self, host: Host, facts: HostFacts) -> HostBucketReport:
        """The view of the bucket from the host, also of an unused bucket; raises DstackError where the host has no
        view."""
        if python_version(facts) < OLDEST_COORDINATOR_PYTHON:
            python = ".".join(map(str, OLDEST_COORDINATOR_PYTHON))
            raise HostError(host.name, f"its python3 is {facts.python}, {python} is needed to work alone")
        library = await self.library(host, facts)
        return await (await self.client(host)).look(self.hand_over_of(host), library)

    def hand_over_of(
        self,
        host: Host,
        record: RunRecord | None = None,
        *,
        peers: Sequence[Peer] = (),
        caller: Mapping[str, str] | None = None,
        attendant: Coordinator | None = None,
    ) -> HandOver:
        """The hand-over of a run to a host; without a run, for a look. Raises CredentialsError."""
        settings = self._session.settings
        forwarded: Mapping[str, Any] = {}
        until = None
        if host.forward_credentials and not is_path(settings.bucket):
            lent = lend_credentials(settings.bucket, settings.options, os.environ)
            forwarded, until = lent.options, lent.expires_at
        return HandOver(
            bucket=settings.bucket,
            options=location_options(settings.bucket, settings.options, os.environ),
            credentials=forwarded,
            until=until,
            project=self._session.name if record else "",
            run=record.id if record else RunId(""),
            # The host starts the record with this digest alone, whatever the bucket gives by then.
            record=digest(pack(record)) if record else "",
            host=host,
            peers=tuple(peers),
            caller=caller or {},
            attendant=attendant,
        )

    async def library(self, host: Host, facts: HostFacts) -> Library | None:
        """The library for the host to open the bucket; None for a folder. Raises DstackError without a library for the
        host."""
        url = self._session.settings.bucket
        packages = backend_of(url).properties.host_packages
        if packages is None:
            scheme = url.partition("://")[0]
            raise HostError(host.name, f"{scheme}:// buckets are opened by libraries that only this machine has")
        if not packages:
            return None
        kind = f"{facts.platform} {facts.python}"
        # Hosts ask at the same time: one fetch serves all hosts of a kind.
        async with self._packing:
            if kind not in self._libraries:
                cache = self._session.home / ".dstack" / "libraries"
                self._libraries[kind] = await asyncio.to_thread(pack_library, packages, facts, cache, self._closed)
        return self._libraries[kind]
