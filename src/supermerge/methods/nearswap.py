"""NearSwap: take the expert where it is near."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from supermerge.methods.registry import method


@method(
    "nearswap",
    scope="element",
    title="NearSwap",
    paper="https://huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001",
    most=1,
    cost="Reads every file once; memory of a few blocks.",
    use="Adding a little of one model to another without moving any element far.",
    avoid="Anything that needs the expert's skill: all large changes are cut to `t`.",
)
def nearswap(base: Tensor, taus: Tensor, *, t: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-4) -> Tensor:
    """The base, moved towards one expert by at most `t` per element.

    θ = w θ₁ + (1 − w) θp with w = min(1, t / |τ|), which is θp + clamp(τ, −t, t).
    """
    return base + taus[0].clamp(-t, t)
