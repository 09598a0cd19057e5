"""The records of one attempt that has begun or ended: the result, the end, and the record that nothing of the attempt
lives."""

from __future__ import annotations

from dstack.app.effects.answers import Collected, NotCollected, Uncollectable
from dstack.app.effects.catalogue import AttemptCollector, Collect, ObjectCreator, Release
from dstack.app.effects.steps import Steps, ask
from dstack.app.protocol.create_if_absent import create
from dstack.core.format.keys import AttemptKeys
from dstack.core.format.records import Claim, End, Gone, Result, pack
from dstack.core.lifecycle import AttemptEnd, end_without_result
from dstack.model import ExitReport, WorkflowName


def record_void(attempt_keys: AttemptKeys, claim: Claim, why: str = "") -> Steps[ObjectCreator, None]:
    """The host has refused this attempt for ever: any coordinator may claim the following attempt."""
    report = ExitReport(code=None, reason=why or f"it never started on {claim.host}")
    yield from record_end(attempt_keys, claim, report, status=AttemptEnd.VOID)


def record_lost(attempt_keys: AttemptKeys, claim: Claim, reason: str) -> Steps[ObjectCreator, None]:
    """The fate of the attempt cannot be known: record it as lost, so that another may be made. Should the attempt live
    after all and come to a result first, the result counts."""
    report = ExitReport(code=None, reason=reason, vanished=True)
    yield from record_end(attempt_keys, claim, report, status=AttemptEnd.LOST)


def record_gone(mine: AttemptKeys, claim: Claim) -> Steps[ObjectCreator, None]:
    """Record of an attempt that is lost, or was called so, that nothing of the attempt lives."""
    yield from create(mine.gone, pack(Gone(nonce=claim.nonce)))


def bring_in(
    mine: AttemptKeys, claim: Claim, report: ExitReport, workflow: WorkflowName
) -> Steps[AttemptCollector, bool]:
    """Bring all of a lost attempt that has ended into the bucket, then have the host forget the attempt -> False while
    the host cannot be reached. The result of the attempt counts if no other comes first."""
    collected = yield from ask(Collect(claim, workflow, mine, partial=not report.succeeded, keep=True))
    if isinstance(collected, NotCollected):
        return False
    yield from record_gone(mine, claim)
    yield from record_ended(mine, claim, report, collected)
    return True


def record_ended(
    mine: AttemptKeys, claim: Claim, report: ExitReport, collected: Collected | Uncollectable
) -> Steps[AttemptCollector, None]:
    """Commit the collected artifacts and record the end; then the host may forget the attempt."""
    if report.vanished:
        yield from record_gone(mine, claim)
    if isinstance(collected, Collected) and report.succeeded:
        # The result first: whoever sees the end of a succeeded attempt finds its result.
        status = yield from commit(mine, claim, report, collected)
        yield from record_end(mine, claim, report, status=status)
    else:
        reason = report.reason
        if isinstance(collected, Uncollectable):
            lost = collected.why
            reason = lost if report.succeeded else f"{reason}; what it left could not be kept: {lost}"
        yield from record_end(mine, claim, report, status=end_without_result(report), reason=reason)
    # Last: until the end stands in the bucket, the exit report lies on the host alone.
    yield from ask(Release(claim))


def commit(
    mine: AttemptKeys, claim: Claim, report: ExitReport, collected: Collected
) -> Steps[ObjectCreator, AttemptEnd]:
    """Create the result -> the status of this attempt: only one attempt of a generation is ever the result.

    The body follows from claim, report and manifest alone, so that two owners of one attempt write the same.
    """
    result = Result(
        nonce=claim.nonce,
        attempt=mine.number,
        manifest=collected.manifest,
        digest=collected.digest,
        run=claim.run,
        name=claim.run_name,
        host=claim.host,
        started=report.started,
        ended=report.ended,
        log_lost=report.log_lost,
    )
    won = yield from create(mine.generation.result, pack(result))
    return AttemptEnd.SUCCEEDED if won else AttemptEnd.SUPERSEDED


def record_end(
    mine: AttemptKeys, claim: Claim, report: ExitReport, *, status: AttemptEnd, reason: str | None = None
) -> Steps[ObjectCreator, None]:
    """Record how the attempt ended, as the report says; `reason` replaces the reason of the report."""
    end = End(
        nonce=claim.nonce,
        status=status,
        reason=reason if reason is not None else report.reason,
        code=report.code,
        signal=report.signal,
        host=claim.host,
        started=report.started,
        ended=report.ended,
        log_lost=report.log_lost,
    )
    yield from create(mine.end, pack(end))
