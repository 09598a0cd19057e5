"""Folders and files for this account alone, whatever the umask is, and the check that other accounts stay out.

One mechanism for both sides: a laptop has the mechanism for `~/.dstack`, a host for its `dir:`. The bootstrap is sent
with the text of this module inside, so the module must parse on Python 3.6 and imports only the standard library. The
umask of the process is never touched: threads share the umask, and files that users pull or commit follow the umask.
"""

import errno
import os
import pwd
import shlex
import shutil
import stat
from contextlib import contextmanager
from typing import Iterator, List, Optional

FOLDER_MODE = 0o700
FILE_MODE = 0o600
RIGHTS_OF_OTHERS = 0o077
"""Every right of group and others."""
WRITE_RIGHTS = 0o022
READ_RIGHTS = RIGHTS_OF_OTHERS & ~WRITE_RIGHTS
SEARCH_RIGHTS = 0o011
"""The rights on a parent of a shared folder: other accounts may pass the parent, not list or change the parent."""
OWN_FOLDERS = ("runner", "spool", "code", "store", "library", "coordinators", "snapshots", "libraries")
"""The folders that dstack makes right below its folder."""
OWN_FILES = (
    "config.yaml",
    "hosts.yaml",
    "known_hosts",
    "secrets.json",
    "secrets.lock",
    "workflows.yaml",
    "variables.yaml",
    "place",
)
"""The files right below its folder that dstack believes."""
OTHER_OWN_NAMES = ("bucket", "slots", "store.looked")
"""The other entries that dstack makes there; bundles on their way have names with a prefix."""
OWN_NAME = ".dstack"
MAKE_ATTEMPTS = 20


class UntrustedError(PermissionError):
    """A folder or file of dstack's belongs to another account, or may be changed by another account; `hint` says what
    to type.

    `closed` are the folders that were closed before the error.
    """

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(errno.EPERM, message)
        self.message = message
        self.hint = hint
        self.closed = []  # type: List[str]

    def __str__(self) -> str:
        return self.message


def secure(root: str) -> List[str]:
    """Close the folder of dstack's to other accounts, and everything right below that dstack executes or believes.

    Returns the paths that others could enter or read until now, the root first; none after the first call. A folder
    below that is shared on purpose (a bucket of a team) is left as found, and the way to the folder stays passable. A
    `root` with entries of other programs belongs to the user, and so may `code` in the root: no mode is changed there,
    and a folder that others may write to is refused. Raises UntrustedError for such a folder, for an entry of another
    account than this account and root, for a file that others may change, and for an entry that cannot be closed;
    FileNotFoundError for a missing folder.
    """
    fd = _open_folder(root)
    closed = []  # type: List[str]
    try:
        is_own = _is_own(root, fd)
        if _settle_root(root, fd, is_own):
            closed.append(root)
        for name in OWN_FOLDERS:
            path = os.path.join(root, name)
            if not _exists(name, fd):
                continue
            if not is_own:
                _judge_folder(path, name, fd, root)
            elif _settle(path, name, fd):
                closed.append(path)
        for name in OWN_FILES:
            if _exists(name, fd):
                _judge_file(os.stat(name, dir_fd=fd), os.path.join(root, name))
    except UntrustedError as error:
        error.closed = closed
        raise
    finally:
        os.close(fd)
    return closed


def make_folder(path: str) -> None:
    """Make a folder and the missing parents, each 0700.

    In an existing folder others may not write from then on. The read rights of others are left: `secure` takes the read
    rights in a folder of dstack's. Any number of processes may make the folder at once. Raises UntrustedError for a
    folder of another account, or OSError.
    """
    path = os.path.abspath(path)
    for left in reversed(range(MAKE_ATTEMPTS)):
        try:
            try:
                os.mkdir(path, FOLDER_MODE)
                _settle(path, path)
            except FileExistsError:
                _settle(path, path, keep=READ_RIGHTS)
            return
        except FileNotFoundError:
            if not left or os.path.islink(path):
                raise
            make_folder(os.path.dirname(path))
        except UntrustedError:
            raise
        except PermissionError:
            # Another process of this account has just made a parent, under a umask that takes its owner's rights.
            if not left:
                raise
            _give_rights_above(path)


def close_folder(path: str) -> None:
    """Close a folder of dstack's to other accounts. Raises UntrustedError for a folder of another account, or
    OSError."""
    _settle(path, path)


def open_folder(path: str) -> int:
    """A descriptor of a folder for this account alone, to open files by. Raises UntrustedError, OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        _judge_owner(found, path)
        _judge_writers(found, path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def open_file(path: str, flags: int) -> int:
    """A descriptor of a file with the given flags, made with mode 0600 where the file is missing, and closed to others.

    A symbolic link is not followed. Raises UntrustedError for a file of another account, or OSError.
    """
    # Never through a link: another account might have put one there in a folder that was open until now.
    wanted = flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = _open_made(path, wanted)
    try:
        found = os.fstat(fd)
        _judge_owner(found, path)
        if stat.S_ISREG(found.st_mode) and stat.S_IMODE(found.st_mode) != FILE_MODE and found.st_uid == os.getuid():
            os.fchmod(fd, FILE_MODE)
    except BaseException:
        os.close(fd)
        raise
    return fd


def open_trusted(path: str, folder: Optional[int] = None) -> int:
    """A descriptor for reading a file that only this account or root can have written.

    `folder` is the descriptor at the beginning of a relative path. The judged bytes are the bytes to read, also when
    another file takes the name meanwhile. Raises UntrustedError, or OSError.
    """
    # O_NONBLOCK, because the open of a pipe would wait for a writer.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    try:
        _judge_file(os.fstat(fd), path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def write_file(path: str, body: bytes) -> None:
    """Replace a file whole, with mode 0600; on disk when this returns. Raises OSError, and then nothing is changed."""
    temporary = "%s.%d.%s.tmp" % (path, os.getpid(), os.urandom(6).hex())
    try:
        with os.fdopen(open_file(temporary, os.O_WRONLY | os.O_EXCL), "wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        try:
            os.unlink(temporary)
        except OSError:
            pass
        raise


def write_scratch(path: str, body: bytes) -> None:
    """Write a file of a temporary folder, with mode 0600: neither whole nor on disk until this returns."""
    with os.fdopen(open_file(path, os.O_WRONLY | os.O_TRUNC), "wb") as file:
        file.write(body)


@contextmanager
def temporary_folder(parent: str, prefix: str = "tmp-") -> Iterator[str]:
    """A new folder below `parent`, 0700; the end of the block removes the folder with all content."""
    path = os.path.join(parent, prefix + os.urandom(8).hex())
    make_folder(path)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _open_made(path: str, flags: int) -> int:
    for left in reversed(range(MAKE_ATTEMPTS)):
        try:
            return os.open(path, flags, FILE_MODE)
        except PermissionError:
            # Another process of this account has just made it, under a umask that takes its owner's rights.
            if not left:
                raise
            _give_rights_above(path)
            _give_rights(path, FILE_MODE)
    raise AssertionError("the last try returns or raises")


def _open_folder(path: str) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        return os.open(path, flags)
    except PermissionError:
        found = os.stat(path)
        if found.st_uid != os.getuid():
            hint = "sudo chown -R %d %s" % (os.getuid(), shlex.quote(path))
            raise UntrustedError("%s cannot be entered by this account" % path, hint) from None
        os.chmod(path, stat.S_IMODE(found.st_mode) | FOLDER_MODE)
        return os.open(path, flags)


def _exists(name: str, folder: int) -> bool:
    try:
        os.stat(name, dir_fd=folder)
    except FileNotFoundError:
        return False
    return True


def _is_own(root: str, fd: int) -> bool:
    """Whether the folder holds only entries of dstack's, or has dstack's name; else the folder is the user's."""
    # A home folder as `dir:` holds the user's own files, and no mode of those may change.
    known = {*OWN_FOLDERS, *OWN_FILES, *OTHER_OWN_NAMES}
    names = os.listdir(fd)
    return os.path.basename(root) == OWN_NAME or all(name in known or name.startswith("bundle-") for name in names)


def _settle_root(root: str, fd: int, is_own: bool) -> bool:
    """Close the folder of dstack's -> whether the folder was open. A folder of the user's with other entries is only
    judged."""
    found = os.fstat(fd)
    # The sticky bit marks a folder for everybody, such as /tmp: never one to close.
    if not is_own or found.st_mode & stat.S_ISVTX:
        _judge_owner(found, root)
        _judge_writers(found, root)
        return False
    return _settle(root, ".", fd, SEARCH_RIGHTS if _holds_shared(fd) else 0)


def _holds_shared(folder: int) -> bool:
    """Whether this account has a folder below where others may write on purpose, such as a bucket of a team."""
    for name in os.listdir(folder):
        found = os.lstat(name, dir_fd=folder)
        is_own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
        if is_own and found.st_mode & WRITE_RIGHTS and name not in OWN_FOLDERS:
            return True
    return False


def _settle(path: str, name: str, folder: Optional[int] = None, keep: int = 0) -> bool:
    """Close a folder but for the rights `keep` -> whether the folder was open. `path` stands for `name` in messages."""
    found = _owned_folder(path, name, folder)
    if found.st_uid != os.getuid():
        _judge_writers(found, path)
        return False
    was_open = bool(found.st_mode & RIGHTS_OF_OTHERS & ~keep)
    wanted = (stat.S_IMODE(found.st_mode) | FOLDER_MODE) & ~(RIGHTS_OF_OTHERS & ~keep)
    if wanted != stat.S_IMODE(found.st_mode):
        os.chmod(name, wanted, dir_fd=folder)
    if was_open and os.stat(name, dir_fd=folder).st_mode & RIGHTS_OF_OTHERS & ~keep:
        hint = "choose a folder on another file system: this one keeps no modes"
        raise UntrustedError("%s stays open to other accounts" % path, hint)
    return was_open


def _owned_folder(path: str, name: str, folder: Optional[int]) -> os.stat_result:
    # The link too, not the target alone: the owner of a link can turn the link elsewhere.
    _judge_owner(os.lstat(name, dir_fd=folder), path)
    found = os.stat(name, dir_fd=folder)
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
    _judge_owner(found, path)
    return found


def _judge_folder(path: str, name: str, folder: int, root: str) -> None:
    """Refuse a folder where others may write, in a `root` of the user's. The folder may be the user's too: the mode
    stays."""
    if _owned_folder(path, name, folder).st_mode & WRITE_RIGHTS:
        own = shlex.quote(os.path.join(root, "dstack"))
        hint = "give dstack a folder of its own, such as %s, or: chmod go-w %s" % (own, shlex.quote(path))
        raise UntrustedError("%s can be changed by other accounts, so it is not trusted" % path, hint)


def _judge_file(found: os.stat_result, path: str) -> None:
    _judge_owner(found, path)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", path)
    if found.st_mode & WRITE_RIGHTS:
        hint = "look at what it says, then: chmod go-w %s" % shlex.quote(path)
        raise UntrustedError("%s can be changed by other accounts, so it is not trusted" % path, hint)


def _judge_writers(found: os.stat_result, path: str) -> None:
    if found.st_mode & WRITE_RIGHTS:
        hint = "give dstack a folder of its own, such as %s" % shlex.quote(os.path.join(path, "dstack"))
        raise UntrustedError("%s can be changed by other accounts, so it is not trusted" % path, hint)


def _judge_owner(found: os.stat_result, path: str) -> None:
    # Against root nothing helps anyway.
    if found.st_uid in (os.getuid(), 0):
        return
    quoted = shlex.quote(path)
    raise UntrustedError(
        "%s belongs to %s, so it is not trusted: whoever owns it could run code as %s"
        % (path, _account(found.st_uid), _account(os.getuid())),
        "if it is none of yours: mv %s %s.untrusted; if it is: sudo chown -R %d %s"
        % (quoted, quoted, os.getuid(), quoted),
    )


def _account(uid: int) -> str:
    try:
        return "%s (uid %d)" % (pwd.getpwuid(uid).pw_name, uid)
    except KeyError:
        return "uid %d" % uid


def _give_rights_above(path: str) -> None:
    """Give back the owner's rights to the folders above that a umask has left without any, the highest first."""
    above = os.path.dirname(path)
    if above != path:
        _give_rights_above(above)
        _give_rights(above, FOLDER_MODE)


def _give_rights(path: str, mode: int) -> None:
    try:
        found = os.lstat(path)
        if found.st_uid == os.getuid() and not stat.S_ISLNK(found.st_mode) and not found.st_mode & FOLDER_MODE:
            os.chmod(path, stat.S_IMODE(found.st_mode) | mode)
    except OSError:
        pass  # it is another account's, or just went
