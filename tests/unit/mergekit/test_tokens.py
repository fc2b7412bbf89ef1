"""Embeddings matched by token, tokenizers of the output, chat templates, and vocabularies that do not match."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from supermerge.errors import CheckpointError, RecipeError

sys.path.insert(0, str(Path(__file__).parents[2]))
import llama

EMBEDDINGS = ("model.embed_tokens.weight", "lm_head.weight")
HERE = [f"t{i}" for i in range(22)]
# b has other tokens, one of them new, in another order.
THERE = ["t3", "new", *(token for token in HERE if token not in ("t3", "t5")), "last"]
Files = Mapping[str, bytes]
Merged = Callable[[str], tuple[dict[str, Tensor], Files]]


def models() -> dict[str, tuple[dict[str, Tensor], list[str]]]:
    base = llama.base(vocabulary=len(HERE))
    other = llama.expert(base, 2)
    rows = llama.base(vocabulary=len(THERE), seed=5)
    return {
        "base": (base, HERE),
        "a": (llama.expert(base, 1), HERE),
        "b": ({**other, **{name: rows[name] for name in EMBEDDINGS}}, THERE),
    }


MODELS = models()


@pytest.fixture
def merged(tmp_path: Path) -> Merged:
    for name, (tensors, tokens) in MODELS.items():
        llama.write(tmp_path / name, tensors, torch.float32, tokens)

    def run(tail: str) -> tuple[dict[str, Tensor], Files]:
        listed = "models: [{model: a, parameters: {weight: 1}}, {model: b, parameters: {weight: 1}}]\n"
        (tmp_path / "m.yml").write_text(f"{listed}merge_method: task_arithmetic\nbase_model: base\n{tail}")
        return llama.merged(tmp_path / "m.yml")

    return run


def vocabulary(files: Files) -> dict[str, int]:
    tokenizer = json.loads(files["tokenizer.json"])
    added = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    return {**tokenizer["model"]["vocab"], **added}


Instead = Callable[[str], Tensor]


def rows(tokens: Sequence[str], of: Mapping[str, Tensor], own: Sequence[str], instead: Instead) -> Tensor:
    return torch.stack([of["lm_head.weight"][own.index(t)] if t in own else instead(t) for t in tokens])


@pytest.mark.parametrize("tail", ["tokenizer_source: union\n", "tokenizer: {source: union, pad_to_multiple_of: 32}\n"])
def test_union(tail: str, merged: Merged) -> None:
    found, out = merged(tail)
    tokens = vocabulary(out)
    assert sorted(tokens) == sorted({*HERE, *THERE})
    in_order = sorted(tokens, key=tokens.__getitem__)
    assert in_order == [*HERE, "new", "last"]
    (base, _), (a, _), (b, _) = MODELS.values()

    def only_b(token: str) -> Tensor:
        return b["lm_head.weight"][THERE.index(token)]

    theirs = rows(in_order, b, THERE, lambda token: base["lm_head.weight"][HERE.index(token)])
    expected = rows(in_order, a, HERE, only_b) + theirs - rows(in_order, base, HERE, only_b)
    torch.testing.assert_close(found["lm_head.weight"][:24], expected)
    size = 32 if "pad" in tail else 24
    assert found["model.embed_tokens.weight"].shape == (size, llama.HIDDEN)
    assert json.loads(out["config.json"])["vocab_size"] == size
    if size == 32:  # padding is the mean of all tokens' rows
        torch.testing.assert_close(found["lm_head.weight"][24:], expected.mean(0).expand(8, -1))


def test_the_bases_tokens(merged: Merged) -> None:
    found, out = merged("tokenizer_source: base\n")
    assert list(vocabulary(out)) == HERE
    (base, _), (a, _), (b, _) = MODELS.values()
    theirs = rows(HERE, b, THERE, lambda token: base["lm_head.weight"][HERE.index(token)])
    torch.testing.assert_close(found["lm_head.weight"], a["lm_head.weight"] + theirs - base["lm_head.weight"])


def test_what_is_said_about_tokens(merged: Merged) -> None:
    tail = (
        "tokenizer:\n  source: base\n  tokens:\n"
        "    fresh: {source: {kind: model_token, model: a, token: t1}}\n"
        "    none: {source: {kind: zero}}\n"
        "    t2: {source: b, force: true}\n"
    )
    found, out = merged(tail)
    tokens, (a, _), (b, _) = vocabulary(out), MODELS["a"], MODELS["b"]
    assert (tokens["fresh"], tokens["none"]) == (22, 23)
    torch.testing.assert_close(found["lm_head.weight"][22], a["lm_head.weight"][1])
    assert not found["lm_head.weight"][23].any()
    torch.testing.assert_close(found["lm_head.weight"][2], b["lm_head.weight"][THERE.index("t2")])


def test_chat_templates(merged: Merged) -> None:
    _, out = merged("tokenizer_source: base\nchat_template: chatml\n")
    assert "<|im_start|>" in out["chat_template.jinja"].decode()


@pytest.mark.parametrize(
    ("tail", "message"),
    [
        ("tokenizer_source: unoin\n", "'unoin' is not among the merged models"),
        ("tokenizer: {source: base, tokens: {x: {source: {kind: model_token, model: a, token: y}}}}\n", "no token 'y'"),
        ("tokenizer_source: base\nchat_template: llama3\n", "'llama3' is neither auto nor chatml nor a template"),
    ],
)
def test_refuses(tail: str, message: str, merged: Merged) -> None:
    with pytest.raises(RecipeError, match=message):
        merged(tail)


def test_without_instruction_other_tokens_are_refused(merged: Merged) -> None:
    with pytest.raises(CheckpointError) as caught:
        merged("")
    assert "1 tokens of the base are missing, such as 't5'" in caught.value.message
    assert "2 tokens are not the base's, such as 'last', 'new'" in caught.value.message
    assert "tokenizer_source" in str(caught.value.hint)


def native(tmp_path: Path, expert: dict[str, Tensor], tokens: list[str]) -> dict[str, Tensor]:
    llama.write(tmp_path / "base", MODELS["base"][0], torch.float32, HERE)
    llama.write(tmp_path / "x", expert, torch.float32, tokens)
    (tmp_path / "recipe.yaml").write_text("base: base\nexperts: {x: x}\nmethod: linear\n")
    return llama.merged(tmp_path / "recipe.yaml")[0]


@pytest.mark.parametrize("more", [10, 0])
def test_padding_is_no_difference(more: int, tmp_path: Path) -> None:
    expert = dict(MODELS["a"][0])
    for name in EMBEDDINGS:
        expert[name] = torch.cat([expert[name], torch.ones(more + 2, llama.HIDDEN)])
    found = native(tmp_path, expert, HERE)
    torch.testing.assert_close(found["lm_head.weight"], MODELS["a"][0]["lm_head.weight"])


def test_moved_tokens_are_refused_even_in_matrices_of_equal_size(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="2 tokens have another index, such as 't0', 't1'"):
        native(tmp_path, MODELS["a"][0], ["t1", "t0", *HERE[2:]])
