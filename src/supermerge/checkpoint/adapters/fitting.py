"""Which tensors of a model an adapter changes, and how; or every reason why it does not fit, in one message."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from supermerge.checkpoint.adapters.changes import Changed, Directed, Fitted, LowRank, Rescaled, Shifted, Stored
from supermerge.checkpoint.adapters.parts import Parts, changed_tensors
from supermerge.checkpoint.adapters.settings import AdapterSettings
from supermerge.checkpoint.contents import same_tensor
from supermerge.checkpoint.names import map_names, pattern
from supermerge.checkpoint.source import TensorInfo, TensorSource
from supermerge.errors import CheckpointError

_SHOWN = 12


class Fitting:
    """Works out `changed` for one model and one adapter, and collects `problems` on the way."""

    def __init__(self, model: TensorSource, adapter: TensorSource, settings: AdapterSettings, parts: Parts) -> None:
        self.problems: list[tuple[str, str]] = []
        self.changed: dict[str, Changed] = {}
        self._model, self._adapter, self._settings, self._parts = model, adapter, settings, parts
        named = map_names(model.tensors, changed_tensors(parts, adapter.tensors)).names
        self._names = {trained: name for name, trained in named.items()}

    def work_out(self) -> Fitted:
        """What becomes of the model. CheckpointError where the adapter does not fit."""
        for trained, stored in self._parts.whole.items():
            self._replace(trained, stored)
        for module, roles in self._parts.factors.items():
            name = self._names.get(f"{module}.weight")
            if name is None:
                self.problems.append((f"{module}.weight", "the model has no such tensor"))
            elif not self._model.tensors[name].is_floating:
                self.problems.append((name, "the model's is not of floating point: it is quantised"))
            elif any(not self._adapter.tensors[stored].is_floating for stored in roles.values()):
                self.problems.append((name, "the adapter's is not of floating point: it is quantised"))
            elif "scales" in roles:
                self._rescale(name, roles["scales"])
            else:
                self._add(module, name, roles)
        if not self.problems:
            self._require_targets()
        self._raise()
        trained = {name: trained for trained, name in self._names.items()}
        return Fitted(self.changed, {name: trained[name] for name in self.changed if name in trained})

    def _replace(self, trained: str, stored: str) -> None:
        name = self._names.get(trained)
        if name is None and not set(self._settings.saved) & set(trained.split(".")):
            self.problems.append((trained, "the model has no such tensor"))
        elif name is None or not same_tensor(self._adapter, stored, self._model, name):
            # PEFT also saves embeddings as they were, beside the factors that it trained of them.
            self.changed[name or trained] = Changed((self._adapter, stored))

    def _add(self, module: str, name: str, roles: Mapping[str, str]) -> None:
        """LoRA, with or without magnitudes and a bias of its own."""
        embedding = "embedding_" if "embedding_A" in roles or "embedding_B" in roles else ""
        lacking = [role for role in (f"{embedding}A", f"{embedding}B") if role not in roles]
        if lacking:
            self.problems.append((name, f"lora_{lacking[0]} is not in the file"))
            return
        down, up = roles[f"{embedding}A"], roles[f"{embedding}B"]
        for role, stored in (("A", down), ("B", up)):
            shape = list(self._adapter.tensors[stored].shape)
            if len(shape) not in (2, max(2, len(self._model.tensors[name].shape))):
                self.problems.append((name, f"lora_{embedding}{role} has shape {shape}, which is no matrix"))
                return
        a, b = (_as_matrix(self._adapter.tensors[stored]) for stored in (down, up))
        rank = a[0]
        if rank < 1 or b[1] != rank:
            self.problems.append((name, f"lora_A has rank {rank}, and lora_B has rank {b[1]}"))
            return
        transposed = self._orientation(name, (b[0], a[1]), always=bool(embedding))
        if transposed is None:
            return
        scale = self._settings.scale(module, rank)
        left, right = (down, up) if transposed else (up, down)
        change = LowRank((self._adapter, left), (self._adapter, right), scale, transposed)
        self.changed[name] = Changed(self._stored(name), self._directed(name, change, roles, b[0]))
        if self._settings.biased and "B.bias" not in roles:
            self.problems.append((name, "lora_bias is set, and the file has no bias of it"))
        if "B.bias" in roles:
            self._shift(f"{module}.bias", roles["B.bias"], scale)

    def _orientation(self, name: str, shape: tuple[int, int], *, always: bool) -> bool | None:
        """Whether W is stored as [in, out], which the config says of a square one; None where `shape` does not fit."""
        wanted = _as_matrix(self._model.tensors[name])
        fits = {False: not always and shape == wanted, True: shape[::-1] == wanted}
        for transposed in (self._settings.transposed, not self._settings.transposed):
            if fits[transposed]:
                return transposed
        found = shape[::-1] if always else shape
        self.problems.append((name, f"the adapter's shape is {list(found)}, the model's {list(wanted)}"))
        return None

    def _directed(self, name: str, change: LowRank, roles: Mapping[str, str], outputs: int) -> LowRank | Directed:
        stored = roles.get("magnitude")
        if stored is None:
            if self._settings.directed:
                self.problems.append((name, "use_dora is set, and the file has no magnitudes"))
            return change
        if self._adapter.tensors[stored].numel != outputs:
            self.problems.append((name, f"{self._adapter.tensors[stored].numel} magnitudes for {outputs} outputs"))
        return Directed(change, (self._adapter, stored))

    def _shift(self, trained: str, stored: str, scale: float) -> None:
        name = self._names.get(trained)
        if name is None:
            self.problems.append((trained, "the model has no such tensor, and the adapter adds to it"))
        else:
            self.changed[name] = Changed(self._stored(name), Shifted((self._adapter, stored), scale))

    def _rescale(self, name: str, stored: str) -> None:
        """IA3: scales [n, 1] of what the module gives, with its bias, or [1, n] of what it takes."""
        shape, wanted = self._adapter.tensors[stored].shape, self._model.tensors[name].shape
        if len(shape) != 2 or len(wanted) != 2 or 1 not in shape:
            self.problems.append((name, f"scales of shape {list(shape)} for a weight of shape {list(wanted)}"))
            return
        of_outputs = shape[1] == 1
        for by_row in (of_outputs != self._settings.transposed, of_outputs == self._settings.transposed):
            if max(shape) == wanted[0 if by_row else 1]:
                self.changed[name] = Changed(self._stored(name), Rescaled((self._adapter, stored), by_row))
                break
        else:
            self.problems.append((name, f"{max(shape)} scales for a weight of shape {list(wanted)}"))
            return
        bias = f"{name.removesuffix('weight')}bias"
        if of_outputs and bias in self._model.tensors:
            self.changed[bias] = Changed(self._stored(bias), Rescaled((self._adapter, stored), by_row=True))

    def _stored(self, name: str) -> Stored:
        """What is changed: the model's tensor, or the one that the adapter brings in its place."""
        return self.changed[name].stored if name in self.changed else (self._model, name)

    def _require_targets(self) -> None:
        """A module that the config names as a target must have its tensors in the file, in every layer or in none."""
        patterns = {pattern(name) for name in self.changed}
        for target in self._settings.targets:
            meant = [
                info.name
                for info in self._model.tensors.values()
                if len(info.shape) > 1 and f".{info.name}".endswith(f".{target}.weight")
            ]
            lacking = [name for name in meant if name not in self.changed]
            for name in lacking:
                if len(lacking) == len(meant) or pattern(name) in patterns:
                    self.problems.append((name, f"target module {target!r}, of which the file has no tensors"))

    def _raise(self) -> None:
        if not self.problems:
            return
        lines = _grouped(self.problems)
        more = f"\n  and {len(lines) - _SHOWN} more such lines" if len(lines) > _SHOWN else ""
        trained_on = self._settings.trained_on
        raise CheckpointError(
            f"The adapter {self._adapter.label} does not fit {self._model.label}"
            f"{f' (its config says: trained on {trained_on})' if trained_on else ''}:\n"
            + "\n".join(f"  {line}" for line in lines[:_SHOWN])
            + more,
            hint="Give the model that the adapter was trained on as the expert's 'model', or as the base.",
        )


def _as_matrix(info: TensorInfo) -> tuple[int, int]:
    rows = info.shape[0] if info.shape else 1
    width = 1
    for size in info.shape[1:]:
        width *= size
    return rows, width


def _grouped(problems: Iterable[tuple[str, str]]) -> list[str]:
    """One line per parameter, whatever the number of layers."""
    counts = Counter((pattern(name), what) for name, what in problems)
    examples = {(pattern(name), what): name for name, what in problems}
    return [
        f"{examples[key] if count == 1 else f'{key[0]} ({count} tensors)'}: {key[1]}" for key, count in counts.items()
    ]
