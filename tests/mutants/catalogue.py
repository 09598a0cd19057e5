"""The mutants: one for each guarantee, as a change of text in the shipped source and the tests that must see it."""

from __future__ import annotations

from tests.mutants import accounts, damage, decisions, endings, faces, lab, private, queue, standby, wait, wire
from tests.mutants.mutant import PROTOCOL, Mutant

MUTANTS: tuple[Mutant, ...] = (
    *accounts.MUTANTS,
    *lab.MUTANTS,
    *standby.MUTANTS,
    *private.MUTANTS,
    *queue.MUTANTS,
    *damage.MUTANTS,
    *decisions.MUTANTS,
    *endings.MUTANTS,
    *faces.MUTANTS,
    *wait.MUTANTS,
    *wire.MUTANTS,
    Mutant(
        name="check-then-put",
        breaks="creating looks first and then believes that its own write stands",
        file="dstack/app/protocol/create_if_absent.py",
        old="""    found = yield from put_or_find(key, PutNew(key, body), Read(key), hint=hint)
    return body if found is None else found
""",
        new="""    found = yield from ask(Read(key))
    if found is not None:
        return found
    yield from ask(PutNew(key, body))
    return body
""",
        tests=PROTOCOL,
    ),
    Mutant(
        name="no-read-back",
        breaks="the answer of a conditional write is believed without reading the key back",
        file="dstack/app/protocol/create_if_absent.py",
        old="    return body if found is None else found\n",
        new='    return body if found is None else b""\n',
        tests=PROTOCOL,
    ),
    Mutant(
        name="result-before-artifacts",
        breaks="the result is created before everything that it names is in the bucket",
        file="dstack/app/protocol/attempts.py",
        old="""    while True:
        collected = yield from ask(Collect(claim, workflow, mine, partial=not report.succeeded, keep=not abort))
""",
        new="""    if report.succeeded:
        yield from attempt_records.commit(mine, claim, report, Collected(manifest="0" * 64, digest="0" * 64))
    while True:
        collected = yield from ask(Collect(claim, workflow, mine, partial=not report.succeeded, keep=not abort))
""",
        tests=PROTOCOL,
    ),
    Mutant(
        name="claim-before-slot",
        breaks="the attempt is claimed before a slot is held",
        file="dstack/app/protocol/attempts.py",
        old="""    nonce = yield from ask(NewNonce())
    mine = keys.attempt(number)
""",
        new="""    nonce = yield from ask(NewNonce())
    early = Claim(
        nonce=nonce, run=job.run.id, run_name=job.run.name, host="h", address={}, boot_id="b", coordinator=me
    )
    if not (yield from create(keys.attempt(number).claim, pack(early))):
        return None
    mine = keys.attempt(number)
""",
        tests=PROTOCOL,
    ),
    Mutant(
        name="start-without-look",
        breaks="the next attempt is claimed without looking for a result that came meanwhile",
        file="dstack/app/protocol/settlement.py",
        old="if verdict is retry.NextStep.LOOK or (yield from ask(Read(keys.result))) is not None:",
        new="if verdict is retry.NextStep.LOOK:",
        tests=PROTOCOL,
    ),
    Mutant(
        name="start-after-stop",
        breaks="a coordinator starts the job without looking for a stop request behind its claim",
        file="dstack/app/protocol/attempts.py",
        old="    if stop is None and recorded is None:\n",
        new="    if recorded is None:\n",
        tests=PROTOCOL,
    ),
    Mutant(
        name="start-after-outcome",
        breaks="a coordinator starts the job without looking whether its run has an outcome of it behind its claim",
        file="dstack/app/protocol/attempts.py",
        old="    if stop is None and recorded is None:\n",
        new="    if stop is None:\n",
        tests=PROTOCOL,
    ),
    Mutant(
        name="adopt-without-verdict",
        breaks="a dead coordinator's attempt is called void without asking the host",
        file="dstack/app/protocol/settlement.py",
        old="    if isinstance(verdict, StartRefused):\n",
        new="    if True:\n",
        tests=PROTOCOL,
    ),
    Mutant(
        name="forgetful-joiner",
        breaks="a joiner takes failures that came before it as its own outcome",
        file="dstack/app/protocol/settlement.py",
        old="    ends = yield from ends_of(keys, want.ended, number)\n    verdict",
        new="    ends = yield from ends_of(keys, 0, number)\n    verdict",
        tests=PROTOCOL,
    ),
    Mutant(
        name="slot-freed-early",
        breaks="the ticket of an attempt is taken away before its job has ended",
        file="dstack/runner/job/supervisor.py",
        old="        try:\n            _wait_and_run(attempt, hold, control)\n",
        new="        slots.give_back(hold.slot)\n        try:\n            _wait_and_run(attempt, hold, control)\n",
        tests=("tests/unit/runner/queue/test_slots.py",),
    ),
    Mutant(
        name="slot-not-inherited",
        breaks="the processes of a job do not keep its ticket when its supervisor is killed",
        file="dstack/runner/job/supervisor.py",
        old="JobProcess(attempt, record, executor, (hold.slot.fd, hold.alive), hold.slot.gpus)",
        new="JobProcess(attempt, record, executor, (hold.alive,), hold.slot.gpus)",
        tests=("tests/unit/runner/queue/test_slots.py",),
    ),
    Mutant(
        name="overtaking",
        breaks="a job starts with what an earlier one waits for",
        file="dstack/runner/queue/scheduler.py",
        old="        free.reserve(ticket.demand)\n",
        new="        pass\n",
        tests=("tests/unit/runner/queue/test_scheduler.py",),
    ),
    Mutant(
        name="another-account's-spool",
        breaks="the verdict of an account that never heard of the attempt is believed",
        file="dstack/core/foreign_attempts.py",
        old=(
            "    if claim.account and (claim.account, claim.folder) != (facts.user, facts.dir):\n        return False\n"
        ),
        new="    if facts.user:\n        return True\n",
        tests=("tests/system/teams/test_two_accounts.py", "-k", "colleague"),
    ),
    Mutant(
        name="whatever-the-bucket-says",
        breaks="a coordinator on a host runs a record that its user did not hand over",
        file="dstack/coordinator/detached.py",
        old="        if digest(body) != hand.record:",
        new="        if not body:",
        tests=("tests/contract/test_coordinator.py", "-k", "own_user"),
    ),
    Mutant(
        name="lost-by-silence",
        breaks="an attempt is called lost without anybody's word, and run again",
        file="dstack/core/retry.py",
        old="""    return AttemptEnd.LOST in retry.on and tried < retry.attempts""",
        new="""    return tried < max(3, retry.attempts)""",
        tests=PROTOCOL,
    ),
    Mutant(
        name="empty-mount-point",
        breaks="a folder bucket whose file system is gone looks like one in which nothing was ever claimed",
        file="dstack/adapters/bucket/folder.py",
        old="            if self._format is not None and not self._is_same(self._format):",
        new="            if self._format is None and not self._is_same(b''):",
        tests=("tests/unit/adapters/bucket/test_folder.py", "-k", "unmounted"),
    ),
    Mutant(
        name="never-held-is-failed",
        breaks="a job fails because its supervisor died before it began",
        file="dstack/app/coordination/preparation.py",
        old=(
            "        except NotHeldError as error:\n"
            '            return self._not_begun(spec, f"{error}: its supervisor was killed")\n'
        ),
        new="        except NotHeldError as error:\n            return Unpreparable(str(error))\n",
        tests=("tests/system/crashes/test_together_here.py", "-k", "supervisor"),
    ),
    Mutant(
        name="another-machine's-spool",
        breaks="the verdict of another machine, with the same account and folder, is believed",
        file="dstack/core/foreign_attempts.py",
        old="    return not claim.place or claim.place == facts.place\n",
        new="    return True\n",
        tests=("tests/system/crashes/test_together_here.py", "-k", "another"),
    ),
    Mutant(
        name="dead-is-lost",
        breaks="a coordinator that surely died takes its host's job with it at once",
        file="dstack/app/protocol/settlement.py",
        old="    by_owner = silence.owner and live.owner.boot_id == live.claim.boot_id",
        new="    by_owner = live.owner.boot_id == live.claim.boot_id",
        tests=("tests/system/crashes/test_together_here.py",),
    ),
    Mutant(
        name="deaf-joiner",
        breaks="a failure that came after a run had joined is run again by it",
        file="dstack/app/protocol/generations.py",
        old="        ended = number if live is None else number - 1",
        new="        ended = number",
        tests=("tests/system/teams/test_single_flight.py", "-k", "one_failure and 2"),
    ),
    Mutant(
        name="mask-by-chunk",
        breaks="a secret that is cut by the border of two reads is not seen",
        file="dstack/runner/job/masking.py",
        old="self._show(window, self._unfinished(window, suspects), suspects)",
        new="self._show(window, len(window), suspects)",
        tests=("tests/unit/runner/job/test_masking.py",),
    ),
    Mutant(
        name="mask-too-late",
        breaks="a job that was given secrets writes to its log itself",
        file="dstack/runner/executors/plain.py",
        old="        output = log if launch.pipe is None or launch.pipe.writer is None else launch.pipe.writer\n",
        new="        output = log\n",
        tests=("tests/unit/runner/job/test_masked_log.py",),
    ),
    Mutant(
        name="secret-in-docker-env",
        breaks="secrets are options of `docker create`, so that `docker inspect` shows them",
        file="dstack/runner/executors/container_keeper.py",
        old="            self._create()\n",
        new="""            real = create_argv
            given_ = ["--env=%s=%s" % item for item in self._launch.secrets.items()]
            globals()["create_argv"] = lambda *a, **k: real(*a, **k)[:2] + given_ + real(*a, **k)[2:]
            self._create()
""",
        tests=("tests/unit/runner/job/test_masked_log.py",),
    ),
    Mutant(
        name="claim-without-secret",
        breaks="a coordinator claims a job whose secret it does not have",
        file="dstack/app/protocol/job_secrets.py",
        old="for value in memory_values(spec) if value.key not in caller)",
        new="for value in memory_values(spec) if False)",
        tests=("tests/system/runs/test_secrets.py::test_a_coordinator_that_lacks_the_secret_waits_and_says_for_whose",),
    ),
    Mutant(
        name="secrets-file-for-all",
        breaks="the file of secrets can be read by others",
        file="dstack/private_folder.py",
        old="FILE_MODE = 0o600",
        new="FILE_MODE = 0o644",
        tests=(
            "tests/cli/project/test_secrets.py::test_without_a_keyring_a_file_of_the_owners_keeps_it_and_that_is_said",
        ),
    ),
    Mutant(
        name="silence-is-life",
        breaks="a coordinator whose last sign is hours old counts as looking after its run",
        file="dstack/app/queries/coordinators.py",
        old="not beat.at or self.now - beat.at < SILENT_BEAT_S",
        new="True",
        tests=("tests/app/queries/test_coordinators.py",),
    ),
    Mutant(
        name="heartbeat-before-lock",
        breaks="a heartbeat counts for a coordinator whose process is known to be gone",
        file="dstack/app/queries/coordinators.py",
        old="        if sure is False:\n",
        new="        if False:\n",
        tests=("tests/app/queries/test_coordinators.py",),
    ),
    Mutant(
        name="anybodys-last-run",
        breaks="the shorthand means somebody else's run where that is newer",
        file="dstack/app/queries/run_lookup.py",
        old="    for run in run_ids(bucket, keys, EVERYBODYS_RUNS_READ):\n"
        "        record = _read_run(bucket, keys, run)\n"
        "        if record is not None and (record.user, record.machine) == (user, machine):",
        new="    for run in run_ids(bucket, keys, EVERYBODYS_RUNS_READ):\n"
        "        record = _read_run(bucket, keys, run)\n"
        "        if record is not None:",
        tests=("tests/app/queries/test_coordinators.py",),
    ),
    Mutant(
        name="beginning-is-enough",
        breaks="of several runs that begin so the first is taken",
        file="dstack/app/queries/run_lookup.py",
        old="    if len(fitting) > 1:",
        new="    if len(fitting) > 9:",
        tests=("tests/app/queries/test_coordinators.py",),
    ),
    Mutant(
        name="pulled-over-ones-own",
        breaks="a pulled host takes the place of an entry with a key to log in with",
        file="dstack/project/hosts/shared_hosts.py",
        old="if host.name not in own and before.get(host.name) != host:",
        new="if before.get(host.name) != host:",
        tests=("tests/unit/project/test_shared_hosts.py",),
    ),
    Mutant(
        name="pulled-unread",
        breaks="what a bucket says of hosts is not judged as a file is",
        file="dstack/project/hosts/shared_hosts.py",
        old="    if told:\n",
        new="    if told and not hosts:\n",
        tests=("tests/unit/project/test_shared_hosts.py",),
    ),
    Mutant(
        name="all-pages",
        breaks="ps reads every page of the list of runs of an object store",
        file="dstack/adapters/bucket/object_stores/obstore_store.py",
        old="        if limit is not None:\n            return self._request",
        new="        if limit is not None and not limit:\n            return self._request",
        tests=("tests/system/buckets/test_requests.py",),
    ),
    Mutant(
        name="store-create-overwrites",
        breaks="an object store is asked to write without a condition",
        file="dstack/adapters/bucket/object_stores/obstore_store.py",
        old='obstore.put(self._store, key, body, mode="create", use_multipart=False)',
        new="obstore.put(self._store, key, body, use_multipart=False)",
        tests=("tests/contract/test_bucket.py", "-k", "s3-ministack"),
    ),
    Mutant(
        name="large-create-overwrites",
        breaks="a large object is sent without a look whether one is there",
        file="dstack/adapters/bucket/object_stores/obstore_store.py",
        old="        if self._exists(key):\n            return Put.EXISTS\n",
        new="",
        tests=("tests/contract/test_bucket_bulk.py", "-k", "s3-ministack"),
    ),
    Mutant(
        name="broken-source-is-unknown",
        breaks="the error of a source of bulk data is taken for a lost answer of the store",
        file="dstack/adapters/bucket/object_stores/obstore_store.py",
        old="                raise source.failure\n",
        new="                pass\n",
        tests=("tests/contract/test_bucket_bulk.py", "-k", "s3-ministack"),
    ),
    Mutant(
        name="cut-answer-is-final",
        breaks="a read whose answer was cut off is not made again",
        file="dstack/adapters/bucket/object_stores/obstore_store.py",
        old="if final or not left or",
        new="if True or not left or",
        tests=("tests/system/crashes/test_store_faults.py", "-k", "two_laptops"),
    ),
    Mutant(
        name="expired-is-unknown",
        breaks="a create that was refused for its credentials counts as a lost answer",
        file="dstack/adapters/bucket/object_stores/obstore_store.py",
        old="            if refuses_credentials(str(error)):\n",
        new="            if not str(error):\n",
        tests=("tests/unit/adapters/bucket/test_credentials.py",),
    ),
    Mutant(
        name="packs-unverified",
        breaks="bytes of a host get into the bucket without being checked",
        file="dstack/app/transfer/pack_sender.py",
        old="manifests.verify_bytes(self._files, self._counting(chunks))",
        new="self._counting(chunks)",
        tests=("tests/app/transfer/test_artifacts_pieces.py",),
    ),
    Mutant(
        name="pieces-not-looked-for",
        breaks="a result counts as whole without the pieces of its large files",
        file="dstack/app/protocol/settlement.py",
        old="    packs = manifests.uploads(manifest)",
        new="    packs = manifests.packs(manifest)",
        tests=("tests/app/transfer/test_artifacts_pieces.py",),
    ),
    Mutant(
        name="prune-without-tomb",
        breaks="the collector looks for users and then deletes, without closing the generation",
        file="dstack/app/protocol/prune_steps.py",
        old="        yield from create(keys.tomb, pack(tomb))\n",
        new="        yield from ask(Read(keys.tomb))\n",
        tests=PROTOCOL,
    ),
    Mutant(
        name="prune-without-second-look",
        breaks="the collector does not look for users again once the tomb stands",
        file="dstack/app/protocol/prune_steps.py",
        old="""        yield from create(keys.tomb, pack(tomb))
        use = yield from user_of(project, keys, ended)
""",
        new="        yield from create(keys.tomb, pack(tomb))\n",
        tests=PROTOCOL,
    ),
    Mutant(
        name="pin-after-look",
        breaks="a run looks for the tomb before it is registered and its pin stands",
        file="dstack/app/protocol/generations.py",
        old="""    yield from register(keys, job.run.id)
    yield from create(keys.pin(job.run.id), pack(Pin(nonce=(yield from ask(NewNonce())))))
    left = (yield from ask(Read(keys.tomb))) is not None
""",
        new="""    left = (yield from ask(Read(keys.tomb))) is not None
    yield from register(keys, job.run.id)
    yield from create(keys.pin(job.run.id), pack(Pin(nonce=(yield from ask(NewNonce())))))
""",
        tests=PROTOCOL,
    ),
    Mutant(
        name="pull-pins-after-look",
        breaks="somebody who pulls artifacts looks for the tomb before the pin stands",
        file="dstack/app/protocol/prune_steps.py",
        old="""    yield from create(keys.pin(pin.nonce), pack(pin))
    if (yield from ask(Read(keys.tomb))) is None:
        return True
""",
        new="""    if (yield from ask(Read(keys.tomb))) is None:
        yield from create(keys.pin(pin.nonce), pack(pin))
        return True
""",
        tests=PROTOCOL,
    ),
    Mutant(
        name="data-before-result",
        breaks="the collector deletes the bytes before the result that names them",
        file="dstack/app/protocol/prune_steps.py",
        old="    for tier in tiers:\n",
        new="    for tier in reversed(tiers):\n",
        tests=PROTOCOL,
    ),
    Mutant(
        name="deaf-to-other-coordinators",
        breaks="a coordinator does what it saw of a tomb itself, not what its run recorded first",
        file="dstack/app/protocol/generations.py",
        old="""    if (yield from create(key, pack(made))):
        return made
    return (yield from read_record(Want, key))
""",
        new="""    yield from create(key, pack(made))
    return made
""",
        tests=PROTOCOL,
    ),
    Mutant(
        name="start-for-a-pruned-run",
        breaks="a slow coordinator starts a job of a run whose records were pruned",
        file="dstack/app/protocol/attempts.py",
        old="    if recorded is None and (yield from ask(Read(job.run_keys.record))) is None:\n",
        new="    if False:\n",
        tests=("tests/app/maintenance/test_prune_plan.py",),
    ),
    Mutant(
        name="summary-before-record",
        breaks="the summary of a run is pruned before its record: it looks unfinished, and is worked on again",
        file="dstack/app/protocol/prune_steps.py",
        old="    for tier in ({keys.record}, rest, {keys.final}):\n",
        new="    for tier in ({keys.final}, rest, {keys.record}):\n",
        tests=("tests/app/maintenance/test_prune_plan.py",),
    ),
    Mutant(
        name="folder-create-overwrites",
        breaks="an object of a folder is created by a rename, as `mode=create` of libraries does",
        file="dstack/adapters/bucket/folder_writer.py",
        old="os.link(self._name, name, src_dir_fd=self._staging, dst_dir_fd=folder, follow_symlinks=False)",
        new="os.replace(self._name, name, src_dir_fd=self._staging, dst_dir_fd=folder)",
        tests=("tests/contract/test_bucket.py", "-k", "folder"),
    ),
    Mutant(
        name="everybodys-turn",
        breaks="every host asks for a job at once, whoever made its inputs",
        file="dstack/core/placement.py",
        old="    return TURN_S * before",
        new="    return 0.0 * before",
        tests=("tests/unit/core/test_placement.py",),
    ),
    Mutant(
        name="claims-without-a-heartbeat",
        breaks="a coordinator claims before its heartbeat stands, so that others take it for one that has left",
        file="dstack/app/coordination/effect_driver.py",
        old="        if takes_attempt(effect.key):",
        new="        if takes_attempt(effect.key) and not effect.key:",
        tests=("tests/app/coordination/test_heartbeat.py",),
    ),
    Mutant(
        name="docker-unasked",
        breaks="a job with an image is given to a host that has no Docker",
        file="dstack/core/placement.py",
        old="    if spec.image is not None and not facts.docker:\n",
        new="    if False:\n",
        tests=("tests/unit/core/test_placement.py",),
    ),
    Mutant(
        name="half-a-survey",
        breaks="a survey that a store broke off passes for everything that is there, and a prune believes it",
        file="dstack/adapters/bucket/object_stores/obstore_store.py",
        old="            # One that has failed would say next that it is at its end.\n            pages = None\n",
        new="            pages = asked\n",
        tests=("tests/unit/adapters/bucket/test_survey.py",),
    ),
    Mutant(
        name="end-read-twice",
        breaks="a coordinator reads the end of an attempt again that a prune may have removed meanwhile",
        file="dstack/app/protocol/attempts.py",
        old="    if end is not None and end.status == AttemptEnd.LOST:\n        yield from ask(Linger(",
        new=(
            "    again = yield from ask(Read(mine.end))\n"
            "    if end is not None and unpack(End, mine.end, again).status == AttemptEnd.LOST:\n"
            "        yield from ask(Linger("
        ),
        tests=("tests/app/maintenance/test_prune_plan.py",),
    ),
    Mutant(
        name="watch-decides",
        breaks="a bucket that is away counts as the silence of the host of a job, which may then be called lost",
        file="dstack/app/hosts/hosts_of_claims.py",
        old="        if isinstance(error, HostUnreachableError):\n            self._unwatched",
        new="        if error is not None:\n            self._unwatched",
        tests=("tests/app/coordination/test_effect_driver_watch.py",),
    ),
    Mutant(
        name="believed-for-ever",
        breaks="a blob that was verified once is laid unseen, whatever became of it since",
        file="dstack/runner/store/blob_store.py",
        old="        return self._seen.get(digest) == identity\n",
        new="        return digest in self._seen\n",
        tests=("tests/unit/runner/store/test_blob_store.py",),
    ),
    Mutant(
        name="moved-unseen",
        breaks="what a job left comes into the store without a look at whether it still is what the manifest says",
        file="dstack/runner/store/intake.py",
        old='                right = safe_paths.hash_file(source) == (entry["sha256"], entry["size"])\n',
        new="                right = True\n",
        tests=("tests/unit/runner/store/test_blob_store.py",),
    ),
    Mutant(
        name="moved-from-others",
        breaks="a file that has another name, too, becomes a blob: whoever writes there changes the store",
        file="dstack/runner/store/intake.py",
        old="or state.st_nlink != 1 or",
        new="or",
        tests=("tests/unit/runner/store/test_blob_store.py",),
    ),
    Mutant(
        name="forgotten-in-use",
        breaks="a host forgets inputs that an attempt is about to take",
        file="dstack/runner/store/eviction.py",
        old="        if excess <= 0 or blob.used > now - KEEP_AFTER_USE_S:\n",
        new="        if excess <= 0:\n",
        tests=("tests/unit/runner/store/test_eviction.py",),
    ),
    Mutant(
        name="forgotten-results",
        breaks="a host forgets an attempt that ended, whose result nobody has brought into the bucket",
        file="dstack/runner/store/eviction.py",
        old="            if attempt.decide(REFUSED) == REFUSED:\n",
        new="            if attempt.decide(REFUSED):\n",
        tests=("tests/unit/runner/store/test_eviction.py",),
    ),
    Mutant(
        name="unknown-is-ended",
        breaks="a host that has never heard of a coordinator says that it ended: a living one loses its job",
        file="dstack/runner/coordinator_liveness.py",
        old="    except OSError:\n        return False\n",
        new="    except OSError:\n        return True\n",
        tests=("tests/contract/test_runner.py",),
    ),
    Mutant(
        name="tidied-too-soon",
        breaks="a host forgets an attempt that was called lost, and was about to come to the result",
        file="dstack/app/coordination/host_cleanup.py",
        old="    if end.status != AttemptEnd.LOST:\n",
        new="    if True:\n",
        tests=("tests/app/coordination/test_host_cleanup.py",),
    ),
    Mutant(
        name="tidied-by-number",
        breaks="a host forgets an attempt because another one of the same number, in another bucket, has ended",
        file="dstack/app/coordination/host_cleanup.py",
        old="    if end.nonce != spooled.nonce:\n",
        new="    if False:\n",
        tests=("tests/app/coordination/test_host_cleanup.py",),
    ),
)
