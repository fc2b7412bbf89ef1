"""What merging adds to a learning step of a decoder on an accelerator: seconds and memory against forward and backward.

    python bench/gpu.py                                # Llama of 1.2 billion parameters in bf16, on the accelerator
    python bench/gpu.py --size tiny --device cpu       # the same in seconds, to see that it runs

prints one JSON document. `plain` is forward and backward of the ordinary model with gradients for all parameters,
`streaming` a step of `supermerge.learn` with the experts in the machine's memory, and `reference` the usual way: all
task vectors on the device, the model assembled through autograd and `functional_call`. Every step learns from one batch
per expert. Seconds are the median over steps after the first, synchronised; memory is the most that the
device's allocator held (nothing is said of a CPU's). Weights are random, seed 0.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import LlamaConfig, LlamaForCausalLM

from supermerge import learn

_KEYS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "vocab_size",
    "num_attention_heads",
    "num_key_value_heads",
)
SIZES = {
    "tiny": dict(zip(_KEYS, (32, 64, 2, 128, 4, 2), strict=True)),
    "1b": dict(zip(_KEYS, (2048, 8192, 16, 128256, 32, 8), strict=True)),
}


def main() -> None:
    """Measure the three and print them."""
    arguments = _arguments()
    device = torch.device(arguments.device)
    model = _model(arguments.size, device)
    base = {name: tensor.detach().clone().cpu() for name, tensor in model.named_parameters()}
    experts = {
        f"expert{i}": {name: _moved(tensor, i) for name, tensor in base.items()} for i in range(arguments.experts)
    }
    batches = [_batch(arguments, model, device, i) for i in range(arguments.experts)]
    steps = {
        "plain": lambda: _plain(model, batches, arguments.steps),
        "streaming": lambda: _streaming(model, base, experts, batches, arguments),
        "reference": lambda: _reference(model, base, experts, batches, arguments.steps, device),
    }
    found: dict[str, Any] = {name: _measured(steps[name], device) for name in arguments.engine}
    if "plain" in found:
        for name in found.keys() - {"plain"}:
            found[name]["overhead"] = found[name]["seconds"] / found["plain"]["seconds"] - 1
    about = {
        "on": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "parameters": sum(t.numel() for t in base.values()),
    }
    print(json.dumps({**vars(arguments), **about, "found": found}, indent=1))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=list(SIZES), default="1b")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--experts", type=int, default=2)
    parser.add_argument("--engine", nargs="+", default=["plain", "streaming", "reference"])
    parser.add_argument("--batch", type=int, default=4, help="sequences per expert and step")
    parser.add_argument("--length", type=int, default=256, help="tokens per sequence")
    parser.add_argument("--steps", type=int, default=4, help="of which the first is not counted")
    return parser.parse_args()


def _model(size: str, device: torch.device) -> nn.Module:
    torch.manual_seed(0)
    config = LlamaConfig.from_dict({**SIZES[size], "tie_word_embeddings": True})
    model = nn.Module.eval(LlamaForCausalLM(config))
    return model.to(device, torch.bfloat16)


def _moved(tensor: Tensor, seed: int) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return tensor + 0.01 * torch.randn(tensor.shape, generator=draw, dtype=tensor.dtype)


def _batch(arguments: argparse.Namespace, model: nn.Module, device: torch.device, seed: int) -> Tensor:
    draw = torch.Generator().manual_seed(100 + seed)
    vocabulary = SIZES[arguments.size]["vocab_size"]
    return torch.randint(0, vocabulary, (arguments.batch, arguments.length), generator=draw).to(device)


def _loss(model: Any, task: str, ids: Tensor) -> Tensor:
    return model(input_ids=ids, labels=ids).loss


def _measured(steps: Callable[[], list[float]], device: torch.device) -> dict[str, Any]:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    seconds = statistics.median(steps()[1:])
    return {"seconds": seconds, "bytes": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None}


def _now(batch: Tensor) -> float:
    if batch.is_cuda:
        torch.cuda.synchronize(batch.device)
    return time.perf_counter()


def _plain(model: nn.Module, batches: list[Tensor], steps: int) -> list[float]:
    found = []
    for _ in range(steps):
        start = _now(batches[0])
        for ids in batches:
            _loss(model, "", ids).backward()
        model.zero_grad(set_to_none=True)
        found.append(_now(batches[0]) - start)
    return found


def _streaming(
    model: nn.Module, base: Any, experts: Any, batches: list[Tensor], arguments: argparse.Namespace
) -> list[float]:
    times: list[float] = []

    def items() -> Iterator[list[tuple[str, Tensor]]]:
        for _ in range(arguments.steps + 1):
            times.append(_now(batches[0]))
            yield [(str(i), ids) for i, ids in enumerate(batches)]

    endless = items()
    learn(model, base, experts, endless, _loss, steps=arguments.steps, lr=0.01)
    next(endless)
    return [after - before for before, after in pairwise(times)]


def _reference(
    model: nn.Module, base: Any, experts: Any, batches: list[Tensor], steps: int, device: torch.device
) -> list[float]:
    origin = {name: tensor.to(device) for name, tensor in base.items()}
    taus = {
        name: torch.stack([expert[name].to(device) - tensor for expert in experts.values()])
        for name, tensor in origin.items()
    }
    w = {name: torch.full((len(experts),), 0.3, device=device, requires_grad=True) for name in taus}
    optimiser, found = torch.optim.Adam(w.values(), lr=0.01), []
    for _ in range(steps):
        start = _now(batches[0])
        for ids in batches:
            merged = {
                name: origin[name] + torch.tensordot(torch.tanh(w[name]).to(tau.dtype), tau, dims=1)
                for name, tau in taus.items()
            }
            functional_call(model, merged, kwargs={"input_ids": ids, "labels": ids}, tie_weights=True).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        found.append(_now(batches[0]) - start)
    return found


if __name__ == "__main__":
    main()
