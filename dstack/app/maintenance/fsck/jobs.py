"""A job held against docs/format.md: generations, attempts, results and the bytes behind them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from dstack.app.effects.catalogue import BucketPerformer, NewNonce
from dstack.app.effects.steps import Steps, ask
from dstack.app.maintenance.fsck.findings import Check, Finding, Records
from dstack.app.protocol import prune_steps
from dstack.app.protocol.complete_lists import reaches_now
from dstack.app.protocol.create_if_absent import create
from dstack.core.artifacts import manifests
from dstack.core.artifacts.manifests import ChangedBytesError
from dstack.core.format.key_parser import KeyKind, kind_of, log_offset, parse_key
from dstack.core.format.keys import AttemptKeys, JobKeys
from dstack.core.format.records import End, Result, Tomb, pack
from dstack.core.lifecycle import AttemptEnd
from dstack.errors import BucketError
from dstack.model import Fingerprint, Manifest
from dstack.ports import Listed

CLOSE_REMEDY = "close the generation: the next run that needs it makes it again"


def check_job(check: Check, job: Fingerprint) -> list[Finding]:
    """All faults of a job."""
    folder = check.keys.job(job, 1).job
    groups: dict[int, list[Listed]] = {}
    findings = []
    for each in check.bucket.survey(folder):
        parsed = parse_key(each.key.removeprefix(check.keys.root))
        if parsed.kind is KeyKind.UNKNOWN:
            findings.append(Finding(key=each.key, meaning="no dstack of this version writes this key"))
        else:
            groups.setdefault(parsed.generation, []).append(each)
    for number, listed in sorted(groups.items()):
        findings += _Generation(check, check.keys.job(job, number), listed).check()
    return findings


class _Generation(Records):
    """A generation with its records decoded."""

    def __init__(self, check: Check, keys: JobKeys, listed: Iterable[Listed]) -> None:
        super().__init__(check, listed)
        self.keys = keys

    def check(self) -> list[Finding]:
        if self.keys.tomb in self.listed:
            self._check_remains()
            return self.findings
        if self.keys.generation > 1 and self.lacks(self.keys.why) and self.lacks(self.keys.tomb):
            self.wrong(self.keys.why, "the generation exists, and nothing says why")
        self._check_claims()
        self._check_users()
        for key, want in self.of(KeyKind.WANT).items():
            if key != self.keys.want(want.run):
                self.wrong(key, f"it is the want of another run, {want.run}")
        self._check_result()
        return self.findings

    def _check_remains(self) -> None:
        """Behind a tomb everything goes, unless a run still uses the generation."""
        if len(self.listed) == 1 or self.keys.tomb not in self.of(KeyKind.TOMB) or self._used():
            return
        # A prune may have taken any part of what is left, so that only faults of the tomb itself count.
        self.findings = [each for each in self.findings if each.key == self.keys.tomb]
        tomb = self.of(KeyKind.TOMB)[self.keys.tomb]

        def repair() -> Steps[BucketPerformer, None]:
            yield from prune_steps.remove_generation(self._check.keys, self.keys, tomb, set())

        count = len(self.listed) - 1
        meaning = f"{count} objects are left behind a tomb: a prune was broken off, or could not finish then"
        if tomb.damaged:
            meaning = f"{count} objects are left of a generation that was closed, because {tomb.reason}"
        self.wrong(self.keys.tomb, meaning, remedy="finish the prune", repair=repair)

    def _used(self) -> bool:
        """Whether an unfinished run uses the generation behind the tomb."""
        runs = {want.run for want in self.of(KeyKind.WANT).values() if not want.left}
        for run in map(self._check.keys.run, runs):
            if self._check.bucket.get(run.final) is None and self._check.bucket.get(run.record) is not None:
                return True
        return False

    def _check_users(self) -> None:
        """The register has no gaps: its readers stop at the first gap."""
        for number, key in enumerate(sorted(self._keys(KeyKind.USER)), start=1):
            expected = self.keys.user(number)
            if key != expected and self.lacks(expected):
                self.wrong(
                    expected, f"user {number} is missing: users have no gaps, and only a list shows those behind"
                )
                return

    # -- attempts ---------------------------------------------------------------------------------

    def _check_claims(self) -> None:
        claimed = sorted(parse_key(key.removeprefix(self._check.keys.root)).number for key in self._keys(KeyKind.CLAIM))
        for number, expected in zip(claimed, range(1, len(claimed) + 1), strict=True):
            if number != expected and self.lacks(self.keys.attempt(expected).claim):
                self.wrong(self.keys.attempt(expected).claim, f"attempt {expected} is missing: attempts have no gaps")
                break
        attempts: dict[int, list[Listed]] = {number: [] for number in claimed}
        for key, each in self.listed.items():
            if key.startswith(self.keys.attempts):
                attempts.setdefault(parse_key(key.removeprefix(self._check.keys.root)).number, []).append(each)
        for number, listed in sorted(attempts.items()):
            attempt = self.keys.attempt(number)
            if number not in claimed and self.lacks(attempt.claim):
                self.wrong(attempt.folder, f"{len(listed)} objects of attempt {number}, which nobody claimed")
                continue
            self._check_attempt(attempt, listed)

    def _keys(self, kind: KeyKind) -> Iterator[str]:
        return (key for key in self.listed if kind_of(self._check.keys, key) is kind)

    def _check_attempt(self, attempt: AttemptKeys, listed: list[Listed]) -> None:
        claim = self.of(KeyKind.CLAIM).get(attempt.claim)
        end: End | None = self.of(KeyKind.END).get(attempt.end)
        started = self.of(KeyKind.STARTED).get(attempt.started)
        for key, record in ((attempt.end, end), (attempt.started, started)):
            if claim is not None and record is not None and record.nonce != claim.nonce:
                self.wrong(key, "it was written for another attempt than the one that was claimed")
        if end is not None:
            self._check_end(attempt, end)
        owners = sorted(each.key for each in listed if each.key.startswith(attempt.owners))
        numbered = [attempt.owner(index) for index in range(1, len(owners) + 1)]
        if owners != numbered and any(self.lacks(key) for key in numbered):
            self.wrong(attempt.owners, "adoptions are not numbered without gaps")
        self._check_log(attempt, listed)
        if attempt.manifest in self.listed and attempt.number != self._winner():
            self._manifest(attempt, None)

    def _check_end(self, attempt: AttemptKeys, end: End) -> None:
        if end.status not in tuple(AttemptEnd):
            self.wrong(attempt.end, f"an attempt cannot end as {end.status!a}")
        if end.status == AttemptEnd.SUCCEEDED and self.lacks(self.keys.result):
            self.wrong(attempt.end, "the attempt succeeded, and the generation has no result")
        elif end.status == AttemptEnd.SUCCEEDED and self._winner() not in (0, attempt.number):
            self.wrong(attempt.end, f"the attempt succeeded, and attempt {self._winner()} is the result")
        elif end.status not in (AttemptEnd.SUCCEEDED, AttemptEnd.LOST) and self._winner() == attempt.number:
            self.wrong(attempt.end, f"the attempt is the result, and its end says {end.status}")

    def _winner(self) -> int:
        result: Result | None = self.of(KeyKind.RESULT).get(self.keys.result)
        return result.attempt if result is not None else 0

    def _check_log(self, attempt: AttemptKeys, listed: list[Listed]) -> None:
        offset = 0
        for each in sorted((each for each in listed if each.key.startswith(attempt.logs)), key=lambda each: each.key):
            missing = attempt.log(offset)
            if each.key != missing and self.lacks(missing):
                self.wrong(each.key, f"the log has a gap: this piece should begin at {offset}")
                return
            offset = log_offset(each.key) + each.size

    # -- results ----------------------------------------------------------------------------------

    def _check_result(self) -> None:
        result: Result | None = self.of(KeyKind.RESULT).get(self.keys.result)
        if result is None:
            return
        attempt = self.keys.attempt(result.attempt)
        claim = self.of(KeyKind.CLAIM).get(attempt.claim)
        if self.lacks(attempt.claim):
            self._damaged(self.keys.result, f"it names attempt {result.attempt}, which nobody claimed")
        elif claim is not None and claim.nonce != result.nonce:
            self._damaged(self.keys.result, f"it was not written by the claimant of attempt {result.attempt}")
        if self.lacks(attempt.manifest):
            self._damaged(attempt.manifest, "the manifest of a result is missing")
            return
        manifest = self._manifest(attempt, result)
        if manifest is not None and manifest.partial:
            self._damaged(attempt.manifest, "the manifest of a result says that it is partial")
        if manifest is not None and manifests.content_digest(manifest) != result.digest:
            self._damaged(self.keys.result, "its digest is not that of the artifacts: what takes them has other inputs")

    def _manifest(self, attempt: AttemptKeys, result: Result | None) -> Manifest | None:
        """The decoded manifest, None without one; every pack in the manifest is checked."""
        body = self._check.bucket.get(attempt.manifest)
        if body is None:
            return None
        report = self._damaged if result is not None else self.wrong
        if result is not None and hashlib.sha256(body).hexdigest() != result.manifest:
            report(attempt.manifest, "it is not the manifest that the result names")
            return None
        try:
            manifest = manifests.decode(attempt.manifest, body)
        except BucketError as error:
            report(attempt.manifest, error.detail)
            return None
        for name, members in manifests.uploads(manifest).items():
            key, size = attempt.pack(name), manifests.pack_size(members)
            if key not in self.listed and not reaches_now(self._check.bucket, key, size):
                report(key, f"the artifacts are not whole: {size} bytes are missing")
            elif key in self.listed and self.listed[key].size != size:
                report(key, f"it has {self.listed[key].size} bytes, the manifest says {size}")
            elif self._check.deep:
                try:
                    for _ in manifests.verify_bytes(
                        manifests.distinct_entries(members), self._check.bucket.read(key, 0, size)
                    ):
                        pass
                except ChangedBytesError as error:
                    report(key, f"its bytes are damaged: {error}")
        return manifest

    def _damaged(self, key: str, meaning: str) -> None:
        """A result not fit for use: behind a tomb no run uses the result."""

        def repair() -> Steps[BucketPerformer, None]:
            tomb = Tomb(nonce=(yield from ask(NewNonce())), user="fsck", reason="it is damaged")
            yield from create(self.keys.tomb, pack(tomb))

        self.wrong(key, meaning, remedy=CLOSE_REMEDY, repair=repair)
