"""From hosts.yaml and ~/.ssh/config to explicit hops."""

from __future__ import annotations

import getpass
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from dstack.adapters.ssh.config import Hop, Route, SshSurroundings, resolve
from dstack.errors import ConfigError, UsageError
from dstack.model import Host, HostName
from tests.lacking import missing


class Place:
    """A home folder with an SSH configuration, and nothing of this machine's own."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home = home
        (home / ".ssh").mkdir(parents=True)
        # asyncssh's parser looks up `~` by itself.
        monkeypatch.setenv("HOME", str(home))
        self.environment: dict[str, str] = {}
        self.ssh: str | None = None
        self.inventory: dict[str, Host] = {}

    def config(self, text: str) -> None:
        (self.home / ".ssh" / "config").write_text(text)

    def add(self, name: str, **fields: object) -> Host:
        self.inventory[name] = Host(name=HostName(name), **fields)  # type: ignore[arg-type]
        return self.inventory[name]

    def route(self, name: str) -> Route:
        around = SshSurroundings(
            home=self.home,
            environment=self.environment,
            confirmed=self.home / ".dstack" / "known_hosts",
            system_config=None,
            ssh=self.ssh,
        )
        return resolve(self.inventory.get(name) or Host(name=HostName(name)), self.inventory, around)

    def hop(self, name: str) -> Hop:
        return self.route(name).hops[-1]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(tmp_path / "home", monkeypatch)


def test_without_any_configuration_the_name_is_the_address(place: Place) -> None:
    """A bare name: port 22, this user, default keys, no agent, the usual known_hosts files, ours first."""
    hop = place.hop("gpu")
    assert (hop.address, hop.port, hop.user) == ("gpu", 22, getpass.getuser())
    assert (hop.known_name, hop.known_port, hop.identities, hop.agent) == ("gpu", 22, None, None)
    assert hop.known_hosts == (
        f"{place.home}/.dstack/known_hosts",
        f"{place.home}/.ssh/known_hosts",
        f"{place.home}/.ssh/known_hosts2",
        "/etc/ssh/ssh_known_hosts",
        "/etc/ssh/ssh_known_hosts2",
    )


def test_the_configuration_is_followed(place: Place) -> None:
    """Host, Include, Match, tokens, several identities: as in OpenSSH the first value wins, identities add up."""
    (place.home / ".ssh" / "extra").write_text("Host gpu\n  Port 2200\n  IdentityFile ~/.ssh/included\n")
    place.config(
        "Include extra\nHost gpu\n  HostName %h.lab\n  Port 99\n  User ann\n  IdentityFile %d/.ssh/second\n"
        "Match host gpu.lab user ann\n  IdentitiesOnly yes\n  ConnectTimeout 3\n  AddressFamily inet6\n"
        "  KexAlgorithms +diffie-hellman-group14-sha1\n"
    )
    hop = place.hop("gpu")
    assert (hop.address, hop.port, hop.user, hop.timeout, hop.family) == ("gpu.lab", 2200, "ann", 3.0, socket.AF_INET6)
    assert hop.identities == (f"{place.home}/.ssh/included", f"{place.home}/.ssh/second")
    assert hop.identities_only
    assert hop.kex == "+diffie-hellman-group14-sha1"


def test_the_inventory_wins_over_the_configuration(place: Place) -> None:
    """What hosts.yaml says stands; an identity-file there is the only key that is offered."""
    place.config("Host lab\n  HostName real\n  Port 99\n  User bob\n  IdentityFile ~/.ssh/other\n")
    place.add("gpu", address="lab", user="ann", port=2222, identity_file="~/key")
    hop = place.hop("gpu")
    assert (hop.label, hop.address, hop.port, hop.user) == ("gpu", "real", 2222, "ann")
    assert hop.identities == (f"{place.home}/key",)
    assert hop.identities_only


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("UserKnownHostsFile none", ()),
        ("UserKnownHostsFile ~/a ~/b", ("~/a", "~/b")),
        ("UserKnownHostsFile %d/kh-%h", ("~/kh-gpu",)),
        ("UserKnownHostsFile /dev/null", ("/dev/null",)),
    ],
)
def test_the_users_known_hosts_files(line: str, expected: tuple[str, ...], place: Place) -> None:
    """Exactly the named ones besides ours; `none` is an empty list and never the end of checking."""
    place.config(f"{line}\nGlobalKnownHostsFile none\n")
    files = tuple(file.replace("~", str(place.home)) for file in expected)
    assert place.hop("gpu").known_hosts == (f"{place.home}/.dstack/known_hosts", *files)


def test_an_alias_stands_for_host_and_port(place: Place) -> None:
    """HostKeyAlias is looked up without a port, as OpenSSH does."""
    place.config("Host gpu\n  Port 2222\n  HostKeyAlias the-node\n")
    hop = place.hop("gpu")
    assert (hop.known_name, hop.known_port) == ("the-node", 22)


@pytest.mark.parametrize(
    ("line", "agent"),
    [
        ("", "/run/agent"),
        ("IdentityAgent none", None),
        ("IdentityAgent ~/agent.sock", "~/agent.sock"),
        ("IdentityAgent SSH_AUTH_SOCK", "/run/agent"),
        ("IdentityAgent $OTHER", "/run/other"),
    ],
)
def test_which_agent(line: str, agent: str | None, place: Place) -> None:
    """IdentityAgent in each of its forms, else SSH_AUTH_SOCK."""
    place.environment = {"SSH_AUTH_SOCK": "/run/agent", "OTHER": "/run/other"}
    place.config(f"{line}\n")
    assert place.hop("gpu").agent == (agent.replace("~", str(place.home)) if agent else None)


def test_a_chain_of_jumps_is_explicit(place: Place) -> None:
    """ProxyJump a,b: a's own jump before a, b as it stands, then the host; each hop with its own settings."""
    place.config(
        "Host gpu\n  ProxyJump a,eve@b:2022\nHost a\n  User ann\n  ProxyJump outer\nHost b\n  HostName b.lab\n"
        "  ProxyJump nowhere\nHost outer\n  Port 222\n"
    )
    hops = place.route("gpu").hops
    assert [(hop.label, hop.address, hop.port) for hop in hops] == [
        ("outer", "outer", 222),
        ("a", "a", 22),
        ("b", "b.lab", 2022),
        ("gpu", "gpu", 22),
    ]
    assert [hop.user for hop in hops][1:3] == ["ann", "eve"]


def test_jump_of_the_inventory(place: Place) -> None:
    """jump: names an entry with all its settings, goes before ProxyJump, and `none` is a direct connection."""
    place.config("Host *\n  ProxyJump elsewhere\n")
    place.add("gate", address="10.0.0.1", user="ann", port=2222, jump="none")
    place.add("gpu", address="10.0.0.2", jump="gate")
    place.add("near", jump="none")
    hops = place.route("gpu").hops
    assert [(hop.label, hop.address, hop.port) for hop in hops] == [("gate", "10.0.0.1", 2222), ("gpu", "10.0.0.2", 22)]
    assert hops[0].user == "ann"
    assert len(place.route("near").hops) == 1


def test_a_proxy_command_is_kept_for_the_first_hop(place: Place) -> None:
    """Of ProxyCommand and ProxyJump the first one found holds; tokens are put in."""
    place.config("Host gpu\n  ProxyCommand nc %h %p\n  ProxyJump late\nHost deep\n  ProxyJump gpu\n")
    assert [hop.proxy_command for hop in place.route("gpu").hops] == ["nc gpu 22"]
    assert [hop.proxy_command for hop in place.route("deep").hops] == ["nc gpu 22", None]


def test_jumps_in_a_circle_are_refused(place: Place) -> None:
    """The message has the whole circle."""
    place.add("a", jump="b")
    place.add("b", jump="c")
    place.add("c", jump="a")
    with pytest.raises(UsageError, match="in a circle: a -> b -> c -> a"):
        place.route("a")


@pytest.mark.parametrize("address", ["-oProxyCommand=x", "a;b", "$(id)", "`id`", "a b", "a\nb", "a'b", 'a"b', "a|b"])
def test_no_name_reaches_a_shell(address: str, place: Place) -> None:
    """An address or user from a file of somebody else's never becomes an option or a piece of ProxyCommand."""
    place.config("Host *\n  ProxyCommand nc %h %p\n")
    place.add("gpu", address=address)
    place.add("user", address="fine", user=address)
    place.add("jump", address="fine", jump=address)
    for name in ("gpu", "user", "jump"):
        with pytest.raises(UsageError):
            place.route(name)


@pytest.mark.parametrize(
    ("line", "note"),
    [
        ("StrictHostKeyChecking no", "StrictHostKeyChecking no"),
        ("StrictHostKeyChecking accept-new", "StrictHostKeyChecking accept-new"),
        ("StrictHostKeyChecking yes", ""),
        ("ControlMaster auto", "ControlMaster auto"),
        ("ControlMaster no", ""),
        ("KnownHostsCommand /bin/keys %H", "KnownHostsCommand"),
        ("RevokedHostKeys ~/revoked", "RevokedHostKeys"),
    ],
)
def test_what_is_not_followed_is_said(line: str, note: str, place: Place) -> None:
    """An option that dstack does not follow gives a note where it would change something, for the hosts it is for."""
    place.config(f"Host gpu\n  {line}\n")
    notes = place.route("gpu").notes
    assert len(notes) == bool(note)
    assert not note or (notes[0].startswith("gpu: ") and note in notes[0])
    assert place.route("other").notes == ()


def test_an_apostrophe_is_left_to_openssh(place: Place) -> None:
    """asyncssh's parser cannot read the file; `ssh -G` gives the same hop, with $HOME's files."""
    if shutil.which("ssh") is None:
        missing("openssh", "there is no ssh")
    text = (
        "Host gpu\n  HostName real\n  Port 2222\n  User ann\n  IdentityFile ~/.ssh/mine\n  IdentitiesOnly yes\n"
        "  UserKnownHostsFile none\n  ProxyJump gate\n  StrictHostKeyChecking no\n"
    )
    place.config(text)
    plain = place.route("gpu")
    place.config(text + "Host bob # bob's\n  Port 1\n")
    place.ssh = "ssh"
    asked = place.route("gpu")
    assert asked.hops == plain.hops
    assert len(asked.hops) == 2
    assert "StrictHostKeyChecking" in asked.notes[0]


def test_without_openssh_an_apostrophe_is_explained(place: Place) -> None:
    """File and line, and why nobody could be asked."""
    place.config("Host gpu\n  Port 22\nHost bob # bob's\n")
    with pytest.raises(ConfigError, match=r"\.ssh/config:3:1: .*no ssh is installed"):
        place.route("gpu")


CORPUS = [
    "Host gpu\n Port 2200\n User ann\n",
    "Port 2200\nHost gpu\n Port 1\n",
    "Host *\n User zoe\nHost gpu\n User ann\n",
    "Host g* !gpu\n Port 5\nHost gpu\n Port 6\n",
    "Host=gpu\n Port=7\n",
    'Host "gpu"\n User "ann"\n',
    "Host gpu\n HostName %h.example\n",
    "Host gpu\n HostName x\nMatch host x\n Port 8\n",
    "Match originalhost gpu\n Port 9\n",
    "Match all\n Port 10\n",
    "Match user ann\n Port 11\nHost gpu\n User ann\n",
    "Host gpu\n User ann\nMatch user ann\n Port 11\n",
    "Match exec true\n Port 12\n",
    "Match exec false\n Port 13\n",
    "Match !host gpu\n Port 14\n",
    "host GPU\n port 15\n",
    "# comment\n\n\tHost\tgpu\n\t\tPort\t16\n",
    "Host gpu,other\n Port 17\n",
    "Match final\n Port 18\n",
    "Host gpu\n ConnectTimeout 4\n IdentitiesOnly yes\n",
    "Host gpu\n IdentityFile ~/.ssh/a\n IdentityFile ~/.ssh/b\n",
    "Host gpu\n ProxyJump a,b@c:9\n",
    "Host gpu\n ProxyCommand nc %h %p\n",
    "Host gpu\n ProxyJump none\nHost *\n ProxyJump gate\n",
    "Host gpu\n HostKeyAlias node\n",
]


@pytest.mark.parametrize("text", CORPUS)
def test_the_resolution_agrees_with_openssh(text: str, place: Place) -> None:
    """For a corpus of configurations address, port, user, ways and keys are those that `ssh -G` prints."""
    if shutil.which("ssh") is None:
        missing("openssh", "there is no ssh")
    place.config(text)
    file = place.home / ".ssh" / "config"
    done = subprocess.run(["ssh", "-G", "-F", str(file), "gpu"], check=True, capture_output=True, text=True)
    said = [line.split(" ", 1) for line in done.stdout.splitlines() if " " in line]
    answers = dict(reversed(said))
    hop = place.hop("gpu")
    assert (hop.address, str(hop.port), hop.user) == (answers["hostname"], answers["port"], answers["user"])
    identities = [value.replace("~", str(place.home), 1) for name, value in said if name == "identityfile"]
    if hop.identities is not None:
        assert list(hop.identities) == identities
    assert hop.identities_only == (answers["identitiesonly"] == "yes")
    assert hop.known_name == answers.get("hostkeyalias", hop.address)
    jumps = answers.get("proxyjump", "none")
    expected = 1 if jumps == "none" else 2 + jumps.count(",")
    assert len(place.route("gpu").hops) == expected
