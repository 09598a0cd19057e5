"""Temporary shortages of a process or host, told apart from every other refusal of an operating system.

A file that a shortage keeps from being opened, read or locked is there all the same: to leave the file out would be a
lie.
"""

from __future__ import annotations

import errno

from dstack.wire import Refusal

TRY_LATER_HINT = "try again later"
_LACKS = {
    errno.EMFILE: "too many open files in a process of this account; close some, or raise its limit (`ulimit -n`)",
    errno.ENFILE: "too many open files on this host; close some there, or have root raise its limit (`fs.file-max`)",
    errno.ENOMEM: "too little memory on this host; end there what takes it, or raise the limits of this account",
    errno.ENOLCK: "no file lock is left on this host; end there what takes them",
}


def is_shortage(error: OSError) -> bool:
    """Whether the operating system refused for want of open files, memory or file locks."""
    return error.errno in _LACKS


def cause(error: OSError) -> str:
    """The error for people: a shortage with the way out, any other error in its own words."""
    return _LACKS.get(error.errno or 0, str(error))


def refusal(error: OSError, kind: str, message: str, hint: str) -> Refusal:
    """The refusal for `error`; `hint` is for an error that is no shortage."""
    return Refusal(kind, "%s: %s" % (message, cause(error)), TRY_LATER_HINT if is_shortage(error) else hint)
