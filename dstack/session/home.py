"""The home of the user, closed to other accounts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dstack.errors import NotPrivateError
from dstack.private_folder import UntrustedError, secure

WAS_OPEN_TEXT = "%s was open to other accounts; it is closed now, and only yours"


def own_home(notify: Callable[[str], None]) -> Path:
    """The user's home, once `~/.dstack` is closed to other accounts; `notify` hears of each path found open.

    Every command gets the home here. Raises UntrustedError where another account owns, or may change, `~/.dstack` or
    something there that dstack executes or believes.
    """
    home = Path.home()
    closed: list[str] = []
    try:
        closed = secure(str(home / ".dstack"))
    except FileNotFoundError:
        # Before the first use there is nothing to close.
        pass
    except UntrustedError as error:
        closed = error.closed
        raise
    except OSError as error:
        raise NotPrivateError(f"{home / '.dstack'} cannot be used: {error.strerror}", hint="look at it") from None
    finally:
        for path in closed:
            notify(WAS_OPEN_TEXT % path)
    return home
