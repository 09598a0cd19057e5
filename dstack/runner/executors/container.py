"""Commands that run in a Docker container; a keeper process stands for the container in the supervisor's tree."""

from __future__ import annotations

import os
from typing import ClassVar, Optional, Tuple

from dstack.private_folder import make_folder
from dstack.runner.base.processes import HAS_PROC
from dstack.runner.base.spool import Attempt
from dstack.runner.executors import container_keeper, docker
from dstack.runner.executors.executor import Diagnosis, Launch, LogPipe, named_pipe
from dstack.wire.job_messages import JobOrder


class ContainerExecutor:
    """A job in a container of the order's `image`. The container may outlive every process of dstack's."""

    kind: ClassVar[str] = "container"
    has_keeper: ClassVar[bool] = True
    stop_margin_s: ClassVar[float] = 20.0

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    @classmethod
    def takes(cls, order: JobOrder) -> bool:
        return bool(order.image)

    def hints(self, gpus: Tuple[int, ...]) -> Tuple[str, ...]:
        return ()

    def open_pipe(self) -> LogPipe:
        if not HAS_PROC:
            # Docker Desktop runs containers in a virtual machine, where a mounted pipe has no other end.
            raise OSError("with secrets and an image it needs a Linux host: here no pipe leads into a container")
        make_folder(self._attempt.container)
        return named_pipe(container_keeper.pipe_path(self._attempt))

    def start(self, order: JobOrder, launch: Launch) -> int:
        return container_keeper.fork_keeper(self._attempt, order, launch)

    def diagnosis(self) -> Diagnosis:
        found = container_keeper.read_outcome(self._attempt)
        return Diagnosis(
            reason=str(found.get("reason") or ""),
            out_of_memory=bool(found.get("oom")),
            code_known=not found.get("unknown"),
        )

    def label(self) -> str:
        return docker.container_name(self._attempt.nonce)

    def created(self) -> bool:
        return os.path.exists(container_keeper.cid_path(self._attempt))

    def runs(self) -> Optional[bool]:
        return docker.is_running(self._attempt.nonce)

    def remove(self) -> bool:
        return docker.remove_container(self._attempt.nonce)
