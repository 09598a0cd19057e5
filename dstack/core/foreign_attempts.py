"""An attempt on a reached host under another account: the conclusions from what every account can see there.

A foreign attempt is neither silent nor dead. Only its own account can say how the attempt ended, and only this account
holds the result. The signs visible to every account are for people, and permit no other attempt. The only sure sign of
death is another boot of the same machine.
"""

from __future__ import annotations

from enum import Enum

from dstack.core.format.records import Claim
from dstack.model import HostFacts
from dstack.wire import ALIVE, UNSEEN


class Sighting(str, Enum):
    """The visible state of another account's attempt."""

    ALIVE = "alive"
    """A part of the attempt lives, by signs only its own account can forge."""
    UNSEEN = "unseen"
    """Nothing of the attempt is visible; the attempt may have ended, with its result still in the spool of its account.
    """
    UNKNOWN = "unknown"
    """The host hides its accounts from one another, or is not known to be the same machine."""
    RESTARTED = "restarted"
    """The machine has been started again since: nothing of the attempt lives."""


def belongs(claim: Claim, facts: HostFacts) -> bool:
    """Whether the reached spool is the spool of the attempt: the same account, folder and place.

    Any other spool has never heard of the attempt, and its answer says nothing. Claims of earlier versions name no
    account.
    """
    # Claims of earlier versions name no account: there the place alone decides.
    if claim.account and (claim.account, claim.folder) != (facts.user, facts.dir):
        return False
    return not claim.place or claim.place == facts.place


def is_same_boot(claim: Claim, facts: HostFacts) -> bool:
    return facts.boot_id == claim.boot_id


def is_other_machine(claim: Claim, facts: HostFacts) -> bool:
    """Whether the reached machine is known to be another machine than the machine of the claim."""
    if is_same_boot(claim, facts):
        return False
    # A machine without an id cannot be told from another one.
    return bool(claim.machine and facts.machine) and claim.machine != facts.machine


def judge(claim: Claim, facts: HostFacts, seen: str) -> Sighting:
    """The conclusion from the answer to `sighting`; the answer counts only in the boot of the claim."""
    if is_same_boot(claim, facts):
        return Sighting.ALIVE if seen == ALIVE else Sighting.UNSEEN if seen == UNSEEN else Sighting.UNKNOWN
    if claim.machine and claim.machine == facts.machine:
        return Sighting.RESTARTED
    return Sighting.UNKNOWN


def describe(sighting: str, host: str, account: str, command: str) -> str:
    """One line for people: the visible state, and the command with which the account's owner brings the attempt to its
    end."""
    who = account or "its owner"
    if sighting == Sighting.ALIVE:
        return f"runs on as {who}, and nobody looks after it; {who} must type: {command}"
    seen = {
        Sighting.UNSEEN: f"not seen to run on {host}",
        Sighting.RESTARTED: f"{host} was restarted since it began",
    }.get(Sighting(sighting), f"{host} does not show whether it runs")
    return f"{seen}; only {who} can say how it ended: {command}"


def describe_elsewhere(sighting: str, host: str, command: str) -> str:
    """One line for people whose own account is reached in another folder than the attempt's."""
    seen = "runs on" if sighting == Sighting.ALIVE else "not seen to run"
    return f"{seen} in another folder or machine than {host} is now; if that will not be back: {command}"
