"""A host that answers with numbers beyond reason, beside an honest one: one bad row, and the run goes to the other."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.hosts.farm import Farm
from tests.support.hosts.home import Home
from tests.support.people.laptop import Laptop

SMI = f"""#!/bin/sh
case "$*" in
  *query-gpu*) echo "0, GPU-0, NVIDIA A100, 1{"0" * 400}" ;;
esac
"""


@pytest.mark.docker
def test_a_host_that_lies_about_its_memory_is_one_bad_row(farm: Farm, ssh_home: Home, tmp_path: Path) -> None:
    honest, lying = farm.start(2)
    lying.write("/usr/bin/nvidia-smi", SMI.encode(), mode=0o755)
    entries = ""
    for name, host in (("honest", honest), ("lying", lying)):
        ssh_home.trust(host)
        place = f"address: {host.address}, port: {host.port}, user: alice, identity-file: {ssh_home.key.file}"
        entries += f"  {name}: {{{place}}}\n"
    laptop = Laptop(tmp_path / "alice", home=ssh_home.path)
    laptop.write(
        {
            ".dstack/workflows.yaml": "workflows:\n  - name: train\n    commands: ['echo done']\n",
            ".dstack/hosts.yaml": f"hosts:\n{entries}",
        }
    )
    laptop.commit()
    for command in (("hosts", "check"), ("queue",)):
        done = laptop.dstack(*command, code=5)
        assert "Traceback" not in done.stderr
        rows = {line.split()[0]: line for line in done.stdout.splitlines() if line.startswith(("honest ", "lying "))}
        assert "failed" in rows["lying"]
        assert "makes no sense" in done.stdout + done.stderr
        assert command == ("queue",) or " ok " in rows["honest"]
    assert laptop.run_json("train")["jobs"][0]["host"] == "honest"
