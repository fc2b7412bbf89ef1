"""What a run ran on: for the results and the lock file."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version

import torch

from supermerge.accelerator import accelerator, named
from supermerge.report.results import Environment

_RECORDED = ("supermerge", "torch", "transformers", "safetensors", "tokenizers", "datasets", "torchmetrics", "numpy")


def environment() -> Environment:
    """Versions, threads and machine; `transformers` only where this process has used it."""
    used = sys.modules.get("transformers")
    return Environment(
        python=platform.python_version(),
        torch=torch.__version__,
        transformers=used.__version__ if used else None,
        threads=torch.get_num_threads(),
        machine=f"{platform.system()} {platform.machine()}, {named(accelerator())}",
    )


def versions() -> dict[str, str]:
    """Version by package, of those that can change a result, and what computes it."""
    found = {"python": platform.python_version(), "device": named(accelerator())}
    for package in _RECORDED:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
