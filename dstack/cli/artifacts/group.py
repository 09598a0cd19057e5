"""`dstack artifacts`: the artifacts of jobs."""

from __future__ import annotations

from dstack.cli.lazy import Lazy, LazyGroup

group = LazyGroup(
    "artifacts",
    {
        "ls": Lazy(target="dstack.cli.artifacts.ls:ls", help="List the files that the jobs of a run left behind."),
        "pull": Lazy(target="dstack.cli.artifacts.pull:pull", help="Fetch them into a folder, verified."),
    },
    about="List and fetch what jobs left behind.",
)
