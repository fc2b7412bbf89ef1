"""The tensors of an adapter's file, by the module that they change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from supermerge.checkpoint.source import TensorInfo
from supermerge.errors import CheckpointError

# Suffix in the file -> what it is; a PEFT model calls the module it wraps `base_layer`.
_FACTORS = {
    "lora_A.weight": "A",
    "lora_B.weight": "B",
    "lora_B.bias": "B.bias",
    "lora_embedding_A": "embedding_A",
    "lora_embedding_B": "embedding_B",
    "lora_magnitude_vector": "magnitude",
    "lora_magnitude_vector.weight": "magnitude",
    "ia3_l": "scales",
}
_PREFIX = "base_model.model."
_INSIDE = (".base_layer.", ".modules_to_save.")
# What no tensor of a plain module is called.
_UNREAD = ("lora_", "ia3_", "trainable_tokens", "token_adapter", "vera_", "hada_", "lokr_", "oft_", "original_module")


@dataclass(frozen=True, slots=True)
class Parts:
    """`factors`: module -> role -> stored name. `whole`: name in the model -> stored name, of tensors trained whole."""

    factors: dict[str, dict[str, str]] = field(default_factory=dict)
    whole: dict[str, str] = field(default_factory=dict)


def read_parts(label: str, names: Iterable[str]) -> Parts:
    """Sort the names of an adapter's tensors. CheckpointError for one that nothing is known of."""
    parts = Parts()
    for name in names:
        inner = name.removeprefix(_PREFIX)
        module, role = _factor(inner)
        if role:
            parts.factors.setdefault(module, {})[role] = name
            continue
        if any(part.startswith(_UNREAD) for part in inner.split(".")):
            raise CheckpointError(
                f"{label}: tensor {name!r} is of no kind that is read here",
                hint="Merge the adapter into its model with PEFT (`merge_and_unload`), and give that as 'model'.",
            )
        for wrapped in _INSIDE:
            inner = inner.replace(wrapped, ".")
        parts.whole[inner] = name
    return parts


def _factor(name: str) -> tuple[str, str]:
    for suffix, role in _FACTORS.items():
        if name.endswith(f".{suffix}"):
            return name.removesuffix(f".{suffix}"), role
    return name, ""


def changed_tensors(parts: Parts, infos: Mapping[str, TensorInfo]) -> dict[str, TensorInfo]:
    """What the adapter changes, by the names of the model that it was trained in, with the likeliest shapes."""
    found = {name: TensorInfo(name, infos[stored].dtype, infos[stored].shape) for name, stored in parts.whole.items()}
    for module, roles in parts.factors.items():
        name, dtype = f"{module}.weight", infos[next(iter(roles.values()))].dtype
        found[name] = TensorInfo(name, dtype, _likely_shape({role: infos[stored] for role, stored in roles.items()}))
        if "B.bias" in roles:
            name = f"{module}.bias"
            found[name] = TensorInfo(name, dtype, infos[roles["B.bias"]].shape)
    return found


def _likely_shape(roles: Mapping[str, TensorInfo]) -> tuple[int, ...]:
    if "A" in roles and "B" in roles:
        return (*roles["B"].shape[:1], *roles["A"].shape[1:])
    if "embedding_A" in roles and "embedding_B" in roles:
        return (*roles["embedding_A"].shape[-1:], *roles["embedding_B"].shape[:1])
    return ()
