from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from supermerge.checkpoint import Checkpoint, Match, match
from supermerge.errors import CheckpointError, UsageError

State = dict[str, Tensor]
MakeModel = Callable[..., State]
Save = Callable[[str, State], Path]


def match_states(base: State, **experts: State) -> Match:
    return match(
        Checkpoint.open(base, label="base"),
        {name: Checkpoint.open(state, label=name) for name, state in experts.items()},
    )


def complaint(base: State, **experts: State) -> str:
    with pytest.raises(CheckpointError) as caught:
        match_states(base, **experts)
    return caught.value.message


def test_plain(make_model: MakeModel) -> None:
    base, news, spam = (make_model(seed) for seed in range(3))
    found = match_states(base, news=news, spam=spam)
    assert found.merged == [name for name in base if name != "embeddings.position_ids"]
    assert found.copied == ["embeddings.position_ids"]
    assert found.heads == {"news": [], "spam": []}
    assert found.prefixes == {"news": "", "spam": ""}
    assert (found.tied, found.notes) == ({}, [])
    assert list(found.experts) == ["news", "spam"]
    assert torch.equal(found.experts["spam"].read("encoder.layer.1.query.bias"), spam["encoder.layer.1.query.bias"])


def test_prefixes_and_heads(make_model: MakeModel) -> None:
    news = make_model(1, "bert.", classes=3)
    found = match_states(make_model(0), news=news, spam=make_model(2))
    assert found.prefixes == {"news": "bert.", "spam": ""}
    assert found.heads == {"news": ["classifier.weight", "classifier.bias"], "spam": []}
    assert torch.equal(found.experts["news"].read("embeddings.word.weight"), news["bert.embeddings.word.weight"])


def test_a_base_with_a_prefix(make_model: MakeModel) -> None:
    base = make_model(0, "bert.") | {"cls.predictions.bias": torch.randn(50)}
    found = match_states(base, news=make_model(1), spam=make_model(2, "bert.", classes=2))
    assert found.prefixes == {"news": "", "spam": ""}
    assert found.heads["spam"] == ["classifier.weight", "classifier.bias"]
    assert "bert.encoder.layer.0.query.weight" in found.merged
    assert "cls.predictions.bias" in found.copied
    assert found.notes == ["kept from the base, as no expert has them: cls.predictions.bias"]


def test_heads_of_several_layers_are_heads(make_model: MakeModel) -> None:
    news = make_model(1) | {"head.0.weight": torch.randn(4, 4), "head.2.weight": torch.randn(2, 4)}
    assert match_states(make_model(0), news=news).heads == {"news": ["head.0.weight", "head.2.weight"]}


def test_dtypes_may_differ_in_width(make_model: MakeModel) -> None:
    news = {name: t.bfloat16() if t.is_floating_point() else t for name, t in make_model(1).items()}
    assert len(match_states(make_model(0), news=news).merged) == 7


# Tied tensors


def test_an_alias_missing_in_an_expert(make_model: MakeModel) -> None:
    base = make_model(0)
    base["lm_head.weight"] = base["embeddings.word.weight"].clone()
    news, spam = make_model(1, "bert."), make_model(2)
    spam["lm_head.weight"] = spam["embeddings.word.weight"].clone()
    found = match_states(base, news=news, spam=spam)
    assert torch.equal(found.experts["news"].read("lm_head.weight"), news["bert.embeddings.word.weight"])
    assert found.tied == {"lm_head.weight": "embeddings.word.weight"}
    assert found.notes == [
        "expert 'news' stores lm_head.weight once, as bert.embeddings.word.weight (tied in the base)"
    ]


def test_an_alias_missing_in_the_base(make_model: MakeModel) -> None:
    news, spam = make_model(1, classes=2), make_model(2)
    news["lm_head.weight"] = news["embeddings.word.weight"].clone()
    spam["lm_head.weight"] = torch.randn(50, 4)
    found = match_states(make_model(0), news=news, spam=spam)
    assert found.heads == {"news": ["classifier.weight", "classifier.bias"], "spam": ["lm_head.weight"]}
    assert found.notes == [
        "expert 'news': lm_head.weight is embeddings.word.weight again (tied), which the base stores once"
    ]


def test_tied_in_the_base_but_not_in_an_expert(make_model: MakeModel) -> None:
    base, news = make_model(0), make_model(1)
    base["lm_head.weight"] = base["embeddings.word.weight"].clone()
    news["lm_head.weight"] = torch.randn(50, 4)
    found = match_states(base, news=news)
    assert found.tied == {}
    assert "lm_head.weight" in found.merged


def test_constant_tensors_are_not_tied(make_model: MakeModel) -> None:
    base, news = make_model(0), make_model(1)
    base["pooler.norm.weight"] = torch.ones(4)
    found = match_states(base, news=news)
    assert found.tied == {}
    assert "pooler.norm.weight" in found.copied


def test_alike_at_the_start_is_not_tied() -> None:
    word = torch.randn(3000)
    other = word.clone()
    other[-1] += 1
    found = match_states({"a.w": word, "b.w": other}, news={"a.w": word + 1, "b.w": other + 1})
    assert found.tied == {}


# What only the base has


def test_own_parts_of_the_base_are_kept(make_model: MakeModel) -> None:
    base = make_model(0) | {"pooler.dense.weight": torch.randn(4, 4), "pooler.dense.bias": torch.zeros(4)}
    base |= {"logit_scale": torch.tensor(2.0)}
    base |= {f"encoder.layer.{i}.rotary.inv_freq": torch.randn(2) for i in range(2)}
    found = match_states(base, news=make_model(1))
    assert set(found.copied) == {"embeddings.position_ids", *(set(base) - set(make_model(0)))}
    assert found.notes == [
        "kept from the base, as no expert has them: pooler.* (2 tensors), logit_scale, "
        "encoder.layer.*.rotary.* (2 tensors)"
    ]


def test_missing_in_some_experts(make_model: MakeModel) -> None:
    pooler = {"pooler.dense.weight": torch.randn(4, 4)}
    message = complaint(
        make_model(0) | pooler,
        news=make_model(1),
        spam=make_model(2) | {"pooler.dense.weight": pooler["pooler.dense.weight"] + 1},
    )
    assert message == "1 of 2 experts do not fit the base base:\n  news (news):\n    pooler.dense.weight: missing"


def test_part_of_a_shared_module_missing_in_all(make_model: MakeModel) -> None:
    base = make_model(0) | {f"encoder.layer.{i}.query.scale": torch.randn(4) for i in range(2)}
    assert "encoder.layer.*.query.scale (2 tensors): missing" in complaint(base, news=make_model(1))


def test_a_layer_missing_in_all(make_model: MakeModel) -> None:
    message = complaint(make_model(0, layers=3), news=make_model(1), spam=make_model(2))
    assert message.count("encoder.layer.2.query.weight: missing") == 2


def test_most_of_the_base_missing_in_all() -> None:
    base = {"embed.weight": torch.randn(4), "tower.weight": torch.randn(100)}
    assert "tower.weight: missing" in complaint(base, news={"embed.weight": torch.randn(4)})


# Differences


def test_every_difference_of_every_expert_in_one_message(make_model: MakeModel) -> None:
    wide = make_model(1, width=6)
    whole_numbers = make_model(2) | {"encoder.layer.0.query.bias": torch.zeros(4, dtype=torch.int32)}
    message = complaint(
        make_model(0),
        wide=wide,
        ints=whole_numbers,
        deep=make_model(3, "bert.", layers=4),
        other={"x.y": torch.zeros(2)},
        short=make_model(4, layers=1),
        fine=make_model(5),
    )
    assert message == "\n".join(
        [
            "5 of 6 experts do not fit the base base:",
            "  wide (wide):",
            "    embeddings.word.weight: shape [50, 6], the base's is [50, 4]",
            "    encoder.layer.*.query.weight (2 tensors): shape [6, 6], the base's is [4, 4]",
            "    encoder.layer.*.query.bias (2 tensors): shape [6], the base's is [4]",
            "    encoder.layer.*.norm.weight (2 tensors): shape [6], the base's is [4]",
            "  ints (ints):",
            "    encoder.layer.0.query.bias: dtype int32, the base's is float32",
            "  deep (deep):",
            "    bert.encoder.layer.*.query.weight (2 tensors): the base has no such layer",
            "    bert.encoder.layer.*.query.bias (2 tensors): the base has no such layer",
            "    bert.encoder.layer.*.norm.weight (2 tensors): the base has no such layer",
            "  other (other):",
            "    has none of the base's 8 tensor names: another architecture "
            "(base: 'embeddings.word.weight', expert: 'x.y')",
            "  short (short):",
            "    encoder.layer.1.query.weight: missing",
            "    encoder.layer.1.query.bias: missing",
            "    encoder.layer.1.norm.weight: missing",
        ]
    )


def test_long_messages_are_cut(make_model: MakeModel) -> None:
    wide = {f"part{i}.weight": torch.zeros(3) for i in range(40)}
    message = complaint({name: torch.zeros(2) for name in wide}, news=wide)
    assert message.count("shape [3]") == 24
    assert message.endswith("    and 16 more such lines")


def test_floating_where_the_base_counts(make_model: MakeModel) -> None:
    news = make_model(1) | {"embeddings.position_ids": torch.zeros(5)}
    assert "embeddings.position_ids: dtype float32, the base's is int64" in complaint(make_model(0), news=news)


def test_a_prefix_that_is_a_guess() -> None:
    expert = {"query.w": torch.randn(2), "passage.w": torch.randn(2)}
    assert "could be meant by its tensors under 'query.' or those under 'passage.'" in complaint(
        {"w": torch.randn(2)}, twins=expert
    )


def test_nothing_to_merge() -> None:
    counts = {"steps": torch.arange(3)}
    assert "has no floating tensor in common with the base" in complaint(counts, news={"steps": torch.arange(1, 4)})


def test_no_experts(make_model: MakeModel) -> None:
    with pytest.raises(UsageError, match="there are no experts"):
        match(Checkpoint.open(make_model(0)), {})


# One checkpoint twice


@pytest.mark.parametrize("again", ["{0}", "{0}/", "{0}/model.safetensors", "{0}/../{1}", "link"])
def test_the_same_files_twice(make_model: MakeModel, save: Save, tmp_path: Path, again: str) -> None:
    base, news = save("base", make_model(0)), save("news", make_model(1))
    (tmp_path / "link").symlink_to(news)
    second = Checkpoint.open(tmp_path / again.format(news, news.name))
    with pytest.raises(CheckpointError, match=r"is the same checkpoint as expert 'news'"):
        match(Checkpoint.open(base), {"news": Checkpoint.open(news), "spam": second})
    with pytest.raises(CheckpointError, match="is the base itself"):
        match(Checkpoint.open(news), {"news": second})


def test_the_same_memory_twice(make_model: MakeModel) -> None:
    base, news = make_model(0), make_model(1)
    assert "is the same checkpoint as expert 'news'" in complaint(base, news=news, again=dict(news))
    assert "is the base itself" in complaint(base, news=base)


def test_the_same_weights_under_another_name(make_model: MakeModel, save: Save) -> None:
    paths: dict[str, Any] = {
        name: save(name, make_model(seed)) for name, seed in (("base", 0), ("news", 1), ("copy", 1))
    }
    base, news, copy = (Checkpoint.open(path) for path in paths.values())
    with pytest.raises(CheckpointError, match="holds the same weights as expert 'news'"):
        match(base, {"news": news, "copy": copy})
    with pytest.raises(CheckpointError, match="holds the same weights as the base"):
        match(news, {"copy": copy})


def test_the_same_weights_with_a_head_are_the_base(make_model: MakeModel) -> None:
    assert "holds the same weights as the base" in complaint(make_model(0), news=make_model(0, "bert.", classes=2))


def test_one_changed_element_is_another_model(make_model: MakeModel) -> None:
    base = make_model(0) | {"embeddings.word.weight": torch.randn(3_000, 4)}
    news = {name: tensor.clone() for name, tensor in base.items()}
    news["embeddings.word.weight"][-1, -1] += 1
    assert match_states(base, news=news).notes == []


def test_little_is_read(make_model: MakeModel, save: Save) -> None:
    big = {"layer.weight": torch.randn(1000, 100), "other.weight": torch.randn(1000, 100)}
    base = Checkpoint.open(save("base", big))
    experts = {name: Checkpoint.open(save(name, {n: t + i for n, t in big.items()})) for i, name in enumerate("ab", 1)}
    match(base, experts)
    assert all(checkpoint.bytes_read < 60_000 for checkpoint in (base, *experts.values()))


def test_names_in_messages_are_those_the_user_gave(make_model: MakeModel, save: Save) -> None:
    base, news = save("base", make_model(0)), save("news", make_model(1, width=6))
    with pytest.raises(CheckpointError, match=re.escape(f"do not fit the base {base}:\n  first ({news}):")):
        match(Checkpoint.open(base), {"first": Checkpoint.open(news)})
