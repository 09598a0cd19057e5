"""The detached coordinator: takes runs over a socket, brings each to its end, and ends with the last run."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from dstack import wire
from dstack.adapters.process_identity import CoordinatorLock, boot_id, machine_name, new_nonce, user_name
from dstack.adapters.unwatched_screen import LogScreen
from dstack.app.coordination.run import Coordination
from dstack.coordinator.wiring import HostContext
from dstack.core.format.codec import build
from dstack.core.format.keys import ProjectKeys
from dstack.core.format.records import Coordinator, RunRecord, at_machine, unpack
from dstack.core.handover import HandOver, digest
from dstack.errors import DstackError
from dstack.model import RunId
from dstack.wire import Refusal
from dstack.wire.coordinator_messages import HandAnswer, HandRequest
from dstack.wire.message_form import MisfitError

IDLE_LINGER_S = 3.0
"""Seconds awake without any work: a hand-over within this time needs no new process."""
BUCKET_RETRY_PAUSES_S = (1.0, 30.0)
"""Seconds before a run is taken up again after a silent bucket ended the work: the first pause, and the longest."""


def run_detached(root: str, listener: socket.socket, place: str) -> None:
    """Serve hand-overs from `listener`, whose socket file is `place`, until every run handed over is final."""
    # The connection that started this process may end at any moment.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    name = new_nonce()
    with CoordinatorLock(Path(root), name) as lock:
        me = Coordinator(
            id=name,
            user=user_name(),
            machine=machine_name(),
            boot_id=boot_id(),
            pid=os.getpid(),
            lock=str(lock.path),
        )
        asyncio.run(DetachedCoordinator(root, me, place).serve(listener))


class DetachedCoordinator:
    """The runs of one coordinator: only runs handed over by its own user, known by the hashes of their records."""

    def __init__(self, root: str, me: Coordinator, place: str) -> None:
        self._me = me
        self._place = place
        self._log = LogScreen()
        self._hosting = HostContext(root, me, self._log)
        self._runs: dict[RunId, asyncio.Task[None]] = {}
        self._again: dict[RunId, asyncio.Event] = {}
        """Set when a run already here is handed over once more."""
        self._talks = 0
        self._change = asyncio.Event()

    async def serve(self, listener: socket.socket) -> None:
        """Take hand-overs until there is nothing left to do."""
        self._log.message(f"awake: {self._me.user}@{self._me.machine}, process {self._me.pid}")
        listener.setblocking(False)
        server = await asyncio.start_unix_server(self._serve_connection, sock=listener)
        try:
            await self._wait_for_runs()
        finally:
            # The file first: who comes later finds none and starts another; who came before sees the stream end.
            with suppress(OSError):
                os.unlink(self._place)
            server.close()
            await self._hosting.close()
        self._log.message("every run that was given to it is final")

    async def _wait_for_runs(self) -> None:
        while True:
            self._change.clear()
            if self._runs or self._talks:
                await self._change.wait()
                continue
            waiting = asyncio.ensure_future(self._change.wait())
            await asyncio.wait({waiting}, timeout=IDLE_LINGER_S)
            if not waiting.done():
                waiting.cancel()
                return

    async def _serve_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._talks += 1
        self._change.set()
        try:
            writer.write(wire.pack_message({"id": 1, **await self._answer(reader)}))
            await writer.drain()
        except (ConnectionError, wire.ProtocolError) as error:
            self._log.message(f"a hand-over broke off: {error}")
        finally:
            self._talks -= 1
            self._change.set()
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> dict[str, Any]:
        frames = wire.FrameReader()
        while data := await reader.read(1 << 16):
            for frame in frames.feed(data):
                try:
                    message = wire.unpack_message(frame.payload)
                    request = HandRequest.from_envelope(message)
                    answer = await self._take_run(build(HandOver, request.handover, "the hand-over"))
                    return {"ok": answer.to_json()}
                except Refusal as refusal:
                    return {"error": refusal.to_json()}
                except MisfitError as misfit:
                    return {"error": Refusal(misfit.kind, str(misfit), misfit.hint).to_json()}
                except DstackError as error:
                    return {"error": Refusal("bucket", str(error), error.hint or "").to_json()}
        raise ConnectionError("nothing came")

    async def _take_run(self, hand: HandOver) -> HandAnswer:
        """Take a run. Only its own user can reach this socket; the run's record in the bucket must have the hash in the
        hand-over."""
        # In a thread: an unreachable store must not stop the other runs of this loop.
        bucket = await asyncio.to_thread(self._hosting.bucket, hand)
        key = ProjectKeys.of(hand.project).run(hand.run).record
        body = await asyncio.to_thread(bucket.get, key)
        if body is None:
            raise Refusal("bucket", f"{hand.bucket} does not show the run as seen from {self._me.machine}")
        if digest(body) != hand.record:
            raise Refusal("run", "the run's record in the bucket is not the one that was handed over")
        record = unpack(RunRecord, key, body)
        self._hosting.remember(hand)
        if hand.run in self._runs:
            self._again[hand.run].set()
        else:
            self._log.message(f"takes {record.name} of {record.user}")
            self._again[hand.run] = asyncio.Event()
            task = asyncio.create_task(self._look_after(record))
            self._runs[hand.run] = task
            task.add_done_callback(lambda _: self._forget_run(hand.run))
        return HandAnswer(coordinator=self._me.id, pid=self._me.pid, machine=self._me.machine)

    def _forget_run(self, run: RunId) -> None:
        self._runs.pop(run, None)
        self._again.pop(run, None)
        self._hosting.forget(run)
        self._change.set()

    async def _look_after(self, record: RunRecord) -> None:
        try:
            if await self._wait_for_turn(record):
                await self._finish_run(record)
        except Exception:
            traceback.print_exc()

    async def _wait_for_turn(self, record: RunRecord) -> bool:
        """Stand by for as long as an attendant works on the run -> whether this host is to work on the run then.

        A hand-over without an attendant ends the wait at once; a hand-over with another attendant starts a new wait.
        """
        again = self._again[record.id]
        while (attendant := self._hosting.attendant(record.id)) is not None:
            again.clear()
            watching = asyncio.create_task(self._stand_by(record, attendant))
            waiting = asyncio.create_task(again.wait())
            done, pending = await asyncio.wait({watching, waiting}, return_when=asyncio.FIRST_COMPLETED)
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
            if watching in done and not again.is_set():
                return watching.result()
        return True

    async def _stand_by(self, record: RunRecord, attendant: Coordinator) -> bool:
        def say(text: str) -> None:
            self._log.message(f"{record.name}: {text}")

        say(f"stands by for {at_machine(attendant.user, attendant.machine)}")
        goes_on = await self._hosting.stand_by(record.id, attendant, say)
        say("its attendant is gone: takes it up" if goes_on else "needs nobody to stand by any more")
        return goes_on

    async def _finish_run(self, record: RunRecord) -> None:
        """Bring a run to its end, also through failures of the bucket."""
        pause, most = BUCKET_RETRY_PAUSES_S
        while True:
            began = time.monotonic()
            try:
                context = await self._hosting.context(record.id)
                final = await Coordination(context, record, self._me).finish()
            except DstackError as error:
                self._log.message(f"{record.name}: {error}; again in {pause:.0f} s")
            except Exception:
                traceback.print_exc()
                return
            else:
                self._log.message(f"{record.name}: {final.status}")
                return
            await asyncio.sleep(pause)
            pause = BUCKET_RETRY_PAUSES_S[0] if time.monotonic() - began > most * 2 else min(most, pause * 2)
