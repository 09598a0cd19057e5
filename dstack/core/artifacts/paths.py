"""Safe paths and links of artifacts below any folder. Paths come out of buckets, and are hostile.

`dstack.runner.base.safe_paths` repeats the rules for hosts, because the runner is shipped alone. The same tests run on
both modules.
"""

from __future__ import annotations

MAX_ARTIFACT_PART_BYTES = 255
MAX_ARTIFACT_PATH_BYTES = 4096
MAX_ARTIFACT_PATH_PARTS = 128

# What file systems of macOS ignore in a name: ".g\u200cit" would be ".git" there.
_IGNORED = dict.fromkeys([0xFEFF, *range(0x200C, 0x2010), *range(0x202A, 0x202F), *range(0x206A, 0x2070)])


class UnsafePathError(ValueError):
    """A path or link that might lead out of its folder; the message shows the path."""


def path_bytes(path: str) -> bytes:
    """The bytes of a path; lone surrogates stand for bytes that are no UTF-8. Raises UnsafePathError for other text."""
    try:
        data = path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        data = b""
    if not data or data.decode("utf-8", "surrogateescape") != path:
        raise UnsafePathError(f"{path_text(path)} is not the text of a path")
    return data


def path_text(path: str) -> str:
    """The path for messages: printable characters only, at most 200."""
    return ascii(path if len(path) <= 200 else f"{path[:200]}...")


def parts_of(path: str) -> tuple[bytes, ...]:
    """The parts of a safe path; raises UnsafePathError for any other.

    Safe: relative, no empty part, ".", ".." or NUL, parts of at most 255 bytes, nothing taken by git for a folder of
    its own, and not `.dstack`: pulled files next to a user's code must not become configuration.
    """
    data = path_bytes(path)
    parts = tuple(data.split(b"/"))
    if b"\0" in data or len(data) > MAX_ARTIFACT_PATH_BYTES or len(parts) > MAX_ARTIFACT_PATH_PARTS:
        raise UnsafePathError(f"{path_text(path)} is not a path that dstack takes")
    if any(part in (b"", b".", b"..") or len(part) > MAX_ARTIFACT_PART_BYTES for part in parts):
        raise UnsafePathError(f"{path_text(path)} is not a plain relative path")
    if any(_is_git(part) for part in parts) or parts[0].lower() == b".dstack":
        raise UnsafePathError(f"{path_text(path)} is a place of git's or dstack's own")
    return parts


def check_link(path: str, target: str) -> None:
    """Raises UnsafePathError unless a link at `path` stays below the top folder, wherever other safe links lead.

    ".." is allowed only at the beginning, where the count starts from the link's own real folder. Behind a name the
    count would start from the unknown target of the name.
    """
    data = path_bytes(target)
    parts = [part for part in data.split(b"/") if part not in (b"", b".")]
    # How many folders the link goes up; `up` may not reach the folder above the top one.
    up = next((index for index, part in enumerate(parts) if part != b".."), len(parts))
    rest = parts[up:]
    if (
        data.startswith(b"/")
        or b"\0" in data
        or len(data) > MAX_ARTIFACT_PATH_BYTES
        or up >= len(parts_of(path))
        or b".." in rest
        or any(_is_git(part) for part in rest)
    ):
        raise UnsafePathError(f"{path_text(path)} is a link to {path_text(target)}, which may lead out of its folder")


def _is_git(part: bytes) -> bool:
    # Windows and macOS take `git~1`, `.GIT`, `.git.` and some invisible letters for `.git`.
    name = part.decode("utf-8", "surrogateescape").translate(_IGNORED).lower().rstrip(". ")
    return name in (".git", "git~1")
