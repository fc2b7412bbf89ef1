"""SuperMerge by plain autograd: all task vectors in memory, `functional_call`, `torch.optim.Adam`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

LINKS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "identity": lambda w: w,
    "clamp": lambda w: torch.clamp(w, 0, 1),
    "softmax": lambda w: torch.softmax(w, dim=0),
}


def learn_by_autograd(
    model: nn.Module,
    base: dict[str, Tensor],
    experts: dict[str, dict[str, Tensor]],
    batches: Sequence[Tensor],
    loss: Callable[[nn.Module, str, Tensor], Tensor],
    w: dict[str, Tensor],
    groups: dict[str, str],
    *,
    link: str,
    steps: int,
    lr: float,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(w, merged tensors) after `steps` of Adam on the sum of both losses; `w[group]` is `[k]` or `[k, rows]`."""
    w = {group: value.clone().requires_grad_() for group, value in w.items()}
    taus = {
        name: torch.stack([expert[name] - tensor for expert in experts.values()])
        for name, tensor in base.items()
        if name in groups
    }
    optimiser = torch.optim.Adam(w.values(), lr=lr)

    def merged() -> dict[str, Tensor]:
        result = {}
        for name, tau in taus.items():
            c = LINKS[link](w[groups[name]])
            c = c.reshape(*c.shape, *[1] * (tau.dim() - c.dim())) if tau.dim() > 1 else c.reshape(tau.shape[0])
            result[name] = base[name] + (c * tau).sum(0)
        return result

    class Call(nn.Module):
        """Lets a loss that calls `model(...)` run with other parameters."""

        def __init__(self, parameters: dict[str, Tensor]) -> None:
            super().__init__()
            self.parameters_ = parameters

        def forward(self, **inputs: Tensor) -> object:
            return functional_call(model, self.parameters_, kwargs=inputs, tie_weights=True)

    for _ in range(steps):
        optimiser.zero_grad()
        total = sum(loss(Call(merged()), task, batch) for task, batch in zip("ab", batches, strict=True))
        assert isinstance(total, Tensor)
        total.backward()
        optimiser.step()
    return {g: v.detach() for g, v in w.items()}, {n: t.detach() for n, t in merged().items()}
