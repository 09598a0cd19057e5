"""Leaves a recorded run to the coordinators on its hosts, and to one of this machine where those cannot do it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import Any

from dstack.adapters.coordinator_client import hand_over, look_at
from dstack.adapters.coordinator_library import OLDEST, Library, library_for, python_of
from dstack.app.fleet import Reached
from dstack.app.handing import Handed, hand_out
from dstack.cli import wiring
from dstack.core.handover import HandOver, digest
from dstack.core.placement import Peer
from dstack.core.records import RunRecord, pack
from dstack.errors import HostError

URLS = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl")
"""Buckets that a coordinator on a host can open when the network lets it."""
SECRET_OPTIONS = frozenset(
    {
        "key",
        "secret",
        "token",
        "access_key_id",
        "secret_access_key",
        "session_token",
        "aws_access_key_id",
        "aws_secret_access_key",
        "aws_session_token",
        "account_key",
        "access_key",
        "sas_token",
        "sas_key",
        "client_secret",
        "azure_client_secret",
        "password",
        "service_account",
        "service_account_key",
        "service_account_path",
        "application_credentials",
        "bearer_token",
        "profile",
    }
)
"""Storage options that hold the user's own credentials, or name where they lie: they go nowhere unasked."""


async def hand_run(
    session: wiring.Session, hosts: wiring.Hosts, record: RunRecord, caller: Mapping[str, str]
) -> Handed:
    """Hand the run to every reached host that sees the bucket; the hosts that are left come with the reasons."""
    handing = Handing(session, hosts.opener, record, caller)
    return await hand_out(
        list(hosts.fleet.links.values()),
        project=session.name,
        snapshot=record.snapshot,
        code=session.code,
        look=handing.look,
        give=handing.give,
    )


class Handing:
    """One run on its way to coordinators of hosts."""

    def __init__(
        self, session: wiring.Session, opener: wiring.HostOpener, record: RunRecord, caller: Mapping[str, str]
    ) -> None:
        self._session = session
        self._opener = opener
        self._record = record
        self._caller = caller
        self._libraries: dict[str, Library | None] = {}
        self._packing = asyncio.Lock()

    async def look(self, reached: Reached) -> None:
        """Raises what keeps the host's own coordinator from working on the run."""
        if python_of(reached.facts) < OLDEST:
            python = ".".join(map(str, OLDEST))
            raise HostError(
                reached.host.name, f"its python3 is {reached.facts.python}, {python} is needed to work alone"
            )
        library = await self._library(reached)
        await look_at(await self._opener.transport(reached.host), self._given(reached, ()), library)

    async def give(self, reached: Reached, peers: Sequence[Peer]) -> None:
        """Hand the run over; raises what the host says no with."""
        library = await self._library(reached)
        await hand_over(await self._opener.transport(reached.host), self._given(reached, peers), library)

    def _given(self, reached: Reached, peers: Sequence[Peer]) -> HandOver:
        settings = self._session.settings
        options, secret = split_options(settings.bucket, settings.options, os.environ)
        return HandOver(
            bucket=settings.bucket,
            options=options,
            credentials=secret if reached.host.forward_credentials else {},
            project=self._session.name,
            run=self._record.id,
            record=digest(pack(self._record)),
            host=reached.host,
            peers=tuple(peers),
            caller=self._caller,
        )

    async def _library(self, reached: Reached) -> Library | None:
        """What the host needs to open the bucket; None for a folder."""
        scheme = self._session.settings.bucket.partition("://")[0].lower()
        if "://" not in self._session.settings.bucket or scheme in ("file", "local"):
            return None
        if scheme not in URLS:
            raise HostError(
                reached.host.name, f"{scheme}:// buckets are opened by libraries that only this machine has"
            )
        kind = f"{reached.facts.platform} {reached.facts.python}"
        async with self._packing:
            if kind not in self._libraries:
                cache = self._session.home / ".dstack" / "libraries"
                self._libraries[kind] = await asyncio.to_thread(library_for, reached.facts, cache)
        return self._libraries[kind]


def split_options(
    bucket: str, options: Mapping[str, Any], environ: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Storage options as a host needs them: those that say where the bucket is, and those that say who opens it.

    What this machine's environment says of S3 (endpoint, region; keys) is not to be seen on the host, so it is put in.
    """
    where = {name: value for name, value in options.items() if name not in SECRET_OPTIONS}
    who = {name: value for name, value in options.items() if name in SECRET_OPTIONS and name != "profile"}
    if bucket.partition("://")[0].lower() in ("s3", "s3a"):
        endpoint = environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL")
        region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
        if endpoint and not where.keys() & {"endpoint", "endpoint_url", "client_kwargs"}:
            where["endpoint"] = endpoint
        if region and not where.keys() & {"region", "region_name", "client_kwargs"}:
            where["region"] = region
        names = ("access_key_id", "secret_access_key", "session_token")
        found = {name: environ[f"AWS_{name.upper()}"] for name in names if environ.get(f"AWS_{name.upper()}")}
        who = who or found
    return where, who
