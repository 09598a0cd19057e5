"""The files of `dstack init`: a commented example that passes `dstack check` and runs without changes."""

from __future__ import annotations

import json
import os
from pathlib import Path

from dstack.errors import UsageError
from dstack.private_folder import UntrustedError, make_folder, open_file
from dstack.project.settings import CONFIG_FILE

WORKFLOWS_EXAMPLE = """\
# The steps of this project. `dstack check` validates this file, `dstack run train` runs a step and all it needs.
workflows:
  - name: prepare
    help: Make the data
    commands:
      - mkdir -p data
      - seq "${{ size }}" > data/numbers.txt
    artifacts: [data]                  # kept when the job has ended, and given to the workflows that depend on it

  - name: train
    help: Add up the numbers
    depends-on:
      workflows: [prepare]             # run first, or reused if nothing that it depends on has changed
      # repo: {include: [train.py]}    # which files matter; by default all
      # variables: [epochs]            # which variables matter; by default all of this workflow and global
    # image: python:3.11-slim          # run in this Docker image instead of straight on the host
    # env: {PYTHONUNBUFFERED: "1"}
    # resources: {cpu: 4, memory: 16GB, gpu: 1}
    # max-duration: 6h
    commands:
      - mkdir -p model
      - |
        for epoch in $(seq "${{ epochs }}"); do
          echo "epoch $epoch"
        done
      - awk '{ sum += $1 } END { print sum }' data/numbers.txt > model/sum.txt
      - cat model/sum.txt
      # - python train.py $variables_as_args     # --epochs 3 --size 100
    artifacts: [model]
"""

VARIABLES_EXAMPLE = """\
# Defaults; override one with `dstack run train --epochs 5`. A job finds each in its environment too ($epochs, $EPOCHS).
variables:
  global:          # seen by every workflow
    size: 100
  train:           # seen by the workflow of this name
    epochs: 3
"""

STARTER_FILES = {".dstack/workflows.yaml": WORKFLOWS_EXAMPLE, ".dstack/variables.yaml": VARIABLES_EXAMPLE}


def write_bucket(root: Path, url: str, *, home: Path) -> str:
    """Name the bucket in .dstack/config.yaml below `root`; the rest of the file stays unchanged.

    Returns the file's name. The caller has read the file and found no bucket there. Raises UsageError when the file
    cannot be written, UntrustedError where the project is the home and its `.dstack` another account's.
    """
    path = root / CONFIG_FILE
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        line = f"bucket: {json.dumps(url, ensure_ascii=False)}\n"
        if text and not text.endswith("\n"):
            line = "\n" + line
        _write(path, line, os.O_APPEND, home=home)
    except UntrustedError:
        # UntrustedError is an OSError too: in the branch below the hint would be lost.
        raise
    except OSError as error:
        raise UsageError(f"cannot write {error.filename or path}: {error.strerror or error}") from None
    return CONFIG_FILE


def exists_as_yaml(path: Path) -> bool:
    """Whether a file of this name exists, with either ending."""
    return any(path.with_suffix(end).exists() for end in (".yaml", ".yml"))


def write_starter(root: Path, *, home: Path) -> tuple[Path, ...]:
    """Write the missing files below `root`; an existing file is never touched. A project with workflows gets no file at
    all: the starter's variables would belong to unknown workflows.

    Returns the written files. Raises UsageError when a file cannot be written.
    """
    written: list[Path] = []
    try:
        for name, text in STARTER_FILES.items():
            path = root / name
            if exists_as_yaml(path):
                if text is WORKFLOWS_EXAMPLE:
                    return ()
                continue
            # O_EXCL, because another process may have written the file since the look.
            _write(path, text, os.O_EXCL, home=home)
            written.append(path)
    except UntrustedError:
        # UntrustedError is an OSError too: in the branch below the hint would be lost.
        raise
    except OSError as error:
        raise UsageError(f"cannot write {error.filename or root}: {error.strerror or error}") from None
    return tuple(written)


def _write(path: Path, text: str, flags: int, *, home: Path) -> None:
    """Write to a new or existing file: private in `~/.dstack`, by the umask elsewhere."""
    if path.parent.resolve() == (home / ".dstack").resolve():
        make_folder(str(path.parent))
        fd = open_file(str(path), os.O_WRONLY | flags)
    else:
        path.parent.mkdir(exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | flags, 0o666)
    with os.fdopen(fd, "w", encoding="utf-8") as stream:
        stream.write(text)
