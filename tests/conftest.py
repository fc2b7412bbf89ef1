from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# Set before anything imports transformers, datasets or huggingface_hub: no test may reach a network.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["TOKENIZERS_PARALLELISM"] = "false"


# Examples take as long as the machine is busy; what is tested never is the time. CI draws the same ones every time.
settings.register_profile("supermerge", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("supermerge")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is kept between runs is kept between tests, and not in the user's home."""
    os.environ["SUPERMERGE_CACHE"] = str(tmp_path_factory.getbasetemp() / "cache")


@pytest.fixture(autouse=True)
def _own_signals() -> Iterator[None]:
    """Commands that run in this process take the signals; the tests want them back."""
    handlers = {sign: signal.getsignal(sign) for sign in (signal.SIGINT, signal.SIGTERM)}
    hook = sys.unraisablehook
    yield
    sys.unraisablehook = hook
    for sign, handler in handlers.items():
        signal.signal(sign, handler)


@pytest.fixture
def write_models() -> Callable[..., None]:
    """`write_models(directory, "news", "spam")`: a base of three tensors and one expert per name, as safetensors."""

    def write(directory: Path, *experts: str, shape: tuple[int, int] = (8, 4)) -> None:
        import torch
        from safetensors.torch import save_file

        draw = torch.Generator().manual_seed(0)
        base = {
            "embed.weight": torch.randn(shape, generator=draw),
            "layer.0.weight": torch.randn(shape, generator=draw),
            "steps": torch.tensor([7]),
        }
        for name in ("base", *experts):
            tensors = dict(base)
            if name != "base":
                for key in ("embed.weight", "layer.0.weight"):
                    tensors[key] = base[key] + 0.1 * torch.randn(shape, generator=draw)
                tensors["head.weight"] = torch.randn(2, 4, generator=draw)
            (directory / name).mkdir(parents=True)
            save_file(tensors, directory / name / "model.safetensors", metadata={"format": "pt"})

    return write
