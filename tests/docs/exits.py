"""`docs/reference/exit-codes.md`: from the error tree and from what `run` and `attach` return."""

from __future__ import annotations

from collections.abc import Iterator

from dstack.cli.attend.follow import DETACHED_EXIT, RUN_EXIT_CODES
from dstack.cli.main import INTERRUPTED_EXIT
from dstack.cli.runs.stop import STILL_RUNNING_EXIT
from dstack.errors import DstackError
from tests.docs.markdown import code, page, table


def exits_page() -> str:
    """Each code with every reason for it."""
    reasons: dict[int, list[str]] = {0: ["Done."]}
    for error in _tree(DstackError):
        reasons.setdefault(error.exit_code, []).append(_first_line(error))
    for status, number in RUN_EXIT_CODES.items():
        told = f"`run` and `attach`: the run has {_ended(status.value)}."
        reasons.setdefault(number, []).append(told)
    reasons[STILL_RUNNING_EXIT].append(
        "`stop`: something of what was asked to stop has not ended yet, or may still run."
    )
    reasons[1].append("A bug: the traceback is printed, please report it.")
    reasons.setdefault(INTERRUPTED_EXIT, []).append("Ctrl-C.")
    reasons.setdefault(DETACHED_EXIT, []).append("`run` and `attach`: detached; the run goes on in the background.")
    rows = [(code(str(number)), "<br>".join(dict.fromkeys(texts))) for number, texts in sorted(reasons.items())]
    blocks = (
        (
            "The same for every command. `dstack hosts check` exits with the code of the worst host. What went wrong "
            'is on standard error, with a hint; with `--json` as `{"error": …}`, see [json](json.md).'
        ),
        table(("code", "meaning"), rows),
    )
    return page("Exit codes", *blocks)


def _tree(error: type[DstackError]) -> Iterator[type[DstackError]]:
    yield error
    for below in error.__subclasses__():
        yield from _tree(below)


def _first_line(error: type[DstackError]) -> str:
    return (error.__doc__ or "").strip().splitlines()[0]


def _ended(status: str) -> str:
    return {"stopped": "been stopped", "lost": "a job of which nobody knows how it ended"}.get(status, status)
