"""What the coordinator sends first: makes sure that the host has the right runner, then becomes it.

The coordinator that is shipped to hosts starts in the same way, by another `entry`.

Sent as source text and run by an unknown python3, so this file must parse on Python 3.6 and imports only what
every version has. docs/format.md section 2 describes the talk. Nothing is executed whose sha256 was not checked.
"""

import hashlib
import importlib
import json
import marshal
import os
import sys
from importlib.machinery import ModuleSpec
from typing import Any, BinaryIO, Dict

OLDEST = (3, 9)


def boot(stdin: BinaryIO) -> None:
    """Answer the coordinator's line of JSON, then serve frames until `stdin` ends.

    From here on the process's stdout carries nothing but what dstack writes: fd 1 becomes stderr, and fd 0 is
    empty, so that no child can take a byte from either.
    """
    os.umask(0o077)
    line = stdin.readline()
    if not line:
        return
    stdout = os.dup(1)
    os.dup2(2, 1)
    request = json.loads(line.decode("utf-8"))
    try:
        folder, archive = _runner(request, stdin, stdout)
    except Exception as error:
        _answer(stdout, request, {"error": "dstack cannot start here: %s" % error, "hint": _hint(error)})
        return
    sys.meta_path.insert(0, Modules(_compiled(archive)))
    entry = importlib.import_module(request.get("entry") or "dstack.runner.__main__")

    _answer(stdout, request, {"ready": True})
    entry.main(_rest(stdin), _move_stdin(), stdout, folder)


class Modules:
    """Imports the modules of the zipapp from code that was compiled already."""

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


def _compiled(archive: str) -> Dict[str, Any]:
    """The code of every module in the verified zipapp: compiling it takes longer than all else of a start, so the
    result is kept beside it for this very version of Python, with a hash against damage."""
    kept = "%s.%x" % (archive, sys.hexversion)
    try:
        with open(kept, "rb") as file:
            digest, body = file.read(32), file.read()
        if hashlib.sha256(body).digest() == digest:
            return dict(marshal.loads(body))  # noqa: S302 - written below, in this user's own folder
    except OSError:
        pass
    import zipfile  # costs 10 ms, and is needed once on a host

    with zipfile.ZipFile(archive) as archived:
        codes = {
            name: compile(archived.read(name), "dstack-runner/" + name, "exec", dont_inherit=True)
            for name in archived.namelist()
        }
    body = marshal.dumps(codes)
    try:
        _write(kept, hashlib.sha256(body).digest() + body)
    except OSError:
        pass
    return codes


def _rest(stdin: Any) -> bytes:
    """What was read ahead of its time, without waiting for more."""
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


def _hint(error: Exception) -> str:
    if isinstance(error, RuntimeError):
        return "install Python 3.9 or later so that `python3` finds it in a non-interactive shell"
    if isinstance(error, OSError):
        return "give the host another folder by `dir:` in hosts.yaml, or make room in this one"
    return "try again"


def _runner(request: Dict[str, Any], stdin: BinaryIO, stdout: int) -> Any:
    """The folder of dstack and the verified zipapp in it."""
    if sys.version_info < OLDEST:
        raise RuntimeError("python3 is %s (%s), too old" % (sys.version.split()[0], sys.executable))
    folder = os.path.abspath(os.path.expanduser(request["dir"]))
    sha256 = request["runner"]
    if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
        raise ValueError("the coordinator named no sha256")
    os.makedirs(os.path.join(folder, "runner"), mode=0o700, exist_ok=True)
    archive = os.path.join(folder, "runner", sha256 + ".pyz")
    if not _verified(archive, sha256):
        _answer(stdout, request, {"need": True})
        _receive(archive, sha256, stdin.read(request["size"]))
    return folder, archive


def _verified(archive: str, sha256: str) -> bool:
    try:
        with open(archive, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest() == sha256
    except FileNotFoundError:
        return False


def _receive(archive: str, sha256: str, body: bytes) -> None:
    if hashlib.sha256(body).hexdigest() != sha256:
        raise ValueError("the runner came damaged (%d bytes)" % len(body))
    _write(archive, body)


def _write(path: str, body: bytes) -> None:
    temporary = "%s.%d.tmp" % (path, os.getpid())
    with open(temporary, "wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, path)


def _answer(stdout: int, request: Dict[str, Any], answer: Dict[str, Any]) -> None:
    data = ("\n%s%s\n" % (request["sentinel"], json.dumps(answer))).encode("utf-8")
    while data:
        data = data[os.write(stdout, data) :]
