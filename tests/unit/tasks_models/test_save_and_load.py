from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from safetensors.torch import save_file
from torch import Tensor

from supermerge.checkpoint import Checkpoint, match, save_tensors
from supermerge.errors import CheckpointError, UsageError
from supermerge.tasks.load import load
from supermerge.tasks.rows import Row
from supermerge.tasks.save import backbone_config, save_heads
from supermerge.tasks.spec import TaskSpec
from supermerge.tasks.workbench import Workbench


def write(case: Any, directory: Path, *, dtype: torch.dtype = torch.float32, **fields: Any) -> Workbench:
    """An output directory as a run makes it: the mean of base and expert, with the head of one task."""
    task = TaskSpec(**{"type": case.type, "expert": "one", "test": "t.jsonl", **fields})
    bench = Workbench(case.base, {"one": case.expert}, {"news": task})
    expert = match(case.base, {"one": case.expert}).experts["one"]
    tensors = {name: case.base.read(name).clone() for name in [*bench.merged_names, *bench.copied_names]}
    for name in set(bench.merged_names) & set(expert.tensors):
        tensors[name] = (tensors[name] + expert.read(name)) / 2
    directory.mkdir()
    save_tensors(directory / "model.safetensors", {name: tensor.to(dtype) for name, tensor in tensors.items()})
    config = backbone_config(case.base.config, bench.model, dtype)
    (directory / "config.json").write_text(json.dumps(config))
    save_heads(bench.heads, directory)
    bench.load(Checkpoint.open(directory))
    return bench


def logits(module: Any, inputs: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return module(**inputs).logits


def test_backbone_loads_with_nothing_missing_and_nothing_unexpected(case: Any, tmp_path: Path) -> None:
    bench = write(case, tmp_path / "merged")
    kind = getattr(tf, type(bench.model).__name__)
    auto = tf.AutoModel if "LM" not in kind.__name__ and "Cond" not in kind.__name__ else kind
    model, info = auto.from_pretrained(tmp_path / "merged", output_loading_info=True)
    assert type(model) is type(bench.model)
    # RoBERTa's base has no pooler, which AutoModel wants: it is missing there as well.
    _, before = auto.from_pretrained(case.base_dir, output_loading_info=True)
    assert info["missing_keys"] == before["missing_keys"]
    assert not info["unexpected_keys"]
    state = model.state_dict()
    for name, tensor in bench.model.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_load_gives_the_task_its_head(case: Any, tmp_path: Path) -> None:
    bench = write(case, tmp_path / "merged")
    module = load(tmp_path / "merged", "news")
    assert type(module) is case.expert_class
    assert not module.training
    assert torch.equal(logits(module, case.inputs), logits(bench.heads["news"].module, case.inputs))


def test_load_without_a_task_gives_the_backbone(case: Any, tmp_path: Path) -> None:
    bench = write(case, tmp_path / "merged")
    shutil.rmtree(tmp_path / "merged/heads")
    model = load(tmp_path / "merged")
    assert type(model) is type(bench.model)
    expected = bench.model.state_dict()
    found = model.state_dict()
    assert found.keys() >= expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("case", ["bert"], indirect=True)
class TestOutput:
    def test_head_directory(self, case: Any, tmp_path: Path) -> None:
        write(case, tmp_path / "merged", labels=["x", "y", "z"])
        place = tmp_path / "merged/heads/news"
        assert {path.name for path in place.iterdir()} == {"config.json", "model.safetensors"}
        config = tf.AutoConfig.from_pretrained(place)
        assert config.id2label == {0: "x", 1: "y", 2: "z"}
        assert config.architectures == ["BertForSequenceClassification"]

    def test_hashes_are_of_every_tensor(self, case: Any, tmp_path: Path) -> None:
        bench = write(case, tmp_path / "merged")
        hashes = save_heads(bench.heads, tmp_path / "again")
        assert set(hashes) == {f"news/{name}" for name in bench.heads["news"].own}
        assert all(len(digest) == 64 for digest in hashes.values())

    def test_backbone_config_has_no_classes(self, case: Any) -> None:
        bench = Workbench(case.base, {}, {})
        config = backbone_config(
            {**case.base.config, "id2label": {"0": "a"}, "torch_dtype": "x"}, bench.model, torch.bfloat16
        )
        assert "id2label" not in config
        assert "torch_dtype" not in config
        assert (config["architectures"], config["dtype"]) == (["BertModel"], "bfloat16")

    def test_stored_dtype_is_kept(self, case: Any, tmp_path: Path) -> None:
        write(case, tmp_path / "merged", dtype=torch.bfloat16)
        stored = load(tmp_path / "merged", "news")
        assert {p.dtype for p in stored.parameters()} == {torch.bfloat16}

    def test_unknown_task(self, case: Any, tmp_path: Path) -> None:
        write(case, tmp_path / "merged")
        with pytest.raises(UsageError, match="no head for task 'spam'") as error:
            load(tmp_path / "merged", "spam")
        assert error.value.hint == "It has: news."
        with pytest.raises(UsageError, match="no head for task"):
            load(tmp_path / "merged", "../heads/news")

    def test_base_is_not_an_output(self, case: Any) -> None:
        with pytest.raises(UsageError, match="no head for task 'news'") as error:
            load(case.base_dir, "news")
        assert error.value.hint == "It has no heads at all."

    def test_head_that_someone_else_saved(self, case: Any, tmp_path: Path) -> None:
        write(case, tmp_path / "merged")
        (tmp_path / "merged/heads/news/config.json").write_text("{}")
        with pytest.raises(CheckpointError, match="does not say which kind of head"):
            load(tmp_path / "merged", "news")

    @pytest.mark.parametrize("name", ["Nonesuch", "pipeline", "BertTokenizer"])
    def test_unknown_architecture(self, case: Any, tmp_path: Path, name: str) -> None:
        write(case, tmp_path / "merged")
        (tmp_path / "merged/config.json").write_text(json.dumps({"model_type": "bert", "architectures": [name]}))
        with pytest.raises(CheckpointError, match=f"architecture '{name}'"):
            load(tmp_path / "merged")

    def test_backbone_without_one_of_its_tensors(self, case: Any, tmp_path: Path) -> None:
        bench = write(case, tmp_path / "merged")
        tensors = {name: case.base.read(name) for name in bench.merged_names[:-1]}
        save_file(tensors, tmp_path / "merged/model.safetensors", metadata={"format": "pt"})
        with pytest.raises(CheckpointError, match=f"lacks 1 tensor.*{bench.merged_names[-1]}"):
            load(tmp_path / "merged", "news")

    def test_pooled_head(self, case: Any, tmp_path: Path) -> None:
        save_file({"classifier.weight": torch.randn(2, 16)}, case.base_dir / "linear.safetensors")
        bench = write(
            case, tmp_path / "merged", pooling="mean", head=str(case.base_dir / "linear.safetensors"), labels=["a", "b"]
        )
        module = load(tmp_path / "merged", "news")
        assert torch.equal(logits(module, case.inputs), logits(bench.heads["news"].module, case.inputs))


@pytest.mark.parametrize("case", ["clip"], indirect=True)
def test_zero_shot_head(case: Any, tmp_path: Path) -> None:
    tensors = {"text_embeds": torch.randn(2, 12), "logit_scale": torch.tensor(1.0)}
    save_file(tensors, case.base_dir / "classes.safetensors")
    head = {"head": "zero-shot", "embeddings": str(case.base_dir / "classes.safetensors"), "labels": ["cat", "dog"]}
    bench = write(case, tmp_path / "merged", **head)
    module = load(tmp_path / "merged", "news")
    assert torch.equal(logits(module, case.inputs), logits(bench.heads["news"].module, case.inputs))


@pytest.mark.parametrize("case", ["vit"], indirect=True)
def test_image_regression(case: Any, tmp_path: Path, add_processor: Callable[[Path], None]) -> None:
    config = tf.AutoConfig.from_pretrained(case.expert_dir, num_labels=1)
    tf.ViTForImageClassification(config).save_pretrained(case.expert_dir)
    add_processor(case.base_dir)
    with Checkpoint.open(case.expert_dir) as expert:
        task = TaskSpec(type="regression", expert="one", image="image", test="t.jsonl")
        bench = Workbench(case.base, {"one": expert}, {"news": task})
    assert bench.encode("news", [Row("r:1", label=2.5)])[0].label == 2.5
    assert logits(bench.heads["news"].module, case.inputs).shape == (2, 1)


@pytest.mark.parametrize("case", ["llama-lm"], indirect=True)
def test_corrupt_config_of_a_head_without_tensors(case: Any, tmp_path: Path) -> None:
    write(case, tmp_path / "merged")
    (tmp_path / "merged/heads/news/config.json").write_text("{")
    with pytest.raises(CheckpointError, match="not valid JSON"):
        load(tmp_path / "merged", "news")
