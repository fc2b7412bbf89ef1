"""Learn a merge: `supermerge.learn`, for any `nn.Module`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from supermerge.checkpoint import Checkpoint, Resident, TensorSource, open_expert
from supermerge.distributed import Peers, local
from supermerge.errors import CheckpointError, UsageError
from supermerge.events import emit
from supermerge.learn.adam import Adam
from supermerge.learn.balance import Balance
from supermerge.learn.coefficients import Coefficients
from supermerge.learn.compression import Coding, Compressed, compress, is_coding
from supermerge.learn.division import Division, divide
from supermerge.learn.engine import Engine
from supermerge.learn.factored import Factored
from supermerge.learn.factored_engine import FactoredEngine
from supermerge.learn.loop import Batch, EarlyStopping, Loop, Saving
from supermerge.learn.merged import Merged
from supermerge.learn.parameters import Mergeable, find_mergeable, learning_mode
from supermerge.learn.shards import Shards, peers_of, sum_gradients
from supermerge.learn.shared_engine import SharedEngine
from supermerge.learn.state import StepRecord
from supermerge.learn.stepping import Loss, Stepping
from supermerge.learn.task_vectors import TaskVectors
from supermerge.offload import offloaded, values_of
from supermerge.report.numbers import size

_RESIDENCIES = ("auto", "disk", "memory", "offload")


@dataclass(slots=True)
class Learned:
    """What learning gives: the coefficients, how they were found, and the merged tensors."""

    coefficients: Coefficients
    history: list[StepRecord]
    best_step: int
    """How many steps the coefficients took."""
    bytes_read: tuple[int, int]
    """By the steps: (of the base, of all experts)."""
    _model: nn.Module = field(repr=False)
    _base: TensorSource = field(repr=False)

    def state_dict(self) -> dict[str, Tensor]:
        """The merged tensors under the base's keys, in its shapes and dtypes."""
        state = self._model.state_dict(keep_vars=True)
        return {name: values_of(state[name]).to(info.dtype) for name, info in self._base.tensors.items()}


def learn(
    model: nn.Module,
    base: Any,
    experts: Mapping[str, Any],
    batches: Iterable[Batch],
    loss: Loss,
    *,
    steps: int,
    lr: float,
    link: str = "tanh",
    granularity: str = "tensor",
    residency: Literal["auto", "disk", "memory", "offload"] | Coding = "auto",
    init: float | Mapping[str, float] | Coefficients = 0.3,
    schedule: Callable[[int], float] | None = None,
    clip: float | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    balance: Balance | None = None,
    early_stopping: EarlyStopping | None = None,
    saving: Saving | None = None,
) -> Learned:
    """Learn the coefficients of θm(j) = θp(j) + Σᵢ link(w(i, j)) · τ(i, j) by gradient descent on `loss`.

    `model` is any module with the base's architecture; its parameters are overwritten and end as the merged weights.
    `base` and `experts` are mappings of tensors, paths, checkpoints or other sources whose keys are
    `model.state_dict()` names. One item of `batches` is one optimiser step: `(task, batch)`, or a list of
    `(task, batch[, weight])` whose weighted losses are summed, one backward each. `loss(model, task, batch)` gives a
    scalar.

    Adam (0.9, 0.999, 1e-8) with the rate `lr`, times `schedule(step)` where given; `clip` bounds the norm of the
    gradient of w. `init` is the coefficient that all start from, one for each expert, or coefficients. `residency` says
    where the experts' tensors lie between readings: `disk` (also `auto`: the operating system's cache serves them at
    the speed of memory where there is room) or `memory`; with `offload` the model's own parameters too are in a
    temporary file while it learns, and in memory only as long as an operation uses them (see `offload`). The result
    does not depend on it. A coding (`bf16`, `int8`, `tvq4`, `tvq3`, `tvq2`, `rtvq`) keeps compressed task vectors in
    memory; the coefficients are then learned, and the module is left, with these (see `learn.compression`).
    `precision="bf16"` runs the forward pass under autocast. `balance(history)` gives what each task's weight is
    multiplied by in the next step. The model is in eval mode while learning and gets its mode back.

    Memory: the model, its gradient, the activations, and buffers of the largest tensor; nothing that grows with k.
    Where every expert is an adapter on the base (LoRA, IA3), tensors are learned as the adapters' factors: memory is
    then the model, the adapters and the activations (see `factored_engine`).

    A model that `fully_shard` has sharded is learned by all processes of torch.distributed: each gives the same
    arguments, works on its part of a step's items, and reads its rows of the task vectors (see `shared_engine`).

    Errors: UsageError; CheckpointError (names or shapes that differ, NaN or Inf); DataError (the batches end early);
    Diverged (a loss that is not finite; it carries the last good coefficients).

    Source: SuperMerge, arXiv 2412.10416. The paper's optimiser, rate and start are not known: these defaults are ours.
    """
    if steps < 0 or not lr > 0:
        raise UsageError(f"steps must be at least 0 and lr above 0; found steps={steps} and lr={lr}.")
    if residency not in _RESIDENCIES and not is_coding(residency):
        raise UsageError(
            f"residency {residency!r}: unknown.", hint=f"Use one of {', '.join((*_RESIDENCIES, *get_args(Coding)))}."
        )
    if not isinstance(experts, Mapping):
        raise UsageError(
            f"experts: expected a mapping of names to experts, found {type(experts).__name__}.",
            hint='Name them, such as {"news": …, "spam": …}.',
        )
    if residency == "offload" and precision != "fp32":
        raise UsageError(
            f"residency offload needs precision fp32, found {precision!r}.",
            hint="Autocast keeps a second copy of every weight until the backward pass is over.",
        )
    with ExitStack() as stack:
        if residency == "offload":
            stack.enter_context(offloaded(model))
        base_source = _source(base)
        sources = {name: _expert(expert, base_source) for name, expert in experts.items()}
        mergeable = find_mergeable(model, base_source, sources)
        shards = Shards.of(mergeable.learned)
        peers = peers_of(shards)
        _require_plain(residency, shards, peers)
        division = divide(base_source, sources, mergeable.learned, by_row=granularity == "row")
        if peers.size > 1:  # several processes learn everything as dense task vectors
            division = Division({}, frozenset(), ())
        kept = [*division.dense(mergeable.learned), *mergeable.started]
        own_base, own = shards.source(base_source), {name: shards.source(source) for name, source in sources.items()}
        vectors = TaskVectors(own_base, _resident(own_base, own, kept, residency, mergeable.dtype), mergeable.dtype)
        coefficients = _start(mergeable, vectors, link, granularity, init)
        # Where no expert differs from the base, ⟨gradient, τ⟩ is 0: such tensors keep their start and need no gradient.
        found = _write_start(mergeable, division, vectors, coefficients, base_source, shards)
        changed = set[str]().union(*peers.exchange(found))
        learned = {name: parameter for name, parameter in mergeable.learned.items() if name in changed}
        if not learned:
            raise CheckpointError(
                "No expert differs from the base in any parameter.", hint="Pass fine-tuned experts, and their own base."
            )
        stack.enter_context(learning_mode(model, {name: learned[name] for name in division.dense(learned)}))
        if peers.size > 1:
            if shards.rows:
                sum_gradients(model)
            made: Stepping = SharedEngine(
                learned, vectors, coefficients, Adam(lr), clip=clip, shards=shards, peers=peers
            )
        else:
            made = _engine(learned, division, base_source, vectors, coefficients, Adam(lr), clip, shards)
        engine = stack.enter_context(made)
        loop = Loop(
            engine,
            model,
            loss if precision == "fp32" else _in_bf16(loss, precision, model),
            schedule=schedule,
            balance=balance,
            early_stopping=early_stopping,
            saving=saving,
        )
        emit("learn_started", steps=steps, experts=len(sources), coefficients=len(coefficients))
        before = vectors.bytes_read
        loop.run(batches, steps)
        after = vectors.bytes_read
    read = (after[0] - before[0], after[1] - before[1])
    return Learned(coefficients, loop.progress.history, loop.progress.best_step, read, model, base_source)


def _require_plain(residency: str, shards: Shards, peers: Peers) -> None:
    """UsageError for a residency that several processes do not have."""
    if (residency == "offload" and peers.size > 1) or (is_coding(residency) and shards.rows):
        raise UsageError(
            f"residency {residency}: not for {'a sharded model' if shards.rows else f'{peers.size} processes'}.",
            hint="Use residency disk or memory.",
        )


def _source(ref: Any) -> TensorSource:
    """Whatever `Checkpoint.open` takes is opened; a source is one already."""
    return Checkpoint.open(ref) if isinstance(ref, str | os.PathLike | Mapping | nn.Module) else ref


def _expert(ref: Any, base: TensorSource) -> TensorSource:
    """Paths may also name adapters on the base; like the base's, their files stay open."""
    if isinstance(ref, str | os.PathLike) and isinstance(base, Checkpoint):
        return open_expert(ref, base, ExitStack())
    return _source(ref)


def _resident(
    base: TensorSource, sources: Mapping[str, TensorSource], kept: Sequence[str], residency: str, dtype: torch.dtype
) -> Mapping[str, TensorSource | Compressed]:
    """The experts where `residency` wants them, with what is read again and again: the tensors `kept`."""
    if residency == "memory":
        return {name: Resident(source, kept) for name, source in sources.items()}
    if not is_coding(residency):
        return sources
    vectors, compression = compress(base, sources, kept, residency, dtype)
    emit(
        "note",
        message=f"Task vectors are kept as {residency} in {size(compression.nbytes)}; "
        f"their relative error is {compression.relative_error:.2g}.",
        nbytes=compression.nbytes,
        relative_error=compression.relative_error,
    )
    return vectors


def _start(
    mergeable: Mergeable,
    vectors: TaskVectors,
    link: str,
    granularity: str,
    init: float | Mapping[str, float] | Coefficients,
) -> Coefficients:
    shapes = {name: tuple(tensor.shape) for name, tensor in (mergeable.learned | mergeable.started).items()}
    if isinstance(init, Mapping) and set(init) != set(vectors.experts):
        raise UsageError(
            f"init: starts are given for {sorted(init)}, the experts are {sorted(vectors.experts)}.",
            hint="Give one coefficient for every expert, or a number for all.",
        )
    if not isinstance(init, Coefficients):
        return Coefficients.start(
            vectors.experts,
            shapes,
            link=link,
            granularity=granularity,
            value=init,
            fixed=mergeable.started,
            dtype=mergeable.dtype,
        )
    same = (init.experts, init.link, init.granularity) == (vectors.experts, link, granularity)
    if not same or shapes.keys() - init.groups:
        raise UsageError(
            f"init: these coefficients are for experts {list(init.experts)}, link {init.link!r} and granularity "
            f"{init.granularity!r}, not for {list(vectors.experts)}, {link!r} and {granularity!r}.",
            hint="Pass coefficients of the same merge, or a number.",
        )
    return init.copy()


def _write_start(
    mergeable: Mergeable,
    division: Division,
    vectors: TaskVectors,
    coefficients: Coefficients,
    base: TensorSource,
    shards: Shards,
) -> set[str]:
    """The model at the initial coefficients, every floating tensor checked; integer tensors as the base has them.

    Tensors that are learned as factors, and those that no expert changes, stay the base's. Returns the names of the
    tensors that at least one expert changed.
    """
    tensors = mergeable.learned | mergeable.started
    merged = Merged({name: local(tensor) for name, tensor in tensors.items()}, vectors)
    for name in (*division.factored, *division.untouched):
        merged.write_base(name)
    changed = set(division.factored)
    for name in division.dense(tensors):
        if merged.check(name):
            changed.add(name)
        merged.write(name, shards.coefficients(name, coefficients.effective(name)))
    for name, tensor in mergeable.copied.items():
        tensor.copy_(base.read(name))
    return changed


def _engine(
    learned: dict[str, Tensor],
    division: Division,
    base: TensorSource,
    vectors: TaskVectors,
    coefficients: Coefficients,
    adam: Adam,
    clip: float | None,
    shards: Shards,
) -> Stepping:
    """The engine that suits the experts: with factors where any tensor has them."""
    if not division.factored:
        return Engine(learned, vectors, coefficients, adam, clip=clip, shards=shards)
    factored = {
        name: Factored.read(base.tensors[name], parts, vectors.experts, learned[name])
        for name, parts in division.factored.items()
    }
    return FactoredEngine(learned, factored, vectors, coefficients, adam, clip=clip)


def _in_bf16(loss: Loss, precision: str, model: nn.Module) -> Loss:
    if precision != "bf16":
        raise UsageError(
            f"precision must be fp32 or bf16, found {precision!r}.",
            hint="fp16 needs loss scaling, whose skipped steps cannot be taken back once half of one is applied.",
        )
    device = next(model.parameters()).device.type

    def in_bf16(model: nn.Module, task: str, batch: Any) -> Tensor:
        with torch.autocast(device, dtype=torch.bfloat16):
            return loss(model, task, batch)

    return in_bf16
