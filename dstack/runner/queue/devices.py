"""The NVIDIA GPUs of the host, as nvidia-smi reports them."""

from __future__ import annotations

import shutil
from typing import Dict, List, Optional, Sequence

from dstack.runner.base.program_query import ask_program
from dstack.runner.queue.scheduler import Card

LIST_GPUS = ["nvidia-smi", "--query-gpu=index,uuid,name,memory.total", "--format=csv,noheader,nounits"]
LIST_COMPUTING = ["nvidia-smi", "--query-compute-apps=gpu_uuid,pid", "--format=csv,noheader,nounits"]


def has_gpus() -> bool:
    """Whether this host has NVIDIA GPUs; starts no process."""
    return shutil.which("nvidia-smi") is not None


def list_cards() -> Optional[List[Card]]:
    """Every GPU, and whether a process computes on the GPU now; None when nvidia-smi does not answer: then no GPU may
    be given to a job."""
    if not has_gpus():
        return []
    # Both answers are needed: a GPU of unknown use could be another program's.
    listed, busy = ask_program(LIST_GPUS), ask_program(LIST_COMPUTING)
    if listed is None or busy is None:
        return None
    computing = {line.split(",")[0].strip() for line in busy.splitlines()}
    found = []
    for line in listed.splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) >= 4 and parts[0].isdigit() and parts[-1].isdigit():
            # Nothing keeps commas out of a name; memory is in MiB.
            name = ", ".join(parts[2:-1])
            found.append(Card(int(parts[0]), name, int(parts[-1]) << 20, parts[1] in computing))
    return found


def gpu_environment(gpus: Sequence[int]) -> Dict[str, str]:
    """The environment that limits a job to its GPUs, as nvidia-smi numbers them; empty on a host without GPUs."""
    if not has_gpus():
        return {}
    # By default CUDA counts the fastest GPU first, and nvidia-smi by the bus. An empty list hides every GPU.
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus))}
