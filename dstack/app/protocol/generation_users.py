"""The register of a generation: all users that ever came, numbered without gaps.

A user of a generation registers, pins the generation, and then looks for the tomb. So a look for users finds all of
them by key, whatever a list lacks. An entry stays when its user is gone.
"""

from __future__ import annotations

from dstack.app.effects.catalogue import BucketPerformer, BucketReader, ListKeys, NewNonce, Read
from dstack.app.effects.steps import Steps, ask
from dstack.app.protocol.complete_lists import last_number
from dstack.app.protocol.create_if_absent import create
from dstack.core.format.identifiers import is_name
from dstack.core.format.keys import JobKeys
from dstack.core.format.records import User, pack, unpack
from dstack.errors import DamagedObjectError


def register(keys: JobKeys, name: str) -> Steps[BucketPerformer, None]:
    """Enter `name`, under which the generation is about to be pinned, into the register.

    Two coordinators of one run may enter the name twice: that costs one read more for each look. Raises BucketError.
    """
    number = 1
    # One read spares the first user of a generation the list.
    if (yield from ask(Read(keys.user(number)))) is not None:
        number = 1 + (yield from last_number(keys.users, keys.user))
    made = pack(User(nonce=(yield from ask(NewNonce())), name=name))
    while not (yield from create(keys.user(number), made)):
        number += 1


def users_of(keys: JobKeys, *folders: str) -> Steps[BucketReader, set[str]]:
    """The names of all users that ever came to the generation: ids of runs, and names of the pins of reading processes.

    Names in lists of `folders` count beside the register, for versions that did not register, and for damaged entries.
    """
    found = yield from _registered_names(keys)
    for folder in folders:
        found |= {key.removeprefix(folder) for key in (yield from ask(ListKeys(folder)))}
    return found


def _registered_names(keys: JobKeys) -> Steps[BucketReader, set[str]]:
    found, number = set(), 1
    while (body := (yield from ask(Read(keys.user(number))))) is not None:
        try:
            name = unpack(User, keys.user(number), body).name
        except DamagedObjectError:
            # A damaged entry names nobody; only an absent entry ends the register.
            name = ""
        if is_name(name):
            found.add(name)
        number += 1
    return found
