from __future__ import annotations

import pytest
import torch

from supermerge.checkpoint import TensorInfo
from supermerge.checkpoint.names import map_names, modules, pattern


def infos(*names: str, shape: tuple[int, ...] = (2,)) -> dict[str, TensorInfo]:
    return {name: TensorInfo(name, torch.float32, shape) for name in names}


BODY = ("embed.weight", "layer.0.weight", "layer.1.weight")


@pytest.mark.parametrize(
    ("base", "expert", "base_prefix", "expert_prefix"),
    [
        (BODY, BODY, "", ""),
        (BODY, tuple(f"bert.{name}" for name in BODY), "", "bert."),
        (BODY, tuple(f"model.encoder.{name}" for name in BODY), "", "model.encoder."),
        (tuple(f"bert.{name}" for name in BODY), BODY, "bert.", ""),
        (BODY, (*(f"bert.{name}" for name in BODY), "classifier.weight"), "", "bert."),
        (("bert.embed.weight", "bert.layer.0.weight", "cls.bias"), ("embed.weight", "layer.0.weight"), "bert.", ""),
    ],
)
def test_prefixes_are_inferred(
    base: tuple[str, ...], expert: tuple[str, ...], base_prefix: str, expert_prefix: str
) -> None:
    found = map_names(infos(*base), infos(*expert))
    assert (found.base_prefix, found.expert_prefix, found.rival) == (base_prefix, expert_prefix, None)
    shared = [name for name in base if name.startswith(base_prefix)]
    assert found.names == {name: expert_prefix + name.removeprefix(base_prefix) for name in shared}


def test_names_outside_the_prefix_still_match() -> None:
    expert = infos("model.embed.weight", "model.layer.0.weight", "model.layer.1.weight", "lm_head.weight")
    found = map_names(infos(*BODY, "lm_head.weight"), expert)
    assert found.names["lm_head.weight"] == "lm_head.weight"
    assert found.names["embed.weight"] == "model.embed.weight"


def test_equal_shapes_decide_between_prefixes() -> None:
    expert = infos("text.layer.weight", "text.norm.weight", shape=(9,)) | infos("vision.layer.weight")
    assert map_names(infos("layer.weight", "norm.weight"), expert).expert_prefix == "vision."


def test_two_prefixes_that_fit_alike_are_told() -> None:
    expert = infos("query.embed.weight", "passage.embed.weight")
    found = map_names(infos("embed.weight"), expert)
    assert {found.expert_prefix, found.rival} == {"query.", "passage."}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("norm.gamma", "norm.weight"),
        ("norm.beta", "norm.bias"),
        ("conv.weight_g", "conv.parametrizations.weight.original0"),
        ("conv.weight_v", "conv.parametrizations.weight.original1"),
    ],
)
def test_old_and_new_spellings(old: str, new: str) -> None:
    assert map_names(infos("embed.weight", old), infos("embed.weight", new)).names[old] == new
    assert map_names(infos("embed.weight", new), infos("bert.embed.weight", f"bert.{old}")).names[new] == f"bert.{old}"


def test_a_spelling_is_no_guess() -> None:
    """`gamma` is `weight` only if nothing else is and the shapes agree."""
    expert = infos("embed.weight", "norm.weight") | infos("scale.weight", shape=(7,))
    names = map_names(infos("embed.weight", "norm.weight", "norm.gamma", "scale.gamma"), expert).names
    assert names == {"embed.weight": "embed.weight", "norm.weight": "norm.weight"}


def test_nothing_in_common() -> None:
    assert map_names(infos("a.b"), infos("c.d")).names == {}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("encoder.layer.11.query.weight", "encoder.layer.*.query.weight"),
        ("0.weight", "*.weight"),
        ("layers.0.1.weight", "layers.*.*.weight"),
        ("layer1.weight", "layer1.weight"),
        ("convs.3", "convs.*"),
    ],
)
def test_pattern(name: str, expected: str) -> None:
    assert pattern(name) == expected


def test_modules() -> None:
    assert list(modules("encoder.layer.3.bias")) == ["encoder.", "encoder.layer.", "encoder.layer.*."]
    assert list(modules("logit_scale")) == ["logit_scale"]
