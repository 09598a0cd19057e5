"""The first bytes from a coordinator: a program that makes sure of the right runner on the host, then becomes the
runner.

The coordinator on a host starts in the same way, by another `entry`.

Sent as source text and run by an unknown python3, so this file must parse on Python 3.6 and imports only modules of
every version; the text of dstack.private_folder takes the place of the import. docs/format.md section 2 describes the
talk. Only verified bytes are executed: the sha256 was checked, and no other account can have put other bytes in place.
"""

import errno
import hashlib
import importlib
import io
import json
import marshal
import os
import sys
from importlib.machinery import ModuleSpec
from typing import Any, BinaryIO, Dict, List, NamedTuple

from dstack.private_folder import make_folder, open_folder, open_trusted, secure

OLDEST_PYTHON = (3, 9)


def boot(stdin: BinaryIO) -> None:
    """Answer the coordinator's line of JSON, then serve frames until `stdin` ends.

    From here on the process's stdout carries only the words of dstack: fd 1 becomes stderr, and fd 0 is empty, so that
    no child can take a byte from either.
    """
    # For the files of the runner; jobs and git get a umask of their own.
    os.umask(0o077)
    line = stdin.readline()
    if not line:
        return
    stdout = os.dup(1)
    os.dup2(2, 1)
    request = json.loads(line.decode("utf-8"))
    try:
        place = _place(request)
        archive = _runner(request, place, stdin, stdout)
        codes = _compiled(place, archive)
    except Exception as error:
        _answer(stdout, request, {"error": "dstack cannot start here: %s" % _said(error), "hint": _hint(error)})
        return
    # Ahead of all others: a dstack installed on this host may be another version.
    sys.meta_path.insert(0, Modules(codes))
    entry = importlib.import_module(request.get("entry") or "dstack.runner.__main__")

    said = {"closed": place.closed} if place.closed else {}  # type: Dict[str, Any]
    _answer(stdout, request, {"ready": True, **said})
    entry.main(_rest(stdin), _move_stdin(), stdout, place.folder)


Place = NamedTuple("Place", [("folder", str), ("closed", List[str]), ("runner", int), ("name", str)])
"""dstack's folder on this host, the parts that were open until now, a descriptor of `runner/` there, the zipapp's
name."""


class Modules:
    """Imports the modules of the zipapp from compiled code."""

    def __init__(self, codes: Dict[str, Any]) -> None:
        self.codes = codes

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        place = name.replace(".", "/")
        package = place + "/__init__.py"
        code = self.codes.get(package) or self.codes.get(place + ".py")
        if code is None:
            return None
        loader = self  # type: Any
        return ModuleSpec(name, loader, origin=code.co_filename, is_package=package in self.codes)

    def create_module(self, spec: Any) -> Any:
        return None

    def exec_module(self, module: Any) -> None:
        place = module.__name__.replace(".", "/")
        code = self.codes.get(place + "/__init__.py") or self.codes[place + ".py"]
        exec(code, module.__dict__)  # noqa: S102 - it is the verified zipapp's


def _compiled(place: Place, archive: bytes) -> Dict[str, Any]:
    """The code of every module in the verified zipapp. Compiling takes longer than the rest of a start, so the result
    is kept beside the zipapp for this very version of Python.

    Only a file of this account (or root) is believed, with no write rights for others, in a folder with the same
    guarantee: no other account can make such a file. A hash over the file and the zipapp's name is against damage and
    mistaken identity.
    """
    kept = "%s.%x" % (place.name, sys.hexversion)
    try:
        kept_bytes = _read(place, kept)
        body = kept_bytes[32:]
        if kept_bytes[:32] == _seal(place, body):
            return dict(marshal.loads(body))  # noqa: S302 - written below, by this account
    except OSError:
        # A missing cache, or one not to be believed, is made anew below.
        pass
    import zipfile  # costs 10 ms, and is needed once on a host

    with zipfile.ZipFile(io.BytesIO(archive)) as archived:
        codes = {
            name: compile(archived.read(name), "dstack-runner/" + name, "exec", dont_inherit=True)
            for name in archived.namelist()
        }
    body = marshal.dumps(codes)
    try:
        _write(place, kept, _seal(place, body) + body)
    except OSError:
        # Without room for the cache the next start compiles again.
        pass
    return codes


def _seal(place: Place, body: bytes) -> bytes:
    return hashlib.sha256(place.name.encode("ascii") + body).digest()


def _rest(stdin: Any) -> bytes:
    """The bytes read ahead of their time, without waiting for more."""
    # A peek into an empty buffer reads, and would wait for a coordinator that has sent everything.
    os.set_blocking(0, False)
    try:
        return bytes(stdin.peek())
    finally:
        os.set_blocking(0, True)


def _move_stdin() -> int:
    """Another descriptor of stdin; fd 0 is empty from now on."""
    fd = os.dup(0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return fd


def _said(error: Exception) -> str:
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return "the disk of the host is full: %s" % error if full else str(error)


def _hint(error: Exception) -> str:
    if getattr(error, "hint", None):
        return str(error.hint)  # type: ignore[attr-defined]
    if isinstance(error, RuntimeError):
        return "install Python 3.9 or later so that `python3` finds it in a non-interactive shell"
    if isinstance(error, OSError):
        return "give the host another folder by `dir:` in hosts.yaml, or make room in this one"
    return "try again"


def _place(request: Dict[str, Any]) -> Place:
    """The folder of dstack, closed to other accounts; raises UntrustedError for a folder, or a part, of another
    account."""
    if sys.version_info < OLDEST_PYTHON:
        raise RuntimeError("python3 is %s (%s), too old" % (sys.version.split()[0], sys.executable))
    folder = os.path.abspath(os.path.expanduser(request["dir"]))
    sha256 = request["runner"]
    if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
        raise ValueError("the coordinator named no sha256")
    try:
        closed = secure(folder)
    except FileNotFoundError:
        closed = []
    runner = os.path.join(folder, "runner")
    make_folder(runner)
    return Place(folder, closed, open_folder(runner), sha256 + ".pyz")


def _runner(request: Dict[str, Any], place: Place, stdin: BinaryIO, stdout: int) -> bytes:
    """The verified zipapp, from this host or else from the coordinator."""
    try:
        body = _read(place, place.name)
    except OSError:
        body = b""
    if not _verified(request, body):
        _answer(stdout, request, {"need": True})
        body = stdin.read(request["size"])
        if not _verified(request, body):
            raise ValueError("the runner came damaged (%d bytes)" % len(body))
        _write(place, place.name, body)
    return body


def _verified(request: Dict[str, Any], body: bytes) -> bool:
    return hashlib.sha256(body).hexdigest() == str(request["runner"])


def _read(place: Place, name: str) -> bytes:
    with os.fdopen(open_trusted(name, place.runner), "rb") as file:
        return file.read()


def _write(place: Place, name: str, body: bytes) -> None:
    temporary = "%s.%d.tmp" % (name, os.getpid())
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    with os.fdopen(os.open(temporary, flags, 0o600, dir_fd=place.runner), "wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, name, src_dir_fd=place.runner, dst_dir_fd=place.runner)


def _answer(stdout: int, request: Dict[str, Any], answer: Dict[str, Any]) -> None:
    data = ("\n%s%s\n" % (request["sentinel"], json.dumps(answer))).encode("utf-8")
    while data:
        data = data[os.write(stdout, data) :]
