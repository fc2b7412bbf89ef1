from __future__ import annotations

import math

import pytest
import torch
from torchmetrics.functional.text import perplexity

from supermerge.errors import DataError, RecipeError, RefusedError
from supermerge.tasks.intervals import bootstrap, resampled, wilson
from supermerge.tasks.metrics import IGNORED, metric
from supermerge.tasks.score import Score, higher_is_better
from supermerge.tasks.spec import METRIC_NAMES

# Class 0: 1 hit, 1 false alarm, 1 miss; class 1: 1, 0, 1; class 2: 1, 1, 0; class 3 is nowhere.
PREDICTED = [0, 0, 1, 2, 2]
TRUE = [0, 1, 1, 2, 0]


def logits(predicted: list[int], num_classes: int = 4) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(predicted), num_classes).float()


def scored(name: str, outputs: torch.Tensor, targets: torch.Tensor, batch: int = 2) -> Score:
    found = metric(name)
    for start in range(0, len(targets), batch):
        found.update(outputs[start : start + batch], targets[start : start + batch])
    return found.compute()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("accuracy", 3 / 5),
        ("macro_f1", (1 / 2 + 2 / 3 + 2 / 3) / 3),
        # (hits·n − Σ predicted·true) / √((n² − Σ predicted²)(n² − Σ true²)) = (3·5 − 8) / √(16 · 16)
        ("mcc", 7 / 16),
    ],
)
def test_classification_by_hand(name: str, expected: float) -> None:
    score = scored(name, logits(PREDICTED), torch.tensor(TRUE))
    assert score.value == pytest.approx(expected, abs=1e-6)
    assert score.low <= score.value <= score.high
    assert (score.metric, score.n) == (name, 5)


def test_binary_mcc_by_hand() -> None:
    # 2 true positives, 1 false positive, 1 true negative, 0 false negatives
    score = scored("mcc", logits([1, 1, 1, 0], 2), torch.tensor([1, 1, 0, 0]))
    assert score.value == pytest.approx(2 / math.sqrt(12), abs=1e-6)


def test_one_predicted_class_has_no_correlation() -> None:
    score = scored("mcc", logits([1, 1, 1], 2), torch.tensor([1, 0, 1]))
    assert (score.value, score.low, score.high) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("name", ["pearson", "spearman"])
def test_correlation_by_hand(name: str) -> None:
    # Deviations (−1.5, −0.5, 0.5, 1.5) and (−1.5, 0.5, −0.5, 1.5): 4 / 5
    outputs, targets = torch.tensor([[1.0], [2.0], [3.0], [4.0]]), torch.tensor([1.0, 3.0, 2.0, 4.0])
    score = scored(name, outputs, targets)
    assert score.value == pytest.approx(0.8, abs=1e-6)
    assert score.low <= 0.8 <= score.high


def test_spearman_uses_mean_ranks() -> None:
    # Ranks (1, 2.5, 2.5, 4) and (1, 2, 3, 4): 4.5 / √(4.5 · 5)
    score = scored("spearman", torch.tensor([1.0, 5.0, 5.0, 90.0]), torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert score.value == pytest.approx(4.5 / math.sqrt(22.5), abs=1e-6)


@pytest.mark.parametrize("name", ["pearson", "spearman"])
def test_constant_predictions_do_not_correlate(name: str) -> None:
    score = scored(name, torch.full((4,), 0.3), torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert (score.value, score.low, score.high) == (0.0, 0.0, 0.0)


def test_perplexity_by_hand() -> None:
    # The targets have probabilities 1/2 and 1/4: exp of the mean of ln 2 and ln 4 is 2^1.5
    outputs = torch.log(torch.tensor([[[0.5, 0.25, 0.25], [0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]]))
    score = scored("perplexity", outputs, torch.tensor([[0, 1, IGNORED]]))
    assert score.value == pytest.approx(2**1.5, rel=1e-6)
    assert score.n == 1


def test_perplexity_is_that_of_torchmetrics() -> None:
    generator = torch.Generator().manual_seed(1)
    outputs = torch.randn(6, 5, 11, generator=generator)
    targets = torch.randint(11, (6, 5), generator=generator)
    targets[0, 2:], targets[3] = IGNORED, IGNORED
    score = scored("perplexity", outputs, targets)
    assert score.value == pytest.approx(float(perplexity(outputs, targets, ignore_index=IGNORED)), rel=1e-5)
    assert score.low < score.value < score.high
    assert score.n == 5, "a sequence without target tokens does not count"


def test_exact_match() -> None:
    found = metric("exact_match")
    found.update(["yes ", "No"], ["yes", "no"])
    found.update(["4"], ["4"])
    assert found.compute() == Score("exact_match", 2 / 3, *wilson(2, 3), 3)


def test_lengths_of_texts_must_agree() -> None:
    with pytest.raises(ValueError, match="longer"):
        metric("exact_match").update(["a"], ["a", "b"])


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(3, 4, 0.30064, 0.95441), (0, 10, 0.0, 0.27753), (10, 10, 0.72247, 1.0), (50, 100, 0.40383, 0.59617)],
)
def test_wilson(successes: int, n: int, low: float, high: float) -> None:
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-6)


@pytest.mark.parametrize("n", [1, 3, 7, 1000])
def test_wilson_ends_at_nothing_and_everything(n: int) -> None:
    assert wilson(0, n)[0] == 0.0
    assert wilson(n, n)[1] == 1.0


def test_accuracy_has_wilsons_interval() -> None:
    score = scored("accuracy", logits(PREDICTED), torch.tensor(TRUE))
    assert (score.low, score.high) == wilson(3, 5)


def test_bootstrap_of_a_mean_is_the_normal_interval() -> None:
    values = torch.arange(400.0, dtype=torch.float64)
    low, high = bootstrap(float(values.mean()), resampled(400, lambda drawn: values[drawn].mean(1)))
    half = 1.96 * float(values.std()) / math.sqrt(400)
    assert (199.5 - low, high - 199.5) == pytest.approx((half, half), rel=0.1)


def test_bootstrap_holds_the_value() -> None:
    assert bootstrap(5.0, resampled(3, lambda drawn: torch.zeros(len(drawn)))) == (0.0, 5.0)
    assert bootstrap(-5.0, resampled(3, lambda drawn: torch.zeros(len(drawn)))) == (-5.0, 0.0)


@pytest.mark.parametrize("name", ["macro_f1", "pearson", "perplexity"])
def test_same_scores_every_time_whatever_the_batches(name: str) -> None:
    generator = torch.Generator().manual_seed(2)
    shape = {"macro_f1": (30, 3), "pearson": (30,), "perplexity": (30, 4, 3)}[name]
    outputs = torch.randn(shape, generator=generator)
    targets = {
        "macro_f1": torch.randint(3, (30,), generator=generator),
        "pearson": torch.randn(30, generator=generator),
        "perplexity": torch.randint(3, (30, 4), generator=generator),
    }[name]
    torch.manual_seed(5)
    first = scored(name, outputs, targets, batch=7)
    torch.manual_seed(6)
    assert scored(name, outputs, targets, batch=30) == first
    assert first.low < first.value < first.high


@pytest.mark.parametrize("name", METRIC_NAMES)
def test_no_examples(name: str) -> None:
    with pytest.raises(DataError, match=f"^{name}: no examples to score$"):
        metric(name).compute()


@pytest.mark.parametrize("name", ["accuracy", "pearson", "perplexity"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_outputs_that_are_not_finite_are_refused(name: str, bad: float) -> None:
    outputs = torch.full((1, 2, 3) if name == "perplexity" else (2, 1), bad)
    targets = torch.zeros((1, 2) if name == "perplexity" else 2, dtype=torch.long)
    with pytest.raises(RefusedError) as caught:
        metric(name).update(outputs, targets)
    assert caught.value.message == f"{name}: the model's outputs hold NaN or infinity"


def test_perplexity_beyond_all_numbers_is_refused() -> None:
    found = metric("perplexity")
    found.update(torch.tensor([[[2000.0, 0.0]]]), torch.tensor([[1]]))
    with pytest.raises(RefusedError):
        found.compute()


def test_unknown_metric() -> None:
    with pytest.raises(RecipeError, match=r"^unknown metric 'acuracy'; did you mean 'accuracy'\?$"):
        metric("acuracy")


def test_direction() -> None:
    assert [name for name in METRIC_NAMES if not higher_is_better(name)] == ["perplexity"]
    assert not metric("perplexity").higher_is_better
    assert Score("mcc", 0.0, 0.0, 0.0, 1).higher_is_better
