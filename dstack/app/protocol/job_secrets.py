"""The values that a job gets from the memory of a coordinator alone: parts of the caller's environment, and secrets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from dstack.core.placement import misfit
from dstack.model import HostFacts, JobSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryValue:
    """One value: `name` is the job's own name for the value, `key` the name among the caller's values of a
    coordinator."""

    name: str
    key: str
    secret: bool

    def wait_reason(self, user: str) -> str:
        """The note for people on a coordinator without the value, which does not take the job."""
        return (
            f"waits for secret {self.name} of {user}"
            if self.secret
            else f"waits for the value of {self.name} from {user}"
        )


def secret_key(name: str) -> str:
    """The key of a secret: not the name of any environment variable, so that a variable with the same name is another
    value."""
    return f"secret:{name}"


def memory_values(spec: JobSpec) -> Iterator[MemoryValue]:
    """All that a job needs from memory."""
    for name in spec.env_from_caller:
        yield MemoryValue(name=name, key=name, secret=False)
    for name in spec.secrets:
        yield MemoryValue(name=name, key=secret_key(name), secret=True)


def missing_value(spec: JobSpec, caller: Mapping[str, str], user: str) -> str | None:
    """The note on the first value that the job waits for, None when the caller's values suffice."""
    return next((value.wait_reason(user) for value in memory_values(spec) if value.key not in caller), None)


def for_host(specs: Iterable[JobSpec], caller: Mapping[str, str], facts: HostFacts) -> dict[str, str]:
    """The caller's values for jobs that the host can run: no other values are sent to the coordinator of the host."""
    keys = {value.key for spec in specs if misfit(spec, facts) is None for value in memory_values(spec)}
    return {key: value for key, value in caller.items() if key in keys}


def environment(spec: JobSpec, caller: Mapping[str, str]) -> dict[str, str]:
    """Name -> value, for `go`. Only for a job without missing values."""
    return {value.name: caller[value.key] for value in memory_values(spec)}
