"""`dstack secrets`: values for jobs, kept by this machine alone. No value is ever an argument or shown."""

from __future__ import annotations

from dstack.cli.lazy import Lazy, LazyGroup

group = LazyGroup(
    "secrets",
    {
        "set": Lazy(target="dstack.cli.secrets.set:command", help="Keep the value of a secret on this machine."),
        "ls": Lazy(target="dstack.cli.secrets.ls:ls", help="List secrets, without their values."),
        "rm": Lazy(target="dstack.cli.secrets.rm:rm", help="Forget a secret."),
    },
    about="Keep secrets for jobs: API keys, tokens.",
)
