"""The laptop's own store of snapshots: a bare repository with a ref for each snapshot commit.

Snapshot commits have no parents, so git sees no relation between two of them. `pack-objects --shallow` takes the trees
of the excluded commits into account all the same: without this option every push would carry every file.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from dstack.adapters.git.command import call, environment, git_error, start
from dstack.errors import SnapshotError
from dstack.private_folder import UntrustedError, make_folder, temporary_folder, write_file, write_scratch
from dstack.wire import RAW_ATTRIBUTES, is_commit

BUNDLE_CHUNK_BYTES = 256 * 1024
BASE_COMMITS_LIMIT = 8
"""Earlier snapshots as a basis for packing a new snapshot."""
KNOWN_COMMITS_LIMIT = 64
LOOSE_PACKS_LIMIT = 50
"""Packs above which all packs are joined."""
QUARANTINE_LIFETIME_S = 24 * 3600
"""Seconds after which a quarantine has no owner any more."""
PACK_OBJECTS = ("pack-objects", "--revs", "--thin", "--shallow", "--delta-base-offset", "--stdout", "-q")


class CodeStore:
    """Snapshots of one project. Safe for several processes at once; nothing unfinished is visible."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._env = environment(home=path, extra={"GIT_DIR": str(path)})

    def ensure(self, *, sha256: bool) -> None:
        """Create a missing store; raises SnapshotError for an unusable store, UntrustedError for a store of another
        account."""
        if not self.path.exists():
            self._create(sha256=sha256)
        make_folder(str(self.path))
        if ("sha256" in (self.path / "config").read_text()) != sha256:
            raise SnapshotError(
                f"the code store {self.path} was made for repositories with another kind of object id",
                hint=f"remove {self.path}; the next snapshot makes a new one",
            )

    @contextlib.contextmanager
    def quarantine(self) -> Iterator[Path]:
        """A folder of our own on the store's file system, gone afterwards."""
        parent = self.path / "quarantine"
        make_folder(str(parent))
        sweep_quarantines(parent)
        with temporary_folder(str(parent)) as folder, folder_lock(folder):
            yield Path(folder)

    def has(self, commit: str) -> bool:
        return (self.path / "refs/dstack" / commit).is_file()

    def commits(self) -> list[str]:
        """All snapshot commits, the last made or asked for first."""
        folder = self.path / "refs/dstack"
        if not folder.is_dir():
            return []
        found = [entry for entry in os.scandir(folder) if is_commit(entry.name)]
        found.sort(key=lambda entry: (-entry.stat().st_mtime_ns, entry.name))
        return [entry.name for entry in found]

    def take(self, commit: str, env: Mapping[str, str]) -> None:
        """Bring a commit with all its objects into the store; `env` is the environment of a
        git that sees the objects."""
        if not self.has(commit):
            basis = self.commits()[:BASE_COMMITS_LIMIT]
            # The first snapshot is packed for a local store: a search for deltas costs seconds and saves no transfer.
            speed = ("--window=0",) if not basis else ()
            wanted = tempfile.SpooledTemporaryFile()  # noqa: SIM115
            with wanted, tempfile.TemporaryFile() as errors:
                packing = start(
                    ("-c", "pack.compression=1", *PACK_OBJECTS, *speed),
                    env=env,
                    cwd=self.path,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                )
                self._index(packing, revisions(commit, basis), errors)
            self._note(commit)
            self._tidy()
        # The newest refs are the basis of the next snapshot, also where this one was there already.
        os.utime(self.path / "refs/dstack" / commit)

    def bundle(self, commit: str, basis: Sequence[str]) -> Iterator[bytes]:
        """A git bundle of `commit` with the known ones of `basis` as prerequisites, in pieces.

        Raises SnapshotError when the store lacks the commit, or git fails on the way.
        """
        if not self.has(commit):
            raise SnapshotError(f"the code store {self.path} has no snapshot {commit}", hint="run the command again")
        known = [base for base in basis if is_commit(base) and base != commit and self.has(base)]
        yield bundle_header(commit, known)
        with tempfile.TemporaryFile() as errors:
            packing = start(
                ("-c", "pack.compression=1", *PACK_OBJECTS),
                env=self._env,
                cwd=self.path,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
            try:
                send_lines(packing, revisions(commit, known))
                assert packing.stdout is not None
                while piece := packing.stdout.read(BUNDLE_CHUNK_BYTES):
                    yield piece
                if packing.wait() != 0:
                    raise git_error("pack-objects", read_tail(errors), packing.returncode)
            finally:
                end_process(packing)

    def git(self, *arguments: str, extra: Mapping[str, str] | None = None) -> bytes:
        """The output of git on the store."""
        return call(arguments, env={**self._env, **(extra or {})}, cwd=self.path).stdout

    def env(self, extra: Mapping[str, str]) -> dict[str, str]:
        return {**self._env, **extra}

    def _create(self, *, sha256: bool) -> None:
        try:
            make_folder(str(self.path.parent))
            with temporary_folder(str(self.path.parent)) as folder:
                fresh = Path(folder) / "store"
                kind = ["--object-format=sha256"] if sha256 else []
                call(["init", "-q", "--bare", "--template=", *kind, str(fresh)], env=self._env, cwd=Path(folder))
                make_folder(str(fresh / "info"))
                write_scratch(str(fresh / "info/attributes"), RAW_ATTRIBUTES.encode())
                make_folder(str(fresh / "refs/dstack"))
                with contextlib.suppress(FileExistsError, OSError):
                    fresh.rename(self.path)  # fails when another process was first, which is as good
        except UntrustedError:
            raise
        except OSError as error:
            raise SnapshotError(f"the code store {self.path} cannot be made: {error.strerror}") from None
        if not self.path.is_dir():
            raise SnapshotError(f"the code store {self.path} cannot be made", hint=f"look at {self.path.parent}")

    def _index(self, packing: subprocess.Popen[bytes], wanted: bytes, errors: object) -> None:
        """Feed the output of `packing` to index-pack in the store, which checks every object."""
        try:
            taking = start(
                ("index-pack", "--stdin", "--fix-thin", "--strict"),
                env=self._env,
                cwd=self.path,
                stdin=packing.stdout,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
            assert packing.stdout is not None
            # Ours: with it open, pack-objects would never see that index-pack has ended.
            packing.stdout.close()
            send_lines(packing, wanted)
            _, complaint = taking.communicate()
            if packing.wait() != 0:
                raise git_error("pack-objects", read_tail(errors), packing.returncode)
            if taking.returncode != 0:
                raise git_error("index-pack", complaint, taking.returncode)
        finally:
            end_process(packing)

    def _note(self, commit: str) -> None:
        """Write the ref, whole and durable, once all objects are there."""
        write_file(str(self.path / "refs/dstack" / commit), f"{commit}\n".encode())

    def _tidy(self) -> None:
        """Join many small packs into one; nothing is dropped, so other processes are not disturbed."""
        if sum(1 for _ in (self.path / "objects/pack").glob("*.pack")) > LOOSE_PACKS_LIMIT:
            self.git("repack", "-a", "-d", "-k", "-q")


def bundle_header(commit: str, basis: Sequence[str]) -> bytes:
    """The text at the head of a git bundle: format, prerequisites, the carried ref."""
    first = ["# v2 git bundle"] if len(commit) == 40 else ["# v3 git bundle", "@object-format=sha256"]
    lines = [*first, *(f"-{base} dstack snapshot" for base in basis), f"{commit} refs/dstack/{commit}"]
    return "".join(line + "\n" for line in lines).encode() + b"\n"


def revisions(commit: str, basis: Sequence[str]) -> bytes:
    """The input of `pack-objects --revs`: this commit, without the objects of the commits in `basis`."""
    return "".join([f"{commit}\n", *(f"^{base}\n" for base in basis)]).encode()


def send_lines(process: subprocess.Popen[bytes], data: bytes) -> None:
    """Write the few lines of input to a process; an early end of the process shows in its exit code."""
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(data)
        process.stdin.close()


def read_tail(file: object) -> bytes:
    """The last 4 KiB of an open file."""
    stream = file
    stream.seek(0, os.SEEK_END)  # type: ignore[attr-defined]
    stream.seek(max(0, stream.tell() - 4096))  # type: ignore[attr-defined]
    return bytes(stream.read())  # type: ignore[attr-defined]


def end_process(process: subprocess.Popen[bytes]) -> None:
    """End the process and close its pipes."""
    if process.poll() is None:
        process.kill()
        process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()


@contextlib.contextmanager
def folder_lock(folder: str) -> Iterator[None]:
    """Hold a lock on the folder: `sweep_quarantines` leaves a locked folder alone, at any age by the clock.

    Without effect on a file system without locks.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_SH)
        yield
    finally:
        os.close(fd)


def sweep_quarantines(parent: Path) -> None:
    """Remove quarantines of killed processes."""
    for entry in os.scandir(parent):
        with contextlib.suppress(OSError):
            if time.time() - entry.stat().st_mtime > QUARANTINE_LIFETIME_S and not _in_use(entry.path):
                shutil.rmtree(entry.path, ignore_errors=True)


def _in_use(folder: str) -> bool:
    """Whether the maker of the folder lives; raises OSError on a file system without locks."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
