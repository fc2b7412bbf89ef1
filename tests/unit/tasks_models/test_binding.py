from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from safetensors.torch import load_file, save_file

from supermerge.checkpoint import Checkpoint
from supermerge.errors import CheckpointError
from supermerge.tasks.binding import Binding
from supermerge.tasks.bound import Bound
from supermerge.tasks.models import build, read_config


def bind(kind: Any, checkpoint: Checkpoint) -> Bound:
    """The checkpoint as a model of class `kind`, built on the meta device, sees it."""
    model = build(kind, read_config(checkpoint.config, "x"), "x", torch.float32)
    return Bound(Binding.of(model, checkpoint), checkpoint)


def assert_as_from_pretrained(kind: Any, directory: Path) -> None:
    """Every tensor, and which ones are missing or unexpected, as `from_pretrained` has them."""
    loaded, info = kind.from_pretrained(directory, output_loading_info=True)
    with Checkpoint.open(directory) as checkpoint:
        model = build(kind, read_config(checkpoint.config, "x"), "x", torch.float32)
        binding = Binding.of(model, checkpoint)
        bound = Bound(binding, checkpoint)
        assert set(binding.missing) == set(info["missing_keys"])
        assert len(binding.unexpected) == len(info["unexpected_keys"])
        state = loaded.state_dict()
        assert list(bound.tensors) == [name for name in state if name not in binding.missing]
        for name, found in bound.tensors.items():
            assert torch.equal(bound.read(name), state[name]), name
            assert (found.shape, found.dtype) == (tuple(state[name].shape), state[name].dtype), name


def test_every_tensor_of_the_base_is_as_from_pretrained_loads_it(case: Any) -> None:
    assert_as_from_pretrained(case.base_class, case.base_dir)


def test_every_tensor_of_the_expert_is_as_from_pretrained_loads_it(case: Any) -> None:
    assert_as_from_pretrained(case.expert_class, case.expert_dir)


def test_headless_class_reads_the_expert_with_its_prefix(case: Any) -> None:
    assert_as_from_pretrained(tf.AutoModel, case.expert_dir)


@pytest.mark.parametrize("case", ["bert", "bert-mlm", "dinov2-gated", "clip", "gpt2", "t5", "mixtral"], indirect=True)
def test_class_with_head_reads_the_base_without_its_prefix(case: Any) -> None:
    assert_as_from_pretrained(case.expert_class, case.base_dir)


@pytest.mark.parametrize("case", ["bert"], indirect=True)
def test_legacy_gamma_and_beta(case: Any) -> None:
    path = case.base_dir / "model.safetensors"
    legacy = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor.clone()
        for name, tensor in load_file(path).items()
    }
    save_file(legacy, path, metadata={"format": "pt"})
    assert any("gamma" in name for name in legacy)
    assert_as_from_pretrained(tf.BertModel, case.base_dir)


@pytest.mark.parametrize("case", ["mixtral"], indirect=True)
def test_fused_tensors_name_the_files_they_are_made_of(case: Any) -> None:
    bound = bind(tf.MixtralForCausalLM, case.base)
    binding = Binding.of(
        build(tf.MixtralForCausalLM, read_config(case.base.config, "x"), "x", torch.float32), case.base
    )
    assert binding.files("model.layers.1.mlp.experts.gate_up_proj") == tuple(
        f"model.layers.1.block_sparse_moe.experts.{expert}.{part}.weight"
        for expert in range(3)
        for part in ("w1", "w3")
    )
    assert binding.files("model.norm.weight") == ("model.norm.weight",)
    assert set(binding.file_names) == set(case.base.tensors)
    name = "model.layers.0.mlp.experts.gate_up_proj"
    whole = bound.read(name)
    assert torch.equal(bound.read(name, slice(1, 3)), whole[1:3])
    assert torch.equal(bound.read_flat(name, 5, 900), whole.flatten()[5:900])


@pytest.mark.parametrize("case", ["mixtral"], indirect=True)
def test_a_fused_tensor_read_in_blocks_is_fused_once(case: Any) -> None:
    bound = bind(tf.MixtralForCausalLM, case.base)
    name = "model.layers.0.mlp.experts.gate_up_proj"
    whole = bound.read(name).flatten()
    for _ in range(2):
        before = bound.bytes_read
        blocks = [bound.read_flat(name, start, min(start + 1000, len(whole))) for start in range(0, len(whole), 1000)]
        assert len(blocks) > 2
        assert torch.equal(torch.cat(blocks), whole)
        assert bound.bytes_read - before == whole.nbytes


@pytest.mark.parametrize("case", ["bert"], indirect=True)
def test_parts_of_a_tensor_and_bytes_read(case: Any) -> None:
    bound = bind(tf.BertModel, case.base)
    name = "embeddings.word_embeddings.weight"
    before = case.base.bytes_read
    whole = bound.read(name)
    assert bound.bytes_read - before == whole.nbytes
    assert torch.equal(bound.read(name, slice(2, 7)), whole[2:7])
    assert torch.equal(bound.read_flat(name, 3, 40), whole.flatten()[3:40])


def _save_with_output_layer(directory: Path, change: float) -> None:
    tensors = load_file(directory / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + change
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("case", ["llama-lm-tied"], indirect=True)
class TestTies:
    def test_alias_that_the_file_leaves_out_has_the_same_origin(self, case: Any) -> None:
        binding = Binding.of(
            build(tf.LlamaForCausalLM, read_config(case.base.config, "x"), "x", torch.float32), case.base
        )
        assert binding.made["lm_head.weight"] is binding.made["model.embed_tokens.weight"]
        assert not binding.missing
        assert not binding.doubles

    def test_equal_double_is_tied(self, case: Any) -> None:
        _save_with_output_layer(case.base_dir, 0.0)
        assert_as_from_pretrained(tf.LlamaForCausalLM, case.base_dir)
        with Checkpoint.open(case.base_dir) as checkpoint:
            model = build(tf.LlamaForCausalLM, read_config(checkpoint.config, "x"), "x", torch.float32)
            binding = Binding.of(model, checkpoint)
            assert binding.doubles == (("lm_head.weight", "model.embed_tokens.weight"),)
            assert binding.made["lm_head.weight"] is binding.made["model.embed_tokens.weight"]
            w = {"model.embed_tokens.weight": torch.tensor([0.5])}
            assert set(binding.file_coefficients(w, checkpoint)) == {"lm_head.weight", "model.embed_tokens.weight"}

    def test_different_double_stays_apart(self, case: Any) -> None:
        _save_with_output_layer(case.base_dir, 1.0)
        assert_as_from_pretrained(tf.LlamaForCausalLM, case.base_dir)

    def test_expert_that_unties_them_is_refused(self, case: Any) -> None:
        _save_with_output_layer(case.base_dir, 0.0)
        _save_with_output_layer(case.expert_dir, 1.0)
        with Checkpoint.open(case.base_dir) as base, Checkpoint.open(case.expert_dir) as expert:
            model = build(tf.LlamaForCausalLM, read_config(base.config, "x"), "x", torch.float32)
            with pytest.raises(CheckpointError, match=r"lm_head.weight and model.embed_tokens.weight differ"):
                Bound(Binding.of(model, base), expert)

    def test_expert_stored_under_the_double_only(self, case: Any) -> None:
        _save_with_output_layer(case.base_dir, 0.0)
        tensors = load_file(case.expert_dir / "model.safetensors")
        tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")
        with Checkpoint.open(case.base_dir) as base:
            model = build(tf.LlamaForCausalLM, read_config(base.config, "x"), "x", torch.float32)
            bound = Bound(Binding.of(model, base), Checkpoint.open(tensors))
            assert torch.equal(bound.read("model.embed_tokens.weight"), tensors["lm_head.weight"])


class TestFileCoefficients:
    """One coefficient per file tensor, or per row of it, from those of the model's tensors."""

    @pytest.mark.parametrize("case", ["mixtral"], indirect=True)
    def test_fused(self, case: Any) -> None:
        model = build(tf.MixtralForCausalLM, read_config(case.base.config, "x"), "x", torch.float32)
        binding = Binding.of(model, case.base)
        name, stored = "model.layers.0.mlp.experts.gate_up_proj", "model.layers.0.block_sparse_moe.experts"
        whole = binding.file_coefficients({name: torch.tensor([0.1, 0.2])}, case.base)
        assert set(whole) == {f"{stored}.{i}.{part}.weight" for i in range(3) for part in ("w1", "w3")}
        assert all(torch.equal(w, torch.tensor([0.1, 0.2])) for w in whole.values())
        rows = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
        per_row = binding.file_coefficients({name: rows}, case.base)
        for expert in range(3):
            for part in ("w1", "w3"):
                expected = rows[:, expert : expert + 1].expand(2, 24)
                assert torch.equal(per_row[f"{stored}.{expert}.{part}.weight"], expected)

    @pytest.mark.parametrize("case", ["dinov2-gated"], indirect=True)
    def test_split(self, case: Any) -> None:
        model = build(tf.Dinov2Model, read_config(case.base.config, "x"), "x", torch.float32)
        binding = Binding.of(model, case.base)
        gate, up = "encoder.layer.0.mlp.gate_proj.weight", "encoder.layer.0.mlp.up_proj.weight"
        (stored,) = binding.files(gate)
        assert binding.files(up) == (stored,)
        rows = model.state_dict()[gate].shape[0]
        found = binding.file_coefficients({gate: torch.tensor([0.1, 0.2]), up: torch.tensor([0.3, 0.4])}, case.base)
        assert torch.equal(found[stored], torch.tensor([[0.1] * rows + [0.3] * rows, [0.2] * rows + [0.4] * rows]))
        row_wise = torch.arange(2.0 * rows).reshape(2, rows)
        found = binding.file_coefficients({gate: row_wise, up: -row_wise}, case.base)
        assert torch.equal(found[stored], torch.cat([row_wise, -row_wise], dim=1))

    @pytest.mark.parametrize("case", ["bert"], indirect=True)
    def test_one_to_one(self, case: Any) -> None:
        model = build(tf.BertModel, read_config(case.base.config, "x"), "x", torch.float32)
        binding = Binding.of(model, case.base)
        w = {name: torch.full((2,), float(i)) for i, name in enumerate(model.state_dict())}
        assert binding.file_coefficients(w, case.base) == w


@pytest.mark.parametrize("case", ["mixtral"], indirect=True)
class TestDamagedFusedTensors:
    STORED = "model.layers.0.block_sparse_moe.experts.2.w3.weight"

    def _without(self, case: Any, replacement: torch.Tensor | None) -> tuple[tf.PreTrainedModel, Checkpoint]:
        tensors = {name: case.base.read(name) for name in case.base.tensors if name != self.STORED}
        if replacement is not None:
            tensors[self.STORED] = replacement
        model = build(tf.MixtralForCausalLM, read_config(case.base.config, "x"), "x", torch.float32)
        return model, Checkpoint.open(tensors)

    def test_a_part_is_missing(self, case: Any) -> None:
        model, damaged = self._without(case, None)
        with pytest.raises(CheckpointError, match=r"cannot make model.layers.0.mlp.experts.gate_up_proj from"):
            Binding.of(model, damaged)

    def test_a_part_has_another_shape(self, case: Any) -> None:
        model, damaged = self._without(case, torch.zeros(24, 15))
        with pytest.raises(CheckpointError, match=r"cannot make model.layers.0.mlp.experts.gate_up_proj from"):
            Binding.of(model, damaged)


@pytest.mark.parametrize("case", ["bert"], indirect=True)
def test_shape_that_the_config_does_not_ask_for(case: Any) -> None:
    tensors = {name: case.base.read(name).clone() for name in case.base.tensors}
    tensors["embeddings.word_embeddings.weight"] = torch.zeros(31, 16)
    model = build(tf.BertModel, read_config(case.base.config, "x"), "x", torch.float32)
    with pytest.raises(CheckpointError, match=r"embeddings.word_embeddings.weight has shape \[31, 16\].*\[30, 16\]"):
        Bound(Binding.of(model, case.base), Checkpoint.open(tensors))
