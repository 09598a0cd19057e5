"""`${{ name }}` as it is written, and the names that later spellings of system variables stand for."""

from __future__ import annotations

import re

REFERENCE_PATTERN = re.compile(r"\$\{\{(?P<inner>[^{}]*)\}\}")
ARGUMENTS_NAME = "variables_as_args"
_SYNONYMS = {"run.name": "run_name", "job.id": "job_id"}


def reference_name(inner: str) -> str:
    """The name inside `${{ … }}`, later spellings of the system variables made one."""
    name = inner.strip()
    return _SYNONYMS.get(name, name)
