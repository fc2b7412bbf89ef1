"""What a method does with memory and passes, found by watching it merge one small tensor."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from supermerge.methods import Bound, Context, Survey
from supermerge.methods.survey import PreviewedSurvey

# Small enough for methods that iterate; of two sizes, because the difference leaves out what does not grow.
_SIDES = (32, 64)


class Watch(TorchFunctionMode):
    """The most bytes that tensors made inside the block held at once, as far as Python sees them.

    A dispatch mode would see the insides of operations too, but entering one loads 80 MB of compiler.
    """

    def __init__(self, *given: Tensor) -> None:
        super().__init__()
        self.held = self.peak = 0
        # Views of what was given hold nothing of their own.
        self._known = {weakref.ref(tensor.untyped_storage()) for tensor in given}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, (list, tuple)) else (made,):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        return made

    def _add(self, storage: torch.UntypedStorage) -> None:
        size = storage.nbytes()
        if weakref.ref(storage) in self._known:
            return

        def forget(reference: weakref.ref[torch.UntypedStorage]) -> None:
            self._known.discard(reference)
            self.held -= size

        self._known.add(weakref.ref(storage, forget))
        self.held += size
        self.peak = max(self.peak, self.held)


def survey_passes(bound: Bound, k: int) -> int:
    """How often the method reads everything before it merges."""
    return _surveyed(bound, *_small(k, _SIDES[0]))[1]


def bytes_per_element(bound: Bound, k: int) -> float:
    """Bytes that the method itself holds, at most, for every element that it merges at once."""
    small, large = (_peak(bound, k, side) for side in _SIDES)
    return (large - small) / (_SIDES[1] ** 2 - _SIDES[0] ** 2)


def _peak(bound: Bound, k: int, side: int) -> int:
    base, taus, context = _small(k, side)
    survey, _ = _surveyed(bound, base, taus, context)
    with Watch(base, taus) as watch:
        bound.rehearsal()(base, taus, context, survey)
    return watch.peak


def _small(k: int, side: int) -> tuple[Tensor, Tensor, Context]:
    draw = torch.Generator().manual_seed(0)
    base, taus = torch.randn(side, side, generator=draw), torch.randn(k, side, side, generator=draw)
    return base, taus, Context("weight", (side, side), tuple(str(i) for i in range(k)))


def _surveyed(bound: Bound, base: Tensor, taus: Tensor, context: Context) -> tuple[Survey | None, int]:
    """The method's survey of one tensor, if it needs one, and how many passes it took."""
    survey, passes = bound.survey(len(taus)), 0
    if isinstance(survey, PreviewedSurvey):
        survey.preview(context, base, taus, 1.0)
    while survey is not None:
        passes += 1
        survey.observe(context, base, taus)
        if not survey.finish_pass():
            break
    return survey, passes
