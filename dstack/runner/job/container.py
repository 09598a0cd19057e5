"""A job in a Docker container: the argv, and the keeper that stands for the container in the process tree.

The keeper is forked by the supervisor and treated like any job: it is sent SIGTERM to stop, its exit code is the
job's. It holds slot and `alive` until the container is gone. What the container prints goes straight into the mounted
log file, or, where there is something to hide, into a mounted pipe of the supervisor's, so a killed docker client loses
no byte; the whole environment goes in by stdin, so `docker inspect` shows none of it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
from typing import Any, Dict, Iterable, List, Mapping, NoReturn, Optional, Tuple

from dstack.private_folder import make_folder
from dstack.runner.base.spool import Attempt, read_json, write_json
from dstack.runner.job import job_command
from dstack.runner.job.masked_log import fifo
from dstack.runner.queue import devices

MARGIN = 20.0
"""Seconds that stopping a container may take beyond its grace."""
DEADLINE = 30.0
"""Seconds for a question to the Docker daemon."""
LOOK = 5.0
"""Seconds for one that only makes a better choice."""
SILENT, ABSENT = 124, 127
"""Codes of what Docker did not answer in time, and where there is no client."""

# Run by the image's own sh as the only child of docker's init. First all that the job is given, by stdin; then the
# script in the foreground; then, as for a plain job, the end of what it left behind; last, proof that it got here.
WRAPPER = r"""
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


class Unfit(Exception):
    """The container cannot be made; the text says why and what to do."""


class Told(Exception):
    """SIGTERM came."""


def name(nonce: str) -> str:
    return "dstack-" + nonce


def create_argv(
    attempt: Attempt, record: Mapping[str, Any], *, uid: int, gid: int, groups: Tuple[int, ...] = ()
) -> List[str]:
    """The command that makes the container of a prepared attempt; holds no value of the environment.

    Of a record that is `masked` the container sees no log, only the pipe to it.
    """
    output = fifo(attempt) if record.get("masked") else attempt.log
    folder = attempt.project(record.get("prefix") or "")
    argv = ["docker", "create", "--interactive", "--init", "--pull", "never", "--log-driver", "none"]
    argv += ["--name", name(attempt.nonce), "--label", "dstack.attempt=" + attempt.nonce]
    argv += ["--cidfile", os.path.join(attempt.container, "cid")]
    argv += ["--user", "%d:%d" % (uid, gid), "--network", "host", "--security-opt", "no-new-privileges"]
    if uid:
        argv += ["--cap-drop", "ALL"]
    for group in groups:
        argv += ["--group-add", str(group)]
    for path in (attempt.work, attempt.container, *([] if record.get("masked") else [output])):
        argv += ["--mount", _bind(path)]
    argv += ["--mount", _bind(attempt.script) + ",readonly", "--workdir", folder]
    # docker's init then signals the script's whole process group, as a plain job's stop does.
    argv += ["--env", "TINI_KILL_PROCESS_GROUP=1"]
    if record.get("shm_size"):
        argv += ["--shm-size", "%db" % record["shm_size"]]
    argv += devices.docker_options(record.get("gpus") or [])
    argv += ["--entrypoint", "sh", "--", str(record["image"]), "-c", WRAPPER, "dstack"]
    argv += [_code_file(attempt), attempt.script, output]
    return argv + [str(item) for item in record.get("arguments") or []]


def _bind(path: str) -> str:
    quoted = path.replace('"', '""')
    return 'type=bind,"source=%s","target=%s"' % (quoted, quoted)


def _code_file(attempt: Attempt) -> str:
    return os.path.join(attempt.container, "code")


def given(attempt: Attempt, record: Mapping[str, Any], secrets: Mapping[str, str], user: str) -> bytes:
    """What the wrapper reads from its stdin: the environment as shell text, closed by a proof of wholeness."""
    values = {"HOME": os.path.join(attempt.container, "home"), "USER": user, "LOGNAME": user}
    values.update(record.get("environment") or {})
    values.update(secrets)
    values.update(job_command.marker(attempt.nonce))
    lines = [
        "export %s=%s" % (key, shlex.quote(value))
        for key, value in values.items()
        if key.isidentifier() and key.isascii() and "\0" not in value
    ]
    return "\n".join([*lines, "_dstack_whole=1"]).encode("utf-8", "surrogateescape")


def told(attempt: Attempt) -> Dict[str, Any]:
    """What the keeper found out: {"reason", "oom", "unknown"}; empty when it wrote nothing."""
    return read_json(os.path.join(attempt.container, "outcome.json")) or {}


def was_created(attempt: Attempt) -> bool:
    return os.path.exists(os.path.join(attempt.container, "cid"))


def remove(nonce: str) -> bool:
    """End and remove the attempt's container; True when it is gone for sure."""
    done = _docker(["rm", "--force", "--volumes", name(nonce)])
    return done.returncode == 0 or b"no such container" in done.stderr.lower()


def is_running(nonce: str) -> Optional[bool]:
    """Whether the attempt's container runs; None where Docker does not say."""
    done = _docker(["inspect", "--format", "{{.State.Running}}", name(nonce)])
    if done.returncode:
        return False if b"no such object" in done.stderr.lower() else None
    return done.stdout.strip() == b"true"


def present(images: Iterable[str]) -> List[str]:
    """Those of the images that are here, until Docker gives no answer. Nothing is pulled."""
    found: List[str] = []
    for image in images:
        code = _docker(["image", "inspect", "--format", "{{.Id}}", "--", image], timeout=LOOK).returncode
        if code in (SILENT, ABSENT):
            break
        if code == 0:
            found.append(image)
    return found


def _docker(arguments: List[str], timeout: Optional[float] = None) -> subprocess.CompletedProcess[bytes]:
    """One question to Docker; a hung daemon or a missing client is an answer with a code of its own."""
    command, timeout = ["docker", *arguments], DEADLINE if timeout is None else timeout
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, SILENT, b"", b"docker did not answer within %d s" % timeout)
    except OSError as error:
        return subprocess.CompletedProcess(command, ABSENT, b"", str(error).encode("utf-8", "replace"))


def fork_keeper(
    attempt: Attempt,
    record: Mapping[str, Any],
    secrets: Mapping[str, str],
    inherited: Tuple[int, ...],
    *,
    close: Tuple[int, ...] = (),
) -> int:
    """Start the keeper of a container; returns its pid. Call in a single-threaded process. The keeper closes `close`:
    what only the supervisor shall read."""
    make_folder(os.path.join(attempt.container, "home"))
    pid = os.fork()
    if pid == 0:
        for fd in close:
            os.close(fd)
        _keeper_main(_Keeper(attempt, record, inherited), secrets)
    return pid


def _keeper_main(keeper: _Keeper, secrets: Mapping[str, str]) -> NoReturn:
    code = 125
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        code = keeper.run(secrets)
    except Exception as error:
        keeper.give_up("the container's keeper failed: %s: %s" % (type(error).__name__, error))
    finally:
        os._exit(code)


class _Keeper:
    def __init__(self, attempt: Attempt, record: Mapping[str, Any], inherited: Tuple[int, ...]) -> None:
        self._attempt = attempt
        self._record = record
        self._inherited = inherited
        self._image = str(record["image"])
        self._child: Optional[subprocess.Popen[bytes]] = None

    def run(self, secrets: Mapping[str, str]) -> int:
        """The container from its image to its end; returns the job's exit code."""
        signal.signal(signal.SIGTERM, self._on_term)
        try:
            self._have_image()
            self._create()
            self._start(secrets)
            while is_running(self._attempt.nonce):
                # Somebody killed the docker client; the container does not depend on it.
                self._client(["wait", name(self._attempt.nonce)], subprocess.DEVNULL)
        except Unfit as error:
            self.give_up(str(error))
            return 125
        except Told:
            self._stop()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return self._finish()

    def _on_term(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Told

    def give_up(self, reason: str) -> None:
        self._attempt.note(reason)
        self._tell({"reason": reason, "unknown": True})

    def _tell(self, outcome: Dict[str, Any]) -> None:
        write_json(os.path.join(self._attempt.container, "outcome.json"), outcome)

    def _have_image(self) -> None:
        if shutil.which("docker") is None:
            raise Unfit("image: %s: docker is not installed on this host" % self._image)
        seen = _docker(["image", "inspect", "--format", "{{.Id}}", self._image])
        if seen.returncode == 0:
            return
        if b"no such image" not in seen.stderr.lower():
            raise Unfit("image: %s: %s" % (self._image, explain(seen.stderr)))
        self._attempt.note("pulling %s" % self._image)
        code, tail = self._client(["pull", "--", self._image], subprocess.DEVNULL)
        if code:
            raise Unfit("image: %s could not be pulled: %s" % (self._image, explain(tail)))

    def _create(self) -> None:
        groups = tuple(group for group in os.getgroups() if group != os.getgid())
        argv = create_argv(self._attempt, self._record, uid=os.getuid(), gid=os.getgid(), groups=groups)
        made = _docker(argv[1:])
        if made.returncode:
            raise Unfit("image: %s: no container: %s" % (self._image, explain(made.stderr)))

    def _start(self, secrets: Mapping[str, str]) -> None:
        user = os.environ.get("USER") or os.environ.get("LOGNAME") or str(os.getuid())
        text = given(self._attempt, self._record, secrets, user)
        self._client(["start", "--attach", "--interactive", name(self._attempt.nonce)], subprocess.PIPE, text)

    def _client(self, arguments: List[str], stdin: int, text: bytes = b"") -> Tuple[int, bytes]:
        """A docker client that may run for long, its output in the log; returns its code and the log's new tail."""
        before = self._attempt.log_size()
        with open(self._attempt.log, "ab", buffering=0) as log:
            # `docker wait` prints the exit code, which is no output of the job's.
            stdout = subprocess.DEVNULL if arguments[0] == "wait" else log
            self._child = subprocess.Popen(
                ["docker", *arguments], stdin=stdin, stdout=stdout, stderr=log, pass_fds=self._inherited
            )
        if self._child.stdin is not None:
            try:
                self._child.stdin.write(text)
                self._child.stdin.close()
            except BrokenPipeError:
                pass  # it died; its code and the container's state tell the rest
        code = self._child.wait()
        self._child = None
        return code, self._tail(before) if code else b""

    def _tail(self, since: int) -> bytes:
        with open(self._attempt.log, "rb") as log:
            log.seek(max(since, self._attempt.log_size() - 4096))
            return log.read(4096)

    def _stop(self) -> None:
        grace = stop_seconds(self._attempt)
        if was_created(self._attempt):
            _docker(["stop", "--time", str(grace), name(self._attempt.nonce)], timeout=grace + DEADLINE)
        if self._child is not None:
            try:
                self._child.wait(2)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()

    def _finish(self) -> int:
        """The exit code, believed only where Docker and the wrapper in the container agree on a success."""
        what = "{{.State.ExitCode}} {{.State.OOMKilled}} {{.State.Error}}"
        seen = _docker(["inspect", "--format", what, name(self._attempt.nonce)])
        fields = seen.stdout.decode("utf-8", "replace").strip().split(" ", 2)
        if seen.returncode or len(fields) < 2:
            self._tell({"reason": "the container is gone: %s" % explain(seen.stderr), "unknown": True})
            return 125
        code, error = int(fields[0]), fields[2] if len(fields) > 2 else ""
        if error:
            self.give_up("image: %s: the container could not be started: %s" % (self._image, error))
            return 125
        if code == 0 and not os.path.exists(_code_file(self._attempt)):
            self.give_up("the container ended and did not say how; its exit code 0 is not believed")
            return 125
        self._tell({"oom": fields[1] == "true"})
        return code


def stop_seconds(attempt: Attempt) -> int:
    """Whole seconds between SIGTERM and SIGKILL for a container that is told to stop."""
    asked = read_json(attempt.stop) or {}
    if asked.get("abort"):
        return 0
    grace = asked.get("grace")
    return max(0, round(grace)) if isinstance(grace, (int, float)) else 10


def explain(stderr: bytes) -> str:
    """The last line that docker said, with what to do where that is known."""
    lines = [line.strip() for line in stderr.decode("utf-8", "replace").splitlines() if line.strip()]
    text = lines[-1] if lines else "docker said nothing"
    for line in lines:
        if "permission denied" in line.lower() and "docker" in line.lower():
            return "%s; let an administrator add this user to the group docker" % line
    return text
