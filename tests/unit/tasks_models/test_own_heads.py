from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from safetensors.torch import load_file, save_file

from supermerge.checkpoint import Checkpoint
from supermerge.errors import CheckpointError
from supermerge.tasks.rows import Row
from supermerge.tasks.workbench import Workbench

ROWS = [Row("t:1", texts=("a b c",), label=2), Row("t:2", texts=("d",), label="d")]


def _manual_pool(hidden: torch.Tensor, mask: torch.Tensor, pooling: str) -> torch.Tensor:
    rows = []
    for states, keep in zip(hidden, mask, strict=True):
        real = states[: int(keep.sum())]
        rows.append({"cls": real[0], "last": real[-1], "mean": real.mean(0)}[pooling])
    return torch.stack(rows)


@pytest.mark.parametrize("pooling", ["cls", "mean", "last"])
@pytest.mark.parametrize("case", ["bert", "llama-lm-base", "t5"], indirect=True)
def test_pooled_head(case: Any, bench: Any, pooling: str) -> None:
    weight, bias = torch.randn(4, 16), torch.randn(4)
    save_file({"classifier.weight": weight, "classifier.bias": bias}, case.base_dir / "linear.safetensors")
    ours = bench(pooling=pooling, head=str(case.base_dir / "linear.safetensors"), labels=["a", "b", "c", "d"])
    batch = ours.collate("task", ROWS)
    reference = tf.AutoModel.from_pretrained(case.base_dir)
    encoder = reference.get_encoder() if case.expert_class is tf.T5ForSequenceClassification else reference
    with torch.no_grad():
        hidden = encoder(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
        expected = _manual_pool(hidden, batch["attention_mask"], pooling) @ weight.T + bias
        torch.testing.assert_close(ours.logits("task", batch), expected, rtol=0, atol=1e-5)
    assert batch["labels"].tolist() == [2, 3]
    assert set(ours.heads["task"].own) == {"classifier.weight", "classifier.bias"}
    assert ours.heads["task"].module.classifier.weight.requires_grad is False


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("case", ["vit"], indirect=True)
def test_pooled_image_head_without_bias(case: Any, bench: Any, pooling: str, pictures: list[Row]) -> None:
    weight = torch.randn(2, 16)
    save_file({"classifier.weight": weight}, case.base_dir / "linear.safetensors")
    ours = bench(pooling=pooling, head=str(case.base_dir / "linear.safetensors"), labels=["a", "b"])
    batch = ours.collate("task", pictures)
    with torch.no_grad():
        hidden = tf.ViTModel.from_pretrained(case.base_dir)(batch["pixel_values"]).last_hidden_state
        pooled = hidden[:, 0] if pooling == "cls" else hidden[:, 1:].mean(1)
        torch.testing.assert_close(ours.logits("task", batch), pooled @ weight.T, rtol=0, atol=1e-5)


@pytest.mark.parametrize("case", ["bert"], indirect=True)
class TestPooledRefusals:
    def test_no_classifier(self, case: Any, make_spec: Any) -> None:
        save_file({"score.weight": torch.ones(2, 16)}, case.base_dir / "linear.safetensors")
        save_file({"encoder.weight": torch.ones(2)}, case.expert_dir / "model.safetensors")
        with Checkpoint.open(case.expert_dir) as expert:
            task = make_spec(case, pooling="mean", head=str(case.base_dir / "linear.safetensors"))
            with pytest.raises(CheckpointError, match=r"has no classifier.weight, which a head with pooling: mean"):
                Workbench(case.base, {"one": expert}, {"task": task})

    def test_bias_of_another_size(self, case: Any, bench: Any) -> None:
        tensors = {"classifier.weight": torch.ones(3, 16), "classifier.bias": torch.ones(2)}
        save_file(tensors, case.base_dir / "linear.safetensors")
        with pytest.raises(CheckpointError, match=r"classifier.bias has shape \[2\], expected \[3\]"):
            bench(pooling="mean", head=str(case.base_dir / "linear.safetensors"))

    def test_values_that_are_no_numbers(self, case: Any, bench: Any) -> None:
        weight = torch.ones(3, 16)
        weight[1, 2] = math.nan
        save_file({"classifier.weight": weight}, case.base_dir / "linear.safetensors")
        with pytest.raises(CheckpointError, match=r"'classifier.weight' has 1 values that are NaN .*, at \[1, 2\]"):
            bench(pooling="mean", head=str(case.base_dir / "linear.safetensors"))


@pytest.mark.parametrize("case", ["bert"], indirect=True)
def test_a_head_that_is_no_numbers(case: Any, make_spec: Any) -> None:
    """The backbone's are found when they are merged; the head is not merged."""
    path = case.expert_dir / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    tensors["classifier.weight"][2, 3] = math.inf
    save_file(tensors, path)
    with (
        Checkpoint.open(case.expert_dir) as expert,
        pytest.raises(CheckpointError, match=r"expert: tensor 'classifier.weight' has 1 values .*, inf, at \[2, 3\]"),
    ):
        Workbench(case.base, {"one": expert}, {"task": make_spec(case)})


class TestZeroShot:
    def _head(self, case: Any, **tensors: torch.Tensor) -> dict[str, Any]:
        save_file(tensors, case.base_dir / "classes.safetensors")
        return {
            "head": "zero-shot",
            "embeddings": str(case.base_dir / "classes.safetensors"),
            "labels": ["cat", "dog", "cow", "pig"],
        }

    @pytest.mark.parametrize("case", ["clip"], indirect=True)
    def test_logits_are_those_of_clip(self, case: Any, bench: Any, pictures: list[Row]) -> None:
        clip = tf.CLIPModel.from_pretrained(case.base_dir).eval()
        names = torch.tensor([[10, 2], [11, 2], [12, 2], [13, 2]])
        with torch.no_grad():
            embeddings = clip.get_text_features(names).pooler_output
        ours = bench(**self._head(case, text_embeds=embeddings))
        batch = ours.collate("task", pictures)
        with torch.no_grad():
            expected = clip(input_ids=names, pixel_values=batch["pixel_values"]).logits_per_image
            torch.testing.assert_close(ours.logits("task", batch), expected, rtol=1e-5, atol=1e-5)
        assert ours.heads["task"].labels == ("cat", "dog", "cow", "pig")
        assert set(ours.heads["task"].own) == {"text_embeds"}

    @pytest.mark.parametrize("case", ["clip"], indirect=True)
    def test_scale_of_its_own(self, case: Any, bench: Any, pictures: list[Row]) -> None:
        embeddings = torch.randn(4, 12)
        plain = bench(**self._head(case, anything=embeddings))
        batch = plain.collate("task", pictures)
        with torch.no_grad():
            before = plain.logits("task", batch) / plain.model.logit_scale.exp()
            scaled = bench(**self._head(case, text_embeds=embeddings, logit_scale=torch.tensor(2.0)))
            torch.testing.assert_close(scaled.logits("task", batch), before * math.exp(2.0))

    @pytest.mark.parametrize("case", ["clip"], indirect=True)
    def test_width_that_does_not_fit(self, case: Any, bench: Any) -> None:
        with pytest.raises(CheckpointError, match=r"text_embeds has shape \[4, 11\], expected \[any, 12\]"):
            bench(**self._head(case, text_embeds=torch.ones(4, 11)))

    @pytest.mark.parametrize("case", ["clip"], indirect=True)
    def test_classes_without_a_direction(self, case: Any, bench: Any) -> None:
        embeddings = torch.ones(4, 12)
        embeddings[2] = 0
        with pytest.raises(CheckpointError, match="the text embedding of class 2 is all zeros"):
            bench(**self._head(case, text_embeds=embeddings))

    @pytest.mark.parametrize("case", ["clip"], indirect=True)
    def test_two_tensors_that_may_be_the_embeddings(self, case: Any, bench: Any) -> None:
        with pytest.raises(CheckpointError, match="has no tensor text_embeds"):
            bench(**self._head(case, cats=torch.ones(4, 12), dogs=torch.ones(4, 12)))

    @pytest.mark.parametrize("case", ["vit"], indirect=True)
    def test_model_without_image_embeddings(self, case: Any, bench: Any) -> None:
        with pytest.raises(CheckpointError, match="ViTModel has no image embeddings"):
            bench(**self._head(case, text_embeds=torch.ones(4, 12)))

    @pytest.mark.parametrize("case", ["clip-vision"], indirect=True)
    def test_vision_model_with_projection(
        self, case: Any, make_spec: Any, tmp_path: Path, add_processor: Callable[[Path], None], pictures: list[Row]
    ) -> None:
        model = tf.CLIPVisionModelWithProjection(tf.CLIPVisionConfig.from_pretrained(case.base_dir)).eval()
        model.save_pretrained(tmp_path / "projecting")
        add_processor(tmp_path / "projecting")
        embeddings = torch.randn(4, 12)
        save_file({"text_embeds": embeddings, "logit_scale": torch.tensor(0.0)}, tmp_path / "classes.safetensors")
        task = make_spec(
            case, head="zero-shot", embeddings=str(tmp_path / "classes.safetensors"), labels=["a", "b", "c", "d"]
        )
        with Checkpoint.open(tmp_path / "projecting") as base:
            ours = Workbench(base, {"one": base}, {"task": task})
        batch = ours.collate("task", pictures)
        with torch.no_grad():
            image = model(batch["pixel_values"]).image_embeds
            expected = torch.nn.functional.cosine_similarity(image[:, None], embeddings[None], dim=-1)
            torch.testing.assert_close(ours.logits("task", batch), expected, rtol=0, atol=1e-6)
        save_file({"text_embeds": embeddings}, tmp_path / "classes.safetensors")
        with Checkpoint.open(tmp_path / "projecting") as base, pytest.raises(CheckpointError, match="logit_scale"):
            Workbench(base, {"one": base}, {"task": task})
