"""Private folders and files under any umask, made by many at once; and no other way of making them in the source."""

from __future__ import annotations

import ast
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dstack
from dstack import private_folder
from dstack.private_folder import UntrustedError, make_folder, open_file, open_folder, open_trusted, secure, write_file

SOURCE = Path(dstack.__file__).parent
ELSEWHERE = {
    "adapters/bucket/folder_writer.py": "a bucket has the rights of its root",
    "adapters/artifact_folder.py": "what is pulled lies where the user wants it, as the umask says",
    "cli/artifacts/pull.py": "the same",
    "project/starter_files.py": "a project's own files are as the umask says",
    "private_folder.py": "the one place",
    "runner/bootstrap.py": "begins with a umask of 077 of its own process, in a folder that was checked",
    "runner/queue/slots.py": "tickets are for every account to read",
    "runner/queue/folders.py": "its folders may be another account's by then: it looks at them after it made them",
    "runner/base/safe_paths.py": "work trees",
}
"""Where folders or files are made by other means, and why that is right. Paths below `dstack/`."""
ON_HOSTS = {"tempfile.mkdtemp", "tempfile.mkstemp", "tempfile.NamedTemporaryFile"}
"""0700 and 0600 by themselves under the bootstrap's umask."""
MAKING = {
    "makedirs",
    "mkdir",
    "mkdtemp",
    "mkstemp",
    "NamedTemporaryFile",
    "TemporaryDirectory",
    "write_text",
    "write_bytes",
}
WORK_TREE = "os.makedirs(project, exist_ok=True)"
RACE = """
import os, sys
os.umask(0o777)
from dstack.private_folder import make_folder, open_file
for number in range(30):
    folder = os.path.join(sys.argv[1], str(number), "a", "b")
    make_folder(folder)
    fd = open_file(os.path.join(folder, "file"), os.O_RDWR | os.O_APPEND)
    os.write(fd, b"x")
"""


@pytest.fixture(params=[0, 0o002, 0o022, 0o077, 0o777], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_a_folder_and_its_missing_parents_are_private(tmp_path: Path, umask: int) -> None:
    make_folder(str(tmp_path / "a/b/c"))
    make_folder(str(tmp_path / "a/b/c"))
    assert [mode(tmp_path / name) for name in ("a", "a/b", "a/b/c")] == [0o700] * 3


def test_a_file_is_private_and_written_whole(tmp_path: Path, umask: int) -> None:
    os.close(open_file(str(tmp_path / "file"), os.O_WRONLY))
    for body in (b"first", b"second"):
        write_file(str(tmp_path / "whole"), body)
        assert (tmp_path / "whole").read_bytes() == body
    assert {path.name: mode(path) for path in tmp_path.iterdir()} == {"file": 0o600, "whole": 0o600}


def test_a_file_that_was_open_is_closed_and_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "file").chmod(0o666)
    os.close(open_file(str(tmp_path / "file"), os.O_WRONLY))
    assert mode(tmp_path / "file") == 0o600
    (tmp_path / "link").symlink_to("file")
    with pytest.raises(OSError, match="symbolic"):
        open_file(str(tmp_path / "link"), os.O_WRONLY)


def test_many_processes_make_the_same_under_the_worst_umask(tmp_path: Path) -> None:
    """Whoever comes between a folder's making and its mode gives it its rights: nobody fails."""
    drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--"] if os.geteuid() == 0 else []
    command = [*drop, sys.executable, "-c", RACE, str(tmp_path / "top")]
    racers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(6)]
    for racer in racers:
        assert racer.communicate(timeout=240)[1] == ""
        assert racer.returncode == 0
    for number in range(30):
        assert (tmp_path / "top" / str(number) / "a/b/file").read_bytes() == b"x" * 6
    assert {mode(path) for path in tmp_path.rglob("*") if path.is_dir()} == {0o700}


@pytest.mark.parametrize(("bits", "is_taken"), [(0o755, True), (0o775, False), (0o1777, False)], ids=oct)
def test_a_folder_of_the_users_for_other_things_too_is_never_closed(tmp_path: Path, bits: int, is_taken: bool) -> None:
    root = tmp_path / "scratch"
    (root / "data").mkdir(parents=True, mode=0o755)
    (root / "spool").mkdir(mode=0o755)
    root.chmod(bits)
    if is_taken:
        assert secure(str(root)) == []
    else:
        with pytest.raises(UntrustedError) as error:
            secure(str(root))
        assert str(root / "dstack") in error.value.hint
    assert (mode(root), mode(root / "data"), mode(root / "spool")) == (bits, 0o755, 0o755)


@settings(deadline=None, max_examples=60)
@given(
    modes=st.dictionaries(
        st.sampled_from(private_folder.OWN_FOLDERS), st.integers(0, 0o77).map(lambda bits: bits | 0o700)
    )
)
def test_folders_of_the_users_that_have_a_name_of_dstacks_are_judged_and_left(
    tmp_path_factory: pytest.TempPathFactory, modes: dict[str, int]
) -> None:
    """As `~/code` is where a host says `dir: ~`; also where dstack makes its own below."""
    root = tmp_path_factory.mktemp("home")
    (root / "Documents").mkdir()
    root.chmod(0o755)
    for name, bits in modes.items():
        (root / name).mkdir()
        (root / name).chmod(bits)
    writable = [str(root / name) for name, bits in modes.items() if bits & 0o022]
    if writable:
        with pytest.raises(UntrustedError) as error:
            secure(str(root))
        assert any(f"chmod go-w {path}" in error.value.hint for path in writable)
        assert str(root / "dstack") in error.value.hint
    else:
        assert secure(str(root)) == []
        for name in modes:
            make_folder(str(root / name))
            make_folder(str(root / name / "new"))
            assert mode(root / name / "new") == 0o700
    assert {name: mode(root / name) for name in modes} == modes
    assert mode(root) == 0o755
    shutil.rmtree(root)


def test_a_folder_with_everything_that_dstack_makes_is_dstacks_own(tmp_path: Path) -> None:
    for name in (*private_folder.OWN_FOLDERS, "slots", "bundle-1"):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(0o755)
    tmp_path.chmod(0o755)
    assert set(secure(str(tmp_path))) == {str(tmp_path), *(str(tmp_path / name) for name in private_folder.OWN_FOLDERS)}


def test_an_empty_folder_for_everybody_is_not_taken_for_dstacks(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    with pytest.raises(UntrustedError):
        secure(str(tmp_path))
    assert mode(tmp_path) == 0o1777


def test_what_its_owner_closed_to_himself_stays_so(tmp_path: Path) -> None:
    """Only what has no right at all, as a umask leaves it, gets rights back: a read-only folder is somebody's wish."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept").chmod(0o500)
    drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--"] if os.geteuid() == 0 else []
    code = f"from dstack.private_folder import make_folder; make_folder({str(tmp_path / 'kept/new')!r})"
    done = subprocess.run([*drop, sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "PermissionError" in done.stderr
    assert mode(tmp_path / "kept") == 0o500


def test_nothing_is_made_by_looking(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        secure(str(tmp_path / "none"))
    assert not list(tmp_path.iterdir())


def test_a_link_to_a_folder_elsewhere_is_followed_and_closed(tmp_path: Path) -> None:
    (tmp_path / "big").mkdir(mode=0o755)
    (tmp_path / "link").symlink_to("big")
    assert secure(str(tmp_path / "link")) == [str(tmp_path / "link")]
    assert mode(tmp_path / "big") == 0o700


@settings(deadline=None, max_examples=60)
@given(
    top=st.integers(0, 0o777), modes=st.dictionaries(st.sampled_from(private_folder.OWN_FOLDERS), st.integers(0, 0o777))
)
def test_every_mode_of_every_folder_becomes_private_once(
    tmp_path_factory: pytest.TempPathFactory, top: int, modes: dict[str, int]
) -> None:
    root = tmp_path_factory.mktemp("root")
    for name, bits in modes.items():
        (root / name).mkdir()
        (root / name).chmod(bits)
    root.chmod(top)
    was_open = {str(root / name) for name, bits in {".": top, **modes}.items() if bits & 0o077}
    assert set(secure(str(root))) == was_open
    assert secure(str(root)) == []
    assert {mode(path) for path in (root, *root.iterdir())} == {0o700}
    shutil.rmtree(root)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.sampled_from([*private_folder.OWN_FOLDERS, *private_folder.OWN_FILES]), min_size=1, unique=True),
    st.data(),
)
def test_one_foreign_or_writable_part_is_enough(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("root")
    for name in names:
        make_folder(str(root / name)) if name in private_folder.OWN_FOLDERS else write_file(str(root / name), b"")
    secure(str(root))
    bad = data.draw(st.sampled_from(names))
    if bad in private_folder.OWN_FILES and data.draw(st.booleans()):
        (root / bad).chmod(data.draw(st.sampled_from([0o620, 0o602, 0o666])))
    else:
        os.chown(root / bad, 20002, 20002)
    with pytest.raises(UntrustedError) as error:
        secure(str(root))
    assert str(root / bad) in str(error.value)
    assert str(root / bad) in error.value.hint
    shutil.rmtree(root)


def test_what_others_may_change_is_opened_neither_as_folder_nor_as_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for bits in (0o720, 0o702):
        (tmp_path / "folder").chmod(bits)
        (tmp_path / "file").chmod(bits)
        with pytest.raises(UntrustedError, match="can be changed by other accounts"):
            open_folder(str(tmp_path / "folder"))
        with pytest.raises(UntrustedError, match="can be changed by other accounts"):
            open_trusted(str(tmp_path / "file"))


def test_a_pipe_is_neither_waited_for_nor_believed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(OSError, match="not a regular file"):
        open_trusted(str(tmp_path / "pipe"))


def makers(path: Path) -> Iterator[tuple[str, str]]:
    """Calls that make folders or files: by whole name, and as they stand in the source."""
    text = path.read_text()
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        writes = name == "open" or name.endswith(".open")
        is_made = name.rpartition(".")[2] in MAKING
        flags = " ".join(ast.unparse(argument) for argument in node.args)
        if is_made or (name == "os.open" and "O_CREAT" in flags) or (writes and any(f"'{m}" in flags for m in "wax")):
            yield name, ast.unparse(node)


def test_private_folders_and_files_are_made_in_one_place() -> None:
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        place = path.relative_to(SOURCE).as_posix()
        if place in ELSEWHERE:
            continue
        on_hosts = place.startswith(("runner/", "coordinator/"))
        for name, call in makers(path):
            plain_file = name == "open" or name == "os.open"
            if on_hosts and (plain_file or name in ON_HOSTS or call == WORK_TREE):
                continue  # the bootstrap's umask is 077, and nothing there changes it
            found.append(f"{place}: {call}")
    assert found == []


def test_only_the_bootstrap_changes_a_umask() -> None:
    changing = [path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py") if "os.umask(" in path.read_text()]
    assert changing == ["runner/bootstrap.py"]


def test_every_command_gets_the_home_from_the_one_function_that_checks_it() -> None:
    faces = [path for folder in ("cli", "session", "ui", "project") for path in (SOURCE / folder).rglob("*.py")]
    asking = {path.name: path.read_text().count("Path.home()") for path in faces}
    assert {name: count for name, count in asking.items() if count} == {"home.py": 1}
