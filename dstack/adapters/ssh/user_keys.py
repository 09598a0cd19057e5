"""The user's keys: the key files and agent keys to offer to a host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncssh

from dstack.adapters.ssh.config import Hop

DEFAULT_KEY_FILES = ("id_ed25519", "id_ecdsa", "id_rsa", "id_ed25519_sk", "id_ecdsa_sk")


class KeyPairs(list[asyncssh.SSHKeyPair]):
    """A list that is true even when empty: asyncssh takes an empty list for "load the default files"."""

    def __bool__(self) -> bool:
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Identities:
    """The keys to offer to one host. `agent` None: no agent; `agent_keys` None: all of the agent's keys.

    `problems` gives for each withheld key file the reason, for the message when the host refuses the login.
    """

    pairs: KeyPairs
    agent: str | None
    agent_keys: tuple[bytes, ...] | None
    problems: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is no key to offer at all."""
        return not list(self.pairs) and self.agent is None


def load_identities(hop: Hop, home: Path) -> Identities:
    """Read the key files of a hop.

    Never asks for a passphrase: an encrypted key is used through the agent only. An agent is left out when the hop
    allows the agent only certain keys and no public part of these keys is found.
    """
    named = hop.identities is not None
    files = hop.identities if hop.identities is not None else [str(home / ".ssh" / name) for name in DEFAULT_KEY_FILES]
    pairs, public, problems = KeyPairs(), list[bytes](), list[str]()
    for file in files:
        found, problem = _load(file, hop.certificates)
        pairs.extend(found)
        public += [*(pair.public_data for pair in found), *_public_parts(file)]
        # Nobody misses a default file that is not there.
        if problem and (named or Path(file).exists()):
            problems.append(problem)
    agent, agent_keys = hop.agent, None
    if hop.identities_only:
        agent_keys = tuple(dict.fromkeys(public))
        # An empty list would mean every key of the agent to asyncssh.
        agent = hop.agent if agent_keys else None
    return Identities(pairs=pairs, agent=agent, agent_keys=agent_keys, problems=tuple(problems))


def _load(file: str, certificates: Sequence[str]) -> tuple[Sequence[asyncssh.SSHKeyPair], str | None]:
    if file.endswith(".pub"):
        return (), None
    try:
        usable = [certificate for certificate in certificates if Path(certificate).is_file()]
        return asyncssh.load_keypairs(file, certlist=usable), None
    except FileNotFoundError:
        return (), f"{file} does not exist"
    except OSError as error:
        return (), f"{file} cannot be read: {error.strerror}"
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError, ValueError) as error:
        # asyncssh says of some encrypted keys only in words that a passphrase lacks.
        if "assphrase" in str(error) or isinstance(error, asyncssh.KeyEncryptionError):
            return (), f"{file} is encrypted and not in an agent (ssh-add {file})"
        return (), f"{file} is no usable private key: {error}"


def _public_parts(file: str) -> list[bytes]:
    """The public key of an identity from the file beside the key, or from a file with the public key itself."""
    for candidate in (file if file.endswith(".pub") else f"{file}.pub", file):
        try:
            return [asyncssh.read_public_key(candidate).public_data]
        except (OSError, ValueError):
            continue
    return []
