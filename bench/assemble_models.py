"""The checkpoints that `bench/assemble.py` merges: random weights, streamed to disk, seed 0.

    python bench/assemble_models.py DIRECTORY [--tensors N]

writes `base` and `expert0` … `expert3`: a Llama of 271 million parameters in bf16, or N tensors of 32 × 32. Experts are
the base plus noise of a tenth of its size.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from supermerge.checkpoint import OutputDirectory, ShardWriter, TensorInfo

EXPERTS = 4
HIDDEN, INTERMEDIATE, LAYERS, VOCABULARY = 1024, 2816, 16, 32000
SIZES = {"hidden_size": HIDDEN, "intermediate_size": INTERMEDIATE, "vocab_size": VOCABULARY}
CONFIG = {"model_type": "llama", **SIZES, "num_attention_heads": 16, "dtype": "bfloat16", "max_position_embeddings": 64}


def main() -> None:
    """Write every model that is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--tensors", type=int)
    arguments = parser.parse_args()
    if arguments.tensors is None:
        shapes, config = _llama(), {**CONFIG, "architectures": ["LlamaForCausalLM"], "num_hidden_layers": LAYERS}
    else:
        # No class has these names: mergekit finds the layers by itself.
        shapes = {f"layers.{i}.weight": (32, 32) for i in range(arguments.tensors)}
        config = {**CONFIG, "architectures": ["TinyTensors"], "num_hidden_layers": arguments.tensors}
    for model in ("base", *(f"expert{i}" for i in range(EXPERTS))):
        if not (arguments.directory / model).exists():
            _write(arguments.directory / model, model, shapes, config)


def _llama() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN)}
    for i in range(LAYERS):
        layer = f"model.layers.{i}"
        shapes |= {f"{layer}.self_attn.{part}_proj.weight": (HIDDEN, HIDDEN) for part in "qkvo"}
        shapes |= {f"{layer}.mlp.{part}_proj.weight": (INTERMEDIATE, HIDDEN) for part in ("gate", "up")}
        shapes |= {f"{layer}.mlp.down_proj.weight": (HIDDEN, INTERMEDIATE)}
        shapes |= {f"{layer}.{part}_layernorm.weight": (HIDDEN,) for part in ("input", "post_attention")}
    return {**shapes, "model.norm.weight": (HIDDEN,), "lm_head.weight": (VOCABULARY, HIDDEN)}


def _write(directory: Path, model: str, shapes: dict[str, tuple[int, ...]], config: dict[str, object]) -> None:
    infos = [TensorInfo(name, torch.bfloat16, shape) for name, shape in shapes.items()]
    with OutputDirectory(directory) as out, ShardWriter(out.staging, infos, shard_size=5_000_000_000) as writer:
        for info, tensor in zip(infos, _tensors(model, infos), strict=True):
            writer.write(info.name, tensor)
        writer.close()
        (out.staging / "config.json").write_text(json.dumps(config), encoding="utf-8")
        out.commit()


def _tensors(model: str, infos: list[TensorInfo]) -> Iterator[Tensor]:
    base = torch.Generator().manual_seed(0)
    own = torch.Generator().manual_seed(1 + int(model.removeprefix("expert"))) if model != "base" else None
    for info in infos:
        tensor = torch.randn(info.shape, generator=base) * 0.02
        if own is not None:
            tensor = tensor + torch.randn(info.shape, generator=own) * 0.002
        yield tensor.to(torch.bfloat16)


if __name__ == "__main__":
    main()
