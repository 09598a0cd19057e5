"""An attempt whose host is reached, but not under the account whose attempt it is: what that says, and what not.

Reached, but foreign, is neither silence nor death. Only the account itself can say how its attempt ended, and hold its
result; what every account can see of it is for people, and permits no other attempt. The one sure sign of death is
another boot of the same machine.
"""

from __future__ import annotations

from enum import Enum

from dstack.core.format.records import Claim
from dstack.model import HostFacts
from dstack.wire import ALIVE, UNSEEN


class Sighting(str, Enum):
    """What is seen of another account's attempt."""

    ALIVE = "alive"
    """Something of it lives, by what that account alone can forge."""
    UNSEEN = "unseen"
    """Nothing of it is seen; it may have ended, and its result may wait in that account's spool."""
    UNKNOWN = "unknown"
    """The host does not show its accounts one another, or it is not known to be the same machine."""
    RESTARTED = "restarted"
    """The machine has been started again since: nothing of the attempt lives."""


def belongs(claim: Claim, facts: HostFacts) -> bool:
    """Whether the spool that was reached is the spool of the attempt: the same account, folder and place. In any other
    spool the attempt was never heard of, which says nothing about it. Claims of earlier versions name no account."""
    if claim.account and (claim.account, claim.folder) != (facts.user, facts.dir):
        return False
    return not claim.place or claim.place == facts.place


def is_same_boot(claim: Claim, facts: HostFacts) -> bool:
    return facts.boot_id == claim.boot_id


def is_other_machine(claim: Claim, facts: HostFacts) -> bool:
    """Whether what was reached is known to be another machine than the one of the claim."""
    if is_same_boot(claim, facts):
        return False
    return bool(claim.machine and facts.machine) and claim.machine != facts.machine


def judge(claim: Claim, facts: HostFacts, seen: str) -> Sighting:
    """What follows from the answer to `sighting`, which only counts in the boot in which the attempt was claimed."""
    if is_same_boot(claim, facts):
        return Sighting.ALIVE if seen == ALIVE else Sighting.UNSEEN if seen == UNSEEN else Sighting.UNKNOWN
    if claim.machine and claim.machine == facts.machine:
        return Sighting.RESTARTED
    return Sighting.UNKNOWN


def describe(sighting: str, host: str, account: str, command: str) -> str:
    """One line for people: what is seen, and what the account's owner must type to bring the attempt to its end."""
    who = account or "its owner"
    if sighting == Sighting.ALIVE:
        return f"runs on as {who}, and nobody looks after it; {who} must type: {command}"
    seen = {
        Sighting.UNSEEN: f"not seen to run on {host}",
        Sighting.RESTARTED: f"{host} was restarted since it began",
    }.get(Sighting(sighting), f"{host} does not show whether it runs")
    return f"{seen}; only {who} can say how it ended: {command}"


def describe_elsewhere(sighting: str, host: str, command: str) -> str:
    """One line for people, where the account is their own and the folder that was reached is not the attempt's."""
    seen = "runs on" if sighting == Sighting.ALIVE else "not seen to run"
    return f"{seen} in another folder or machine than {host} is now; if that will not be back: {command}"
