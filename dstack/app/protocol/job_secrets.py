"""What a job is given from the memory of a coordinator alone: values of the caller's environment, and secrets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from dstack.core.placement import misfit
from dstack.model import HostFacts, JobSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryValue:
    """One value: `name` is what the job calls it, `key` where a coordinator has it among its caller's values."""

    name: str
    key: str
    secret: bool

    def wait_reason(self, user: str) -> str:
        """Why a coordinator without it does not take the job, for people."""
        return (
            f"waits for secret {self.name} of {user}"
            if self.secret
            else f"waits for the value of {self.name} from {user}"
        )


def secret_key(name: str) -> str:
    """The key of a secret: no name of an environment variable, so that one of the same name is another value."""
    return f"secret:{name}"


def memory_values(spec: JobSpec) -> Iterator[MemoryValue]:
    """All that a job needs from memory."""
    for name in spec.env_from_caller:
        yield MemoryValue(name=name, key=name, secret=False)
    for name in spec.secrets:
        yield MemoryValue(name=name, key=secret_key(name), secret=True)


def missing_value(spec: JobSpec, caller: Mapping[str, str], user: str) -> str | None:
    """What the job waits for, None when the caller's values have all that it needs."""
    return next((value.wait_reason(user) for value in memory_values(spec) if value.key not in caller), None)


def for_host(specs: Iterable[JobSpec], caller: Mapping[str, str], facts: HostFacts) -> dict[str, str]:
    """Those of the caller's values that a job needs which the host can run: nothing else is told to its coordinator."""
    keys = {value.key for spec in specs if misfit(spec, facts) is None for value in memory_values(spec)}
    return {key: value for key, value in caller.items() if key in keys}


def environment(spec: JobSpec, caller: Mapping[str, str]) -> dict[str, str]:
    """Name -> value, for `go`. Only for a job that lacks nothing."""
    return {value.name: caller[value.key] for value in memory_values(spec)}
