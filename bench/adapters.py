"""What learning on LoRA experts costs: as factors, as dense task vectors, and what peft can do with them.

    python bench/adapters.py --experts 2 8 32

prints one JSON list and writes it to bench/results/adapters.json; every row is measured in a process of its own. A
Llama of 110 million fp32 parameters and LoRA adapters of rank 8 on its queries and values, random numbers, seed 0. A
step learns from one batch of every expert's task (next-token loss): k forward and backward passes. Seconds are CPU's.

`factored` is what `supermerge.learn` does with adapters; `dense` is the streaming engine on the same adapters, their
task vectors worked out as they are read. `peft` loads all adapters and calls `add_weighted_adapter` (`cat`, which is
exact) once per step, followed by one forward pass per task: it tries one set of weights per expert, the same for all
tensors, and gives no gradient with respect to them.

`over_base` is the growth of the process's peak memory from before the model was made, in units of the model's own size:
1 is the base alone.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from itertools import pairwise, repeat
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from supermerge import learn
from supermerge.learn.division import Division

RESULTS = Path(__file__).parent / "results" / "adapters.json"
ENGINES = ("factored", "dense", "peft")
CONFIG = LlamaConfig(
    vocab_size=32000,
    hidden_size=768,
    intermediate_size=2048,
    num_hidden_layers=12,
    num_attention_heads=12,
    num_key_value_heads=12,
    tie_word_embeddings=True,
)
RANK, TARGETS = 8, ("q_proj", "v_proj")


def main() -> None:
    """Measure every row asked for, print and write them."""
    arguments = _arguments()
    if arguments.row:
        print(json.dumps(_measure(**json.loads(arguments.row))))
        return
    if arguments.write:
        _write(Path(arguments.scratch), max(arguments.experts))
        return
    rows = []
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        # A process starts with the peak of the one that started it, so this one must stay small.
        _in_a_process("--write", "--experts", str(max(arguments.experts)), "--scratch", scratch)
        for engine in arguments.engine:
            for experts in arguments.experts:
                asked = {"engine": engine, "experts": experts, "scratch": scratch}
                asked |= {"tokens": arguments.tokens, "steps": arguments.steps, "threads": arguments.threads}
                rows.append(json.loads(_in_a_process("--row", json.dumps(asked))))
                sys.stderr.write(f"{json.dumps(rows[-1])}\n")
    about = {
        "machine": platform.processor() or platform.machine(),
        "date": time.strftime("%Y-%m-%d"),
        "torch": torch.__version__,
        "seed": 0,
    }
    RESULTS.write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n")
    print(json.dumps(rows, indent=1))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experts", nargs="+", type=int, default=[2, 8, 32])
    parser.add_argument("--engine", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--tokens", type=int, default=16, help="per task and step")
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--scratch", help="where the checkpoints are written (default: the temporary directory)")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    parser.add_argument("--write", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _in_a_process(*arguments: str) -> bytes:
    return subprocess.run([sys.executable, __file__, *arguments], check=True, stdout=subprocess.PIPE).stdout


def _write(scratch: Path, count: int) -> None:
    """The base, and `count` adapters as peft writes them."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(CONFIG)
    model.save_pretrained(scratch / "base")
    modules = {name: module for name, module in model.named_modules() if name.endswith(TARGETS)}
    for i in range(count):
        tensors = {}
        for name, module in modules.items():
            rows, columns = module.weight.shape
            tensors[f"base_model.model.{name}.lora_A.weight"] = 0.02 * torch.randn(RANK, columns)
            tensors[f"base_model.model.{name}.lora_B.weight"] = 0.02 * torch.randn(rows, RANK)
        directory = scratch / f"expert{i}"
        directory.mkdir()
        save_file(tensors, directory / "adapter_model.safetensors")
        config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": RANK}
        config |= {"target_modules": list(TARGETS), "base_model_name_or_path": "base"}
        (directory / "adapter_config.json").write_text(json.dumps(config))


def _measure(engine: str, experts: int, scratch: str, tokens: int, steps: int, threads: int) -> dict[str, Any]:
    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")
    run = {"factored": _factored, "dense": _dense, "peft": _peft}[engine]
    if engine == "peft":
        import peft  # what it takes is not the adapters'

        assert peft
    before = _peak()
    torch.manual_seed(0)
    model = LlamaForCausalLM(CONFIG).eval()
    tasks = {f"expert{i}": i for i in range(experts)}
    started = time.process_time()
    marks = run(model, Path(scratch), tasks, tokens, steps)
    adapters = [Path(scratch) / name / "adapter_model.safetensors" for name in tasks]
    peak = _peak()
    base = (Path(scratch) / "base" / "model.safetensors").stat().st_size
    return {
        "engine": engine,
        "experts": experts,
        "step_s": round(statistics.median(later - earlier for earlier, later in list(pairwise(marks))[1:]), 3),
        "start_s": round(marks[0] - started, 3),
        "peak_mb": round(peak / 1e6),
        "before_mb": round(before / 1e6),
        "base_mb": round(base / 1e6),
        "adapters_mb": round(sum(path.stat().st_size for path in adapters) / 1e6),
        "over_base": round((peak - before) / base, 3),
        "tokens": tokens,
        "threads": threads,
    }


def _peak() -> int:
    """Peak resident bytes of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _loss(model: nn.Module, task: str, batch: tuple[int, int]) -> Tensor:
    """Next-token loss on tokens drawn from the task's own seed, when its turn comes."""
    seed, tokens = batch
    ids = torch.randint(0, CONFIG.vocab_size, (1, tokens), generator=torch.Generator().manual_seed(seed))
    return model(input_ids=ids, labels=ids).loss


def _factored(model: nn.Module, scratch: Path, tasks: dict[str, int], tokens: int, steps: int) -> list[float]:
    marks: list[float] = []

    def items() -> Iterator[list[tuple[str, tuple[int, int]]]]:
        for item in repeat([(task, (seed, tokens)) for task, seed in tasks.items()]):
            marks.append(time.process_time())
            yield item

    # A step ends where the next begins, and the first, warming up, is not counted.
    learn(model, scratch / "base", {task: scratch / task for task in tasks}, items(), _loss, steps=steps + 2, lr=1e-3)
    return marks


def _dense(model: nn.Module, scratch: Path, tasks: dict[str, int], tokens: int, steps: int) -> list[float]:
    with mock.patch("supermerge.learn.learn.divide", return_value=Division({}, frozenset(), ())):
        return _factored(model, scratch, tasks, tokens, steps)


def _peft(model: Any, scratch: Path, tasks: dict[str, int], tokens: int, steps: int) -> list[float]:
    from peft import PeftModel

    names = list(tasks)
    tuned = PeftModel.from_pretrained(model, str(scratch / names[0]), adapter_name=names[0])
    for name in names[1:]:
        tuned.load_adapter(str(scratch / name), adapter_name=name)
    marks = [time.process_time()]
    for _ in range(steps + 1):
        tuned.add_weighted_adapter(names, [0.3] * len(names), "merged", combination_type="cat")
        tuned.set_adapter("merged")
        with torch.no_grad():
            for task, seed in tasks.items():
                _loss(tuned, task, (seed, tokens))
        tuned.set_adapter(names[0])
        tuned.delete_adapter("merged")
        marks.append(time.process_time())
    return marks


if __name__ == "__main__":
    main()
