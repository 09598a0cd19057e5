"""What goes wrong between a laptop and a host: found out within a deadline, and said so that one can act on it."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dstack.errors import ConfigError, HostError, HostUnreachableError
from tests.support.hosts.dialling import begin, greet, hosts, named, read_to
from tests.support.hosts.farm import TestHost
from tests.support.hosts.home import Home, make_key
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(180)


def test_connections_at_once_all_come_through(ssh_host: TestHost, ssh_home: Home) -> None:
    """Sixteen processes' worth of connections succeed although sshd drops most of them at first."""
    ssh_host.configure("MaxStartups 3:100:3")
    ssh_home.add("gpu", ssh_host)
    ssh_home.trust(ssh_host)

    async def all_at_once() -> list[bytes]:
        return await asyncio.gather(*(greet("gpu") for _ in range(16)))

    answers = asyncio.run(all_at_once())
    assert all(b"word" in answer for answer in answers)
    assert "MaxStartups" in ssh_host.sshd_log()


def test_a_silent_host_is_noticed(ssh_host: TestHost, ssh_home: Home) -> None:
    """A frozen host is told from a slow one by keepalives, within their deadline."""
    ssh_home.add("gpu", ssh_host)
    ssh_home.trust(ssh_host)

    async def wait_for_loss() -> None:
        async with hosts() as opened:
            transport = await opened.open_transport(named("gpu"))
            await begin(transport)
            await read_to(transport, b"READY")
            ssh_host.pause()
            async with asyncio.timeout(45):
                await transport.read(1)

    try:
        with pytest.raises(HostUnreachableError, match="gpu: the connection was lost"):
            asyncio.run(wait_for_loss())
    finally:
        ssh_host.unpause()


def test_a_lost_connection_is_opened_anew(ssh_host: TestHost, ssh_home: Home) -> None:
    """A connection that sshd cut is an error for its transport, writer and reader, and no hindrance for the next."""
    ssh_home.add("gpu", ssh_host)
    ssh_home.trust(ssh_host)

    async def twice() -> bytes:
        async with hosts() as opened:
            transport = await opened.open_transport(named("gpu"))
            await begin(transport)
            await read_to(transport, b"READY")
            ssh_host.run(["pkill", "-KILL", "-u", "alice", "sshd"])
            with pytest.raises(HostUnreachableError):
                await asyncio.wait_for(transport.read(1), 30)
            with pytest.raises(HostUnreachableError):
                await transport.write(b"more")
            await transport.close()
            again = await opened.open_transport(named("gpu"))
            await begin(again)
            return await read_to(again, b"READY")

    assert b"READY" in asyncio.run(twice())


def test_closing_ends_the_far_side(ssh_host: TestHost, ssh_home: Home) -> None:
    """When a transport is closed its process sees the end of its input and goes."""
    ssh_home.add("gpu", ssh_host)
    ssh_home.trust(ssh_host)
    asyncio.run(greet("gpu"))
    until("no python is left", lambda: not any("python3 -I -S" in line for line in ssh_host.processes()))


def test_a_host_without_python_is_named(ssh_host: TestHost, ssh_home: Home) -> None:
    """A missing python3 is a HostError with what to do, under sh-like and csh-like shells, for reader and writer."""
    ssh_host.run(["sh", "-c", "rm -f /usr/bin/python3*"])
    ssh_home.add("gpu", ssh_host)
    ssh_home.trust(ssh_host)

    async def talk() -> None:
        async with hosts() as opened:
            transport = await opened.open_transport(named("gpu"))
            await begin(transport)
            await read_to(transport, b"READY")

    for shell in ("/bin/bash", "/bin/sh", "/usr/bin/fish", "/usr/bin/zsh", "/usr/bin/tcsh"):
        ssh_host.shell(shell)
        with pytest.raises(HostError, match="gpu: there is no python3") as refusal:
            asyncio.run(talk())
        assert "install Python" in str(refusal.value.hint)


@pytest.mark.parametrize(
    ("setting", "shell", "words"),
    [
        ("ForceCommand internal-sftp", "/bin/bash", "may not run commands"),
        ("", "/usr/sbin/nologin", "may not log in"),
        ("MaxSessions 0", "/bin/bash", "opens no session"),
    ],
)
def test_an_account_that_runs_nothing_is_refused(
    setting: str, shell: str, words: str, ssh_host: TestHost, ssh_home: Home
) -> None:
    """SFTP-only, nologin and forwarding-only accounts give a HostError that says so."""
    ssh_host.shell(shell)
    if setting:
        ssh_host.configure(setting)
    ssh_home.add("gpu", ssh_host)
    ssh_home.trust(ssh_host)
    with pytest.raises(HostError, match=words):
        asyncio.run(greet("gpu"))


def test_errors_name_the_hop(ssh_host: TestHost, shared_pair: tuple[TestHost, TestHost], ssh_home: Home) -> None:
    """What fails before the host is reached names the jump host; what fails behind it says so too."""
    jump, inner = shared_pair
    ssh_home.trust(ssh_host, jump, inner)
    ssh_home.add("gate", ssh_host)
    ssh_home.add("good-gate", jump)
    ssh_home.add("behind-dead", inner, "ProxyJump gate")
    ssh_home.add("other-port", inner, "ProxyJump good-gate")
    ssh_home.config.write_text(ssh_home.config.read_text().replace("Port 22\n", "Port 23\n", 1))
    ssh_host.kill()
    with pytest.raises(HostUnreachableError, match=r"^behind-dead: its jump host gate .*: nothing listens"):
        asyncio.run(greet("behind-dead"))
    with pytest.raises(HostUnreachableError, match=r"^other-port: the jump host before it cannot reach .* port 23"):
        asyncio.run(greet("other-port"))


def test_a_host_that_is_not_there_is_named(ssh_home: Home) -> None:
    """A wrong name and a closed port are told apart."""
    with pytest.raises(HostUnreachableError, match=r"the name no-such-host\.invalid is not known"):
        asyncio.run(greet("no-such-host.invalid"))
    ssh_home.config.write_text("Host closed\n HostName 127.0.0.1\n Port 1\n")
    with pytest.raises(HostUnreachableError, match=r"nothing listens at 127\.0\.0\.1 port 1"):
        asyncio.run(greet("closed"))


async def _dial_a_server_that_says(greeting: bytes, home: Home, seconds: int) -> None:
    """Connect to something that is no sshd; every one of its connections is closed afterwards."""
    writers: list[asyncio.StreamWriter] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        writer.write(greeting)

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    home.config.write_text(f"Host odd\n HostName 127.0.0.1\n Port {port}\n ConnectTimeout {seconds}\n")
    try:
        async with hosts() as opened, asyncio.timeout(60):
            await opened.open_transport(named("odd"))
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0)


def test_a_hanging_server_ends_by_the_deadline(ssh_home: Home) -> None:
    """A server that accepts and says nothing is given up after ConnectTimeout."""
    with pytest.raises(HostUnreachableError, match=r"no answer from 127\.0\.0\.1 port .* within 2 s"):
        asyncio.run(_dial_a_server_that_says(b"", ssh_home, 2))


def test_a_server_that_speaks_garbage_is_an_error_of_ours(ssh_home: Home) -> None:
    """Something else than sshd on the port gives a HostUnreachableError, never a traceback of a library."""
    with pytest.raises(HostUnreachableError, match=r"^odd: "):
        asyncio.run(_dial_a_server_that_says(b"SSH-2.0-odd\r\n" + b"\xff\x00" * 4096, ssh_home, 5))


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Path]:
    """A real ssh-agent with the socket at the given path."""
    path = tmp_path / "agent.sock"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
    try:
        until("the agent listens", path.exists)
        yield path
    finally:
        process.terminate()
        process.wait()


def _add_to_agent(agent: Path, *files: Path) -> None:
    for file in files:
        subprocess.run(
            ["ssh-add", "-q", str(file)], env={"SSH_AUTH_SOCK": str(agent), "PATH": "/usr/bin:/bin"}, check=True
        )


def _without_key_file(home: Home, name: str, host: TestHost, *extra: str) -> None:
    lines = [f"Host {name}", f"HostName {host.address}", f"Port {host.port}", f"User {host.user}", *extra]
    home.config.write_text("\n  ".join(lines) + "\n")


@pytest.mark.parametrize("way", ["SSH_AUTH_SOCK", "IdentityAgent"])
def test_the_agent_holds_the_key(
    way: str, agent: Path, shared_host: TestHost, ssh_home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that only an agent has lets in, whichever way the agent is named."""
    _add_to_agent(agent, ssh_home.key.file)
    ssh_home.trust(shared_host)
    if way == "SSH_AUTH_SOCK":
        monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
        _without_key_file(ssh_home, "gpu", shared_host)
    else:
        _without_key_file(ssh_home, "gpu", shared_host, f"IdentityAgent {agent}")
    assert b"word" in asyncio.run(greet("gpu"))


def test_identities_only_keeps_the_agents_other_keys_back(
    agent: Path, ssh_host: TestHost, ssh_home: Home, tmp_path: Path
) -> None:
    """With IdentitiesOnly just the named identity is offered, by its public file; sshd saw no other."""
    strangers = [make_key(tmp_path / f"stranger{number}").file for number in range(8)]
    _add_to_agent(agent, *strangers, ssh_home.key.file)
    ssh_home.trust(ssh_host)
    public = ssh_home.ssh / "id_of_mine.pub"
    public.write_text(ssh_home.key.public + "\n")
    extra = [f"IdentityAgent {agent}", f"IdentityFile {public}", "IdentitiesOnly yes"]
    _without_key_file(ssh_home, "gpu", ssh_host, *extra)
    assert b"word" in asyncio.run(greet("gpu"))
    assert "Failed publickey" not in ssh_host.sshd_log()
    # The counter-check: named to be an identity that the agent lacks, the agent's right key is not offered.
    lone = make_key(tmp_path / "lone")
    _without_key_file(
        ssh_home, "gpu", ssh_host, f"IdentityAgent {agent}", f"IdentityFile {lone.file}", "IdentitiesOnly yes"
    )
    with pytest.raises(HostUnreachableError, match="none of your keys is accepted"):
        asyncio.run(greet("gpu"))


def test_an_encrypted_key_without_an_agent_is_explained(shared_host: TestHost, ssh_home: Home, tmp_path: Path) -> None:
    """dstack asks for no passphrase, says which file and how to go on, and takes no other key in its place."""
    locked = make_key(tmp_path / "locked", passphrase="secret words")
    shutil.copy(ssh_home.key.file, ssh_home.ssh / "id_ed25519")
    _without_key_file(ssh_home, "gpu", shared_host, f"IdentityFile {locked.file}")
    ssh_home.trust(shared_host)
    with pytest.raises(HostUnreachableError) as refusal:
        asyncio.run(greet("gpu"))
    assert f"{locked.file} is encrypted and not in an agent" in str(refusal.value)
    assert "agent" in str(refusal.value.hint)


def test_an_encrypted_key_in_the_agent_lets_in(agent: Path, ssh_host: TestHost, ssh_home: Home, tmp_path: Path) -> None:
    """The file stays encrypted; the agent signs with it."""
    key = make_key(tmp_path / "mine")
    _add_to_agent(agent, key.file)
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", "secret words", "-f", key.file], check=True)
    ssh_host.write("/home/alice/.ssh/authorized_keys", key.public.encode() + b"\n", mode=0o600)
    extra = [f"IdentityAgent {agent}", f"IdentityFile {key.file}", "IdentitiesOnly yes"]
    _without_key_file(ssh_home, "gpu", ssh_host, *extra)
    ssh_home.trust(ssh_host)
    assert b"word" in asyncio.run(greet("gpu"))


def test_an_apostrophe_in_the_configuration_breaks_nothing(shared_host: TestHost, ssh_home: Home) -> None:
    """Where asyncssh's parser gives up OpenSSH is asked, and the host is reached all the same."""
    ssh_home.add("gpu", shared_host)
    ssh_home.trust(shared_host)
    ssh_home.config.write_text(ssh_home.config.read_text() + "Host bob  # bob's box\n  User bob\n")
    assert b"word" in asyncio.run(greet("gpu"))


def test_a_broken_configuration_is_a_config_error(ssh_home: Home) -> None:
    """What OpenSSH refuses as well is reported with its file."""
    ssh_home.config.write_text("Host gpu\n  Port many\n")
    with pytest.raises(ConfigError) as refusal:
        asyncio.run(greet("gpu"))
    assert str(ssh_home.config) in str(refusal.value)
