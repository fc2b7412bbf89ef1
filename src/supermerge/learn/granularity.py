"""Granularity: which tensors share one coefficient per expert."""

from __future__ import annotations

import re
from typing import Literal, get_args

from supermerge.errors import RecipeError

Granularity = Literal["model", "layer", "module", "tensor", "row"]

# A layer is the part of a name up to its first number: `encoder.layer.3.attention.…` → `encoder.layer.3`.
_LAYER = re.compile(r"^(?:.*?\.)?\d+(?=\.)")


def group_of(tensor: str, granularity: str) -> str:
    """The name of the group that shares one coefficient per expert with `tensor`.

    `model`: one group. `layer`: the name up to its first number; tensors outside numbered layers are grouped by their
    first component (`embeddings`). `module`: the name without its last component, so that a weight and its bias share.
    `tensor`: each tensor alone. `row`: each tensor alone, with one coefficient per index of its first dimension.
    """
    match granularity:
        case "model":
            return "model"
        case "layer":
            found = _LAYER.match(tensor)
            return found.group() if found else tensor.split(".", 1)[0]
        case "module":
            return tensor.rpartition(".")[0] or tensor
        case "tensor" | "row":
            return tensor
        case _:
            raise RecipeError(
                f"granularity: unknown granularity {granularity!r}.",
                hint=f"Use one of {', '.join(get_args(Granularity))}.",
            )


def coefficient_shape(num_experts: int, tensor_shape: tuple[int, ...], granularity: str) -> tuple[int, ...]:
    """`[k]`, or `[k, rows]` for granularity `row` (a scalar tensor has one row)."""
    if granularity != "row":
        return (num_experts,)
    return (num_experts, tensor_shape[0] if tensor_shape else 1)
