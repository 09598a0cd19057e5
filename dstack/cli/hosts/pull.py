"""`dstack hosts pull`: take the shared inventory from the bucket."""

from __future__ import annotations

import difflib
import sys
import time
from typing import Annotated

from dstack.app.maintenance.shared_inventory import latest_inventory
from dstack.app.queries.run_views import time_of_day
from dstack.cli.arguments import UNASKED_OPTION
from dstack.cli.command_session import open_session
from dstack.cli.hosts.hosts_session import PROJECT_HOSTS_FILE
from dstack.cli.questions import ask
from dstack.core.format.records import at_machine
from dstack.errors import NotFoundError
from dstack.project.hosts.shared_hosts import check_inventory, merge_inventory
from dstack.session import hosts_file
from dstack.ui.terminal import clean
from dstack.ui.times import ago_text


def pull(yes: Annotated[bool, UNASKED_OPTION] = False) -> None:
    """Bring the project's .dstack/hosts.yaml to what was pushed last: show what changes, ask, write.

    Your own entries (see `dstack hosts push`) stay as they are. A pulled host is not trusted yet: the first contact
    asks about its key. Look at each address: it is where your code and the values of your environment will go.
    """
    session = open_session()
    latest = latest_inventory(session.bucket, session.keys)
    if latest.inventory is None:
        raise NotFoundError("nobody has pushed hosts to this bucket yet", hint="dstack hosts push")
    wanted = check_inventory(latest.inventory)
    place = hosts_file.HostsFile(path=session.root / PROJECT_HOSTS_FILE, shown=PROJECT_HOSTS_FILE, private=False)
    change = hosts_file.prepare(place, lambda before: merge_inventory(before, wanted, PROJECT_HOSTS_FILE))
    if change.before == change.after:
        print(f"{PROJECT_HOSTS_FILE} has them already")
        return
    who = at_machine(latest.inventory.user, latest.inventory.machine)
    print(clean(f"pushed by {who}, {ago_text(time_of_day(latest.inventory.pushed), time.time())}"), file=sys.stderr)
    _show(change)
    if not yes:
        ask(f"Change {PROJECT_HOSTS_FILE} so?", "look at the lines above")
    hosts_file.replace(change)
    print(f"wrote {PROJECT_HOSTS_FILE}; `dstack hosts add NAME` confirms the key of a host")


def _show(change: hosts_file.HostsFileChange) -> None:
    before, after = (text.decode("utf-8", "replace").splitlines() for text in (change.before, change.after))
    for line in difflib.unified_diff(before, after, PROJECT_HOSTS_FILE, f"{PROJECT_HOSTS_FILE} (pulled)", lineterm=""):
        print(clean(line), file=sys.stderr)
