"""What is measured of an expert, against the same worked out in the plainest way."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supermerge.checkpoint import Checkpoint
from supermerge.run.prepared import Prepared
from supermerge.statistics.alignment import distances
from supermerge.statistics.alignment import logits as logits_of
from supermerge.statistics.fisher import diagonal_fisher, sensitivity
from supermerge.statistics.gradient_gram import gradient_grams
from supermerge.statistics.gram import input_grams
from supermerge.statistics.likelihood import terms
from supermerge.statistics.matrices import matrices
from supermerge.statistics.norms import norm_moments
from supermerge.tasks.encode import Example
from supermerge.tasks.workbench import Workbench

TASK = "mood"
QUERY = "encoder.layer.1.attention.self.query"
NORM = "encoder.layer.0.output.LayerNorm"


@pytest.fixture
def bench(ready: Prepared) -> Workbench:
    bench = ready.require_bench("the test")
    bench.load(ready.match.experts[TASK])
    return bench


@pytest.fixture
def examples(ready: Prepared, bench: Workbench) -> list[Example]:
    # Of different lengths, so that a batch would hold padding.
    rows = ready.rows[TASK].labelled[:6]
    cut = [replace(row, texts=(" ".join(row.texts[0].split()[: 3 + i]),)) for i, row in enumerate(rows)]
    return bench.encode(TASK, cut)


def part(bench: Workbench, name: str) -> Any:
    """A module of the task's model."""
    return bench.heads[TASK].module.get_submodule(f"bert.{name}")


def log_p(bench: Workbench, example: Example) -> tuple[Tensor, int]:
    """log p(y|x) of one example, and its label."""
    batch = bench.batch(TASK, [example])
    label = int(batch.pop("labels"))
    return bench.heads[TASK].module(**batch).logits[0].log_softmax(-1), label


def gradients(bench: Workbench, value: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*bench.model.named_parameters(), strict=True)
    found = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
    return {name: one for name, one in zip(names, found, strict=True) if one is not None}


def inputs_of(bench: Workbench, module: nn.Module, examples: list[Example]) -> Tensor:
    """What goes into a module, at every token of every example, one example at a time."""
    seen: list[Tensor] = []
    handle = module.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()[0]))
    for example in examples:
        log_p(bench, example)
    handle.remove()
    return torch.cat(seen)


@pytest.mark.parametrize("kind", ["fisher_exact", "fisher_empirical"])
def test_fisher_information_squares_every_gradient_by_itself(
    kind: str, bench: Workbench, examples: list[Example]
) -> None:
    found = diagonal_fisher(bench, kind, {TASK: examples}, 0)
    expected = {name: torch.zeros_like(one) for name, one in found.items()}
    for example in examples:
        values, label = log_p(bench, example)
        for y, value in enumerate(values):
            share = float(value.detach().exp()) if kind == "fisher_exact" else float(y == label)
            for name, gradient in gradients(bench, value).items():
                expected[name] += share * gradient**2 / len(examples)
    for name, one in found.items():
        assert torch.allclose(one, expected[name], rtol=1e-4, atol=1e-9), name
    assert float(found[f"{QUERY}.weight"].max()) > 0


def test_the_square_of_a_batch_s_gradient_is_another_thing(bench: Workbench, examples: list[Example]) -> None:
    found = diagonal_fisher(bench, "fisher_empirical", {TASK: examples}, 0)[f"{QUERY}.weight"]
    values = [log_p(bench, example) for example in examples]
    mean = torch.stack([value[label] for value, label in values]).mean()
    assert not torch.allclose(gradients(bench, mean)[f"{QUERY}.weight"] ** 2, found, rtol=0.5)


def test_a_sampled_label_is_drawn_from_the_model_and_from_the_seed_alone() -> None:
    draw = torch.Generator().manual_seed(0)
    certain = terms("fisher_sampled", "text-classification", torch.tensor([[50.0, 0.0]]), None, draw)
    assert [(round(float(term), 6), weight) for term, weight in certain] == [(0.0, 1.0)]
    drawn = [
        float(terms("fisher_sampled", "text-classification", torch.tensor([[0.0, 1.0]]), None, draw)[0][0])
        for _ in range(2000)
    ]
    share = sum(value > -0.5 for value in drawn) / len(drawn)
    assert share == pytest.approx(0.7311, abs=0.04)


def test_the_fisher_information_of_a_logistic_regression() -> None:
    # F = p (1 − p) x², here with x = 2 and p = σ(0.6).
    theta = torch.tensor(0.3, requires_grad=True)
    logits = torch.stack([theta * 2, torch.tensor(0.0)])[None]
    parts = terms("fisher_exact", "text-classification", logits, None, torch.Generator())
    total = sum(weight * float(torch.autograd.grad(term, theta, retain_graph=True)[0]) ** 2 for term, weight in parts)
    p = float(torch.sigmoid(torch.tensor(0.6)))
    assert total == pytest.approx(p * (1 - p) * 4, rel=1e-5)


def test_gram_matrices_of_inputs(bench: Workbench, examples: list[Example]) -> None:
    found, turned = input_grams(bench, {TASK: examples})
    x = inputs_of(bench, part(bench, QUERY), examples)
    assert torch.allclose(found[f"{QUERY}.weight"], x.T @ x / len(x), rtol=1e-4, atol=1e-6)
    assert turned == frozenset()
    assert not any("embeddings" in name for name in found)


def test_gram_matrices_of_output_gradients(bench: Workbench, examples: list[Example]) -> None:
    found = gradient_grams(bench, "gradient_gram_empirical", {TASK: examples}, 0)[f"{QUERY}.weight"]
    rows = []
    for example in examples:
        kept: list[Tensor] = []
        handle = part(bench, QUERY).register_forward_hook(lambda _, given, output, kept=kept: kept.append(output))
        value, label = log_p(bench, example)
        handle.remove()
        rows.append(torch.autograd.grad(value[label], kept[0])[0][0])
    g = torch.cat(rows)
    assert torch.allclose(found, g.T @ g / len(g), rtol=1e-3, atol=1e-9)


def test_fisher_information_lies_below_what_the_two_gram_matrices_allow(
    bench: Workbench, examples: list[Example]
) -> None:
    one = {TASK: examples[:1]}
    a = input_grams(bench, one)[0][f"{QUERY}.weight"]
    b = gradient_grams(bench, "gradient_gram_empirical", one, 0)[f"{QUERY}.weight"]
    fisher = diagonal_fisher(bench, "fisher_empirical", one, 0)[f"{QUERY}.weight"]
    tokens = examples[0].length
    # Cauchy-Schwarz: |Σ g x|² ≤ Σ g² Σ x², element by element.
    assert bool((fisher <= tokens**2 * torch.outer(b.diagonal(), a.diagonal()) * (1 + 1e-4) + 1e-12).all())


def test_moments_of_what_a_normalisation_s_scale_multiplies(bench: Workbench, examples: list[Example]) -> None:
    found = norm_moments(bench, {TASK: examples})
    module = part(bench, NORM)
    x = inputs_of(bench, module, examples)
    seen = F.layer_norm(x, x.shape[-1:], eps=module.eps)
    assert torch.allclose(found[f"{NORM}.weight"], seen.square().mean(0), rtol=1e-4, atol=1e-6)
    assert torch.allclose(seen * module.weight + module.bias, module(x), atol=1e-6)
    assert found.keys() == {name for name, _ in bench.model.named_parameters() if name.endswith("LayerNorm.weight")}


def test_sensitivity(bench: Workbench, examples: list[Example]) -> None:
    found = sensitivity(bench, "sensitivity_empirical", {TASK: examples}, 0)[f"{QUERY}.weight"]
    weight: Tensor = part(bench, QUERY).weight
    expected = torch.zeros_like(found)
    for example in examples:
        values, label = log_p(bench, example)
        expected += (gradients(bench, values[label])[f"{QUERY}.weight"] * weight).abs().detach() / len(examples)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-9)


def test_distances_between_the_answers_of_experts(ready: Prepared) -> None:
    bench = ready.require_bench("the test")
    both = {task: bench.encode(task, rows.labelled[:5]) for task, rows in ready.rows.items()}
    answers: dict[str, dict[str, Tensor]] = {}
    for name, source in ready.match.experts.items():
        bench.load(source)
        answers[name] = logits_of(bench, both)
    found = distances({name: Checkpoint.open(tensors) for name, tensors in answers.items()})
    mood, topic = json.dumps(["mood", "mood"]), json.dumps(["topic", "topic"])
    expected = {
        "mood": float((answers["mood"][topic] - answers["topic"][topic]).norm(dim=1).mean()),
        "topic": float((answers["mood"][mood] - answers["topic"][mood]).norm(dim=1).mean()),
    }
    assert found == pytest.approx(expected, rel=1e-5)
    assert min(found.values()) > 0


@pytest.mark.parametrize("kind", ["gram", "gradient_gram_empirical"])
def test_matrices_that_do_not_fit_together_are_measured_in_turns_and_are_the_same_bits(
    kind: str, bench: Workbench, examples: list[Example], tmp_path: Path
) -> None:
    with ExitStack() as files:
        together, _ = matrices(bench, kind, {TASK: examples}, 0, tmp_path, files)
        assert not list(tmp_path.iterdir())
        # Two of the 32 × 32 matrices at a time, and each of the 64 × 64 ones alone.
        in_turns, _ = matrices(bench, kind, {TASK: examples}, 0, tmp_path, files, budget=2 * 4 * 32**2)
        assert len(list(tmp_path.glob("parts-*/*.safetensors"))) > 4
        assert set(in_turns) == set(together)
        assert all(torch.equal(in_turns[name], together[name]) for name in together)
    assert not list(tmp_path.iterdir())
