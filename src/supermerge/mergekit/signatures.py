"""mergekit's methods: what each takes, with mergekit's defaults, and which method of ours it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


class Required:
    """Stands for the default of a parameter that has none."""


REQUIRED = Required()


@dataclass(frozen=True, slots=True)
class Signature:
    """`whole` are parameters of the merge, `each` of every model: name → default.

    `base`: whether a `base_model` is needed, may be given, or is merely one of the models.
    """

    ours: str
    base: Literal["needed", "allowed", "one of the models"] = "needed"
    whole: dict[str, Any] = field(default_factory=dict)
    each: dict[str, Any] = field(default_factory=dict)

    @property
    def parameters(self) -> tuple[str, ...]:
        """All names."""
        return (*self.whole, *self.each)


def _arithmetic(ours: str, *, normalize: bool, rescale: bool, **each: float) -> Signature:
    whole = {"int8_mask": False, "normalize": normalize, "rescale": rescale, "lambda": 1.0}
    return Signature(ours, "needed", whole, {"weight": REQUIRED, "density": 1.0, **each})


SIGNATURES: dict[str, Signature] = {
    "linear": Signature("linear", "one of the models", {"normalize": True}, {"weight": REQUIRED}),
    "slerp": Signature("slerp", "needed", {"t": REQUIRED}),
    "nuslerp": Signature(
        "nuslerp", "allowed", {"nuslerp_row_wise": False, "nuslerp_flatten": True}, {"weight": REQUIRED}
    ),
    "multislerp": Signature("multislerp", "allowed", {"normalize_weights": True, "eps": 1e-8}, {"weight": REQUIRED}),
    "karcher": Signature("karcher", "one of the models", {"max_iter": 10, "tol": 1e-5}),
    "passthrough": Signature("passthrough", "one of the models", {}, {"scale": 1.0}),
    "model_stock": Signature("model_stock", "needed", {"filter_wise": False}),
    "nearswap": Signature("nearswap", "needed", {"t": REQUIRED}),
    "arcee_fusion": Signature("arcee_fusion"),
    "ram": Signature("ram", "needed", {"epsilon": 1e-5}),
    "ramplus_tl": Signature("ramplus", "needed", {"r": 0.1, "alpha": 0.2, "epsilon": 1e-5}),
    "sce": Signature("sce", "needed", {"int8_mask": False, "select_topk": 1.0}),
    "task_arithmetic": _arithmetic("task_arithmetic", normalize=False, rescale=False),
    "ties": _arithmetic("ties", normalize=True, rescale=False),
    "dare_linear": _arithmetic("dare_linear", normalize=False, rescale=True),
    "dare_ties": _arithmetic("dare_ties", normalize=False, rescale=True),
    "breadcrumbs": _arithmetic("breadcrumbs", normalize=False, rescale=False, gamma=0.01),
    "breadcrumbs_ties": _arithmetic("breadcrumbs_ties", normalize=False, rescale=False, gamma=0.01),
    "della": _arithmetic("della", normalize=True, rescale=True, epsilon=0.15),
    "della_linear": _arithmetic("della_linear", normalize=False, rescale=True, epsilon=0.15),
}
