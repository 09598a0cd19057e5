"""Another account of the same machine, of the same group, tries to have its own code run as somebody else.

The victim is the account of these tests; the attacker is a real second uid, whose steps are seen to fail. The judge
is a mark: a file that only the attacker's code makes.
"""

from __future__ import annotations

import hashlib
import marshal
import os
import random
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dstack.adapters.runner.zipapp import runner_zipapp
from dstack.coordinator import library_wheels
from dstack.private_folder import UntrustedError
from dstack.project.starter_files import write_bucket
from tests.support.people.laptop import Laptop
from tests.support.runners.client import Client, Refused

ROUNDS = int(os.environ.get("DSTACK_ROUNDS", "1"))
MALLORY, GROUP = 20002, 20100
WORKFLOWS = "workflows:\n  - name: hello\n    commands: [echo hello]\n"
pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as a second account"),
]


class Place:
    """A folder that both accounts may enter, with the victim's laptop in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mark = folder / "marks" / "mark"
        self.mark.parent.mkdir()
        self.mark.parent.chmod(0o777)
        self.laptop = Laptop(folder)
        self.laptop.write({".dstack/workflows.yaml": WORKFLOWS})
        self.laptop.commit()
        self.own = self.laptop.home / ".dstack"

    def dstack(self, *arguments: str, umask: int = 0o022, code: int = 0) -> str:
        """A command of the victim's, whose primary group the attacker is in -> all that it printed."""
        process = self.laptop.start(*arguments, umask=umask, group=GROUP)
        out, err = process.communicate(timeout=60)
        assert process.returncode == code, out + err
        assert "Traceback" not in err
        return out + err

    def mallory(self, script: str, *, may: bool) -> str:
        """Shell commands of the attacker's; `may` is whether they succeed."""
        done = subprocess.run(
            ["sh", "-ec", script],
            cwd="/",
            user=MALLORY,
            group=GROUP,
            extra_groups=[],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode == 0) is may, done.stdout + done.stderr
        return done.stderr

    def doctored(self) -> Path:
        """A folder of the attacker's: the genuine zipapp, and compiled code beside it that makes the mark."""
        body, sha256 = runner_zipapp()
        folder = self.folder / "doctored"
        folder.mkdir()
        (folder / f"{sha256}.pyz").write_bytes(body)
        (folder / cache_name()).write_bytes(evil_cache(self.mark))
        for path in (folder, *folder.iterdir()):
            os.chown(path, MALLORY, GROUP)
        return folder


@pytest.fixture
def place() -> Iterator[Place]:
    folder = Path(subprocess.check_output(["mktemp", "-d", "-p", "/tmp", "dstack-accounts-XXXXXX"], text=True).strip())
    folder.chmod(0o755)
    yield Place(folder)
    shutil.rmtree(folder, ignore_errors=True)


def cache_name() -> str:
    return f"{runner_zipapp()[1]}.pyz.{sys.hexversion:x}"


def evil_cache(mark: Path, *, sealed: bool = True) -> bytes:
    """What a runner of this Python would believe if it came from its own account, or from an earlier version's."""
    text = f"import os\nos.close(os.open({str(mark)!r}, os.O_CREAT, 0o600))\ndef main(*_): raise SystemExit(0)\n"
    codes = {
        "dstack/__init__.py": compile("", "e", "exec"),
        "dstack/runner/__init__.py": compile("", "e", "exec"),
        "dstack/runner/__main__.py": compile(text, "e", "exec"),
    }
    body = marshal.dumps(codes)
    name = f"{runner_zipapp()[1]}.pyz".encode()
    return hashlib.sha256((name if sealed else b"") + body).digest() + body


@pytest.mark.parametrize("umask", [0, 0o002], ids=oct)
def test_nobody_of_the_group_can_put_a_runner_in_place(place: Place, umask: int) -> None:
    """The attack of the lab, word for word: it ends at its first step."""
    place.dstack("run", "hello", umask=umask)
    doctored = place.doctored()
    for step in (f"mv {place.own}/runner {place.own}/away", f"ls {place.own}", f"mv {doctored} {place.own}/runner"):
        assert "Permission denied" in place.mallory(step, may=False)
    assert "hello" in place.dstack("run", "hello", "--rerun", umask=umask)
    assert not place.mark.exists()


def test_a_runner_that_was_put_in_place_before_is_not_run(place: Place) -> None:
    """The folder is one of an earlier version's, open to the group, and the attack had its way."""
    place.dstack("run", "hello")
    place.own.chmod(0o775)
    place.mallory(f"mv {place.own}/runner {place.own}/away && cp -r {place.doctored()} {place.own}/runner", may=True)
    said = place.dstack("run", "hello", "--rerun", code=2)
    assert f"{place.own} was open to other accounts; it is closed now" in said
    assert f"{place.own}/runner belongs to uid {MALLORY}, so it is not trusted" in said
    assert f"mv {place.own}/runner {place.own}/runner.untrusted" in said
    assert stat.S_IMODE(place.own.stat().st_mode) == 0o700
    assert not place.mark.exists()
    subprocess.run(["mv", f"{place.own}/runner", f"{place.own}/runner.untrusted"], check=True)
    assert "hello" in place.dstack("run", "hello", "--rerun")
    assert not place.mark.exists()


def test_a_folder_that_was_open_is_closed_and_that_is_said_once(place: Place) -> None:
    place.dstack("run", "hello")
    (place.own / "runner").chmod(0o755)
    place.own.chmod(0o775)
    first, second = place.dstack("ps"), place.dstack("ps")
    for path in (place.own, place.own / "runner"):
        assert first.count(f"{path} was open to other accounts; it is closed now, and only yours") == 1
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert "was open" not in second


def test_a_hosts_folder_that_was_open_is_closed_and_that_is_said_once(place: Place) -> None:
    folder = place.folder / "host"
    (folder / "runner").mkdir(parents=True, mode=0o755)
    place.laptop.write({".dstack/hosts.yaml": f"hosts: {{here: {{local: true, dir: {folder}}}}}"})
    first, second = (place.dstack("run", "hello", "--rerun") for _ in range(2))
    for path in (folder, folder / "runner"):
        assert first.count(f"here: {path} was open to other accounts; it is closed now, and only yours") == 1
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert "was open" not in second


@pytest.mark.parametrize("name", ["config.yaml", "hosts.yaml", "known_hosts", "secrets.json"])
@pytest.mark.parametrize("whose", ["another's", "open"])
def test_what_another_account_may_have_written_is_not_believed(place: Place, name: str, whose: str) -> None:
    place.own.mkdir(mode=0o700)
    path = place.own / name
    path.write_text(f"bucket: {place.folder}/planted" if name == "config.yaml" else "hosts: {planted: {}}")
    if whose == "open":
        path.chmod(0o664)
    else:
        os.chown(path, MALLORY, GROUP)
    every = (("run", "hello"), ("ps",), ("hosts", "ls"), ("secrets", "ls"))
    for command in every if ROUNDS > 1 or name == "hosts.yaml" else every[:1]:
        said = place.dstack(*command, code=2)
        assert f"{path} {'can be changed by other accounts' if whose == 'open' else 'belongs to'}" in said
        assert f"chmod go-w {path}" in said if whose == "open" else f"mv {path}" in said
        assert "planted" not in said
    assert not (place.folder / "planted").exists()


def test_a_file_in_the_place_of_the_folder_is_named(place: Place) -> None:
    place.own.write_text("x")
    assert f"{place.own} cannot be used: Not a directory" in place.dstack("ps", code=2)


def test_what_root_wrote_and_what_others_only_read_is_believed(place: Place) -> None:
    place.own.mkdir(mode=0o700)
    (place.own / "hosts.yaml").write_text("hosts: {mine: {}}")
    (place.own / "hosts.yaml").chmod(0o644)
    assert "mine" in place.dstack("hosts", "ls")


def test_the_way_to_a_bucket_that_is_shared_on_purpose_stays_open(place: Place) -> None:
    place.dstack("run", "hello")
    bucket = place.own / "bucket"
    subprocess.run(["chmod", "-R", "g+rwXs", str(bucket)], check=True)
    place.own.chmod(0o755)
    place.dstack("ps")
    assert stat.S_IMODE(place.own.stat().st_mode) == 0o711
    place.mallory(f"cat {bucket}/dstack.json", may=True)
    place.mallory(f"ls {place.own}", may=False)
    place.mallory(f"touch {place.own}/x", may=False)
    assert "was open" not in place.dstack("ps")


class Target:
    """The folder of dstack on a host, with a cache that makes the mark in the place of the genuine one."""

    NAMES = ("", "runner", "runner/zipapp", "runner/cache", "spool", "code", "store", "library", "coordinators")

    def __init__(self, place: Place) -> None:
        self.root = place.folder / "host"
        self._place = place
        self._zipapp = self.root / "runner" / f"{runner_zipapp()[1]}.pyz"
        self.cache = self.root / "runner" / cache_name()
        for name in ("spool", "code", "store", "library", "coordinators", "runner"):
            (self.root / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        self.root.chmod(0o700)
        self._zipapp.write_bytes(runner_zipapp()[0])
        self._zipapp.chmod(0o600)
        self.cache.write_bytes(evil_cache(place.mark))
        self.cache.chmod(0o600)

    def path(self, name: str) -> Path:
        return {"runner/zipapp": self._zipapp, "runner/cache": self.cache}.get(name, self.root / name)

    def start(self) -> dict[str, object]:
        """Start a runner -> its answer to `spool`; raises Refused."""
        client = Client(self.root, self._place.folder / "slots", python=sys.executable)
        try:
            return dict(client.start().call("spool"))
        finally:
            client.kill()
            client.discard()


def test_the_judge_sees_code_that_is_run(place: Place) -> None:
    """The doctored cache does run where it is the victim's own: the tests below would see it."""
    target = Target(place)
    with pytest.raises(Refused, match="lost"):
        target.start()
    assert place.mark.exists()


@pytest.mark.parametrize("seed", range(16 * ROUNDS))
def test_whatever_another_account_owns_or_may_write_is_not_run(place: Place, seed: int) -> None:
    """Made input: some parts of a host's folder are another's or open to others; always the cache, or all above it."""
    dice = random.Random(seed)
    target = Target(place)
    chosen = {dice.choice(("runner/cache", "runner")), *dice.sample(Target.NAMES, dice.randint(0, 2))}
    owned = {name for name in chosen if dice.random() < 0.6 or name == "runner"}
    for name in chosen:
        path = target.path(name)
        if name in owned:
            os.chown(path, MALLORY, GROUP)
        else:
            path.chmod(path.stat().st_mode | dice.choice((0o020, 0o002, 0o022)))
    may_not_start = {name for name in owned if not name.startswith("runner/")}
    if may_not_start:
        with pytest.raises(Refused, match=f"belongs to uid {MALLORY}") as refused:
            target.start()
        assert "mv " in refused.value.hint
    else:
        assert target.start() == {"attempts": []}
        for path in (target.root, *(one for one in target.root.rglob("*") if one != target.root)):
            assert path.stat().st_mode & 0o077 == 0, path
            assert path.stat().st_uid == os.geteuid(), path
    assert not place.mark.exists()


def test_a_cache_of_an_earlier_version_and_of_another_zipapp_is_not_run(place: Place) -> None:
    target = Target(place)
    target.cache.write_bytes(evil_cache(place.mark, sealed=False))
    assert target.start() == {"attempts": []}
    assert not place.mark.exists()


def test_a_library_of_another_account_is_not_imported(place: Place) -> None:
    path = place.folder / "host/library" / ("a" * 64)
    path.mkdir(parents=True, mode=0o700)
    assert library_wheels.trusted_library_folder(str(place.folder / "host"), "a" * 64) == str(path)
    os.chown(path, MALLORY, GROUP)
    with pytest.raises(UntrustedError, match=f"belongs to uid {MALLORY}"):
        library_wheels.trusted_library_folder(str(place.folder / "host"), "a" * 64)


def test_a_bucket_is_not_named_in_a_home_of_another_account_and_the_hint_says_what_to_type(tmp_path: Path) -> None:
    (tmp_path / ".dstack").mkdir(mode=0o700)
    os.chown(tmp_path / ".dstack", MALLORY, GROUP)
    with pytest.raises(UntrustedError, match=f"belongs to uid {MALLORY}") as refused:
        write_bucket(tmp_path, "folder", home=tmp_path)
    assert "mv " in refused.value.hint
    assert list((tmp_path / ".dstack").iterdir()) == []
