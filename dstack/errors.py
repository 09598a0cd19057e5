"""The error tree. Every error says what failed, where, what to do next, and has an exit code.

Any exception but a `DstackError` is a bug and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

RERUN_HINT = "make it anew: dstack run WORKFLOW --rerun"
"""The way out for a damaged object of the bucket where the error does not know the workflow."""


class DstackError(Exception):
    """A failure that a user, a host or a bucket can cause.

    `str(error)` is a sentence with the failure and the place. `detail` is the same sentence without the name of the
    host or object in front, for lists whose rows begin with the name. `hint` says what to do next.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None, detail: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        self.detail = detail or message


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Problem:
    """A mistake in a file of the user's; line and column count from 1."""

    file: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.message}"


class UsageError(DstackError):
    """The command line asks for something that does not exist or makes no sense."""

    exit_code = 2


class ConfigError(DstackError):
    """Mistakes in the user's YAML; holds all problems at once, in file order."""

    exit_code = 2

    def __init__(self, problems: Sequence[Problem], *, hint: str | None = None) -> None:
        self.problems = tuple(sorted(problems))
        super().__init__("\n".join(str(problem) for problem in self.problems), hint=hint)


class NotPrivateError(DstackError):
    """A folder or file of dstack's on this machine belongs to another account, or may be changed by one."""

    exit_code = 2


class JobFailedError(DstackError):
    """A job of the run failed."""

    exit_code = 1


class NoHostError(DstackError):
    """No host fits, or none can be reached."""

    exit_code = 3


class HostKeyError(DstackError):
    """A host showed a key that the user never confirmed, or another key than the confirmed key."""

    exit_code = 4


class HostError(DstackError):
    """A host was reached and could not do what was asked."""

    exit_code = 5

    def __init__(self, host: str, message: str, *, hint: str | None = None) -> None:
        self.host = host
        super().__init__(f"{host}: {message}", hint=hint, detail=message)


class NotHeldError(HostError):
    """The supervisor that held an attempt on the host is gone: the attempt never begins there, without a culprit."""


class NoRoomError(HostError):
    """A full disk of a host kept the host from an operation."""


class LogLostError(HostError):
    """A host could not write all of the log of a job: the log is incomplete."""


class UnkillableError(HostError):
    """Processes of a job are in the kernel and do not end, as with a disk or a network share that hangs."""


class HostUnreachableError(NoHostError):
    """The connection to one host failed or was lost."""

    def __init__(self, host: str, message: str, *, hint: str | None = None) -> None:
        self.host = host
        super().__init__(f"{host}: {message}", hint=hint, detail=message)


class BucketError(DstackError):
    """The bucket does not answer, refuses, or holds an object that no dstack wrote."""

    exit_code = 6


class DamagedObjectError(BucketError):
    """An object of the bucket is gone, or holds bytes that no dstack wrote there: waiting does not mend the object.

    `key` names the object within the bucket. An error of the store itself may pass, and is a plain BucketError.
    """

    def __init__(self, key: str, message: str, *, hint: str | None = None, detail: str = "") -> None:
        self.key = key
        super().__init__(message, hint=hint or RERUN_HINT, detail=detail)

    @classmethod
    def of(cls, key: str, detail: str) -> DamagedObjectError:
        """The error with the key at the beginning of the sentence, and `detail` behind the key."""
        return cls(key, f"{key} {detail}", detail=detail)


class DamagedInputError(DamagedObjectError):
    """An input of a job is damaged in the bucket: the artifacts of `workflow`, at `key`."""

    def __init__(self, workflow: str, key: str, message: str) -> None:
        self.workflow = workflow
        super().__init__(key, message, hint=f"make it anew: dstack run {workflow} --rerun")


class LaterVersionError(BucketError):
    """An object of the bucket was written by a later version of dstack and cannot be read by this version."""

    def __init__(self, key: str) -> None:
        self.key = key
        detail = "was written by a later version of dstack"
        super().__init__(f"{key} {detail}", hint="upgrade this dstack", detail=detail)


class UndecidedError(BucketError):
    """The bucket gives no answer that counts: the new object is neither accepted nor there.

    `trouble` is the known part of the reason, "" for nothing.
    """

    def __init__(self, key: str, trouble: str, *, hint: str) -> None:
        said = f"; {trouble}" if trouble else ""
        super().__init__(f"the bucket neither accepts nor shows {key}{said}", hint=hint)


class CredentialsError(BucketError):
    """The bucket refuses the credentials, or there are none: expired, withdrawn, wrong. New credentials may help.

    The message names the owner of the credentials. A missing right is a plain BucketError instead.
    """


class SnapshotError(DstackError):
    """The code of the project cannot be packed or unpacked."""

    exit_code = 7


class BucketDamageError(DstackError):
    """`fsck` found something wrong in the bucket."""

    exit_code = 8


class OutputError(DstackError):
    """The output of a command cannot be written: the disk is full, say, or standard output is closed."""

    exit_code = 9


class NotFoundError(UsageError):
    """A run, workflow, host or artifact of that name does not exist."""


class SecretError(DstackError):
    """A secret is not set, or the store of secrets does not give the secret."""

    exit_code = 8
