from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from safetensors.torch import load_file, save_file
from torch import Tensor

from supermerge.checkpoint import Checkpoint, match
from supermerge.errors import CheckpointError, RecipeError
from supermerge.tasks.task_models import HeadSource, build_task_models


def head_of(case: Any, **changes: Any) -> HeadSource:
    given = {"label": "the head", "type": case.type, "config": case.expert.config, "sources": (case.expert,), **changes}
    return HeadSource(**given)


def logits(module: Any, inputs: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return module(**inputs).logits


def seen_as_base(case: Any) -> Any:
    return match(case.base, {"expert": case.expert}).experts["expert"]


def test_logits_on_the_experts_weights_are_the_experts_own(case: Any) -> None:
    host, heads = build_task_models(case.base, {"task": head_of(case)})
    host.load(seen_as_base(case))
    expected = logits(case.expert_class.from_pretrained(case.expert_dir), case.inputs)
    assert torch.equal(logits(heads["task"].module, case.inputs), expected)


def test_head_is_what_the_host_has_not(case: Any) -> None:
    """Own tensors and host together are the whole model, and nothing is in both."""
    host, heads = build_task_models(case.base, {"task": head_of(case)})
    places = {tensor.data_ptr() for tensor in host.model.state_dict().values()}
    head = heads["task"]
    for name, tensor in head.module.state_dict(keep_vars=True).items():
        assert (tensor.data_ptr() in places) == (name not in head.own), name
    expected = case.expert_class.from_pretrained(case.expert_dir).state_dict()
    for name, tensor in head.own.items():
        assert torch.equal(tensor, expected[name]), name
        assert not tensor.requires_grad


def test_shared_parameters_are_the_same_objects(case: Any) -> None:
    host, heads = build_task_models(case.base, {"one": head_of(case), "two": head_of(case)})
    shared = {id(parameter) for parameter in host.model.parameters()}
    used = [{id(p) for p in head.module.parameters()} & shared for head in heads.values()]
    assert used[0] == used[1]
    assert len(used[0]) > 10
    with torch.no_grad():
        before = logits(heads["one"].module, case.inputs)
        for parameter in host.model.parameters():
            parameter.mul_(1.1)
    assert not torch.equal(logits(heads["one"].module, case.inputs), before)


def test_nothing_is_left_without_memory_and_all_is_in_eval_mode(case: Any) -> None:
    host, heads = build_task_models(case.base, {"task": head_of(case)})
    for module in (host.model, heads["task"].module):
        tensors = [*module.named_parameters(), *module.named_buffers()]
        assert [name for name, tensor in tensors if tensor.is_meta] == []
        assert not any(part.training for part in module.modules())


def test_buffers_that_no_file_holds_are_shared_and_right(case: Any) -> None:
    host, heads = build_task_models(case.base, {"task": head_of(case)})
    loaded = dict(case.expert_class.from_pretrained(case.expert_dir).named_buffers())
    ours = dict(heads["task"].module.named_buffers())
    theirs = {buffer.data_ptr() for _, buffer in host.model.named_buffers()}
    assert ours.keys() == loaded.keys()
    for name, buffer in ours.items():
        assert torch.equal(buffer, loaded[name]), name
        assert buffer.data_ptr() in theirs, name


@pytest.mark.parametrize("case", ["llama-lm-tied", "gpt2-lm", "t5-seq2seq"], indirect=True)
def test_tied_weights_stay_tied(case: Any) -> None:
    host, heads = build_task_models(case.base, {"task": head_of(case)})
    for model in (host.model, heads["task"].module):
        assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    host.load(seen_as_base(case))
    assert heads["task"].module.get_output_embeddings().weight is host.model.get_input_embeddings().weight
    assert heads["task"].own == {}


@pytest.mark.parametrize("case", ["bert"], indirect=True)
class TestPooler:
    def test_it_is_the_tasks_own_and_the_host_has_none(self, case: Any) -> None:
        host, heads = build_task_models(case.base, {"task": head_of(case)})
        pooler = {"pooler.dense.weight", "pooler.dense.bias"}
        assert pooler.isdisjoint(host.model.state_dict())
        assert {f"bert.{name}" for name in pooler} < set(heads["task"].own)
        assert set(host.poolers) == pooler
        assert pooler.isdisjoint(host.binding.file_names)

    def test_the_host_keeps_one_that_no_task_uses(self, case: Any) -> None:
        host, _ = build_task_models(case.base, {})
        assert "pooler.dense.weight" in host.model.state_dict()
        assert host.poolers == ()

    def test_it_must_be_in_the_experts_file(self, case: Any) -> None:
        path = case.expert_dir / "model.safetensors"
        tensors = {name: tensor for name, tensor in load_file(path).items() if "pooler.dense.bias" not in name}
        save_file(tensors, path, metadata={"format": "pt"})
        with (
            Checkpoint.open(case.expert_dir) as expert,
            pytest.raises(CheckpointError, match=r"bert.pooler.dense.bias"),
        ):
            build_task_models(case.base, {"task": head_of(case, sources=(expert,))})


@pytest.mark.parametrize("case", ["bert"], indirect=True)
class TestRefusals:
    def test_expert_without_a_classifier(self, case: Any) -> None:
        with pytest.raises(CheckpointError, match=r"no .*classifier.weight, classifier.bias: BertForSequenceClass"):
            build_task_models(case.base, {"task": head_of(case, sources=(case.base,))})

    def test_classifier_of_another_size(self, case: Any) -> None:
        config = {**case.expert.config, "id2label": {"0": "a", "1": "b"}, "label2id": {"a": 0, "b": 1}}
        with pytest.raises(CheckpointError, match=r"classifier.weight has shape \[3, 16\].*asks for \[2, 16\]"):
            build_task_models(case.base, {"task": head_of(case, config=config)})

    def test_base_that_lacks_a_parameter(self, case: Any) -> None:
        tensors = {name: case.base.read(name) for name in case.base.tensors}
        del tensors["encoder.layer.1.output.dense.weight"]
        (case.base_dir / "part").mkdir()
        save_file(tensors, case.base_dir / "part/model.safetensors", metadata={"format": "pt"})
        (case.base_dir / "part/config.json").write_bytes((case.base_dir / "config.json").read_bytes())
        lacking = r"lacks 1 tensor.*encoder.layer.1.output.dense.weight"
        with Checkpoint.open(case.base_dir / "part") as part, pytest.raises(CheckpointError, match=lacking):
            build_task_models(part, {})

    def test_expert_of_another_width(self, case: Any) -> None:
        config = {**case.expert.config, "vocab_size": 31}
        with pytest.raises(CheckpointError, match=r"\[31, 16\] at bert.embeddings.*the base has \[30, 16\]"):
            build_task_models(case.base, {"task": head_of(case, config=config)})

    def test_task_type_that_the_model_has_no_class_for(self, case: Any) -> None:
        with pytest.raises(CheckpointError, match="cannot build AutoModelForImageClassification"):
            build_task_models(case.base, {"task": head_of(case, type="image-classification")})

    def test_task_type_without_a_class(self, case: Any) -> None:
        with pytest.raises(RecipeError, match="no transformers class for tasks of type 'custom'"):
            build_task_models(case.base, {"task": head_of(case, type="custom")})

    def test_unknown_model_type(self, case: Any) -> None:
        with pytest.raises(CheckpointError, match="model_type 'nonesuch'"):
            build_task_models(case.base, {"task": head_of(case, config={"model_type": "nonesuch"})})

    def test_regression_with_three_outputs(self, case: Any) -> None:
        with pytest.raises(CheckpointError, match="3 outputs; a regression has one"):
            build_task_models(case.base, {"task": head_of(case, type="regression")})

    def test_expert_of_another_architecture(self, case: Any, tmp_path: Path) -> None:
        other = tf.DistilBertForSequenceClassification(
            tf.DistilBertConfig(vocab_size=30, dim=16, n_layers=1, n_heads=2, hidden_dim=24, max_position_embeddings=20)
        )
        other.save_pretrained(tmp_path / "other")
        with (
            Checkpoint.open(tmp_path / "other") as expert,
            pytest.raises(CheckpointError, match="lacks 16 tensors of the backbone"),
        ):
            build_task_models(case.base, {"task": head_of(case, config=expert.config, sources=(expert,))})


@pytest.mark.parametrize("case", ["llama-lm"], indirect=True)
def test_one_model_cannot_be_decoder_and_encoder_decoder(case: Any) -> None:
    sources = {"a": head_of(case), "b": head_of(case, type="seq2seq", pooling="cls")}
    with pytest.raises(RecipeError, match="causal-lm and seq2seq"):
        build_task_models(case.base, sources)


@pytest.mark.parametrize("case", ["llama-lm-base"], indirect=True)
def test_generative_and_classifying_tasks_share_one_decoder(case: Any) -> None:
    chat = HeadSource("chat", "causal-lm", case.base.config, (case.base,))
    host, heads = build_task_models(case.base, {"news": head_of(case), "chat": chat})
    assert type(host.model) is tf.LlamaForCausalLM
    news, speaks = heads["news"].module, heads["chat"].module
    assert news.model.embed_tokens.weight is speaks.model.embed_tokens.weight is host.model.model.embed_tokens.weight
    assert speaks.lm_head.weight is host.model.lm_head.weight
    assert list(heads["news"].own) == ["score.weight"]


@pytest.mark.parametrize("case", ["bert"], indirect=True)
class TestLabels:
    def test_from_the_experts_config(self, case: Any) -> None:
        config = {**case.expert.config, "id2label": {"0": "world", "1": "sport", "2": "arts"}}
        _, heads = build_task_models(case.base, {"task": head_of(case, config=config)})
        assert heads["task"].labels == ("world", "sport", "arts")

    def test_from_the_recipe(self, case: Any) -> None:
        _, heads = build_task_models(case.base, {"task": head_of(case, labels=("x", "y", "z"))})
        assert heads["task"].labels == ("x", "y", "z")
        assert heads["task"].config["id2label"] == {0: "x", 1: "y", 2: "z"}


@pytest.mark.parametrize("case", ["vit"], indirect=True)
def test_what_no_expert_has_is_read_from_the_base(case: Any) -> None:
    """ViT's pooler is in the base, and in no classifier."""
    host, _ = build_task_models(case.base, {"task": head_of(case)})
    bound = host.bind(seen_as_base(case))
    assert torch.equal(bound.read("pooler.dense.weight"), case.base.read("pooler.dense.weight"))
    assert torch.equal(bound.read_flat("pooler.dense.bias", 2, 5), case.base.read("pooler.dense.bias")[2:5])


@pytest.mark.parametrize("case", ["bert"], indirect=True)
def test_source_of_another_architecture_is_not_completed(case: Any) -> None:
    host, _ = build_task_models(case.base, {"task": head_of(case)})
    with pytest.raises(CheckpointError, match="lacks 37 of the 37 tensors"):
        host.bind(case.expert)
