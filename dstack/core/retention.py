"""The choice of `dstack prune` among the generations of a project. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunePolicy:
    """The rules of a prune. None and False ask for nothing.

    `older_than`: seconds since the last use; `keep`: newest results to keep for each workflow; `max_size`: bytes
    allowed for the project; `untagged`: everything without a tag.
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
    """One generation of a job. `used`: needed by a live run or reader; `modified`: the time of the last change or use;
    `made`: the time of its result (0: no result)."""

    key: str
    workflow: str
    bytes: int
    modified: float
    made: float = 0.0
    used: bool = False
    tagged: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """One generation to remove, and the reason in words."""

    key: str
    reason: str


def choose(found: Sequence[StoredGeneration], policy: PrunePolicy, *, total: int, now: float) -> tuple[Removal, ...]:
    """The generations to remove, oldest first. `total` is the bytes of the whole project.

    Used or tagged generations stay, as do the newest `keep` results of a workflow and all failures since. Of the rest,
    everything older than `older_than` goes; with `max_size` also the oldest until the project is small enough; with
    only `keep` or `untagged`, everything.
    """
    if policy.empty:
        return ()
    safe = _newest(found, policy.keep) if policy.keep is not None else frozenset()
    rest = sorted(
        (each for each in found if not each.used and not each.tagged and each.key not in safe),
        # The key breaks ties, so that two prunes of one state choose the same.
        key=lambda each: (each.modified, each.key),
    )
    if policy.older_than is None and policy.max_size is None:
        reason_to_go = f"not among the newest {policy.keep}" if policy.keep else "--keep 0 keeps none"
        reason = "no tag names it" if policy.keep is None else reason_to_go
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
    """The newest `number` results of each workflow, and all generations newer than the last of these, failed or not."""
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
