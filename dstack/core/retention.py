"""What `dstack prune` lets go of: a pure choice over what a project holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunePolicy:
    """What may go. None and False ask for nothing.

    `older_than` seconds since it was last made or used; `keep` the newest results of each workflow; `max_size` bytes
    that the project may have; `untagged` what no tag names.
    """

    older_than: float | None = None
    keep: int | None = None
    max_size: int | None = None
    untagged: bool = False

    @property
    def empty(self) -> bool:
        return self.older_than is None and self.keep is None and self.max_size is None and not self.untagged


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredGeneration:
    """One generation of a job. `used`: a live run or reader needs it; `modified` is when it was last made or used,
    `made` when its result came (0: it has none)."""

    key: str
    workflow: str
    bytes: int
    modified: float
    made: float = 0.0
    used: bool = False
    tagged: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """One generation that goes, and why, in words."""

    key: str
    reason: str


def choose(found: Sequence[StoredGeneration], policy: PrunePolicy, *, total: int, now: float) -> tuple[Removal, ...]:
    """What goes, oldest first. `total` is the bytes of the whole project.

    What is used or tagged never goes, nor do the newest `keep` results of a workflow and what failed since. Of the rest
    goes what is older than `older_than`; with `max_size` also the oldest until the project is small enough; where only
    `keep` or `untagged` is said, all of it.
    """
    if policy.empty:
        return ()
    safe = _newest(found, policy.keep) if policy.keep is not None else frozenset()
    rest = sorted(
        (each for each in found if not each.used and not each.tagged and each.key not in safe),
        key=lambda each: (each.modified, each.key),
    )
    if policy.older_than is None and policy.max_size is None:
        kept = f"not among the newest {policy.keep}" if policy.keep else "--keep 0 keeps none"
        reason = "no tag names it" if policy.keep is None else kept
        return tuple(Removal(key=each.key, reason=reason) for each in rest)
    chosen = []
    for each in rest:
        if policy.older_than is not None and now - each.modified > policy.older_than:
            reason = "too old"
        elif policy.max_size is not None and total > policy.max_size:
            reason = "over the size"
        else:
            continue
        total -= each.bytes
        chosen.append(Removal(key=each.key, reason=reason))
    return tuple(chosen)


def _newest(found: Iterable[StoredGeneration], number: int) -> frozenset[str]:
    """The newest `number` results of each workflow, and what of it is newer than the last of these, failed or not."""
    by_workflow: dict[str, list[StoredGeneration]] = {}
    for each in found:
        by_workflow.setdefault(each.workflow, []).append(each)
    safe: set[str] = set()
    for group in by_workflow.values():
        results = sorted((each for each in group if each.made), key=lambda each: (each.made, each.key), reverse=True)
        if number:
            since = results[number - 1].made if len(results) >= number else 0.0
            safe.update(each.key for each in group if not each.made and each.modified >= since)
        safe.update(each.key for each in results[:number])
    return frozenset(safe)
