"""The learned numbers: one per expert and group of tensors, with the link that bounds them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from pydantic import TypeAdapter
from torch import Tensor

from supermerge.checkpoint import load_tensors, save_tensors
from supermerge.errors import CheckpointError, RecipeError
from supermerge.learn.granularity import coefficient_shape, group_of
from supermerge.learn.links import link as find_link

_FORMAT = "1"
_NAMES = TypeAdapter(tuple[str, ...])
_GROUPS = TypeAdapter(dict[str, str])


@dataclass(slots=True)
class Coefficients:
    """w for every group, and which group every tensor belongs to.

    `w[group]` is `[k]`, or `[k, rows]` for granularity `row`, in fp32 (fp64 where the model is fp64). The merged
    tensor j is θp(j) + Σᵢ link(w)(i, group(j)) · τ(i, j).
    """

    experts: tuple[str, ...]
    link: str
    granularity: str
    groups: dict[str, str]
    w: dict[str, Tensor]

    @classmethod
    def start(
        cls,
        experts: Iterable[str],
        shapes: Mapping[str, tuple[int, ...]],
        *,
        link: str,
        granularity: str,
        value: float | Mapping[str, float],
        fixed: Iterable[str] = (),
        dtype: torch.dtype = torch.float32,
    ) -> Coefficients:
        """Every coefficient c = `value`, or `value[expert]`. `shapes` are those of the tensors to merge, by name.

        Tensors of `fixed` never receive a gradient: each is a group of its own, so that it keeps its start.
        """
        names = tuple(experts)
        w_start = [_start_of(value[name] if isinstance(value, Mapping) else value, link) for name in names]
        alone = set(fixed)
        groups = {tensor: tensor if tensor in alone else group_of(tensor, granularity) for tensor in shapes}
        w: dict[str, Tensor] = {}
        for tensor, group in groups.items():
            w[group] = torch.empty(coefficient_shape(len(names), shapes[tensor], granularity), dtype=dtype)
            for row, start in zip(w[group], w_start, strict=True):
                row.fill_(start)
        return cls(names, link, granularity, groups, w)

    def effective(self, tensor: str) -> Tensor:
        """link(w) of `tensor`: `[k]`, or `[k, rows]` for granularity `row`."""
        return find_link(self.link).apply(self.w[self.groups[tensor]])

    def renamed(self, names: Mapping[str, Iterable[str]]) -> Coefficients:
        """The same coefficients under other tensor names: each tensor's go to all of `names[tensor]`."""
        groups = {new: group for old, group in self.groups.items() for new in names[old]}
        return replace(self, groups=groups)

    def copy(self) -> Coefficients:
        """An independent copy of the numbers."""
        return replace(self, w={group: w.clone() for group, w in self.w.items()})

    def assign(self, other: Coefficients) -> None:
        """Take the numbers of `other`, which has the same groups, in place."""
        for group, w in self.w.items():
            w.copy_(other.w[group])

    def __len__(self) -> int:
        """How many numbers were learned."""
        return sum(w.numel() for w in self.w.values())

    def save(self, path: Path) -> None:
        """Write `coefficients.safetensors`: one tensor per group, what they mean in the metadata."""
        metadata = {
            "format": _FORMAT,
            "experts": json.dumps(self.experts),
            "link": self.link,
            "granularity": self.granularity,
            "groups": json.dumps(self.groups),
        }
        save_tensors(path, self.w, metadata)

    @classmethod
    def load(cls, path: Path) -> Coefficients:
        """Read what `save` wrote; a file of another kind is a CheckpointError."""
        w, metadata = load_tensors(path)
        hint = "Pass the file that a learned run wrote."
        if metadata.get("format") != _FORMAT:
            raise CheckpointError(f"{path}: not a coefficients file of this version.", hint=hint)
        try:
            experts, groups = _NAMES.validate_json(metadata["experts"]), _GROUPS.validate_json(metadata["groups"])
            find_link(metadata["link"])
            lost = sorted(set(groups.values()) - w.keys())
            if lost:
                raise ValueError(f"there are no numbers for group {lost[0]!r}")
            return cls(experts, metadata["link"], metadata["granularity"], groups, dict(w))
        except (KeyError, ValueError, RecipeError) as error:
            reason = str(error).splitlines()[0]
            raise CheckpointError(f"{path}: a damaged coefficients file: {reason}", hint=hint) from error


def _start_of(value: float, link: str) -> float:
    """The w that gives the coefficient `value`."""
    try:
        return find_link(link).start(value)
    except ValueError:
        raise RecipeError(
            f"init: a coefficient of {value} cannot be reached with link {link!r}.",
            hint="Use a start between −1 and 1 for tanh, 0 and 1 for clamp, or another link.",
        ) from None
