"""The graphics processor of this process, where there is one: tasks are run on it, and hard tensors merged on it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

import torch
from torch import Tensor

CPU = torch.device("cpu")
_one_at_a_time = Lock()


def accelerator(needed: int = 0) -> torch.device:
    """The CUDA device of this process, where it has one with `needed` bytes free; else the CPU.

    Of several, every process that `torchrun` started on a machine takes its own. `CUDA_VISIBLE_DEVICES=` hides them.
    """
    if not torch.cuda.is_available():
        return CPU
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    return device if needed <= torch.cuda.mem_get_info(device)[0] else CPU


def named(device: torch.device) -> str:
    """What a device is called."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


@contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """While entered, the same work on the device gives the same numbers, in fp32 where fp32 is asked for.

    Operations that PyTorch has in no reproducible form warn, and are done all the same.
    """
    if device.type != "cuda":
        yield
        return
    # Read when the first product is computed: https://docs.nvidia.com/cuda/cublas, results reproducibility.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    tf32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = tf32


def computed(function: Callable[[Tensor], Tensor], rows: Tensor, needed: int) -> Tensor:
    """`function(rows)`, on the accelerator where `needed` bytes are free there; the result is on the CPU.

    Threads take turns on a device: what one of them needs is free as long as the others wait. On the CPU they need not.
    """
    with _one_at_a_time:
        device = accelerator(needed)
        if device != CPU:
            with reproducible(device):
                return function(rows.to(device)).cpu()
    return function(rows)
