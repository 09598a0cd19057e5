"""Manifests: their form in the bucket, what is refused, digests, packs, inputs together."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.core.artifacts import manifests
from dstack.errors import BucketError, UsageError
from dstack.model import Entry, EntryKind, Manifest

KEY = "projects/p/jobs/f/000001/a/000001/manifest"


def sha(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def packed(files: dict[str, bytes], *, mode: int = 0o644, partial: bool = False) -> Manifest:
    """A right manifest of one pack of these files."""
    name = sha("".join(f"{sha(body)} {len(body)}\n" for body in files.values() if body).encode())
    entries, offset = [], 0
    for path, body in files.items():
        place = {"pack": name, "offset": offset} if body else {}
        entries.append(
            Entry(path=path, kind=EntryKind.FILE, mode=mode, size=len(body), sha256=sha(body), **place)  # type: ignore[arg-type]
        )
        offset += len(body)
    return Manifest(entries=tuple(entries), partial=partial)


def folder(path: str, mode: int = 0o755) -> Entry:
    return Entry(path=path, kind=EntryKind.FOLDER, mode=mode)


def link(path: str, target: str) -> Entry:
    return Entry(path=path, kind=EntryKind.LINK, mode=0o777, target=target)


SAMPLE = Manifest(
    entries=(
        folder("out"),
        *packed({"out/a": b"abc", "out/b": b"", "out/c": b"defg", "out/\udcff": b"odd"}).entries,
        link("out/l", "a"),
    )
)


def test_what_was_encoded_is_decoded() -> None:
    decoded = manifests.decode(KEY, manifests.encode(SAMPLE))
    assert set(decoded.entries) == set(SAMPLE.entries)
    assert not decoded.partial
    assert manifests.decode(KEY, manifests.encode(replace(SAMPLE, partial=True))).partial


def test_the_body_does_not_depend_on_the_order() -> None:
    turned = replace(SAMPLE, entries=SAMPLE.entries[::-1])
    assert manifests.encode(turned) == manifests.encode(SAMPLE)
    assert manifests.encode(manifests.decode(KEY, manifests.encode(SAMPLE))) == manifests.encode(SAMPLE)


def test_every_flipped_byte_is_refused() -> None:
    """Most of them by the manifest's own form; all of them by the sha256 in the result."""
    body = manifests.encode(SAMPLE)
    assert manifests.decode(KEY, body, sha256=sha(body)) == manifests.decode(KEY, body)
    refused = 0
    for position in range(len(body)):
        damaged = body[:position] + bytes([body[position] ^ 1]) + body[position + 1 :]
        with pytest.raises(BucketError, match=KEY):
            manifests.decode(KEY, damaged, sha256=sha(body))
        try:
            manifests.decode(KEY, damaged)
        except BucketError:
            refused += 1
    assert refused > len(body) // 2


def test_every_cut_is_refused_or_a_shorter_list_that_the_result_does_not_name() -> None:
    body = manifests.encode(SAMPLE)
    for end in range(len(body)):
        try:
            decoded = manifests.decode(KEY, body[:end])
        except BucketError:
            continue
        assert body[:end].endswith(b"\n")
        assert len(decoded.entries) < len(SAMPLE.entries)


def _taken_or_refused(body: bytes) -> None:
    try:
        manifests.decode(KEY, body)
    except BucketError as error:
        said = str(error)
    else:
        return
    assert KEY in said


@given(st.binary(max_size=300))
def test_any_bytes_are_a_manifest_or_a_bucket_error(body: bytes) -> None:
    _taken_or_refused(body)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(["path", "kind", "mode", "size", "sha256", "target", "pack", "offset", "v", "partial"]), _JSON)
def test_any_value_in_any_field_is_taken_or_a_bucket_error(field: str, value: object) -> None:
    lines = [json.loads(line) for line in manifests.encode(SAMPLE).splitlines()]
    for index in range(len(lines)):
        changed = [dict(line, **{field: value}) if at == index else line for at, line in enumerate(lines)]
        body = "".join(json.dumps(line) + "\n" for line in changed).encode()
        _taken_or_refused(body)


def test_a_later_version_says_so() -> None:
    with pytest.raises(BucketError, match="later version"):
        manifests.decode(KEY, b'{"v":2,"kind":"manifest","partial":false}\n')


@pytest.mark.parametrize(
    "entries",
    [
        (folder("a"), folder("a")),
        (link("a", "b"), folder("a/x")),
        (*packed({"a": b"x"}).entries, folder("a/b/c")),
        (*packed({"a": b"x", "b": b"yy"}).entries[:1],),
        (*packed({"a": b"x", "b": b"yy"}).entries[1:],),
        (replace(packed({"a": b"x"}).entries[0], pack="0" * 64),),
        (replace(packed({"a": b"x"}).entries[0], offset=1),),
        (packed({"a": b"x"}).entries[0], replace(packed({"a": b"x"}).entries[0], path="b", sha256=sha(b"z"))),
    ],
    ids=["twice", "below-link", "below-file", "cut-end", "cut-begin", "name", "gap", "one-place"],
)
def test_lists_that_cannot_be_are_refused(entries: tuple[Entry, ...]) -> None:
    with pytest.raises(manifests.BadManifestError):
        manifests.manifest_of(entries, partial=False)
    with pytest.raises(BucketError):
        manifests.decode(KEY, manifests.encode(Manifest(entries=entries)))


def test_25_000_files_are_more_than_a_record_and_fine() -> None:
    entries = [folder(f"out/some/folder/name/{index:06d}") for index in range(25_000)]
    body = manifests.encode(Manifest(entries=tuple(entries)))
    assert len(body) > 1 << 20
    assert len(manifests.decode(KEY, body).entries) == 25_000


def test_too_many_entries_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "MAX_MANIFEST_ENTRIES", 5)
    with pytest.raises(BucketError):
        manifests.decode(KEY, manifests.encode(SAMPLE))


def test_the_digest_is_of_content_alone() -> None:
    digest = manifests.content_digest(SAMPLE)
    moved = [replace(entry, pack="", offset=0, mode=entry.mode & 0o700) for entry in SAMPLE.entries[::-1]]
    assert manifests.content_digest(Manifest(entries=tuple(moved))) == digest


@pytest.mark.parametrize(
    "change",
    [{"path": "out/z"}, {"sha256": sha(b"z")}, {"mode": 0o744}, {"kind": EntryKind.FOLDER}],
)
def test_the_digest_sees_path_content_kind_and_execution(change: dict[str, object]) -> None:
    entries = list(SAMPLE.entries)
    entries[1] = replace(entries[1], **change)  # type: ignore[arg-type]
    assert manifests.content_digest(Manifest(entries=tuple(entries))) != manifests.content_digest(SAMPLE)


def test_the_digest_sees_targets_and_empty_folders() -> None:
    digests = {
        manifests.content_digest(Manifest(entries=entries))
        for entries in [(), (folder("a"),), (link("a", "b"),), (link("a", "c"),)]
    }
    assert len(digests) == 4


def test_packs_are_by_offset_and_in_the_order_of_the_manifest() -> None:
    one, two = packed({"b/1": b"x", "b/2": b"y"}), packed({"a/1": b"z"})
    manifest = manifests.manifest_of([*one.entries[::-1], *two.entries], partial=False)
    found = manifests.packs(manifest)
    assert [[entry.path for entry in members] for members in found.values()] == [["a/1"], ["b/1", "b/2"]]
    assert [manifests.pack_size(members) for members in found.values()] == [1, 2]


def test_inputs_may_share_folders_and_nothing_else() -> None:
    one = Manifest(entries=(folder("out"), *packed({"out/a": b"x"}).entries))
    two = Manifest(entries=(folder("out"), *packed({"out/b": b"y"}).entries))
    merged = manifests.merge([("one", one), ("two", two)])
    assert [entry.path for entry in merged] == ["out", "out/a", "out/b"]
    with pytest.raises(UsageError, match="inputs one and three both have the artifact 'out/a'"):
        manifests.merge([("one", one), ("two", two), ("three", one)])


def test_an_input_below_a_file_of_another_is_a_clash() -> None:
    one, two = packed({"out/a": b"x"}), packed({"out": b"y"})
    for inputs in ([("one", one), ("two", two)], [("two", two), ("one", one)]):
        with pytest.raises(UsageError, match="inputs two and one both have the artifact 'out'"):
            manifests.merge(inputs)


def test_partial_artifacts_are_no_input() -> None:
    with pytest.raises(UsageError, match="one are partial"):
        manifests.merge([("one", replace(SAMPLE, partial=True))])


def test_twins_are_found() -> None:
    assert manifests.twin_paths(SAMPLE) is None
    assert manifests.twin_paths(Manifest(entries=(folder("A"), folder("a")))) == ("A", "a")
    assert manifests.twin_paths(Manifest(entries=(folder("e\u0301"), folder("\u00e9")))) is not None


@given(st.lists(st.integers(0, 5), max_size=20))
def test_bytes_are_passed_on_whatever_the_pieces(cuts: list[int]) -> None:
    members = packed({"a": b"abc", "b": b"defgh", "c": b"i"}).entries
    body, pieces = b"abcdefghi", []
    for cut in [*cuts, 9]:
        pieces.append(body[:cut])
        body = body[cut:]
    assert b"".join(manifests.verify_bytes(members, pieces)) == b"abcdefghi"
    assert {entry.path for entry, _ in manifests.split_bytes(members, pieces)} == {"a", "b", "c"}


@pytest.mark.parametrize("body", [b"", b"abc", b"abcdefg", b"abcdefghX", b"Xbcdefghi", b"abcdefghij", b"abcdXfghi"])
def test_bytes_that_are_others_are_refused_before_the_file_is_whole(body: bytes) -> None:
    members = packed({"a": b"abc", "b": b"defgh", "c": b"i"}).entries
    whole = {"a": b"abc", "b": b"defgh", "c": b"i"}
    given_out: dict[str, bytes] = {}

    def take() -> None:
        for entry, piece in manifests.split_bytes(members, [body]):
            given_out[entry.path] = given_out.get(entry.path, b"") + piece

    with pytest.raises(manifests.ChangedBytesError):
        take()
    for path, data in given_out.items():
        assert data == whole[path] or len(data) < len(whole[path])
