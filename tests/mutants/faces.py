"""Mutants of what people are shown and asked."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        name="defaults-for-values",
        breaks="a job runs with the defaults of its variables although the command line gives values",
        file="dstack/project/plan.py",
        old="    if scope != compiled.scope:\n",
        new="    if False:\n",
        tests=("tests/unit/project/test_plan.py",),
    ),
    Mutant(
        name="colours-left-on",
        breaks="a log that ends with colours or modes on leaves them to the terminal",
        file="dstack/ui/colours.py",
        old='        return RESET_COLOURS if self._in_force else b""',
        new='        return b""',
        tests=("tests/unit/ui/test_colours.py",),
    ),
    Mutant(
        name="interrupted-in-colours",
        breaks="Ctrl-C in `dstack logs -f` leaves the colours of the job to the terminal",
        file="dstack/cli/runs/logs.py",
        old="""        finally:
            out.write(streams.finish_all())
            out.flush()
""",
        new="""        except KeyboardInterrupt:
            raise
        else:
            out.write(streams.finish_all())
            out.flush()
""",
        tests=("tests/cli/test_terminal.py",),
    ),
    Mutant(
        name="clock-of-the-laptop",
        breaks="what is old enough to be pruned goes by the laptop's clock, which may be 20 years off",
        file="dstack/app/maintenance/bucket_access.py",
        old="        return try_bucket(bucket, nonce)\n    except",
        new="        try_bucket(bucket, nonce)\n        return own\n    except",
        tests=("tests/cli/runs/test_clocks.py::test_a_prune_goes_by_the_clock_of_the_store",),
    ),
    Mutant(
        name="jump-taken-for-time",
        breaks="a job's time is the difference of two readings of a clock that was set meanwhile",
        file="dstack/runner/base/stopwatch.py",
        old="        return self.began + max(0.0, self._even() - self._start)",
        new="        return time.time()",
        tests=("tests/unit/ui/test_times.py",),
    ),
    Mutant(
        name="waits-told-again",
        breaks="a pipe is told again what a job waits for whenever one of its inputs has come: a fan of 1,000 fills it",
        file="dstack/ui/plain.py",
        old="            if last == state or (last is not None and last[0] == status == JobStatus.WAITING):",
        new="            if last == state:",
        tests=("tests/unit/ui/test_screens.py",),
    ),
    Mutant(
        name="check-believes",
        breaks="`hosts check` calls a bucket usable that its account may read and not write to",
        file="dstack/session/host_inspection.py",
        old="            try_bucket(self._session.bucket, os.urandom(16).hex())\n",
        new="            check_format(self._session.bucket)\n",
        tests=("tests/cli/hosts/test_hosts.py::test_this_machine_is_judged_by_a_real_read_and_write",),
    ),
    Mutant(
        name="stops-unasked",
        breaks="a colleague's run is stopped without a question",
        file="dstack/cli/runs/stop.py",
        old="    if not yes:\n        _confirm(record)\n",
        new="",
        tests=("tests/cli/runs/test_runs.py::test_somebody_elses_run_is_stopped_only_after_a_question",),
    ),
    Mutant(
        name="fonts-get-through",
        breaks="a log switches the Linux console to another font, which no reset undoes",
        file="dstack/ui/colours.py",
        old="    return 1 if head in PERMITTED_PARAMETERS or head in BRIGHT_COLOURS else 0\n",
        new="    return 1 if head in PERMITTED_PARAMETERS or head in BRIGHT_COLOURS or 10 <= head <= 20 else 0\n",
        tests=("tests/unit/ui/test_terminal.py",),
    ),
    Mutant(
        name="queued-called-running",
        breaks="a run that waits for a slot is shown as running",
        file="dstack/app/queries/run_views.py",
        old="        if self.status is not RunStatus.RUNNING or any(job.began for job in self.jobs):",
        new="        if self.status is not RunStatus.RUNNING or self.jobs:",
        tests=("tests/app/queries/test_coordinators.py",),
    ),
    Mutant(
        name="why-of-what-never-ran",
        breaks="`dstack why` says ran of a job that never began",
        file="dstack/app/queries/explanation.py",
        old="    if job.status in ENDED_STATES and not job.began:\n",
        new="    if job.status in ENDED_STATES and job.began is None:\n",
        tests=("tests/app/queries/test_explanation.py",),
    ),
    Mutant(
        name="stop-says-done",
        breaks="`dstack stop` exits with 0 although something goes on",
        file="dstack/cli/runs/stop.py",
        old="    return 0 if ended and gone else STILL_RUNNING_EXIT",
        new="    return 0 if gone else STILL_RUNNING_EXIT",
        tests=("tests/cli/runs/test_runs.py",),
    ),
    Mutant(
        name="standby-not-said",
        breaks="`ps` advises to attach while hosts stand by and are about to go on",
        file="dstack/app/queries/coordinators.py",
        old="            return Caretakers(by=by, last=last, last_beat=beat_at, standby=standby)\n",
        new="            beat_at = 0.0\n",
        tests=("tests/app/queries/test_coordinators.py",),
    ),
    Mutant(
        name="host-row-cut",
        breaks="`hosts check` cuts how a host sees the bucket in a narrow terminal",
        file="dstack/cli/hosts/host_report.py",
        old='    Column(title="BUCKET", floor=10, wraps=True),',
        new='    Column(title="BUCKET", floor=10),',
        tests=("tests/cli/hosts/test_hosts.py::test_nothing_of_what_a_host_has_is_cut",),
    ),
    Mutant(
        name="last-of-the-future",
        breaks="a run that was made while the clock was years ahead stays the last one for ever",
        file="dstack/app/queries/run_lookup.py",
        old="    for until in (now + CLOCK_SKEW_S, None):",
        new="    for until in (None,):",
        tests=("tests/app/queries/test_coordinators.py",),
    ),
    Mutant(
        name="lines-of-others",
        breaks="a newline in what a host or a bucket says begins a line of its own in `ps`, `show` and `stop`",
        file="dstack/ui/tables.py",
        old="""    return "".join(note(text, stream) for text in texts)""",
        new="""    return "".join(note(line, stream) for text in texts for line in text.splitlines())""",
        tests=("tests/app/queries/test_coordinators.py",),
    ),
    Mutant(
        name="full-disk-is-a-bug",
        breaks="`dstack ps >/dev/full` ends with a traceback and is called a bug",
        file="dstack/cli/standard_streams.py",
        old="            self.failure = error\n",
        new="",
        tests=("tests/cli/test_unwritten.py",),
    ),
)
