"""The heartbeat of a process with an open read and no run: beaten by a thread, without an event loop."""

from __future__ import annotations

import threading

from dstack.app.protocol.lease import BEAT_INTERVAL_S
from dstack.core.heartbeats import encode_beat
from dstack.errors import BucketError
from dstack.ports import Bucket


class ReaderHeartbeat:
    """Beats under `key` from `begin` until `end`, a beat every `interval` seconds.

    A reader without a heartbeat counts as gone, so `begin` comes before the first pin.
    """

    def __init__(self, bucket: Bucket, key: str, *, interval: float = BEAT_INTERVAL_S) -> None:
        self._bucket = bucket
        self._key = key
        self._interval = interval
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="heartbeat", daemon=True)

    def begin(self) -> None:
        """Write the first beat, then go on beating in a thread; raises BucketError where the first beat fails."""
        self._bucket.put(self._key, encode_beat(0))
        self._thread.start()

    def end(self) -> None:
        """Beat no more, and remove the object; raises BucketError. Does no harm where `begin` failed."""
        self._ending.set()
        if self._thread.is_alive():
            # Before the removal: a beat behind it would bring the object back.
            self._thread.join()
        self._bucket.delete(self._key)

    def _go_on(self) -> None:
        number = 0
        while not self._ending.wait(self._interval):
            number += 1
            try:
                self._bucket.put(self._key, encode_beat(number))
            except BucketError:
                # The read itself meets the same bucket, and says what is wrong with it.
                pass
