"""The fingerprint of a job: a hash of everything on which the result of the job depends.

Every hash is over a record type, a version and canonical JSON, so different kinds of content never have the same hash.
The ingredients are kept beside the hash, to name the differences between two jobs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dstack.model import CodeFile, Fingerprint, JobSpec

FINGERPRINT_VERSION = 1


def _digest(record_type: str, content: Any) -> str:
    # ASCII, sorted keys and no spaces: the same content has the same bytes on every Python, and so the same hash.
    text = json.dumps(
        [record_type, FINGERPRINT_VERSION, content], separators=(",", ":"), sort_keys=True, ensure_ascii=True
    )
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def code_digest(files: Sequence[CodeFile]) -> str:
    """64 hex digits over path, mode and content of the files, independent of their order."""
    return _digest("dstack.code", sorted([file.path, file.mode, file.blob] for file in files))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingredients:
    """All ingredients of a fingerprint. `inputs` is workflow -> digest of the content of its artifacts."""

    script: str
    image: str | None
    env: Mapping[str, str]
    env_from_caller: tuple[str, ...]
    secrets: tuple[str, ...]
    variables: Mapping[str, str]
    artifacts: tuple[str, ...]
    code: str
    inputs: Mapping[str, str]


def ingredients(spec: JobSpec, inputs: Mapping[str, str]) -> Ingredients:
    """The ingredients of a job whose inputs have these content digests. Of secrets only the names count."""
    return Ingredients(
        script=spec.script,
        image=spec.image,
        env=dict(spec.env),
        # The order in the YAML file changes nothing in the job.
        env_from_caller=tuple(sorted(spec.env_from_caller)),
        secrets=tuple(sorted(spec.secrets)),
        variables=dict(spec.variables),
        artifacts=tuple(sorted(spec.artifacts)),
        code=spec.code,
        inputs=dict(inputs),
    )


def fingerprint(parts: Ingredients) -> Fingerprint:
    """64 hex digits: equal when and only when all ingredients are."""
    return Fingerprint(
        _digest(
            "dstack.job",
            {
                "script": parts.script,
                "image": parts.image,
                "env": dict(parts.env),
                "env_from_caller": list(parts.env_from_caller),
                "secrets": list(parts.secrets),
                "variables": dict(parts.variables),
                "artifacts": list(parts.artifacts),
                "code": parts.code,
                "inputs": dict(parts.inputs),
            },
        )
    )


def differences(
    old: Ingredients,
    new: Ingredients,
    *,
    old_files: Mapping[str, str] | None = None,
    new_files: Mapping[str, str] | None = None,
) -> tuple[str, ...]:
    """What differs from `old` to `new`, in words, the most telling first; empty when nothing does.

    The file maps (path -> "mode blob") name the files when both are there; else only "code" is said.
    """
    found = [f"the content of input {name} changed" for name in _changed_names(old.inputs, new.inputs)]
    for name in _changed_names(old.variables, new.variables):
        found.append(f"variable {name}: {_value_text(old.variables, name)} → {_value_text(new.variables, name)}")
    if old.code != new.code:
        found += _file_differences(old_files, new_files)
    if old.script != new.script:
        found.append("the commands changed")
    if old.image != new.image:
        found.append(f"image: {old.image or 'none'} → {new.image or 'none'}")
    for name in _changed_names(old.env, new.env):
        found.append(f"env {name}: {_value_text(old.env, name)} → {_value_text(new.env, name)}")
    # Values of secrets are never recorded, so a changed value cannot be told.
    if (old.secrets, old.env_from_caller) != (new.secrets, new.env_from_caller):
        found.append("the names of secrets or inherited variables changed")
    if old.artifacts != new.artifacts:
        found.append(f"artifacts: {', '.join(old.artifacts) or 'none'} → {', '.join(new.artifacts) or 'none'}")
    return tuple(found)


def _value_text(values: Mapping[str, str], name: str) -> str:
    return values.get(name, "not set")


def _changed_names(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    return sorted(name for name in {*old, *new} if old.get(name) != new.get(name))


def _file_differences(old: Mapping[str, str] | None, new: Mapping[str, str] | None) -> list[str]:
    if old is None or new is None:
        return ["the code changed"]
    words = []
    for path in _changed_names(old, new):
        verb = "added" if path not in old else "removed" if path not in new else "changed"
        words.append(f"file {path} {verb}")
    return words or ["the code changed"]
