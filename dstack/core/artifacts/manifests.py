"""Manifests of artifacts: their form in the bucket, the digest of their content, and their packs. Pure.

In the bucket a manifest is JSON lines in ASCII: a header `{"v", "kind": "manifest", "partial"}`, then an entry a line,
ascending by the bytes of `path`. The same artifacts give the same bytes. A manifest is data and may be larger than a
record.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from dstack.core.artifacts.paths import UnsafePathError, check_link, parts_of, path_bytes, path_text
from dstack.core.artifacts.pieces import are_pieces, pack_name, pieces_of
from dstack.errors import DamagedObjectError, DstackError, LaterVersionError, UsageError
from dstack.model import Entry, EntryKind, Manifest
from dstack.wire import EMPTY_SHA256, is_sha256

MANIFEST_VERSION = 1
MAX_MANIFEST_BODY = 64 << 20
MAX_MANIFEST_ENTRIES = 200_000
MAX_ARTIFACT_SIZE = 1 << 50


class BadManifestError(ValueError):
    """Entries never written by dstack; the caller adds their source."""


class ChangedBytesError(ValueError):
    """Bytes other than the manifest says; the message names the path."""


def entry_from_wire(fields: Mapping[str, Any]) -> Entry:
    """One checked entry from the JSON of a host or bucket; raises BadManifestError."""
    try:
        return _entry(fields)
    except KeyError as error:
        raise BadManifestError(f"an entry has no {error}") from None
    except UnsafePathError as error:
        raise BadManifestError(str(error)) from None


def _entry(fields: Mapping[str, Any]) -> Entry:
    path, kind, mode = fields["path"], fields["kind"], fields["mode"]
    if not isinstance(path, str) or not _number(mode, 0o777):
        raise BadManifestError(f"{path_text(str(path))} has no path or mode")
    parts_of(path)
    if kind == "file":
        return _file(path, mode, fields)
    if kind == "folder":
        return Entry(path=path, kind=EntryKind.FOLDER, mode=mode)
    if kind != "link" or not isinstance(fields["target"], str):
        raise BadManifestError(f"{path_text(path)} has no kind that dstack knows")
    check_link(path, fields["target"])
    return Entry(path=path, kind=EntryKind.LINK, mode=mode, target=fields["target"])


def _file(path: str, mode: int, fields: Mapping[str, Any]) -> Entry:
    size, sha256 = fields["size"], fields["sha256"]
    pack, offset = fields.get("pack", ""), fields.get("offset", 0)
    if not _number(size, MAX_ARTIFACT_SIZE) or not _number(offset, MAX_ARTIFACT_SIZE) or not is_sha256(sha256):
        raise BadManifestError(f"{path_text(path)} has no size, hash or offset")
    if fields.get("pieces") is not None and not pack:
        return _cut_file(path, mode, fields)
    if bool(size) != bool(pack) or bool(size) == (sha256 == EMPTY_SHA256) or (pack and not is_sha256(pack)):
        raise BadManifestError(f"{path_text(path)} does not say where its bytes are")
    return Entry(
        path=path, kind=EntryKind.FILE, mode=mode, size=size, sha256=sha256, pack=pack, offset=offset if pack else 0
    )


def _cut_file(path: str, mode: int, fields: Mapping[str, Any]) -> Entry:
    size, piece, pieces = fields["size"], fields["piece"], fields["pieces"]
    if not isinstance(pieces, list) or not all(map(is_sha256, pieces)) or not _number(piece, MAX_ARTIFACT_SIZE):
        raise BadManifestError(f"{path_text(path)} has no pieces")
    if not are_pieces(size, piece, len(pieces)):
        raise BadManifestError(f"{path_text(path)} is not cut into pieces of {piece} bytes")
    return Entry(
        path=path,
        kind=EntryKind.FILE,
        mode=mode,
        size=size,
        sha256=fields["sha256"],
        piece=piece,
        pieces=tuple(pieces),
    )


def _number(value: object, limit: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= limit


def manifest_of(entries: Iterable[Entry], *, partial: bool) -> Manifest:
    """A manifest of checked entries, in order; raises BadManifestError.

    Every path once, nothing below a file or link, and every pack is whole: named by its members, without gaps.
    """
    ordered = sorted(entries, key=lambda entry: path_bytes(entry.path))
    if len(ordered) > MAX_MANIFEST_ENTRIES:
        raise BadManifestError(f"it has {len(ordered)} entries; the limit is {MAX_MANIFEST_ENTRIES}")
    kinds = {entry.path: entry.kind for entry in ordered}
    if len(kinds) != len(ordered):
        raise BadManifestError("it names a path twice")
    for entry in ordered:
        above = _blocking(entry.path, kinds)
        if above is not None:
            raise BadManifestError(f"{path_text(entry.path)} lies below {path_text(above)}, which is no folder")
    manifest = Manifest(entries=tuple(ordered), partial=partial)
    for pack, members in packs(manifest).items():
        _check_pack(pack, members)
    return manifest


def _blocking(path: str, kinds: Mapping[str, EntryKind]) -> str | None:
    """The file or link among `kinds` that stands where a folder above `path` belongs."""
    at = path.find("/")
    while at >= 0:
        if kinds.get(path[:at], EntryKind.FOLDER) is not EntryKind.FOLDER:
            return path[:at]
        at = path.find("/", at + 1)
    return None


def _check_pack(pack: str, members: Sequence[Entry]) -> None:
    firsts = list(distinct_entries(members))
    end = 0
    for first in firsts:
        if first.offset != end:
            raise BadManifestError(f"pack {pack} has a gap at {end}")
        end += first.size
    if pack_name((entry.sha256, entry.size) for entry in firsts) != pack:
        raise BadManifestError(f"pack {pack} does not hold what its name says")


def distinct_entries(members: Iterable[Entry]) -> Iterator[Entry]:
    """The first entry at each place of one pack, of entries by offset; raises BadManifestError where two differ."""
    last: Entry | None = None
    for entry in members:
        if last is not None and entry.offset == last.offset:
            if (entry.sha256, entry.size) != (last.sha256, last.size):
                raise BadManifestError(f"{path_text(entry.path)} and {path_text(last.path)} differ and have one place")
            continue
        last = entry
        yield entry


def packs(manifest: Manifest) -> dict[str, tuple[Entry, ...]]:
    """Pack -> its entries by offset; packs in the order of their first entry in the manifest.

    Entries of equal content share an offset. Files cut into pieces are left out.
    """
    found: dict[str, list[Entry]] = {}
    for entry in manifest.entries:
        if entry.pack:
            found.setdefault(entry.pack, []).append(entry)
    return {pack: tuple(sorted(members, key=lambda entry: entry.offset)) for pack, members in found.items()}


def uploads(manifest: Manifest) -> dict[str, tuple[Entry, ...]]:
    """Pack -> its entries by offset, of everything to upload: also the pieces of cut files, each as an entry."""
    found = packs(manifest)
    for entry in manifest.entries:
        for piece in pieces_of(entry):
            found.setdefault(piece.pack, (piece,))
    return found


def twin_paths(manifest: Manifest) -> tuple[str, str] | None:
    """Two paths with one meaning on a file system that ignores case or composes letters; None without such paths."""
    by_meaning: dict[str, str] = {}
    for entry in manifest.entries:
        # As macOS compares names: composed letters and case are one.
        other = by_meaning.setdefault(unicodedata.normalize("NFC", entry.path).casefold(), entry.path)
        if other != entry.path:
            return other, entry.path
    return None


def pack_size(members: Sequence[Entry]) -> int:
    """Bytes of a pack whose entries are given by offset."""
    return members[-1].offset + members[-1].size if members else 0


def encode(manifest: Manifest) -> bytes:
    """The body under `a/<n>/manifest`; raises DstackError above 64 MiB."""
    header = {"v": MANIFEST_VERSION, "kind": "manifest", "partial": manifest.partial}
    ordered = sorted(manifest.entries, key=lambda entry: path_bytes(entry.path))
    lines = [_line(header), *(_line(to_wire(entry) | _place(entry)) for entry in ordered)]
    body = "".join(lines).encode("ascii")
    if len(body) > MAX_MANIFEST_BODY:
        raise DstackError(
            f"the list of artifacts would be {len(body)} bytes long; the limit is {MAX_MANIFEST_BODY}",
            hint="let the job put them into one archive",
        )
    return body


def _line(fields: Mapping[str, Any]) -> str:
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=True) + "\n"


def _place(entry: Entry) -> dict[str, Any]:
    if entry.pieces:
        return {"piece": entry.piece, "pieces": list(entry.pieces)}
    return {"pack": entry.pack, "offset": entry.offset} if entry.pack else {}


def to_wire(entry: Entry) -> dict[str, Any]:
    """The entry as an input of `prepare`: without its place in a pack."""
    fields: dict[str, Any] = {"path": entry.path, "kind": str(entry.kind), "mode": entry.mode}
    if entry.kind is EntryKind.FILE:
        return fields | {"size": entry.size, "sha256": entry.sha256}
    return fields | {"target": entry.target} if entry.kind is EntryKind.LINK else fields


def decode(key: str, body: bytes, *, sha256: str | None = None) -> Manifest:
    """The checked manifest under `key`.

    Raises DamagedObjectError for anything dstack would not write; LaterVersionError where a later version of dstack
    wrote the manifest. With `sha256`, the digest in the result, any other body is damaged too.
    """
    if sha256 is not None and hashlib.sha256(body).hexdigest() != sha256:
        raise DamagedObjectError.of(key, "is not the manifest that its result names")
    try:
        if len(body) > MAX_MANIFEST_BODY:
            raise BadManifestError(f"it is {len(body)} bytes long")
        lines = body.decode("ascii").split("\n")
        if len(lines) > MAX_MANIFEST_ENTRIES + 2 or lines.pop():
            raise BadManifestError("its last line is cut off, or there are too many")
        header = _object(lines[0]) if lines else {}
        if header.get("kind") != "manifest" or not isinstance(header.get("partial"), bool):
            raise BadManifestError("it has no header")
        if not _number(header.get("v"), MAX_ARTIFACT_SIZE):
            raise BadManifestError("it does not say which version of dstack wrote it")
        if header["v"] > MANIFEST_VERSION:
            raise LaterVersionError(key)
        entries = (entry_from_wire(_object(line)) for line in lines[1:])
        return manifest_of(entries, partial=header["partial"])
    except ValueError as error:
        raise DamagedObjectError.of(key, f"is not a manifest: {error}") from None


def _object(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise BadManifestError("a line is not a JSON object")
    return value


def content_digest(manifest: Manifest) -> str:
    """64 hex digits over everything of these artifacts visible to a job with the artifacts as input.

    Over path, kind, execution by the owner, sha256 and target of each entry. Other mode bits follow the umask of a
    host, so the digest leaves them out, with packs, order and times.
    """
    content = sorted(
        [
            entry.path,
            str(entry.kind),
            # Of the mode only the owner's x bit: a job can see it, and no umask changes it.
            entry.kind is EntryKind.FILE and bool(entry.mode & 0o100),
            entry.sha256,
            entry.target,
        ]
        for entry in manifest.entries
    )
    text = json.dumps(["dstack.artifacts", MANIFEST_VERSION, content], separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def merge(inputs: Sequence[tuple[str, Manifest]]) -> tuple[Entry, ...]:
    """All entries found in place by a job with these inputs, workflow by workflow.

    Raises UsageError, with both names, when two inputs have the same path (folders may be shared), or when an input is
    partial.
    """
    owners: dict[str, tuple[str, Entry]] = {}
    for workflow, manifest in inputs:
        if manifest.partial:
            raise UsageError(f"the artifacts of {workflow} are partial", hint=f"run {workflow} to its end first")
        for entry in manifest.entries:
            if entry.path not in owners:
                owners[entry.path] = workflow, entry
                continue
            other, known = owners[entry.path]
            if entry.kind is not EntryKind.FOLDER or known.kind is not EntryKind.FOLDER:
                raise _clash(entry.path, other, workflow)
    kinds = {path: entry.kind for path, (_, entry) in owners.items()}
    for path, (workflow, _) in owners.items():
        above = _blocking(path, kinds)
        if above is not None:
            raise _clash(above, owners[above][0], workflow)
    return tuple(owners[path][1] for path in sorted(owners, key=path_bytes))


def _clash(path: str, one: str, other: str) -> UsageError:
    return UsageError(
        f"inputs {one} and {other} both have the artifact {path_text(path)}",
        hint="let one of them write to another path, or depend on one of them only",
    )


def verify_bytes(members: Iterable[Entry], chunks: Iterable[bytes]) -> Iterator[bytes]:
    """`chunks` passed on, checked against the files `members`, in order and without gaps.

    Raises ChangedBytesError before the end when the bytes of a file are wrong, or when there are too many or too few.
    """
    for _, piece in split_bytes(members, chunks):
        yield piece


def split_bytes(members: Iterable[Entry], chunks: Iterable[bytes]) -> Iterator[tuple[Entry, bytes]]:
    """The bytes of consecutive files, each piece with its file; the same checks as `verify_bytes`.

    The last piece of a file is given only when the whole file is right.
    """
    source = (chunk for chunk in chunks if chunk)
    rest = memoryview(b"")
    for entry in members:
        digest = hashlib.sha256()
        missing = entry.size
        while missing:
            if not rest:
                rest = memoryview(next(source, b""))
                if not rest:
                    raise ChangedBytesError(f"{path_text(entry.path)} is {missing} bytes short")
            piece = rest[:missing]
            rest = rest[len(piece) :]
            missing -= len(piece)
            digest.update(piece)
            if not missing and digest.hexdigest() != entry.sha256:
                raise ChangedBytesError(f"the bytes of {path_text(entry.path)} are not those of its sha256")
            yield entry, bytes(piece)
    if rest or any(source):
        raise ChangedBytesError("there are more bytes than the manifest names")
