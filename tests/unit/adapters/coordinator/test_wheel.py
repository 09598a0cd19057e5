"""Which libraries go along with the coordinator: this machine's own where they fit, else wheels for that platform."""

from __future__ import annotations

import hashlib
import io
import platform
import socket
import sys
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from dstack.adapters.coordinator.wheel import pack_library, python_version
from dstack.errors import DstackError
from dstack.model import HostFacts
from tests.support.records.peers import peer

HERE = replace(
    peer("here").facts, platform=f"linux-{platform.machine()}", python=".".join(map(str, sys.version_info[:3]))
)
PACKAGES = ("obstore", "typing_extensions")
linux = pytest.mark.skipif(sys.platform != "linux", reason="a library of this machine fits Linux hosts only from Linux")


def named(facts: HostFacts, *, python: str = "", system: str = "") -> HostFacts:
    return replace(facts, python=python or facts.python, platform=system or facts.platform)


@linux
def test_a_host_like_this_machine_gets_this_machines_own_copy(tmp_path: Path) -> None:
    library = pack_library(PACKAGES, HERE, tmp_path)
    with zipfile.ZipFile(io.BytesIO(library.body)) as archive:
        found = archive.namelist()
    assert "obstore/__init__.py" in found
    assert any(name.startswith("obstore/_obstore") and name.endswith(".so") for name in found)
    assert "typing_extensions.py" in found
    assert not [name for name in found if name.endswith(".pyc") or ".." in name]
    assert library.sha256 == hashlib.sha256(library.body).hexdigest()
    assert pack_library(PACKAGES, HERE, tmp_path) == library, (
        "the same bytes each time: a host that has them is sent nothing"
    )


@linux
def test_wheels_that_were_fetched_once_are_kept(tmp_path: Path) -> None:
    (tmp_path / f"obstore-{platform.machine()}-py310.zip").write_bytes(b"kept")
    assert pack_library(PACKAGES, named(HERE, python="3.10.4"), tmp_path).body == b"kept"


def test_another_kind_of_system_is_refused_with_what_that_means(tmp_path: Path) -> None:
    for system in ("darwin-arm64", "linux-riscv64", ""):
        with pytest.raises(DstackError, match="there is no obstore for") as error:
            pack_library(PACKAGES, replace(HERE, platform=system), tmp_path)
        assert error.value.hint is not None


def test_wheels_that_cannot_be_fetched_say_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/none")
    monkeypatch.setenv("PIP_RETRIES", "0")
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(DstackError, match=r"obstore for Python 3\.10 on aarch64 cannot be fetched"):
        pack_library(PACKAGES, named(HERE, python="3.10.4", system="linux-aarch64"), tmp_path)
    assert list(tmp_path.glob("*.zip")) == []


def test_a_fetch_that_nobody_waits_for_any_more_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From an index that takes the connection and says nothing."""
    given_up, ended = threading.Event(), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as index:
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{index.getsockname()[1]}/simple")
        for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_CONFIG_FILE", "PIP_NO_INDEX"):
            monkeypatch.delenv(name, raising=False)

        def give_up() -> None:
            with index.accept()[0]:
                given_up.set()
                ended.wait(60)

        threading.Thread(target=give_up, daemon=True).start()
        with pytest.raises(DstackError, match="it was given up"):
            pack_library(PACKAGES, named(HERE, python="3.10.4", system="linux-aarch64"), tmp_path, given_up)
        ended.set()
    assert list(tmp_path.iterdir()) == [], "nothing of it is left"


def test_what_a_host_says_of_its_python_is_read_or_counts_as_too_old() -> None:
    assert python_version(named(HERE, python="3.13.0rc1")) == (3, 13)
    assert python_version(replace(HERE, python="nonsense")) == (0, 0)
