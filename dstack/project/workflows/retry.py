"""`retry:` of a workflow: the number of attempts, and the ends to try again after."""

from __future__ import annotations

from dstack.core.lifecycle import TRIED_ENDS
from dstack.model import Retry
from dstack.project.yaml.parser import ListNode, Node, ScalarNode
from dstack.project.yaml.report import Report, quote, read_fields, read_integer, read_list, read_map, read_text, suggest
from dstack.project.yaml.schema import RETRY_KEYS, spellings

RETRIED_ENDS = tuple(map(str, TRIED_ENDS))
"""The ends of attempts that allow another attempt."""


def read_retry(report: Report, node: Node) -> Retry:
    """`retry:` as a number of attempts or as `{attempts, on}`; without `on`, after every kind of end but success."""
    if isinstance(node, ScalarNode):
        count = read_integer(report, node, "retry", low=1, high=100)
        return Retry(attempts=count or 1, on=RETRIED_ENDS if (count or 1) > 1 else ())
    body = read_map(report, node, "retry")
    if body is None:
        return Retry()
    fields = read_fields(report, body, "retry", known=spellings(RETRY_KEYS))
    attempts = 1
    if "attempts" in fields:
        attempts = read_integer(report, fields["attempts"].value, "attempts", low=1, high=100) or 1
    else:
        report.problem(body.position, "retry: attempts is missing")
    on = _read_reasons(report, fields["on"].value) if "on" in fields else RETRIED_ENDS
    return Retry(attempts=attempts, on=on if attempts > 1 else ())


def _read_reasons(report: Report, node: Node) -> tuple[str, ...]:
    items = read_list(report, node, "on") if isinstance(node, ListNode) else (node,)
    found: list[str] = []
    for item in items:
        text = read_text(report, item, "an entry of on")
        if text is None:
            continue
        if text.text in RETRIED_ENDS:
            found.append(text.text)
        else:
            known = ", ".join(RETRIED_ENDS)
            message = f"on: expected one of {known}, found {quote(text.text)}{suggest(text.text, RETRIED_ENDS)}"
            report.problem(text.position, message)
    return tuple(dict.fromkeys(found))
