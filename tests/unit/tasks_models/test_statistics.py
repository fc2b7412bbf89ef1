from __future__ import annotations

import json
import shutil
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from supermerge.checkpoint import Checkpoint, match
from supermerge.errors import CheckpointError, DataError, RecipeError
from supermerge.events import subscribed
from supermerge.methods import Context
from supermerge.statistics import Setup, Stored
from supermerge.statistics.examples import encoded, unpadded
from supermerge.statistics.filed import elementwise_by_file
from supermerge.statistics.fisher import diagonal_fisher
from supermerge.statistics.gradient_gram import gradient_grams
from supermerge.statistics.gram import input_grams
from supermerge.statistics.likelihood import terms
from supermerge.statistics.supply import parts
from supermerge.tasks.binding import Binding
from supermerge.tasks.bound import Bound
from supermerge.tasks.models import build, read_config
from supermerge.tasks.rows import Row

ROWS = [
    Row("t:1", texts=("a b c",), label=2),
    Row("t:2", texts=("d",), label=0),
    Row("t:3", texts=("e f a b c d e f",), label=1),
    Row("t:4", texts=("b b a",), label=1),
]
SPEAK = [Row("g:1", prompt="a b c", target="d e"), Row("g:2", prompt="a", target="b c d")]
DRAW = torch.Generator()


def fisher(bench: Any, kind: str, rows: list[Row] = ROWS, seed: int = 0) -> dict[str, torch.Tensor]:
    return diagonal_fisher(bench, kind, {"task": bench.encode("task", rows)}, seed)


class TestTerms:
    @pytest.mark.parametrize("kind", ["fisher_exact", "fisher_sampled", "fisher_empirical"])
    def test_logistic_regression_has_p_1_minus_p_x_squared(self, kind: str) -> None:
        theta, x = torch.tensor(0.7, requires_grad=True), 1.3
        p, total, repeats = torch.sigmoid(theta.detach() * x), 0.0, 4000 if kind == "fisher_sampled" else 1
        draw = torch.Generator().manual_seed(0)
        for _ in range(repeats):
            logits = torch.stack([torch.zeros(()), theta * x])[None]
            for term, weight in terms(kind, "text-classification", logits, torch.tensor([1]), draw):
                (gradient,) = torch.autograd.grad(term, theta, retain_graph=True)
                total += weight * float(gradient) ** 2 / repeats
        expected = (1 - p) ** 2 * x**2 if kind == "fisher_empirical" else p * (1 - p) * x**2
        assert total == pytest.approx(float(expected), rel=0.05 if kind == "fisher_sampled" else 1e-5)

    def test_regression_is_a_normal_distribution(self) -> None:
        theta = torch.tensor(2.0, requires_grad=True)
        for kind, expected in (("fisher_exact", 9.0), ("fisher_sampled", 9.0), ("fisher_empirical", 9.0 * 5**2)):
            ((term, weight),) = terms(kind, "regression", (theta * 3).view(1, 1), torch.tensor([1.0]), DRAW)
            (gradient,) = torch.autograd.grad(term, theta)
            assert weight * float(gradient) ** 2 == pytest.approx(expected)

    def test_the_sum_over_all_texts_is_refused(self) -> None:
        with pytest.raises(RecipeError, match="sum over all texts"):
            terms("fisher_exact", "causal-lm", torch.zeros(1, 3, 5), torch.tensor([[1, 2, 3]]), DRAW)

    def test_generated_tokens_without_a_target_do_not_count(self) -> None:
        logits = torch.randn(1, 3, 5)
        ((term, weight),) = terms("fisher_empirical", "causal-lm", logits, torch.tensor([[-100, 2, 3]]), DRAW)
        log_p = logits[0].log_softmax(-1)
        assert weight == 1
        assert term == pytest.approx(float(log_p[1, 2] + log_p[2, 3]))


@pytest.mark.parametrize("case", ["bert"], indirect=True)
class TestFisher:
    def test_it_is_the_mean_of_squared_gradients_of_every_example_and_class(self, bench: Any) -> None:
        ours = bench()
        found = fisher(ours, "fisher_exact")
        expected = {name: torch.zeros_like(p) for name, p in ours.model.named_parameters()}
        for row in ROWS:
            for y in range(3):
                ours.model.zero_grad()
                log_p = ours.logits("task", ours.collate("task", [row])).log_softmax(-1)[0, y]
                log_p.backward()
                for name, p in ours.model.named_parameters():
                    expected[name] += log_p.detach().exp() * p.grad**2 / len(ROWS)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-7)

    def test_the_empirical_one_takes_the_label(self, bench: Any) -> None:
        ours = bench()
        one = fisher(ours, "fisher_empirical", ROWS[:1])
        ours.supervised_loss("task", ours.collate("task", ROWS[:1])).backward()
        for name, p in ours.model.named_parameters():
            torch.testing.assert_close(one[name], p.grad**2, rtol=1e-4, atol=1e-9)

    def test_drawn_labels_depend_on_the_seed_alone(self, bench: Any) -> None:
        ours = bench()
        first, again = fisher(ours, "fisher_sampled"), fisher(ours, "fisher_sampled")
        assert all(torch.equal(first[name], again[name]) for name in first)
        others = [fisher(ours, "fisher_sampled", seed=seed) for seed in range(1, 5)]
        assert any(not torch.equal(first[name], other[name]) for other in others for name in first)


@pytest.mark.parametrize("case", ["llama-lm", "t5-seq2seq"], indirect=True)
def test_generated_text_has_fisher_information_and_grams(bench: Any) -> None:
    ours = bench()
    for kind in ("fisher_sampled", "fisher_empirical"):
        found = fisher(ours, kind, SPEAK)
        assert all(value.isfinite().all() and value.any() for value in found.values())
    grams, _ = input_grams(ours, {"task": ours.encode("task", SPEAK)})
    assert grams


@pytest.mark.parametrize("case", ["bert"], indirect=True)
class TestGram:
    def test_it_is_the_mean_over_all_tokens_and_no_padding(self, bench: Any) -> None:
        ours = bench()
        grams, turned = input_grams(ours, {"task": ours.encode("task", ROWS)})
        hidden = []
        for row in ROWS:
            batch = ours.collate("task", [row])
            batch.pop("labels")
            states = ours.model(**batch, output_hidden_states=True).hidden_states
            hidden.append([state[0].detach() for state in states])
        for layer in (0, 1):
            x = torch.cat([states[layer] for states in hidden])
            for part in ("query", "key", "value"):
                found = grams[f"encoder.layer.{layer}.attention.self.{part}.weight"]
                torch.testing.assert_close(found, x.T @ x / len(x), rtol=1e-4, atol=1e-6)
        assert turned == frozenset()
        assert not any("embeddings" in name for name in grams)

    def test_no_hook_stays(self, bench: Any) -> None:
        ours = bench()
        input_grams(ours, {"task": ours.encode("task", ROWS)})
        assert not any(module._forward_pre_hooks for module in ours.heads["task"].module.modules())

    def test_batches_hold_one_length(self, bench: Any) -> None:
        batches = unpadded(bench().encode("task", ROWS), 8)
        assert [[example.row.place for example in batch] for batch in batches] == [["t:1", "t:4"], ["t:2"], ["t:3"]]

    def test_fewer_examples_than_classes_are_warned_of(self, bench: Any) -> None:
        said: list[Any] = []
        with subscribed(said.append):
            encoded(bench(), {"task": ROWS[:2]})
        assert [event.fields["message"] for event in said if event.kind == "warning"] == [
            "tasks.task: statistics of 2 examples say little about 3 classes."
        ]


@pytest.mark.parametrize("case", ["bert"], indirect=True)
def test_gradient_grams_are_the_mean_over_tokens_of_squared_output_gradients(bench: Any) -> None:
    ours = bench()
    kind, examples = "gradient_gram_empirical", {"task": ours.encode("task", ROWS)}
    found = gradient_grams(ours, kind, examples, 0)
    # A bias has the sum over the tokens as its gradient; one token makes that the gradient of the output itself.
    one = {"task": ours.encode("task", [Row("o:1", texts=("d",), label=0)])}
    alone = gradient_grams(ours, kind, one, 0)
    ours.supervised_loss("task", ours.collate("task", [Row("o:1", texts=("d",), label=0)])).backward()
    biases = dict(ours.model.named_parameters())
    for name, value in alone.items():
        g = biases[name.replace(".weight", ".bias")].grad
        torch.testing.assert_close(value, torch.outer(g, g), rtol=1e-4, atol=1e-9)
    assert found.keys() == alone.keys()
    # Padding counts nowhere: 6 + 3 + 1 + 3 tokens, each example by itself.
    parts = [gradient_grams(ours, kind, {"task": ours.encode("task", [row])}, 0) for row in ROWS]
    name = "encoder.layer.1.output.dense.weight"
    tokens = [3, 1, 6, 3]
    expected = sum(part[name] * n for part, n in zip(parts, tokens, strict=True)) / sum(tokens)
    torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-9)
    assert not any(module._forward_hooks for module in ours.heads["task"].module.modules())


@pytest.mark.parametrize("case", ["gpt2"], indirect=True)
def test_weights_with_their_inputs_first_are_told_apart(bench: Any) -> None:
    ours = bench()
    grams, turned = input_grams(ours, {"task": ours.encode("task", ROWS)})
    weights = dict(ours.model.named_parameters())
    assert turned == grams.keys()
    assert any(weights[name].shape[0] != weights[name].shape[1] for name in turned)
    assert all(grams[name].shape == (weights[name].shape[0],) * 2 for name in turned)


def test_elements_find_their_way_back_to_the_file(case: Any) -> None:
    model = build(case.base_class, read_config(case.base.config, "x"), "x", torch.float32)
    binding = Binding.of(model, case.base)
    bound = Bound(binding, case.base)
    values = {name: bound.read(name) for name in bound.tensors}
    found = elementwise_by_file(binding, values, case.base)
    assert found.keys() == set(binding.file_names)
    assert all(torch.equal(value, case.base.read(name)) for name, value in found.items())


@dataclass
class Rows:
    labelled: list[Row] = field(default_factory=list)
    unlabelled: list[Row] = field(default_factory=list)


UNLABELLED = [Row(row.place, texts=row.texts) for row in ROWS]


@pytest.mark.parametrize("case", ["bert"], indirect=True)
class TestMeasure:
    def measured(
        self, case: Any, bench: Any, kind: str, rows: Rows | None, files: ExitStack, *, seed: int = 0
    ) -> Stored:
        ours = None if rows is None else bench(validation="v.jsonl")
        sources = match(case.base, {"one": case.expert}).experts
        given: dict[str, Any] = {} if rows is None else {"task": rows}
        setup = Setup(ours, case.base, sources, {"one": case.expert}, given, seed)
        return Stored({kind: parts(kind, setup, files)})

    def kept(self, case: Any) -> list[Path]:
        return sorted((case.expert_dir / "statistics").glob("*"))

    def test_kept_beside_the_expert_and_read_the_next_time(self, case: Any, bench: Any, monkeypatch: Any) -> None:
        name = "encoder.layer.0.output.dense.weight"
        with ExitStack() as files:
            first = self.measured(case, bench, "gram", Rows(ROWS), files)
            found = first.of(["gram"], Context(name, (16, 24), ("one",)), (16, 24)).of("gram")
            assert found is not None
            assert found[0].shape == (24, 24)
        monkeypatch.setattr("supermerge.statistics.matrices.matrices", None)
        with ExitStack() as files:
            again = self.measured(case, bench, "gram", Rows(ROWS), files)
            (read,) = again.of(["gram"], Context(name, (16, 24), ("one",)), (16, 24)).values["gram"]
            assert torch.equal(read, found[0])
        (path,) = self.kept(case)
        assert path.name.startswith("gram-")

    def test_pieces_are_those_of_the_whole(self, case: Any, bench: Any) -> None:
        name, shape = "encoder.layer.0.output.dense.weight", (16, 24)
        with ExitStack() as files:
            found = self.measured(case, bench, "fisher_exact", Rows(ROWS), files)
            (whole,) = found.of(["fisher_exact"], Context(name, shape, ("one",)), shape).values["fisher_exact"]
            piece = Context(name, shape, ("one",), offset=30)
            (part,) = found.of(["fisher_exact"], piece, (50,)).values["fisher_exact"]
            assert torch.equal(part, whole.flatten()[30:80])
            assert found.of(["fisher_exact"], Context("nothing", shape, ("one",)), shape).values == {}

    def test_the_root_mean_square_of_all_elements_is_kept(self, case: Any, bench: Any) -> None:
        with ExitStack() as files:
            found = self.measured(case, bench, "fisher_exact", Rows(ROWS), files)
            (size,) = found.of(["fisher_exact"], Context("x", (), ("one",)), ()).sizes["fisher_exact"]
        everything = torch.cat([value.flatten() for value in load_file(self.kept(case)[0]).values()])
        assert size == pytest.approx(float(everything.double().square().mean().sqrt()))

    def test_unlabelled_rows_come_first_and_labels_play_no_part(self, case: Any, bench: Any) -> None:
        with ExitStack() as files:
            self.measured(case, bench, "gram", Rows(ROWS[:2], UNLABELLED), files)
            self.measured(case, bench, "gram", Rows(ROWS), files)
        assert len(self.kept(case)) == 1

    def test_other_examples_have_a_file_of_their_own(self, case: Any, bench: Any) -> None:
        with ExitStack() as files:
            self.measured(case, bench, "gram", Rows(ROWS), files)
            self.measured(case, bench, "gram", Rows(ROWS[:3]), files)
        assert len(self.kept(case)) == 2

    def test_without_rows_what_came_with_the_expert_is_taken(self, case: Any, bench: Any) -> None:
        with ExitStack() as files:
            self.measured(case, bench, "gram", Rows(ROWS), files)
            found = self.measured(case, bench, "gram", None, files)
            context = Context("encoder.layer.0.output.dense.weight", (16, 24), ("one",))
            assert found.of(["gram"], context, (16, 24)).of("gram") is not None
            self.measured(case, bench, "gram", Rows(ROWS[:3]), files)
            with pytest.raises(DataError, match=r"'one': no task has examples.*2 files of them lie beside"):
                self.measured(case, bench, "gram", None, files)
            with pytest.raises(DataError, match=r"'one': no task has examples.*none lie beside"):
                self.measured(case, bench, "fisher_exact", Rows(), files)

    def test_statistics_of_another_model_are_refused(self, case: Any, bench: Any) -> None:
        with ExitStack() as files:
            self.measured(case, bench, "gram", Rows(ROWS), files)
            weights = case.expert_dir / "model.safetensors"
            tensors = load_file(weights)
            tensors["bert.encoder.layer.1.output.dense.bias"][3] += 1
            save_file(tensors, weights, metadata={"format": "pt"})
            changed = Checkpoint.open(case.expert_dir)
            sources = match(case.base, {"one": changed}).experts
            ours = bench(validation="v.jsonl")
            with pytest.raises(CheckpointError, match=r"(?s)gram-.*was measured on another model.*delete it"):
                parts("gram", Setup(ours, case.base, sources, {"one": changed}, {"task": Rows(ROWS)}, 0), files)

    def test_statistics_of_other_examples_are_refused(self, case: Any, bench: Any) -> None:
        with ExitStack() as files:
            self.measured(case, bench, "gram", Rows(ROWS), files)
            (first,) = self.kept(case)
            self.measured(case, bench, "gram", Rows(ROWS[:3]), files)
            (second,) = set(self.kept(case)) - {first}
            shutil.copy(first, second)
            with pytest.raises(DataError, match=r"was measured on other examples"):
                self.measured(case, bench, "gram", Rows(ROWS[:3]), files)

    @pytest.mark.parametrize("damage", ["kind", "metadata", "bytes"])
    def test_a_file_that_is_no_such_statistic_is_refused(self, case: Any, bench: Any, damage: str) -> None:
        with ExitStack() as files:
            self.measured(case, bench, "gram", Rows(ROWS), files)
        (path,) = self.kept(case)
        if damage == "bytes":
            path.write_bytes(path.read_bytes()[:100])
        else:
            with Checkpoint.open(path) as stored:
                tensors = {name: stored.read(name).clone() for name in stored.tensors}
            header = json.loads(path.read_bytes()[8 : 8 + int.from_bytes(path.read_bytes()[:8], "little")])
            about = json.loads(header["__metadata__"]["supermerge_statistics"])
            about |= {"kind": "fisher_exact"} if damage == "kind" else {"version": 99}
            save_file(tensors, path, metadata={"supermerge_statistics": json.dumps(about)})
        with ExitStack() as files, pytest.raises(CheckpointError, match=path.name):
            self.measured(case, bench, "gram", Rows(ROWS), files)

    def test_what_is_measured_of_the_base_lies_beside_it(self, case: Any, bench: Any) -> None:
        with ExitStack() as files:
            self.measured(case, bench, "base_fisher_exact", Rows(ROWS), files)
        assert [path.name.split("-")[0] for path in (case.base_dir / "statistics").iterdir()] == ["base_fisher_exact"]
        assert self.kept(case) == []

    def test_a_loss_with_labels_needs_them(self, case: Any, bench: Any) -> None:
        with ExitStack() as files, pytest.raises(DataError, match=r"tasks.task: fisher_empirical needs labelled"):
            self.measured(case, bench, "fisher_empirical", Rows([], UNLABELLED), files)

    def test_an_expert_that_may_not_be_written_to_has_them_in_the_cache(
        self, case: Any, bench: Any, monkeypatch: Any, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("SUPERMERGE_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr("os.access", lambda path, mode: False)
        for _ in range(2):
            with ExitStack() as files:
                self.measured(case, bench, "gram", Rows(ROWS), files)
        assert self.kept(case) == []
        assert len(list((tmp_path / "cache" / "statistics").glob("*/gram-*.safetensors"))) == 1
