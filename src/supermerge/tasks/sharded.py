"""The backbone that tasks share, dealt out by rows over the processes of a run: FSDP2 (`fully_shard`), block by block.

FSDP2 gathers the rows of a module when that module runs, so tasks must share modules, not only parameters: the blocks
of every task's model are replaced by the host's own. A unit is a block of the backbone, or an embedding or projection
beside the blocks. Each is sharded by itself, without a root around them: which model a block is called from, with which
head, is then all the same to FSDP. What is no unit (norms, single parameters, tied weights, heads) every process holds
whole.

Every gathering and every reduction is one that all processes must come to, in the same order, though each works on
another task. So all tasks must run the same units.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from torch import nn

from supermerge.errors import RecipeError
from supermerge.resources import give_back_large_blocks

_HINT = "Start it without torchrun (residency offload needs little memory), or merge these tasks apart."


def shard_models(host: nn.Module, models: Mapping[str, nn.Module]) -> None:
    """Shard `host` in place, and let `models`, which hold its parameters, run its blocks.

    RecipeError where a model cannot, or where the models do not run the same blocks.
    """
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, share_comm_ctx

    kept = _kept_whole(host)
    units = [unit for unit in _units(host) if any(id(p) not in kept and p.dim() > 1 for p in unit.parameters())]
    held = {id(p) for unit in units for p in unit.parameters() if id(p) not in kept}
    for task, model in models.items():
        _graft(model, units)
        _require_nothing_beside(task, model, units, held)
    _require_same(models, units)
    device = next(host.parameters()).device
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    give_back_large_blocks()
    sharded = [
        fully_shard(
            unit, mesh=mesh, reshard_after_forward=True, ignored_params={p for p in unit.parameters() if id(p) in kept}
        )
        for unit in units
    ]
    # Else each keeps what it has sent until the backward pass is over: all gradients of the model, whole.
    share_comm_ctx(sharded)


def _units(module: nn.Module) -> Iterator[nn.Module]:
    """The blocks of `module` (what its outermost lists hold), and what lies beside them."""
    if not any(isinstance(each, nn.ModuleList) for each in module.modules()):
        yield module
        return
    for child in module.children():
        # Lists of lists, like lists, have no forward pass of their own.
        if isinstance(module, nn.ModuleList) and not isinstance(child, nn.ModuleList):
            yield child
        else:
            yield from _units(child)


def _kept_whole(host: nn.Module) -> set[int]:
    """The parameters (ids) that are no matter of one module alone, and scalars, which have no rows."""
    owners = Counter(id(p) for module in host.modules() for p in module.parameters(recurse=False))
    return {id(p) for p in host.parameters() if owners[id(p)] > 1 or p.dim() == 0}


def _graft(model: nn.Module, units: list[nn.Module]) -> None:
    """Put the units in the place of those modules of `model` that are the same, parameter by parameter."""
    by_parameters = {_signature(unit): unit for unit in units}
    for path, module in list(model.named_modules()):
        unit = by_parameters.get(_signature(module))
        # What is printed of a module has its sizes, epsilons, and activations.
        if path and unit is not None and type(module) is type(unit) and repr(module) == repr(unit):
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, unit)


def _signature(module: nn.Module) -> frozenset[tuple[str, int]]:
    return frozenset((name, id(parameter)) for name, parameter in module.named_parameters(remove_duplicate=False))


def _require_nothing_beside(task: str, model: nn.Module, units: list[nn.Module], held: set[int]) -> None:
    inside = {id(module) for unit in units for module in unit.modules()}
    for path, module in model.named_modules():
        if id(module) not in inside and any(id(p) in held for p in module.parameters(recurse=False)):
            raise RecipeError(
                f"tasks.{task}: {path} is built otherwise in the expert's model than in the base's, so its weights "
                "cannot be sharded.",
                hint=_HINT,
            )


def _require_same(models: Mapping[str, nn.Module], units: list[nn.Module]) -> None:
    known = {id(unit): place for place, unit in enumerate(units)}
    runs = {task: {known[id(m)] for m in model.modules() if id(m) in known} for task, model in models.items()}
    first = next(iter(runs))
    other = next((task for task in runs if runs[task] != runs[first]), None)
    if other is not None:
        raise RecipeError(
            f"tasks.{first} and tasks.{other} use different parts of the base's model, which processes that share it "
            "cannot run at the same time.",
            hint=_HINT,
        )
