"""The composition root on a host: one bucket, one runner by a pipe, and code pushed ahead by the laptop."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dstack.adapters.bucket.opener import open_bucket
from dstack.adapters.bucket.remote_errors import redact_url
from dstack.adapters.bucket.renewable_store import SwappableBucket
from dstack.adapters.bucket.stall_notice import StallNoticeBucket
from dstack.adapters.process_identity import boottime, coordinator_alive, new_nonce
from dstack.adapters.runner.client import RunnerClient
from dstack.adapters.runner.local import open_local
from dstack.adapters.unwatched_screen import LogScreen
from dstack.app.coordination.context import CoordinationContext
from dstack.app.coordination.heartbeat import HeartbeatWriter
from dstack.app.coordination.standby import AttendantWatch
from dstack.app.hosts.fleet import Fleet, address_of
from dstack.app.maintenance.bucket_probe import writable
from dstack.app.protocol.liveness import Observer
from dstack.coordinator import zipapp_contents
from dstack.core.fingerprint import fingerprint, ingredients
from dstack.core.format.codec import plain
from dstack.core.format.keys import ProjectKeys
from dstack.core.format.records import Coordinator
from dstack.core.handover import HandOver
from dstack.core.placement import RunLoad, turn
from dstack.errors import HostUnreachableError, SnapshotError
from dstack.model import Host, JobSpec, RunId, Snapshot
from dstack.ports import Bucket, RunnerPort, Transport


class PushedCode:
    """The code of runs whose snapshots the laptop pushed to this host before the hand-over."""

    def bundle(self, snapshot: Snapshot, basis: Sequence[str]) -> Iterator[bytes]:
        """Raises SnapshotError: only a laptop can bring a snapshot again."""
        raise SnapshotError(
            f"the snapshot {snapshot.commit} is gone from this host",
            hint="`dstack attach` the run: that brings it again",
        )

    def known(self) -> Sequence[str]:
        return ()

    def has(self, snapshot: Snapshot) -> bool:
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class _ProjectContext:
    """The values shared by all runs of one project."""

    keys: ProjectKeys
    observer: Observer
    heart: HeartbeatWriter


class HostContext:
    """The tools for all runs of one detached coordinator, each opened at first use."""

    def __init__(self, root: str, me: Coordinator, log: LogScreen) -> None:
        self._root = root
        self._me = me
        self._log = log
        self._bucket: SwappableBucket | None = None
        self._credentials: Mapping[str, Any] = {}
        self._until: float | None = None
        self._fleets: dict[str, Fleet] = {}
        self._projects: dict[str, _ProjectContext] = {}
        self._hands: dict[RunId, HandOver] = {}
        self._values: dict[RunId, dict[str, str]] = {}

    def bucket(self, hand: HandOver) -> Bucket:
        """The bucket. Credentials in the hand-over replace earlier credentials, which may have ended.

        Raises BucketError when the bucket cannot be read with the new credentials; the old ones then stay.
        """
        if self._bucket is None or (hand.credentials and hand.credentials != self._credentials):
            store = open_bucket(hand.bucket, {**hand.options, **hand.credentials}, "/")
            opened = StallNoticeBucket(store, redact_url(hand.bucket), self._log.message)
            # Read once before the swap: credentials that do not work must not replace those that do.
            writable(opened)
            self._credentials, self._until = dict(hand.credentials), hand.until
            if self._bucket is None:
                self._bucket = SwappableBucket(opened)
            self._bucket.swap(opened)
        return self._bucket

    def remember(self, hand: HandOver) -> None:
        """Note a hand-over of a run. Its secret values are added to the values already here, also for a run at work.

        A sender with few values takes none away, and a sender with a missing value lets the waiting job begin.
        """
        self._hands[hand.run] = hand
        self._values.setdefault(hand.run, {}).update(hand.caller)

    def attendant(self, run: RunId) -> Coordinator | None:
        """The attendant of a run by its latest hand-over, for which this host stands by; None: this host works on the
        run."""
        return self._hands[run].attendant

    async def stand_by(self, run: RunId, attendant: Coordinator, say: Callable[[str], None]) -> bool:
        """Wait until the attendant is gone -> whether the run is to be worked on here then. Raises BucketError."""
        hand = self._hands[run]
        bucket = self._bucket or self.bucket(hand)
        project = self._project(hand.project, bucket)
        standing = AttendantWatch(bucket, project.observer, say=say, is_over=self._is_over)
        return await standing.wait(project.keys.run(run), attendant)

    def _is_over(self) -> bool:
        """Whether the lent credentials have ended; False where their end is unknown."""
        return self._until is not None and time.time() >= self._until

    def forget(self, run: RunId) -> None:
        """Drop a final run and its secrets."""
        self._hands.pop(run, None)
        self._values.pop(run, {}).clear()

    async def context(self, run: RunId) -> CoordinationContext:
        """The context for one coordination of the run."""
        hand = self._hands[run]
        bucket = self._bucket or self.bucket(hand)
        project = self._project(hand.project, bucket)

        def when(spec: JobSpec, standing: RunLoad) -> float:
            job = fingerprint(ingredients(spec, {}))
            return turn(spec, hand.peers, standing, job=job, me=hand.host.name)

        return CoordinationContext(
            bucket=bucket,
            project=hand.project,
            keys=project.keys,
            fleet=self._fleet(hand.host),
            code=PushedCode(),
            screen=self._log,
            observer=project.observer,
            caller=self._values[run],
            new_nonce=new_nonce,
            heart=project.heart,
            turn=when,
            peers=hand.peers,
        )

    def _project(self, name: str, bucket: Bucket) -> _ProjectContext:
        if name not in self._projects:
            keys, here = ProjectKeys.of(name), self._me.boot_id
            self._projects[name] = _ProjectContext(
                keys=keys,
                observer=Observer(bucket, keys, sure=lambda other: coordinator_alive(other, here), boottime=boottime),
                heart=HeartbeatWriter(
                    bucket, keys.heartbeat(self._me.id), self._log.message, until=lambda: self._until
                ),
            )
        return self._projects[name]

    def _fleet(self, host: Host) -> Fleet:
        """A fleet of this host alone, under its entry in the laptop's inventory."""
        # Two inventories may name this host differently; each entry stands in claims as its user wrote it.
        address = json.dumps(plain(address_of(host)), sort_keys=True)
        if address not in self._fleets:
            self._fleets[address] = Fleet((host,), lambda other: self._open(other, host))
        return self._fleets[address]

    async def _open(self, host: Host, here: Host) -> RunnerPort:
        """A runner by a pipe. Other hosts are out of reach: this coordinator has no SSH keys of its user."""
        if address_of(host) != address_of(here):
            raise HostUnreachableError(host.name, f"it cannot be reached from {here.name}")

        async def transport() -> Transport:
            return await open_local(host, sys.executable)

        zipapp = (zipapp_contents.RUNNER, hashlib.sha256(zipapp_contents.RUNNER).hexdigest())
        client = RunnerClient(
            host.name, transport, zipapp=zipapp, bootstrap=zipapp_contents.BOOTSTRAP, directory=self._root
        )
        await client.connect()
        return client

    async def close(self) -> None:
        await asyncio.gather(*(fleet.close() for fleet in self._fleets.values()))
