"""Short questions to Docker on this host, each with a time limit. Nothing here starts a container or pulls an image."""

from __future__ import annotations

import subprocess
from typing import Iterable, List, Optional

ANSWER_TIMEOUT_S = 30.0
"""Seconds for a question to the Docker daemon."""
IMAGE_TIMEOUT_S = 5.0
"""Seconds for a question whose answer only makes a better choice of host."""
TIMEOUT_CODE = 124
"""Exit code in place of the answer of a hanging Docker."""
NO_CLIENT_CODE = 127
"""Exit code in place of an answer where no Docker client is installed."""


def container_name(nonce: str) -> str:
    return "dstack-" + nonce


def ask(arguments: List[str], timeout: Optional[float] = None) -> subprocess.CompletedProcess[bytes]:
    """One question to Docker; for a hung daemon or a missing client the answer has a code of its own.

    `timeout` is in seconds, ANSWER_TIMEOUT_S by default.
    """
    command, timeout = ["docker", *arguments], ANSWER_TIMEOUT_S if timeout is None else timeout
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        text = b"docker did not answer within %d s" % timeout
        return subprocess.CompletedProcess(command, TIMEOUT_CODE, b"", text)
    except OSError as error:
        return subprocess.CompletedProcess(command, NO_CLIENT_CODE, b"", str(error).encode("utf-8", "replace"))


def remove_container(nonce: str) -> bool:
    """End and remove the attempt's container; True when the container is gone for sure."""
    done = ask(["rm", "--force", "--volumes", container_name(nonce)])
    return done.returncode == 0 or b"no such container" in done.stderr.lower()


def is_running(nonce: str) -> Optional[bool]:
    """Whether the attempt's container runs; None where Docker does not say."""
    done = ask(["inspect", "--format", "{{.State.Running}}", container_name(nonce)])
    if done.returncode:
        return False if b"no such object" in done.stderr.lower() else None
    return done.stdout.strip() == b"true"


def present_images(images: Iterable[str]) -> List[str]:
    """The images of `images` on this host, in order, up to the first question without an answer."""
    found: List[str] = []
    for image in images:
        code = ask(["image", "inspect", "--format", "{{.Id}}", "--", image], timeout=IMAGE_TIMEOUT_S).returncode
        if code in (TIMEOUT_CODE, NO_CLIENT_CODE):
            break
        if code == 0:
            found.append(image)
    return found


def explain(stderr: bytes) -> str:
    """The last line of Docker's error output, with advice where the cause is known."""
    lines = [line.strip() for line in stderr.decode("utf-8", "replace").splitlines() if line.strip()]
    text = lines[-1] if lines else "docker said nothing"
    for line in lines:
        if "permission denied" in line.lower() and "docker" in line.lower():
            return "%s; let an administrator add this user to the group docker" % line
    return text
