"""Rules that hold for the source of the SSH adapter itself, and what importing it costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dstack.adapters
from dstack.adapters.ssh.connections import BOOTSTRAP_COMMAND, SSH_COMMANDS

PACKAGE = Path(dstack.adapters.__file__).parent.parent


def _calls() -> Iterator[tuple[Path, ast.Call]]:
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call):
                yield file, node


def test_host_key_checks_cannot_be_switched_off() -> None:
    """asyncssh takes known_hosts=None for "believe any key": nobody passes it, and one place alone connects."""
    connects = []
    for file, call in _calls():
        for keyword in call.keywords:
            off = isinstance(keyword.value, ast.Constant) and keyword.value.value is None
            assert not (keyword.arg == "known_hosts" and off), f"{file}:{call.lineno}"
        name = ast.unparse(call.func)
        if name.startswith("asyncssh.") and name.rpartition(".")[2] in (
            "connect",
            "create_connection",
            "connect_reverse",
        ):
            connects.append(file.name)
        assert not name.endswith((".get_server_host_key", ".run_client", ".start_sftp_client", "asyncssh.scp"))
    assert connects == ["hop.py"]


def test_the_commands_hold_nothing_that_shells_read_differently() -> None:
    """sh, bash, dash, zsh, fish and tcsh agree on words, double quotes and nothing else."""
    assert SSH_COMMANDS == (BOOTSTRAP_COMMAND,)
    for command in SSH_COMMANDS:
        assert command.count('"') == 2
        outside = command.split('"')[0] + command.split('"')[2]
        assert set(outside) <= set("abcdefghijklmnopqrstuvwxyz0123456789 -ISX")
        assert not set(command.split('"')[1]) & set("$`!\\'{}*?~\n")


def test_asyncssh_is_imported_by_the_ssh_modules_alone() -> None:
    """Everything else starts without it, for it takes 0.4 s."""
    for file in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(file.read_text())
        names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
        names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        if any(name.split(".")[0] == "asyncssh" for name in names):
            assert file.parent == PACKAGE / "adapters" / "ssh", file


def test_prefetch_and_known_hosts_are_light() -> None:
    """Importing them brings in no asyncssh; calling prefetch does."""
    program = (
        "import sys, dstack.adapters.ssh.known_hosts\n"
        "from dstack.adapters.ssh.import_ahead import prefetch\n"
        "assert 'asyncssh' not in sys.modules\n"
        "prefetch().join()\n"
        "assert 'dstack.adapters.ssh.connections' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
