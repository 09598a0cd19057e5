"""The files for a host: the bootstrap's source and the runner's zipapp, named by its hash."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

PRIVATE_FOLDER_IMPORT = b"from dstack.private_folder import make_folder, open_folder, open_trusted, secure\n"
"""The only import of the bootstrap's without a module on a host: the module's own text takes the place."""
_DOCSTRING = re.compile(rb'^( *)"""(?=[^"\n])(?:[^"\\]|\\.|"(?!""))*"""$', re.MULTILINE | re.DOTALL)
"""A docstring in the form of dstack: the text begins on the line of the opening quotes, and the closing quotes end a
line. A longer string used as a value ends on a line of its own."""
_COMMENT = re.compile(rb"^ *#.*$", re.MULTILINE)
"""A comment on a line of its own. No string in shipped sources has a line of this form."""
_FIXED_DATE = (2020, 1, 1, 0, 0, 0)


@cache
def bootstrap_source() -> bytes:
    """The source text for `wire.LAUNCHER`; goes over the wire after a line with the length in bytes.

    The check of the host's folder comes before anything there is executed, so the check travels in the bootstrap.
    """
    source = files("dstack.runner").joinpath("bootstrap.py").read_bytes()
    before, line, after = source.partition(PRIVATE_FOLDER_IMPORT)
    assert line, "the bootstrap imports what is put in here"
    check = files("dstack").joinpath("private_folder.py").read_bytes()
    return before + check + after + b"\n\nboot(sys.stdin.buffer)\n"


@cache
def runner_zipapp() -> tuple[bytes, str]:
    """The runner as a zip file, and the sha256 in hex.

    The same sources give the same bytes: fixed dates, order and modes. Built once in a process.
    """
    sources = modules(["__init__.py", "private_folder.py"], ["wire", "runner"])
    # The bootstrap travels as source text, ahead of the zipapp.
    del sources["dstack/runner/bootstrap.py"]
    return zipped(sources)


def modules(names: Iterable[str], packages: Iterable[str]) -> dict[str, bytes]:
    """The sources of single modules and of whole packages of dstack, by their place in a zipapp."""
    root = files("dstack")
    sources = {f"dstack/{name}": root.joinpath(name).read_bytes() for name in names}
    for package in packages:
        sources.update(_package(root.joinpath(package), f"dstack/{package}"))
    return sources


def _package(folder: Traversable, name: str) -> dict[str, bytes]:
    """The sources of a package and of all packages inside, by their place in a zipapp."""
    sources: dict[str, bytes] = {}
    for entry in folder.iterdir():
        place = f"{name}/{entry.name}"
        if entry.name.endswith(".py"):
            sources[place] = entry.read_bytes()
        elif entry.joinpath("__init__.py").is_file():
            sources.update(_package(entry, place))
    return sources


def without_prose(source: bytes) -> bytes:
    """The same program on the same lines without docstrings and comments, a third of the bytes."""
    # Line ends stay: a traceback from a host names lines of the sources.
    program = _DOCSTRING.sub(lambda found: found[1] + b'""' + b"\n" * found[0].count(b"\n"), source)
    return _COMMENT.sub(b"", program)


def zipped(sources: Mapping[str, bytes]) -> tuple[bytes, str]:
    """A zip file of the sources without their prose, and the sha256 in hex. The same sources give the same bytes."""
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name in sorted(sources):
            info = zipfile.ZipInfo(name, _FIXED_DATE)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o600 << 16
            archive.writestr(info, without_prose(sources[name]))
    data = body.getvalue()
    return data, hashlib.sha256(data).hexdigest()
