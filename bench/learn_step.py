"""What one learning step costs: streaming against holding all task vectors, in CPU seconds and peak memory.

    python bench/learn_step.py --arch clip-vit-b32 --experts 2 4 8

prints one JSON list, one row per engine and number of experts; every row is measured in a process of its own. A step
learns from one batch of every expert's task. The references hold all task vectors and assemble the model once per step
through autograd and `functional_call`. `reference` runs one backward per task over that graph, as layer-wise AdaMerging
does in public code: k² products per tensor. `reference-once`, the best that can be made of it, gathers the gradients
of all tasks on the assembled tensors and sends them through the assembly once. `forward_backward_s` is the plain
model's forward and backward on the same batches; `overhead_s` is the rest of the step. Seconds are the median over
steps; random weights, seed 0.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise, repeat
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.func import functional_call

from architectures import ARCHITECTURES, CLASSES
from supermerge import learn

Batch = int
"""The seed that a task's batch is drawn from, when its turn comes: the inputs of the others take no memory."""
ENGINES = ("streaming", "reference", "reference-once")


def main() -> None:
    """Measure every row asked for and print them."""
    arguments = _arguments()
    if arguments.row:
        print(json.dumps(_measure(**json.loads(arguments.row))))
        return
    if arguments.write:
        _write_checkpoints(arguments.arch[0], arguments.experts[0], Path(arguments.scratch))
        return
    rows = []
    for arch in arguments.arch:
        with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
            # A process starts with the peak of the one that started it, so this one must stay small.
            _in_a_process("--write", "--arch", arch, "--experts", str(max(arguments.experts)), "--scratch", scratch)
            for engine in arguments.engine:
                for experts in arguments.experts:
                    for residency in arguments.residency if engine == "streaming" else ["memory"]:
                        row = {
                            "arch": arch,
                            "experts": experts,
                            "residency": residency,
                            "engine": engine,
                            "batch": arguments.batch,
                            "steps": arguments.steps,
                            "threads": arguments.threads,
                            "scratch": scratch,
                        }
                        rows.append(json.loads(_in_a_process("--row", json.dumps(row))))
    print(json.dumps(rows, indent=1))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", nargs="+", choices=list(ARCHITECTURES), default=["minilm"])
    parser.add_argument("--experts", nargs="+", type=int, default=[2, 4, 8])
    parser.add_argument("--batch", type=int, default=16, help="examples per task and step")
    parser.add_argument("--engine", nargs="+", choices=ENGINES, default=["streaming", "reference"])
    parser.add_argument("--residency", nargs="+", choices=["disk", "memory"], default=["disk"])
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--scratch", help="where the experts are written (default: the temporary directory)")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    parser.add_argument("--write", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _in_a_process(*arguments: str) -> bytes:
    return subprocess.run([sys.executable, __file__, *arguments], check=True, stdout=subprocess.PIPE).stdout


def _write_checkpoints(arch: str, count: int, scratch: Path) -> None:
    torch.manual_seed(0)
    base = ARCHITECTURES[arch].build().state_dict()
    save_file({name: tensor.contiguous() for name, tensor in base.items()}, scratch / "base.safetensors")
    for i in range(count):
        expert = {
            name: tensor + 0.002 * torch.randn_like(tensor) if tensor.is_floating_point() else tensor
            for name, tensor in base.items()
        }
        save_file(expert, scratch / f"expert{i}.safetensors")


def _measure(
    arch: str, experts: int, residency: str, engine: str, batch: int, steps: int, threads: int, scratch: str
) -> dict[str, Any]:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = ARCHITECTURES[arch].build().eval()
    head = torch.randn(CLASSES, model.config.hidden_size) * 0.02
    tasks = {f"expert{i}": i for i in range(experts)}

    def loss(module: Any, task: str, data: Batch) -> Tensor:
        generator = torch.Generator().manual_seed(data)
        inputs = ARCHITECTURES[arch].batch(batch, generator)
        labels = torch.randint(0, CLASSES, (batch,), generator=generator)
        output = module(**inputs)
        # The pooled output, where there is one, involves every parameter.
        pooled = output.get("pooler_output")
        features = output.last_hidden_state.mean(1) if pooled is None else pooled
        return nn.functional.cross_entropy(features @ head.T, labels)

    files = {name: str(Path(scratch) / f"{name}.safetensors") for name in tasks}
    base = str(Path(scratch) / "base.safetensors")
    if engine == "streaming":
        seconds, read = _streaming(model, base, files, tasks, loss, residency, steps)
    else:
        seconds, read = _reference(model, base, files, tasks, loss, steps, once=engine == "reference-once"), (0, 0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    plain = _plain_seconds(model, tasks, loss, steps)
    return {
        "arch": arch,
        "experts": experts,
        "residency": residency,
        "engine": engine,
        "forward_backward_s": round(plain, 3),
        "step_s": round(seconds, 3),
        "overhead_s": round(seconds - plain, 3),
        "peak_rss_mb": round(peak / 1e6),
        "base_bytes_read": read[0] // steps,
        "tau_bytes_read": read[1] // steps,
        "parameter_bytes": sum(p.numel() * p.element_size() for p in model.parameters()),
        "batch": batch,
        "threads": threads,
    }


def _streaming(
    model: nn.Module, base: str, experts: dict[str, str], tasks: dict[str, Batch], loss: Any, residency: Any, steps: int
) -> tuple[float, tuple[int, int]]:
    marks: list[float] = []

    def items() -> Iterator[list[tuple[str, Batch]]]:
        for item in repeat(list(tasks.items())):
            marks.append(time.process_time())
            yield item

    # A step ends where the next begins, and the first, warming up, is not counted.
    learned = learn(model, base, experts, items(), loss, steps=steps + 2, lr=1e-3, residency=residency)
    share = steps / (steps + 2)
    return _median_gap(marks), (round(learned.bytes_read[0] * share), round(learned.bytes_read[1] * share))


def _reference(
    model: nn.Module,
    base: str,
    experts: dict[str, str],
    tasks: dict[str, Batch],
    loss: Any,
    steps: int,
    *,
    once: bool,
) -> float:
    parameters = {name for name, _ in model.named_parameters()}
    start = {name: tensor for name, tensor in load_file(base).items() if name in parameters}
    taus: dict[str, list[Tensor]] = {name: [] for name in start}
    for path in experts.values():
        expert = load_file(path)
        for name, tensor in start.items():
            taus[name].append(expert[name] - tensor)
        del expert
    w = torch.full((len(start), len(experts)), 0.3).atanh().requires_grad_()
    optimiser = torch.optim.Adam([w], lr=1e-3)

    class Call:
        def __init__(self, merged: dict[str, Tensor]) -> None:
            self.merged = merged

        def __call__(self, **inputs: Tensor) -> Any:
            return functional_call(model, self.merged, kwargs=inputs)

    model.requires_grad_(False)
    marks = [time.process_time()]
    for _ in range(steps + 1):
        optimiser.zero_grad()
        c = torch.tanh(w)
        merged = {}
        for j, (name, tensor) in enumerate(start.items()):
            merged[name] = tensor
            for i, tau in enumerate(taus[name]):
                merged[name] = merged[name] + c[j, i] * tau
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in merged.items()} if once else merged
        for task, data in tasks.items():
            loss(Call(leaves), task, data).backward(retain_graph=not once)
        if once:
            used = [name for name, leaf in leaves.items() if leaf.grad is not None]
            torch.autograd.backward([merged[name] for name in used], [leaves[name].grad for name in used])
        optimiser.step()
        marks.append(time.process_time())
    model.requires_grad_(True)
    return _median_gap(marks)


def _plain_seconds(model: nn.Module, tasks: dict[str, Batch], loss: Any, steps: int) -> float:
    marks = [time.process_time()]
    for _ in range(steps + 1):
        model.zero_grad(set_to_none=True)
        for task, data in tasks.items():
            loss(model, task, data).backward()
        marks.append(time.process_time())
    return _median_gap(marks)


def _median_gap(marks: list[float]) -> float:
    """The median step, the first one (warming up) left out."""
    gaps = [later - earlier for earlier, later in pairwise(marks)]
    return statistics.median(gaps[1:])


if __name__ == "__main__":
    main()
