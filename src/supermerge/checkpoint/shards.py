"""How the tensors of a checkpoint are dealt out to files, and the index that says so."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from supermerge.checkpoint.source import TensorInfo

INDEX_NAME = "model.safetensors.index.json"


def split_into_shards(infos: Sequence[TensorInfo], shard_size: int) -> dict[str, list[TensorInfo]]:
    """File name -> its tensors: filled in order, at most `shard_size` bytes of tensors each, or a single larger tensor.

    One file is `model.safetensors`, several are `model-00001-of-0000N.safetensors`, as transformers names them.
    """
    shards: list[list[TensorInfo]] = [[]]
    size = 0
    for info in infos:
        if shards[-1] and size + info.nbytes > shard_size:
            shards.append([])
            size = 0
        shards[-1].append(info)
        size += info.nbytes
    if len(shards) == 1:
        return {"model.safetensors": shards[0]}
    return {f"model-{i:05d}-of-{len(shards):05d}.safetensors": shard for i, shard in enumerate(shards, 1)}


def index_text(shards: Mapping[str, Sequence[TensorInfo]]) -> str:
    """The content of `model.safetensors.index.json`."""
    total = sum(info.nbytes for shard in shards.values() for info in shard)
    parameters = sum(info.numel for shard in shards.values() for info in shard)
    weight_map = {info.name: file for file, shard in shards.items() for info in shard}
    document = {"metadata": {"total_parameters": parameters, "total_size": total}, "weight_map": weight_map}
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
