"""The object under the name of a run, with the run's id."""

from __future__ import annotations

import json

from dstack.core.format.identifiers import is_run_id
from dstack.model import RunId


def encode_name(run: RunId) -> bytes:
    """The body under the name of the run."""
    return json.dumps({"run": run}, separators=(",", ":")).encode()


def decode_name(body: bytes) -> RunId | None:
    """The id of the run under a name; None where `body` holds no id of a run."""
    try:
        run = json.loads(body)["run"]
    # RecursionError: a hostile body may be nested deeper than the parser goes.
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return RunId(run) if isinstance(run, str) and is_run_id(run) else None
