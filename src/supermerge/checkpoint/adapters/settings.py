"""`adapter_config.json`: what PEFT says of an adapter, read as if an enemy had written it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from supermerge.checkpoint.locate import inside, read_json
from supermerge.errors import CheckpointError

CONFIG_NAME = "adapter_config.json"
SUPPORTED = ("LORA", "IA3")
# Keys that are read, and keys that say how the adapter was made and change no weight of it.
_READ = {
    "peft_type",
    "base_model_name_or_path",
    "r",
    "lora_alpha",
    "rank_pattern",
    "alpha_pattern",
    "use_rslora",
    "use_dora",
    "lora_bias",
    "bias",
    "fan_in_fan_out",
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "feedforward_modules",
    "modules_to_save",
    "init_lora_weights",
}
_HARMLESS = {
    "auto_mapping",
    "revision",
    "task_type",
    "inference_mode",
    "peft_version",
    "lora_dropout",
    "megatron_core",
    "qalora_group_size",
    "ensure_weight_tying",
    "loftq_config",
    "eva_config",
    "corda_config",
    "lora_ga_config",
    "runtime_config",
    "init_ia3_weights",
}
# Beginnings of training that leave the base as it is; others subtract from it what the adapter starts with.
_STARTS = (True, False, None, "gaussian", "eva", "orthogonal", "mica")
_LONGEST_PATTERN, _MOST_REPEATS = 300, 3
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class AdapterSettings:
    """What an adapter's config says, as far as its weights depend on it. `kind` is LORA or IA3."""

    path: Path
    kind: str
    trained_on: str | None
    rank: int
    alpha: float
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]
    root_scaled: bool
    """rsLoRA: α / √r in place of α / r."""
    transposed: bool
    """PEFT's fan_in_fan_out: weights are stored [in, out]."""
    directed: bool
    """DoRA: every module has magnitudes."""
    biased: bool
    """Every module has a bias of its own."""
    targets: tuple[str, ...]
    """Names of modules, where the config lists them and restricts them in no other way."""
    saved: tuple[str, ...]
    """Modules that were trained whole."""
    task_type: str | None
    """PEFT's word for what the model was trained for."""
    revision: str | None
    """The commit of the model that it was trained on, on a hub."""
    model_class: str | None
    """The class of transformers that it was trained in, where the config names it."""

    def scale(self, module: str, rank: int) -> float:
        """s of τ = s · B · A for a module whose A has `rank` rows. CheckpointError where the config gives another."""
        stated = _by_pattern(self.ranks, module, self.rank, self.path)
        if rank != stated:
            _refuse(self.path, f"says rank {stated} for {module}, whose lora_A has rank {rank}")
        alpha = _by_pattern(self.alphas, module, self.alpha, self.path)
        return alpha / (math.sqrt(rank) if self.root_scaled else rank)


def is_adapter(directory: Path) -> bool:
    """Whether `directory` holds an adapter and no model."""
    models = ("model.safetensors", "model.safetensors.index.json")
    return (directory / CONFIG_NAME).is_file() and not any((directory / name).is_file() for name in models)


def read_settings(directory: Path) -> AdapterSettings:
    """The config of the adapter in `directory`.

    Raises CheckpointError where it is missing, malformed, of a kind that is not read, or has a setting that changes
    weights in a way that is not known here.
    """
    path = directory / CONFIG_NAME
    if not path.is_file():
        raise CheckpointError(
            f"{directory}: has no {CONFIG_NAME}, so it is no adapter",
            hint="Give the directory that PEFT's `save_pretrained` wrote.",
        )
    written = read_json(inside(directory, path))
    kind = str(written.get("peft_type", "")).upper()
    if kind not in SUPPORTED:
        raise CheckpointError(
            f"{path}: adapter of type {written.get('peft_type')!r:.80}; those read are {' and '.join(SUPPORTED)}",
            hint="Merge it into its model with PEFT (`merge_and_unload`), and give the result as 'model'.",
        )
    for key, value in written.items():
        if key not in _READ | _HARMLESS and value:
            _refuse(path, f"has {key!r:.80} set, which is not read here")
    start = written.get("init_lora_weights")
    if start not in _STARTS:
        raise CheckpointError(
            f"{path}: init_lora_weights is {start!r:.80}, which also changed the base's weights",
            hint="Save it from PEFT as an ordinary LoRA, with `path_initial_model_for_weight_conversion`.",
        )
    return AdapterSettings(
        path=path,
        kind=kind,
        trained_on=_text(written.get("base_model_name_or_path")),
        rank=_rank(written.get("r", 8), path) if kind == "LORA" else 0,
        alpha=_number(written.get("lora_alpha", 8), "lora_alpha", path),
        ranks={key: _rank(value, path) for key, value in _mapping(written, "rank_pattern", path).items()},
        alphas={
            key: _number(value, f"alpha_pattern.{key}", path)
            for key, value in _mapping(written, "alpha_pattern", path).items()
        },
        root_scaled=_switch(written, "use_rslora", path),
        transposed=_switch(written, "fan_in_fan_out", path),
        directed=_switch(written, "use_dora", path),
        biased=_switch(written, "lora_bias", path),
        targets=_targets(written),
        saved=_names(written.get("modules_to_save")),
        task_type=_text(written.get("task_type")),
        revision=_text(written.get("revision")),
        model_class=_model_class(written.get("auto_mapping")),
    )


def _targets(written: Mapping[str, Any]) -> tuple[str, ...]:
    if written.get("layers_to_transform") is not None or written.get("exclude_modules"):
        return ()
    return _names(written.get("target_modules"))


def _names(value: Any) -> tuple[str, ...]:
    return tuple(str(name) for name in value) if isinstance(value, list) else ()


def _model_class(mapping: Any) -> str | None:
    return _text(mapping.get("base_model_class")) if isinstance(mapping, dict) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _mapping(written: Mapping[str, Any], key: str, path: Path) -> dict[str, Any]:
    value = written.get(key) or {}
    if not isinstance(value, dict):
        _refuse(path, f"has {key} = {value!r:.80}, where a mapping belongs")
    return value


def _switch(written: Mapping[str, Any], key: str, path: Path) -> bool:
    value = written.get(key)
    if value is not None and not isinstance(value, bool):
        _refuse(path, f"has {key} = {value!r:.80}, where true or false belongs")
    return bool(value)


def _rank(value: Any, path: Path) -> int:
    if type(value) is not int or value < 1:
        _refuse(path, f"has rank {value!r:.80}, where a whole number from 1 belongs")
    return value


def _number(value: Any, key: str, path: Path) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        _refuse(path, f"has {key} = {value!r:.80}, where a finite number belongs")
    return float(value)


def _by_pattern(patterns: Mapping[str, Value], module: str, default: Value, path: Path) -> Value:
    """The value of the first pattern, a regular expression, that ends `module` after a dot or is all of it."""
    for pattern, value in patterns.items():
        if re.fullmatch(rf"(?:.*\.)?(?:{_checked(pattern, path)})", module):
            return value
    return default


def _checked(pattern: str, path: Path) -> str:
    """`pattern`, unless matching it could take for ever or it is no regular expression."""
    repeats = len(re.findall(r"[*+{]", pattern))
    if len(pattern) > _LONGEST_PATTERN or repeats > _MOST_REPEATS or re.search(r"\)[*+{?]", pattern):
        _refuse(path, f"has the pattern {pattern!r:.80}, which is more than a plain one")
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        _refuse(path, f"has the pattern {pattern!r:.80}, which is no regular expression: {error}")
    return pattern


def _refuse(path: Path, found: str) -> NoReturn:
    raise CheckpointError(
        f"{path}: {found}",
        hint="Save the adapter again with PEFT, or merge it there (`merge_and_unload`) and give the result as 'model'.",
    )
