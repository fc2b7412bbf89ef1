"""The metrics, each with its 95 % interval: feed batches to `update`, then ask `compute` for a Score."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from supermerge.errors import DataError, RecipeError, RefusedError
from supermerge.tasks.intervals import bootstrap, resampled, wilson
from supermerge.tasks.score import Score, higher_is_better
from supermerge.tasks.spec import METRIC_NAMES, closest

IGNORED = -100  # the target of a token that does not count, as in transformers


class Metric(ABC):
    """Collects what `compute` needs from batches of outputs and targets, on the CPU."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger value is a better one."""
        return higher_is_better(self.name)

    @abstractmethod
    def update(self, outputs: Any, targets: Any) -> None:
        """Add one batch. Raises RefusedError where the outputs are not finite."""

    @abstractmethod
    def compute(self) -> Score:
        """The score over all batches. Raises DataError where there were none."""

    def _require_examples(self, n: int) -> None:
        if n == 0:
            raise DataError(f"{self.name}: no examples to score")

    def _require_finite(self, outputs: Tensor) -> None:
        if not torch.isfinite(outputs).all():
            raise RefusedError(
                f"{self.name}: the model's outputs hold NaN or infinity",
                hint="Its weights are damaged or have diverged; check the experts, or lower the learning rate.",
            )


class _Paired(Metric):
    """A metric of one prediction and one target per example."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._batches: list[tuple[Tensor, Tensor]] = []

    def compute(self) -> Score:
        """The score over all batches. Raises DataError where there were none."""
        self._require_examples(len(self._batches))
        predicted, targets = (torch.cat(parts) for parts in zip(*self._batches, strict=True))
        n = len(targets)
        self._require_examples(n)
        value = float(self._values(predicted[None], targets[None]))
        values = self._resampled(predicted, targets)
        return Score(self.name, value, *self._interval(value, predicted, targets, values), n, tuple(values.tolist()))

    def _resampled(self, predicted: Tensor, targets: Tensor) -> Tensor:
        return resampled(len(targets), lambda drawn: self._values(predicted[drawn], targets[drawn]))

    def _interval(self, value: float, predicted: Tensor, targets: Tensor, values: Tensor) -> tuple[float, float]:
        return bootstrap(value, values)

    @abstractmethod
    def _values(self, predicted: Tensor, targets: Tensor) -> Tensor:
        """One value [resamples] for each row of predicted and targets [resamples, n]."""


class _Classification(_Paired):
    """Logits [n, classes] against class indices [n]."""

    _num_classes = 0

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Add logits [n, classes] and class indices [n]."""
        self._require_finite(outputs)
        self._num_classes = outputs.shape[1]
        self._batches.append((outputs.argmax(dim=1).cpu(), targets.cpu()))

    def _values(self, predicted: Tensor, targets: Tensor) -> Tensor:
        # One resample at a time: torchmetrics' batched form holds [resamples, n, classes] integers.
        options = {"num_classes": self._num_classes, "validate_args": False}
        return torch.stack([self._value(*pair, options) for pair in zip(predicted, targets, strict=True)])

    @abstractmethod
    def _value(self, predicted: Tensor, targets: Tensor, options: dict[str, Any]) -> Tensor:
        """The value [] for class indices [n]."""


class Accuracy(_Classification):
    """The share of examples whose largest logit is that of their class, with Wilson's interval."""

    def _value(self, predicted: Tensor, targets: Tensor, options: dict[str, Any]) -> Tensor:
        from torchmetrics.functional.classification import multiclass_stat_scores

        # The library's accuracy is the same quotient, rounded to fp32.
        true_positives = multiclass_stat_scores(predicted, targets, average="micro", **options)[0]
        return true_positives.double() / len(targets)

    def _resampled(self, predicted: Tensor, targets: Tensor) -> Tensor:
        return _share(predicted == targets)

    def _interval(self, value: float, predicted: Tensor, targets: Tensor, values: Tensor) -> tuple[float, float]:
        return wilson(int((predicted == targets).sum()), len(targets))


class MacroF1(_Classification):
    """The mean of the F1 scores of the classes that are predicted or true anywhere."""

    def _value(self, predicted: Tensor, targets: Tensor, options: dict[str, Any]) -> Tensor:
        from torchmetrics.functional.classification import multiclass_f1_score

        return multiclass_f1_score(predicted, targets, average="macro", **options)


class MatthewsCorrelation(_Classification):
    """Matthews' correlation of predicted and true classes, for any number of classes; 0 where either does not vary."""

    def _value(self, predicted: Tensor, targets: Tensor, options: dict[str, Any]) -> Tensor:
        from torchmetrics.functional.classification import multiclass_matthews_corrcoef

        if predicted.amin() == predicted.amax() or targets.amin() == targets.amax():
            # Undefined; for two classes the library answers with something else than the usual 0.
            return torch.zeros(())
        return multiclass_matthews_corrcoef(predicted, targets, **options)


class Correlation(_Paired):
    """`pearson` or `spearman` of predictions and numbers; 0 where either does not vary."""

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Add predictions [n] or [n, 1] and numbers [n]."""
        self._require_finite(outputs)
        self._batches.append((outputs.reshape(len(targets)).cpu().double(), targets.cpu().double()))

    def _values(self, predicted: Tensor, targets: Tensor) -> Tensor:
        from torchmetrics.functional.regression import pearson_corrcoef, spearman_corrcoef

        correlation = pearson_corrcoef if self.name == "pearson" else spearman_corrcoef
        varies = (predicted.amin(1) < predicted.amax(1)) & (targets.amin(1) < targets.amax(1))
        values = torch.zeros(len(predicted), dtype=torch.float64)
        if varies.any():
            values[varies] = correlation(predicted[varies].T, targets[varies].T).double().reshape(-1)
        return values


class Perplexity(Metric):
    """exp of the mean negative log likelihood of the target tokens; resampled by sequence.

    The sums per sequence that the interval needs are beyond torchmetrics' metric, which they equal in total.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._batches: list[tuple[Tensor, Tensor]] = []

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Add logits [n, tokens, vocabulary] and the tokens they should predict [n, tokens]; IGNORED ones count not."""
        losses = torch.nn.functional.cross_entropy(
            outputs.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none"
        )
        self._require_finite(losses)
        self._batches.append((losses.view(targets.shape).double().sum(1).cpu(), (targets != IGNORED).sum(1).cpu()))

    def compute(self) -> Score:
        """The score over all batches; n is the number of sequences with at least one target token."""
        self._require_examples(len(self._batches))
        losses, tokens = (torch.cat(parts) for parts in zip(*self._batches, strict=True))
        losses, tokens = losses[tokens > 0], tokens[tokens > 0]
        self._require_examples(len(tokens))
        value = (losses.sum() / tokens.sum()).exp()
        self._require_finite(value)

        def of(drawn: Tensor) -> Tensor:
            return (losses[drawn].sum(1) / tokens[drawn].sum(1)).exp()

        values = resampled(len(tokens), of)
        return Score(self.name, float(value), *bootstrap(float(value), values), len(tokens), tuple(values.tolist()))


class ExactMatch(Metric):
    """The share of generated texts that equal their target, white space at both ends aside, with Wilson's interval."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._hits: list[bool] = []

    def update(self, outputs: Sequence[str], targets: Sequence[str]) -> None:
        """Add generated texts and their targets."""
        self._hits += [ours.strip() == theirs.strip() for ours, theirs in zip(outputs, targets, strict=True)]

    def compute(self) -> Score:
        """The score over all batches. Raises DataError where there were none."""
        n, hits = len(self._hits), sum(self._hits)
        self._require_examples(n)
        return Score(self.name, hits / n, *wilson(hits, n), n, tuple(_share(torch.tensor(self._hits)).tolist()))


def _share(hits: Tensor) -> Tensor:
    """[resamples]: the share of hits in every resample."""
    return resampled(len(hits), lambda drawn: hits[drawn].double().mean(1))


_METRICS: dict[str, Callable[[str], Metric]] = {
    "accuracy": Accuracy,
    "macro_f1": MacroF1,
    "mcc": MatthewsCorrelation,
    "pearson": Correlation,
    "spearman": Correlation,
    "perplexity": Perplexity,
    "exact_match": ExactMatch,
}


def metric(name: str) -> Metric:
    """A fresh metric. Raises RecipeError with a suggestion where there is none of that name."""
    if name not in _METRICS:
        raise RecipeError(f"unknown metric {name!r}{closest(name, METRIC_NAMES)}")
    return _METRICS[name](name)
