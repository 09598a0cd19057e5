"""The keeper: a process that stands for a Docker container in the supervisor's process tree.

The supervisor forks the keeper and treats the keeper like any job: SIGTERM stops the job, the exit code is the job's,
and the inherited locks hold slot and `alive` until the container is gone. The output of the container goes straight
into the mounted log file or, of a job with secrets, into a mounted pipe of the supervisor's, so that a killed docker
client costs no byte. The whole environment goes in by stdin, so that `docker inspect` shows none of it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
from typing import Any, Dict, List, Mapping, NamedTuple, NoReturn, Optional, Sequence, Tuple

from dstack.private_folder import make_folder
from dstack.runner.base.spool import Attempt, read_json, write_json
from dstack.runner.executors.docker import ANSWER_TIMEOUT_S, ask, container_name, explain, is_running
from dstack.runner.executors.executor import Launch, marker, stop_grace
from dstack.wire.job_messages import JobOrder

NO_CONTAINER_CODE = 125
"""Exit code of a keeper whose container could not be made, or did not say how the job ended."""
CLIENT_END_S = 2.0
"""Seconds for the docker client to end after its container."""
LOG_TAIL_BYTES = 4096
"""Bytes at the end of the log to search for the error of a docker client."""

# Run by the image's own sh as the only child of docker's init. First all that the job is given, by stdin; then the
# script in the foreground; then, as for a plain job, the end of what it left behind; last, proof that it got here.
WRAPPER_SCRIPT = r"""
exec >>"$3" 2>&1 || exit 125
_dstack_given=$(cat)
case $_dstack_given in *_dstack_whole=1) ;; *) echo "[dstack] the job was not given whole"; exit 125 ;; esac
eval "$_dstack_given"
unset _dstack_given
_dstack_code=$1 _dstack_script=$2 _dstack_told= _dstack_shell=sh _dstack_looks=0
shift 3
umask 022
trap _dstack_told=1 TERM
command -v bash >/dev/null 2>&1 && _dstack_shell=bash
"$_dstack_shell" -e "$_dstack_script" "$@" </dev/null
_dstack_status=$?
set -- /proc/[0-9]*
[ $# -le 2 ] || [ -n "$_dstack_told" ] || kill -TERM -1 2>/dev/null
while set -- /proc/[0-9]*; [ $# -gt 2 ]; do
  [ -n "$_dstack_told" ] || [ "$_dstack_looks" -lt 50 ] || break
  _dstack_looks=$((_dstack_looks + 1))
  sleep 0.1 2>/dev/null || sleep 1
done
umask 077
echo "$_dstack_status" >"$_dstack_code"
exit "$_dstack_status"
"""


class ContainerError(Exception):
    """The container cannot be made; the text says why and what to do."""


class StopSignal(Exception):
    """SIGTERM came."""


class Account(NamedTuple):
    """The account of a container's processes: the numbers of the user, of the group, and of the other groups."""

    uid: int
    gid: int
    groups: Tuple[int, ...] = ()


def own_account() -> Account:
    return Account(os.getuid(), os.getgid(), tuple(group for group in os.getgroups() if group != os.getgid()))


def create_argv(attempt: Attempt, order: JobOrder, launch: Launch, account: Account) -> List[str]:
    """The command that makes the container of a prepared attempt; holds no value of the environment.

    With a pipe in `launch` the container sees the pipe and not the log.
    """
    output = attempt.log if launch.pipe is None else pipe_path(attempt)
    folder = attempt.project(order.prefix)
    # The image is here already, and all output goes into a mounted file: Docker shall neither pull nor keep logs.
    argv = ["docker", "create", "--interactive", "--init", "--pull", "never", "--log-driver", "none"]
    argv += ["--name", container_name(attempt.nonce), "--label", "dstack.attempt=" + attempt.nonce]
    argv += ["--cidfile", cid_path(attempt)]
    argv += ["--user", "%d:%d" % (account.uid, account.gid)]
    argv += ["--network", "host", "--security-opt", "no-new-privileges"]
    if account.uid:
        argv += ["--cap-drop", "ALL"]
    for group in account.groups:
        argv += ["--group-add", str(group)]
    # The pipe lies in the mounted folder of the container; the log does not, and is mounted by itself.
    for path in (attempt.work, attempt.container, *([output] if launch.pipe is None else [])):
        argv += ["--mount", _bind(path)]
    argv += ["--mount", _bind(attempt.script) + ",readonly", "--workdir", folder]
    # docker's init then signals the script's whole process group, as a plain job's stop does.
    argv += ["--env", "TINI_KILL_PROCESS_GROUP=1"]
    if order.shm_size:
        argv += ["--shm-size", "%db" % order.shm_size]
    argv += gpu_options(launch.gpus)
    argv += ["--entrypoint", "sh", "--", str(order.image), "-c", WRAPPER_SCRIPT, "dstack"]
    argv += [_code_path(attempt), attempt.script, output]
    return argv + list(order.arguments)


def gpu_options(gpus: Sequence[int]) -> List[str]:
    """The options of `docker create` for the GPUs of a container; all others stay invisible."""
    return ["--gpus", '"device=%s"' % ",".join(map(str, gpus))] if gpus else []


def _bind(path: str) -> str:
    quoted = path.replace('"', '""')
    return 'type=bind,"source=%s","target=%s"' % (quoted, quoted)


def cid_path(attempt: Attempt) -> str:
    """The file with the id of the container; exists from the creation of the container on."""
    return os.path.join(attempt.container, "cid")


def pipe_path(attempt: Attempt) -> str:
    """The pipe for the output of a container; lies in a folder that is mounted there."""
    return os.path.join(attempt.container, "output")


def _code_path(attempt: Attempt) -> str:
    """The file into which the wrapper writes the exit code of the script."""
    return os.path.join(attempt.container, "code")


def environment_text(attempt: Attempt, order: JobOrder, secrets: Mapping[str, str], user: str) -> bytes:
    """The wrapper's stdin: the environment of the job as shell text, closed by a proof of wholeness."""
    values = {"HOME": os.path.join(attempt.container, "home"), "USER": user, "LOGNAME": user}
    values.update(order.environment)
    values.update(secrets)
    values.update(marker(attempt.nonce))
    # A shell takes no other names, and no value with a NUL byte.
    lines = [
        "export %s=%s" % (key, shlex.quote(value))
        for key, value in values.items()
        if key.isidentifier() and key.isascii() and "\0" not in value
    ]
    return "\n".join([*lines, "_dstack_whole=1"]).encode("utf-8", "surrogateescape")


def read_outcome(attempt: Attempt) -> Dict[str, Any]:
    """The findings of the keeper: {"reason", "oom", "unknown"}; empty when the keeper wrote nothing."""
    return read_json(os.path.join(attempt.container, "outcome.json")) or {}


def fork_keeper(attempt: Attempt, order: JobOrder, launch: Launch) -> int:
    """Start the keeper of a container -> its pid; call in a single-threaded process. Raises OSError."""
    make_folder(os.path.join(attempt.container, "home"))
    pid = os.fork()
    if pid == 0:
        if launch.pipe is not None:
            os.close(launch.pipe.reader)  # the supervisor alone reads
        _keeper_main(Keeper(attempt, order, launch))
    return pid


def _keeper_main(keeper: Keeper) -> NoReturn:
    code = NO_CONTAINER_CODE
    try:
        signal.set_wakeup_fd(-1)  # the wake-up pipe is the supervisor's
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        code = keeper.run()
    except Exception as error:
        keeper.give_up("the container's keeper failed: %s: %s" % (type(error).__name__, error))
    finally:
        os._exit(code)


class Keeper:
    """Makes, starts, follows and stops one container."""

    def __init__(self, attempt: Attempt, order: JobOrder, launch: Launch) -> None:
        self._attempt = attempt
        self._order = order
        self._launch = launch
        self._image = str(order.image)
        self._client: Optional[subprocess.Popen[bytes]] = None

    def run(self) -> int:
        """Run the container from the image to the end; returns the job's exit code."""
        signal.signal(signal.SIGTERM, self._on_term)
        try:
            self._have_image()
            self._create()
            self._start()
            while is_running(self._attempt.nonce):
                # Somebody killed the docker client; the container does not depend on it.
                self._run_client(["wait", container_name(self._attempt.nonce)], subprocess.DEVNULL)
        except ContainerError as error:
            self.give_up(str(error))
            return NO_CONTAINER_CODE
        except StopSignal:
            self._stop()
        # A second SIGTERM must not break off the report of the end.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return self._finish()

    def _on_term(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise StopSignal

    def give_up(self, reason: str) -> None:
        self._attempt.note(reason)
        self._write_outcome({"reason": reason, "unknown": True})

    def _write_outcome(self, outcome: Dict[str, Any]) -> None:
        write_json(os.path.join(self._attempt.container, "outcome.json"), outcome)

    def _have_image(self) -> None:
        if shutil.which("docker") is None:
            raise ContainerError("image: %s: docker is not installed on this host" % self._image)
        seen = ask(["image", "inspect", "--format", "{{.Id}}", self._image])
        if seen.returncode == 0:
            return
        if b"no such image" not in seen.stderr.lower():
            raise ContainerError("image: %s: %s" % (self._image, explain(seen.stderr)))
        self._attempt.note("pulling %s" % self._image)
        code, tail = self._run_client(["pull", "--", self._image], subprocess.DEVNULL)
        if code:
            raise ContainerError("image: %s could not be pulled: %s" % (self._image, explain(tail)))

    def _create(self) -> None:
        argv = create_argv(self._attempt, self._order, self._launch, own_account())
        made = ask(argv[1:])
        if made.returncode:
            raise ContainerError("image: %s: no container: %s" % (self._image, explain(made.stderr)))

    def _start(self) -> None:
        user = os.environ.get("USER") or os.environ.get("LOGNAME") or str(os.getuid())
        text = environment_text(self._attempt, self._order, self._launch.secrets, user)
        start = ["start", "--attach", "--interactive", container_name(self._attempt.nonce)]
        self._run_client(start, subprocess.PIPE, text)

    def _run_client(self, arguments: List[str], stdin: int, text: bytes = b"") -> Tuple[int, bytes]:
        """Run a docker client of any duration, with output into the log; returns the exit code and the log's new
        tail."""
        before = self._attempt.log_size()
        with open(self._attempt.log, "ab", buffering=0) as log:
            # `docker wait` prints the exit code, which is no output of the job's.
            stdout = subprocess.DEVNULL if arguments[0] == "wait" else log
            self._client = subprocess.Popen(
                ["docker", *arguments], stdin=stdin, stdout=stdout, stderr=log, pass_fds=self._launch.inherited
            )
        if self._client.stdin is not None:
            try:
                self._client.stdin.write(text)
                self._client.stdin.close()
            except BrokenPipeError:
                pass  # it died; its code and the container's state tell the rest
        code = self._client.wait()
        self._client = None
        return code, self._tail(before) if code else b""

    def _tail(self, since: int) -> bytes:
        with open(self._attempt.log, "rb") as log:
            log.seek(max(since, self._attempt.log_size() - LOG_TAIL_BYTES))
            return log.read(LOG_TAIL_BYTES)

    def _stop(self) -> None:
        grace = max(0, round(stop_grace(self._attempt)))
        if os.path.exists(cid_path(self._attempt)):
            stop = ["stop", "--time", str(grace), container_name(self._attempt.nonce)]
            ask(stop, timeout=grace + ANSWER_TIMEOUT_S)
        if self._client is not None:
            try:
                self._client.wait(CLIENT_END_S)
            except subprocess.TimeoutExpired:
                self._client.kill()
                self._client.wait()

    def _finish(self) -> int:
        """The exit code, believed only where Docker and the wrapper in the container agree on a success."""
        what = "{{.State.ExitCode}} {{.State.OOMKilled}} {{.State.Error}}"
        seen = ask(["inspect", "--format", what, container_name(self._attempt.nonce)])
        fields = seen.stdout.decode("utf-8", "replace").strip().split(" ", 2)
        if seen.returncode or len(fields) < 2:
            self._write_outcome({"reason": "the container is gone: %s" % explain(seen.stderr), "unknown": True})
            return NO_CONTAINER_CODE
        code, error = int(fields[0]), fields[2] if len(fields) > 2 else ""
        if error:
            self.give_up("image: %s: the container could not be started: %s" % (self._image, error))
            return NO_CONTAINER_CODE
        if code == 0 and not os.path.exists(_code_path(self._attempt)):
            self.give_up("the container ended and did not say how; its exit code 0 is not believed")
            return NO_CONTAINER_CODE
        self._write_outcome({"oom": fields[1] == "true"})
        return code
