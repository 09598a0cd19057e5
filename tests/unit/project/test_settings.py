"""Where the project is, what it is called, and where its state is kept."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.errors import ConfigError, UsageError
from dstack.project.locate import find_project
from dstack.project.settings import project_name, read_settings


def write(folder: Path, text: str) -> None:
    (folder / ".dstack").mkdir(parents=True, exist_ok=True)
    (folder / ".dstack" / "config.yaml").write_text(text, encoding="utf-8")


def test_the_project_is_the_nearest_folder_upwards_that_holds_dstack(tmp_path: Path) -> None:
    (tmp_path / "a" / ".dstack").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    assert find_project(tmp_path / "a" / "b" / "c") == tmp_path / "a"
    assert find_project(tmp_path / "a") == tmp_path / "a"


def test_the_users_own_state_is_no_project(tmp_path: Path) -> None:
    """`~/.dstack` holds the bucket; a folder below the home folder is not in a project for that."""
    (tmp_path / ".dstack").mkdir()
    (tmp_path / "work").mkdir()
    with pytest.raises(UsageError) as caught:
        find_project(tmp_path / "work", home=tmp_path)
    assert "no .dstack folder in" in str(caught.value)
    assert caught.value.hint is not None
    assert "dstack init" in caught.value.hint
    (tmp_path / ".dstack" / "workflows.yaml").touch()
    assert find_project(tmp_path / "work", home=tmp_path) == tmp_path


def test_the_bucket_is_the_nearest_named_one(tmp_path: Path) -> None:
    home, root = tmp_path / "home", tmp_path / "p"
    home.mkdir()
    root.mkdir()
    found = read_settings(home=home, root=root, environment={})
    assert (found.bucket, found.position) == (str(home / ".dstack" / "bucket"), None)
    write(home, "bucket: ~/mine\n")
    assert read_settings(home=home, root=root, environment={}).bucket == str(home / "mine")
    write(root, "bucket:\n  url: s3://team/x\n  options: {anon: false, client_kwargs: {endpoint_url: http://h:1}}\n")
    found = read_settings(home=home, root=root, environment={})
    assert found.bucket == "s3://team/x"
    assert found.options == {"anon": False, "client_kwargs": {"endpoint_url": "http://h:1"}}
    assert found.position is not None
    assert (found.position.file, found.position.line) == (".dstack/config.yaml", 2)
    found = read_settings(home=home, root=root, environment={"DSTACK_BUCKET": "state"})
    assert (found.bucket, found.options, found.origin) == (str(root / "state"), {}, "DSTACK_BUCKET")
    assert read_settings(home=home, root=root, environment={"DSTACK_BUCKET": ""}).bucket == "s3://team/x"


def test_the_project_may_lie_in_the_home_folder(tmp_path: Path) -> None:
    write(tmp_path, "bucket: /b\nproject: mine\n")
    found = read_settings(home=tmp_path, root=tmp_path, environment={})
    assert (found.bucket, found.project) == ("/b", "mine")


def test_all_problems_of_both_files_are_said_at_once(tmp_path: Path) -> None:
    home, root = tmp_path / "home", tmp_path / "p"
    write(home, "project: x\nbuckets: y\n")
    write(root, "project: a/b\nbucket: {options: {}}\n")
    with pytest.raises(ConfigError) as caught:
        read_settings(home=home, root=root, environment={})
    assert [str(problem) for problem in caught.value.problems] == [
        '.dstack/config.yaml:1:10: project: "a/b" cannot name a project: letters, digits and "._=+@-", at most 128',
        ".dstack/config.yaml:2:9: bucket: url is missing",
        "~/.dstack/config.yaml:1:1: project: belongs into the project's own .dstack/config.yaml",
        '~/.dstack/config.yaml:2:1: unknown key "buckets" in the file (did you mean "bucket"?)',
    ]


@pytest.mark.parametrize(
    ("configured", "remote", "name"),
    [
        ("mine", "git@host:team/repo.git", "mine"),
        (None, "git@host:team/repo.git", "team.repo"),
        (None, "https://user:secret@host:8443/team/repo.git/", "team.repo"),
        (None, "ssh://git@host:2222/team/sub/repo", "team.sub.repo"),
        (None, "host:repo", "repo"),
        (None, "/srv/git/repo.git", "srv.git.repo"),
        (None, "../repo.git", "repo"),
        (None, "https://host", "folder"),
        (None, "https://host/a b/ü.git", "a.b"),
        (None, "", "folder"),
        (None, None, "folder"),
    ],
)
def test_the_name_of_the_project(configured: str | None, remote: str | None, name: str, tmp_path: Path) -> None:
    assert project_name(configured, remote, tmp_path / "folder") == name


@given(st.text(), st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1))
def test_any_remote_and_folder_give_one_part_of_a_key(remote: str, folder: str) -> None:
    name = project_name(None, remote, Path("/") / folder)
    assert re.fullmatch(r"[A-Za-z0-9._=+@-]{1,128}", name)
    assert name not in (".", "..")
