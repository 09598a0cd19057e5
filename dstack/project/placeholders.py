"""The pattern of `${{ name }}`, and the synonyms of system variables."""

from __future__ import annotations

import re

REFERENCE_PATTERN = re.compile(r"\$\{\{(?P<inner>[^{}]*)\}\}")
ARGUMENTS_NAME = "variables_as_args"
_SYNONYMS = {"run.name": "run_name", "job.id": "job_id"}


def reference_name(inner: str) -> str:
    """The name inside `${{ … }}`; a synonym becomes the name of the system variable."""
    name = inner.strip()
    return _SYNONYMS.get(name, name)
