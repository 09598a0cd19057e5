"""`dstack secrets rm`: forget a secret."""

from __future__ import annotations

from typing import Annotated

from dstack.adapters.secrets.dotenv_file import DOTENV_FILE, read_dotenv
from dstack.adapters.secrets.secrets_file import SecretScope
from dstack.adapters.secrets.store import SecretStore
from dstack.cli.arguments import ALL_PROJECTS_OPTION, SECRET_NAME_ARGUMENT
from dstack.cli.command_session import own_home
from dstack.cli.secrets.scopes import project_folder, scope_of, whose
from dstack.errors import NotFoundError
from dstack.session.secret_values import ALL_PROJECTS


def rm(name: Annotated[str, SECRET_NAME_ARGUMENT], everywhere: Annotated[bool, ALL_PROJECTS_OPTION] = False) -> None:
    """Forget a secret of this project, or with --global the one for all projects."""
    scope = scope_of(everywhere)
    store = SecretStore(own_home())
    if store.remove(scope, name):
        print(f"{name} is forgotten, for {whose(scope)}")
        return
    other = "--global" if not everywhere and any(one.name == name for one in store.list_secrets(ALL_PROJECTS)) else ""
    hint = f"`dstack secrets rm {name} --global` forgets the one for all projects" if other else _names(store, scope)
    root = project_folder()
    if root is not None and not everywhere and name in read_dotenv(root).values:
        hint = f"it stands in {DOTENV_FILE}, which dstack never writes: remove it there"
    raise NotFoundError(f"no secret {name} is kept for {whose(scope)}", hint=hint)


def _names(store: SecretStore, scope: SecretScope) -> str:
    names = ", ".join(one.name for one in store.list_secrets(scope))
    return f"kept are {names}" if names else "`dstack secrets ls` lists what there is"
