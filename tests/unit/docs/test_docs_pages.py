"""The check of the reference pages sees a page that has drifted and a link that points nowhere."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dstack.errors import ConfigError
from dstack.project.yaml import schema
from tests.docs import configuration, jsonpage
from tests.docs.__main__ import PAGES, drift, main, write
from tests.docs.cli import cli_page
from tests.docs.links import anchors, broken_links, markdown_files, missing_paths


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / ".gitignore").write_text("ignored/\n")
    for name in ("docs", "ignored"):
        (tmp_path / name).mkdir()
    (tmp_path / "ignored" / "x.md").write_text("[x](nowhere.md)\n")
    (tmp_path / "docs" / "there.md").write_text("# One word\n\n## `two` words, more\n\n## One word\n")
    return tmp_path


@pytest.mark.parametrize(
    "link",
    ["docs/there.md", "docs/", "docs/there.md#one-word", "docs/there.md#two-words-more", "docs/there.md#one-word-1"],
)
def test_a_link_that_leads_somewhere_passes(repository: Path, link: str) -> None:
    (repository / "README.md").write_text(f"[text]({link}) and [`code`](https://example.org/x) [mail](mailto:a@b)\n")
    assert broken_links(repository, Path("README.md")) == []


@pytest.mark.parametrize(
    ("link", "reason"),
    [
        ("docs/gone.md", "no such file"),
        ("docs/there.md#gone", "no such heading"),
        ("../outside.md", "out of the repository"),
        ("/docs/there.md", "relative"),
        ("#gone", "no such heading"),
    ],
)
def test_a_link_that_points_nowhere_is_named_with_its_line(repository: Path, link: str, reason: str) -> None:
    (repository / "README.md").write_text(f"# Title\n\n[fine](docs/there.md) [text]({link})\n")
    (fault,) = broken_links(repository, Path("README.md"))
    assert fault.startswith(f"README.md:3: {link}: ")
    assert reason in fault


def test_links_in_code_do_not_count_and_reference_links_do(repository: Path) -> None:
    text = "`[a](gone.md)`\n```sh\n[b](gone.md)\n```\n[c][d]\n\n[d]: gone.md\n"
    (repository / "README.md").write_text(text)
    assert broken_links(repository, Path("README.md")) == ["README.md:7: gone.md: there is no such file"]


def test_a_path_of_the_source_that_does_not_exist_is_named_with_its_line(repository: Path) -> None:
    (repository / "dstack").mkdir()
    (repository / "dstack" / "there.py").touch()
    (repository / "README.md").write_text("`dstack/there.py`, `dstack/`\nand `dstack/gone.py`, `dstack run`\n")
    expected = ["README.md:2: dstack/gone.py: there is no such file or folder"]
    assert missing_paths(repository, Path("README.md")) == expected


def test_files_that_git_ignores_are_left_out(repository: Path) -> None:
    (repository / "README.md").write_text("\n")
    assert markdown_files(repository) == [Path("README.md"), Path("docs/there.md")]


def test_anchors_of_headings_in_code_blocks_do_not_count() -> None:
    assert anchors("# A\n```sh\n# b\n```\n## A [link](x.md)!\n") == {"a", "a-link"}


def test_a_changed_page_is_shown_as_a_difference(tmp_path: Path) -> None:
    pages = {name: make() for name, make in PAGES.items()}
    write(tmp_path, pages)
    assert drift(tmp_path, pages) == ""
    page = tmp_path / "docs/reference/exit-codes.md"
    page.write_text(page.read_text().replace("`130`", "`131`"))
    (tmp_path / "docs/reference/json.md").unlink()
    shown = drift(tmp_path, pages)
    assert "-| `131` " in shown
    assert "+| `130` " in shown
    assert "+# JSON" in shown


def test_an_example_that_the_readers_refuse_fails_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {key.name: key for key in schema.WORKFLOW_KEYS}
    wrong = dataclasses.replace(keys["max-duration"], example="six hours")
    monkeypatch.setattr(schema, "WORKFLOW_KEYS", (wrong,))
    with pytest.raises(ConfigError, match="duration with its unit"):
        configuration.configuration_page()


def test_a_field_without_a_meaning_fails_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(jsonpage.JOB, "reason")
    with pytest.raises(AssertionError, match="documented"):
        jsonpage.json_page()


@pytest.mark.parametrize("command", [[], ["ps"], ["hosts", "add"]])
def test_the_page_holds_what_the_command_itself_prints(command: list[str]) -> None:
    environment = {**os.environ, "COLUMNS": "100"}
    arguments = [sys.executable, "-m", "dstack", *command, "--help"]
    printed = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=True).stdout
    heading = " ".join(["dstack", *command])
    assert f"## `{heading}`\n\n```text\n{printed.rstrip()}\n```\n" in cli_page()


def test_unknown_arguments_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--wirte"]) == 2
    assert "usage" in capsys.readouterr().err
