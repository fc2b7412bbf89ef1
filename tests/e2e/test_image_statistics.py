"""Statistics of vision models: bases with a pooler that no expert has, and maps with their channels first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from PIL import Image
from safetensors.torch import load_file

import supermerge
from supermerge.recipe import Recipe

NAMES = {"id2label": {0: "dark", 1: "light"}, "label2id": {"dark": 0, "light": 1}}


def family(directory: Path, base: Any, build: Any, method: str) -> Recipe:
    """A base, two experts whose classifiers have its backbone, and pictures; merged by `method`."""
    base.save_pretrained(directory / "base")
    transformers.ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(directory / "base")
    tasks: dict[str, Any] = {}
    for seed, name in enumerate(("one", "two")):
        torch.manual_seed(seed)
        expert = build()
        backbone = getattr(expert, expert.base_model_prefix)
        backbone.load_state_dict(base.state_dict(), strict=False)
        with torch.no_grad():
            for parameter in expert.parameters():
                parameter += 0.02 * torch.randn_like(parameter)
        expert.save_pretrained(directory / name)
        for number in range(8):
            label = ("dark", "light")[number % 2]
            path = directory / "data" / name / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = torch.randint(0, 128, (20, 20, 3), generator=torch.Generator().manual_seed(10 * seed + number))
            Image.fromarray((noise + 128 * (number % 2)).to(torch.uint8).numpy()).save(path)
        tasks[name] = {"type": "image-classification", "expert": name, "validation": f"data/{name}"}
    document = {
        "base": "base",
        "experts": {"one": "one", "two": "two"},
        "method": method,
        "tasks": tasks,
        "output": {"path": "merged"},
        "if_worse": "warn",
    }
    (directory / "recipe.yaml").write_text(yaml.safe_dump(document))
    return Recipe.load(directory / "recipe.yaml")


@pytest.mark.parametrize("method", ["fisher", "gradient_matching", "regmean_plus_plus", "sens_merging"])
def test_a_pooler_that_no_expert_has_stays_the_base_s(tmp_path: Path, method: str) -> None:
    """As in every ViT on the hub: the base has a pooler, its classifiers have none."""
    torch.manual_seed(5)
    config = transformers.ViTConfig(
        image_size=16, patch_size=8, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        **NAMES,
    )  # fmt: skip
    build = transformers.ViTForImageClassification
    supermerge.run(family(tmp_path, transformers.ViTModel(config), lambda: build(config), method))
    base, merged = (load_file(tmp_path / name / "model.safetensors") for name in ("base", "merged"))
    assert merged.keys() == base.keys()
    for name, tensor in merged.items():
        assert torch.equal(tensor, base[name]) == ("pooler" in name), name
    for path in (tmp_path / "one" / "statistics").glob("*.safetensors"):
        assert not [name for name in load_file(path) if "pooler" in name]


def test_moments_of_maps_with_their_channels_first(tmp_path: Path) -> None:
    """The maps are as wide as they have channels: taking one for the other would go unseen."""
    torch.manual_seed(5)
    config = transformers.ConvNextConfig(
        num_stages=2, hidden_sizes=[8, 16], depths=[1, 1], image_size=16, patch_size=2, **NAMES
    )
    build = transformers.ConvNextForImageClassification
    supermerge.run(family(tmp_path, transformers.ConvNextModel(config), lambda: build(config), "cat"))
    (path,) = (tmp_path / "one" / "statistics").glob("norm_moments-*")
    expert: Any = transformers.ConvNextModel.from_pretrained(tmp_path / "one").eval()
    processor: Any = transformers.AutoImageProcessor.from_pretrained(tmp_path / "base")
    pictures = [Image.open(each) for each in sorted((tmp_path / "data" / "one").rglob("*.png"))]
    with torch.no_grad():
        maps = expert.embeddings.patch_embeddings(processor(pictures, return_tensors="pt")["pixel_values"])
    centred = maps - maps.mean(1, keepdim=True)
    normal = centred / (centred.square().mean(1, keepdim=True) + 1e-6).sqrt()
    assert maps.shape[1] == maps.shape[3] == 8
    found = load_file(path)["embeddings.layernorm.weight"]
    torch.testing.assert_close(found, normal.square().mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
