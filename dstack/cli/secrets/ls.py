"""`dstack secrets ls`: list the secrets for runs here, without values."""

from __future__ import annotations

import sys

from dstack.adapters.secrets.dotenv_file import DOTENV_FILE, read_dotenv
from dstack.adapters.secrets.secrets_file import SECRETS_FILE, SecretScope, StoredSecret
from dstack.adapters.secrets.store import SecretStore
from dstack.cli.command_session import open_session, own_home
from dstack.cli.secrets.scopes import project_folder
from dstack.session.secret_values import ALL_PROJECTS
from dstack.ui.tables import Column, table

_LISTED = (Column(title="SECRET", floor=12), Column(title="FOR", floor=12), Column(title="KEPT IN", floor=12))


def ls() -> None:
    """List the secrets that runs here find, without their values. Of one name the first line counts."""
    home, root = own_home(), project_folder()
    store = SecretStore(home)
    rows: list[tuple[str, str, str]] = []
    if root is not None:
        own = SecretScope(project=open_session().name)
        rows += [_row(one) for one in store.list_secrets(own)]
        rows += [(name, "this project", DOTENV_FILE) for name in read_dotenv(root).values]
    rows += [_row(one) for one in store.list_secrets(ALL_PROJECTS)]
    # The sort is stable: lines of one name stay in the order in which sources are searched.
    rows.sort(key=lambda row: row[0])
    if rows:
        sys.stdout.write(table(_LISTED, rows, sys.stdout))
    else:
        print("no secret is set; `dstack secrets set NAME` sets one", file=sys.stderr)


def _row(secret: StoredSecret) -> tuple[str, str, str]:
    whose = "all projects" if secret.scope.project is None else "this project"
    return (secret.name, whose, "keyring" if secret.value is None else SECRETS_FILE)
