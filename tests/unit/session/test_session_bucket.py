"""The bucket of a session: opened, required, probed."""

from __future__ import annotations

from pathlib import Path

import pytest

from dstack.errors import BucketError
from dstack.session.session_bucket import Storage


def storage(folder: Path, *, must_exist: bool = False) -> Storage:
    return Storage(str(folder), {}, home=folder.parent, notify=pytest.fail, must_exist=must_exist)


def test_looking_at_a_new_bucket_does_not_make_it(tmp_path: Path) -> None:
    assert storage(tmp_path / "bucket").bucket.get("dstack.json") is None
    assert not (tmp_path / "bucket").exists()


def test_a_named_folder_that_is_not_there_is_refused_with_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(BucketError, match="does not exist here") as caught:
        _ = storage(tmp_path / "bucket", must_exist=True).bucket
    assert caught.value.hint == f"mount it, or make it: dstack init --bucket {tmp_path / 'bucket'}"


def test_a_bucket_is_probed_at_its_first_use_and_never_again(tmp_path: Path) -> None:
    first = storage(tmp_path / "bucket").probe()
    assert first is not None
    assert first.writers > 1
    assert storage(tmp_path / "bucket").probe() is None


def test_a_bucket_of_a_later_version_is_read_and_not_written_to(tmp_path: Path) -> None:
    storage(tmp_path / "bucket").probe()
    record = tmp_path / "bucket" / "dstack.json"
    text = record.read_text().replace('"min_writer":1', '"min_writer":99')
    record.chmod(0o600)
    record.write_text(text)
    later = storage(tmp_path / "bucket")
    assert later.bucket.get("nothing") is None
    with pytest.raises(BucketError, match="not written"):
        later.probe()
