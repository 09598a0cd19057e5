"""Host keys seen from `dstack run`: nothing is sent to a host whose key nobody confirmed, or whose key has changed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.support.hosts.farm import Farm, TestHost
from tests.support.hosts.home import Home
from tests.support.people.laptop import Laptop
from tests.support.people.pipeline import entry, remote_laptop, write_inventory

HOST_KEY = 4
PROJECT = {".dstack/workflows.yaml": "workflows:\n  - name: hello\n    commands: [echo hello]\n"}


@pytest.fixture
def host(farm: Farm) -> TestHost:
    return farm.start()[0]


def nothing_arrived(host: TestHost) -> None:
    assert host.exec(["test", "-e", "/home/alice/.dstack"]).code != 0
    assert host.sessions() == 0
    assert "Accepted publickey" not in host.sshd_log()


@pytest.mark.parametrize("detached", [(), ("-d",)])
def test_an_unconfirmed_key_ends_the_run_before_anything_is_sent(
    detached: tuple[str, ...], host: TestHost, ssh_home: Home, tmp_path: Path
) -> None:
    """Exit 4 with the fingerprint and the way to confirm it; no login, no byte on the host, no run recorded."""
    laptop = Laptop(tmp_path, home=ssh_home.path)
    write_inventory(laptop, {"gpu": entry(host, ssh_home.key.file)})
    laptop.write(PROJECT)
    laptop.commit()
    refused = laptop.dstack("run", "hello", *detached, code=HOST_KEY)
    assert "SHA256:" in refused.stderr
    assert "dstack hosts add gpu" in refused.stderr
    nothing_arrived(host)
    assert json.loads(laptop.dstack("ps", "-a", "--json").stdout) == []


def test_a_changed_key_is_refused_in_its_own_words(host: TestHost, ssh_home: Home, tmp_path: Path) -> None:
    """Exit 4, and it is not taken for a host that is merely new."""
    laptop = remote_laptop(tmp_path, ssh_home, host)
    laptop.write(PROJECT)
    laptop.commit()
    host.swap_host_key()
    refused = laptop.dstack("run", "hello", code=HOST_KEY)
    assert "changed" in refused.stderr
    assert "gpu" in refused.stderr
    nothing_arrived(host)


def test_hosts_add_confirms_the_key_for_the_run(host: TestHost, ssh_home: Home, tmp_path: Path) -> None:
    """With the fingerprint from the refusal, `hosts add --yes` lets the same run through."""
    laptop = Laptop(tmp_path, home=ssh_home.path)
    write_inventory(laptop, {"gpu": entry(host, ssh_home.key.file)})
    laptop.write(PROJECT)
    laptop.commit()
    refused = laptop.dstack("run", "hello", code=HOST_KEY)
    fingerprint = re.search(r"SHA256:[A-Za-z0-9+/]+", refused.stderr)
    assert fingerprint
    laptop.dstack("hosts", "add", "gpu", "--yes", fingerprint[0])
    assert "hello\n" in laptop.dstack("run", "hello").stdout
