"""The same merge in words of our own and of mergekit, with the same parameters, for every method of the bench."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

Values = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Compared:
    """One method: our name and parameters, mergekit's name, parameters of the merge and of every model."""

    ours: Values
    merge_method: str
    parameters: Values
    per_model: Values
    experts: int = 4
    base: bool = True


_RESCALED = {"normalize": False, "rescale": True}

METHODS = {
    "task_arithmetic": Compared({"scale": 0.3}, "task_arithmetic", {}, {"weight": 0.3}),
    "linear": Compared({}, "linear", {"normalize": True}, {"weight": 1.0}, base=False),
    "slerp": Compared({"t": 0.5}, "slerp", {"t": 0.5}, {}, experts=1),
    "model_stock": Compared({}, "model_stock", {}, {}),
    "dare": Compared({"drop": 0.9}, "dare_linear", _RESCALED, {"weight": 0.3, "density": 0.1}),
    "dare_ties": Compared({"drop": 0.9}, "dare_ties", _RESCALED, {"weight": 1.0, "density": 0.1}),
    "ties": Compared({"density": 0.2}, "ties", {"normalize": True}, {"weight": 1.0, "density": 0.2}),
    "ties_tensor": Compared(
        {"name": "ties", "density": 0.2, "trim": "tensor"},
        "ties",
        {"normalize": True},
        {"weight": 1.0, "density": 0.2},
    ),
    "della": Compared(
        {"density": 0.7, "epsilon": 0.07},
        "della",
        {"normalize": True, "lambda": 1.0},
        {"weight": 1.0, "density": 0.7, "epsilon": 0.07},
    ),
}


def our_recipe(method: str, models: Path) -> Values:
    """A recipe of `supermerge run`."""
    compared = METHODS[method]
    return {
        "base": str(models / "base"),
        "experts": {f"expert{i}": str(models / f"expert{i}") for i in range(compared.experts)},
        "method": {"name": method, **compared.ours},
    }


def mergekit_recipe(method: str, models: Path) -> Values:
    """A recipe of `mergekit-yaml`."""
    compared = METHODS[method]
    listed: list[Values] = [
        {"model": str(models / f"expert{i}"), "parameters": compared.per_model} for i in range(compared.experts)
    ]
    if compared.experts == 1:
        listed.insert(0, {"model": str(models / "base")})
    recipe: Values = {"merge_method": compared.merge_method, "models": listed, "dtype": "bfloat16"}
    if compared.parameters:
        recipe["parameters"] = compared.parameters
    if compared.base:
        recipe["base_model"] = str(models / "base")
    return recipe
