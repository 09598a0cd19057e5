"""The stream to a host's bootstrap: whatever the login shell, whole both ways, over one shared connection."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import sys

import pytest

from dstack.adapters.ssh.connections import SSH_COMMANDS
from dstack.errors import HostError
from dstack.model import Host, HostName
from tests.support.hosts.dialling import begin, greet, hosts, named, read_all, read_to
from tests.support.hosts.farm import Farm, TestHost
from tests.support.hosts.home import Home

pytestmark = pytest.mark.timeout(180)

NOISE = b"echo noise of a login; printf '\\377\\376 not UTF-8\\n'; echo errors >&2\n"
RC_FILES = {
    "sh": ".profile",
    "bash": ".bashrc",
    "dash": ".profile",
    "zsh": ".zshenv",
    "fish": ".config/fish/config.fish",
    "tcsh": ".tcshrc",
}
DIGEST = b"""
import hashlib, sys
size = int(sys.stdin.buffer.readline())
digest, left = hashlib.sha256(), size
while left:
    piece = sys.stdin.buffer.read(min(left, 1 << 20))
    digest.update(piece)
    left -= len(piece)
print(digest.hexdigest(), flush=True)
"""
ENVIRON = b"""
import os, sys
sys.stdout.write(repr(sorted(os.environ)) + str(os.isatty(0)) + " END")
"""


@pytest.mark.parametrize("shell", RC_FILES)
def test_every_login_shell_starts_the_bootstrap(shell: str, host_of_shells: TestHost, ssh_home: Home) -> None:
    """With noisy rc files, under each shell, the constant command runs the source it was given, input unharmed."""
    host = host_of_shells
    host.shell(host.run(["sh", "-c", f"command -v {shell}"]).decode().strip())
    rc = RC_FILES[shell]
    host.run(["mkdir", "-p", f"/home/alice/{os.path.dirname(rc)}"], user="alice")
    host.write(f"/home/alice/{rc}", NOISE)
    # sshd runs this one under every shell.
    host.write("/home/alice/.ssh/rc", NOISE)
    ssh_home.add("gpu", host)
    ssh_home.trust(host)
    awkward = bytes(range(256)) + b"\x04\x03$(id)`id`'\"\\\n"

    async def talk() -> tuple[bytes, bytes]:
        async with hosts() as opened:
            transport = await opened.open_transport(named("gpu"))
            await begin(transport)
            before = await read_to(transport, b"READY")
            await transport.write(awkward + b"END")
            after = await read_to(transport, b"END")
            await transport.close()
            return before, after

    before, after = asyncio.run(talk())
    assert b"noise of a login" in before
    assert after == awkward + b"END"


@pytest.fixture(scope="module")
def host_of_shells(session_farm: Farm) -> TestHost:
    """One host whose login shell the tests of this module change."""
    return session_farm.start()[0]


def test_64_mb_pass_unaltered_both_ways(shared_host: TestHost, ssh_home: Home) -> None:
    """Every byte comes back, in order, whatever sizes the pieces have."""
    ssh_home.add("gpu", shared_host)
    ssh_home.trust(shared_host)
    data = random.Random(7).randbytes(64 << 20)

    async def both_ways() -> bytes:
        async with hosts() as opened:
            transport = await opened.open_transport(named("gpu"))
            await begin(transport)
            await read_to(transport, b"READY")

            async def send() -> None:
                sizes, start = random.Random(8), 0
                while start < len(data):
                    size = sizes.choice([1, 999, 32768, 262144, 262157, 5 << 20])
                    await transport.write(data[start : start + size])
                    start += size

            sender, received = asyncio.create_task(send()), bytearray()
            async with asyncio.timeout(120):
                while len(received) < len(data):
                    piece = await transport.read(300_000)
                    assert 0 < len(piece) <= 300_000
                    received += piece
            await sender
            await transport.close()
            return bytes(received)

    assert hashlib.sha256(asyncio.run(both_ways())).digest() == hashlib.sha256(data).digest()


def test_a_writer_waits_for_a_slow_host(shared_host: TestHost, ssh_home: Home) -> None:
    """A host that does not read holds the writer back, so that memory stays bounded; then all arrives."""
    ssh_home.add("gpu", shared_host)
    ssh_home.trust(shared_host)
    size = 48 << 20
    slow = b"import sys, time\nprint('READY', flush=True)\nsys.stdin.buffer.read(1)\n" + DIGEST

    async def push() -> tuple[int, bytes]:
        async with hosts() as opened:
            transport = await opened.open_transport(named("gpu"))
            await begin(transport, slow)
            await read_to(transport, b"READY")
            written = 0

            async def send() -> None:
                nonlocal written
                await transport.write(b"x%d\n" % size)
                for _ in range(size >> 18):
                    await transport.write(bytes(1 << 18))
                    written += 1 << 18

            # The far side takes one byte and then hashes; stopped, it takes nothing.
            pid = shared_host.run(["pgrep", "-n", "-f", "python3 -I -S -X utf8 -c"]).decode().strip()
            shared_host.run(["kill", "-STOP", pid])
            sender = asyncio.create_task(send())
            done, _ = await asyncio.wait([sender], timeout=3)
            held = written
            assert not done
            shared_host.run(["kill", "-CONT", pid])
            await asyncio.wait_for(sender, 60)
            answer = await read_to(transport, b"\n", seconds=60)
            await transport.close()
            return held, answer

    held, answer = asyncio.run(push())
    assert held < 16 << 20
    assert hashlib.sha256(bytes(size)).hexdigest().encode() in answer


def test_a_slow_reader_holds_the_host_back(shared_host: TestHost, ssh_home: Home) -> None:
    """What a host floods is not kept in memory beyond the window."""
    ssh_home.add("gpu", shared_host)
    ssh_home.trust(shared_host)
    flood = b"import sys\nfor _ in range(512): sys.stdout.buffer.write(bytes(1 << 18))\n"

    async def look() -> tuple[int, int]:
        async with hosts() as opened:
            transport = await opened.open_transport(named("gpu"))
            await begin(transport, flood)
            first = await transport.read(1 << 20)
            await asyncio.sleep(2)  # room for a flood; nothing is asserted of the time
            held = transport._session.size + sum(len(data) for data, _ in transport._channel._recv_buf)
            rest = await read_all(transport)
            await transport.close()
            return held, len(first) + len(rest)

    held, total = asyncio.run(look())
    assert held < 20 << 20
    assert total == 128 << 20


def test_one_connection_serves_all_who_ask(ssh_host: TestHost, ssh_home: Home) -> None:
    """Sixteen askers at once share one connection with at most eight sessions; sshd saw one login."""
    ssh_home.add("gpu", ssh_host)
    ssh_home.trust(ssh_host)

    async def all_at_once() -> list[object]:
        async with hosts() as opened:
            asked = [opened.open_transport(named("gpu")) for _ in range(16)]
            return list(await asyncio.gather(*asked, return_exceptions=True))

    results = asyncio.run(all_at_once())
    assert sum(isinstance(result, HostError) for result in results) == 8
    assert ssh_host.sshd_log().count("Accepted publickey") == 1
    assert ssh_host.sessions() == 8


def test_a_closed_transport_makes_room(shared_host: TestHost, ssh_home: Home) -> None:
    """Sessions may follow each other on one connection without end."""
    ssh_home.add("gpu", shared_host)
    ssh_home.trust(shared_host)

    async def one_by_one() -> int:
        async with hosts() as opened:
            for _ in range(12):
                transport = await opened.open_transport(named("gpu"))
                await begin(transport)
                await read_to(transport, b"READY")
                await transport.close()
                await transport.close()
            return len(opened._connections)

    assert asyncio.run(one_by_one()) == 1


def test_a_jump_host_is_shared_with_its_own_jobs(shared_pair: tuple[TestHost, TestHost], ssh_home: Home) -> None:
    """The inventory's jump: names another entry; its connection serves it and the host behind it."""
    jump, inner = shared_pair
    ssh_home.trust(jump, inner)
    key = str(ssh_home.key.file)
    inventory = {
        "gate": Host(name=HostName("gate"), address=jump.address, port=jump.port, user="alice", identity_file=key),
        "inner": Host(
            name=HostName("inner"), address=inner.address, user="alice", identity_file=key, jump="gate", port=22
        ),
    }
    before = jump.sshd_log().count("Accepted publickey")

    async def both() -> None:
        async with hosts(inventory) as opened:
            for name in ("inner", "gate"):
                transport = await opened.open_transport(inventory[name])
                await begin(transport)
                await read_to(transport, b"READY")

    asyncio.run(both())
    assert jump.sshd_log().count("Accepted publickey") == before + 1


def test_a_jump_may_be_written_out(shared_pair: tuple[TestHost, TestHost], ssh_home: Home) -> None:
    """jump: user@address:port works without any entry in inventory or configuration."""
    jump, inner = shared_pair
    ssh_home.trust(jump, inner)
    ssh_home.config.write_text(f"Host *\n  IdentityFile {ssh_home.key.file}\n  User alice\n")
    host = Host(name=HostName("inner"), address=inner.address, jump=f"alice@{jump.address}:{jump.port}")

    async def dial() -> bytes:
        async with hosts() as opened:
            transport = await opened.open_transport(host)
            await begin(transport)
            return await read_to(transport, b"READY")

    assert b"READY" in asyncio.run(dial())


def test_a_proxy_command_carries_the_connection(shared_host: TestHost, ssh_home: Home) -> None:
    """ProxyCommand runs as OpenSSH runs it, its own complaints apart from the stream."""
    relay = ssh_home.path / "relay.py"
    relay.write_text(
        "import os, socket, sys, threading\n"
        "s = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
        "def up():\n"
        "    while data := os.read(0, 65536): s.sendall(data)\n"
        "    s.shutdown(1)\n"
        "threading.Thread(target=up, daemon=True).start()\n"
        "while data := s.recv(65536):\n"
        "    os.write(1, data)\n"
        "    os.write(2, b'a complaint')\n"
    )
    ssh_home.add("gpu", shared_host, f"ProxyCommand {sys.executable} {relay} %h %p")
    ssh_home.trust(shared_host)
    assert b"word" in asyncio.run(greet("gpu"))


def test_the_configuration_is_read_for_the_given_name_alone(shared_host: TestHost, ssh_home: Home) -> None:
    """What ~/.ssh/config says of the address that a name stands for is for another name, as in OpenSSH."""
    ssh_home.config.write_text(f"Host {shared_host.address}\n  ProxyJump nowhere.invalid\n  User nobody\n")
    ssh_home.add("gpu", shared_host)
    ssh_home.trust(shared_host)
    assert b"word" in asyncio.run(greet("gpu"))


def test_nothing_of_the_user_goes_along(ssh_host: TestHost, ssh_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """No agent, no environment, no pty and no RemoteCommand, whatever ~/.ssh/config asks for."""
    monkeypatch.setenv("LC_SECRET", "canary")
    asked = [
        "ForwardAgent yes",
        "SendEnv LC_*",
        "SetEnv LC_OTHER=1",
        "RequestTTY force",
        "RemoteCommand touch /tmp/ran",
    ]
    ssh_home.add("gpu", ssh_host, *asked)
    ssh_home.trust(ssh_host)

    async def look() -> bytes:
        async with hosts() as opened:
            transport = await opened.open_transport(named("gpu"))
            await begin(transport, ENVIRON)
            return await read_to(transport, b"END")

    answer = asyncio.run(look())
    assert b"SSH_CONNECTION" in answer
    for absent in (b"SSH_AUTH_SOCK", b"LC_SECRET", b"LC_OTHER", b"SSH_TTY", b"True"):
        assert absent not in answer
    assert ssh_host.exec(["test", "-e", "/tmp/ran"]).code != 0


def test_only_the_constant_commands_are_sent(ssh_host: TestHost, ssh_home: Home) -> None:
    """What the login shell was told to execute is one of COMMANDS, byte for byte."""
    ssh_home.add("gpu", ssh_host)
    ssh_home.trust(ssh_host)
    ssh_host.write("/home/alice/.bashrc", b'echo "$BASH_EXECUTION_STRING" >> /tmp/executed\n')
    asyncio.run(greet("gpu"))
    executed = ssh_host.run(["cat", "/tmp/executed"]).decode().splitlines()
    assert executed
    assert set(executed) <= set(SSH_COMMANDS)
