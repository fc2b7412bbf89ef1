"""One model in memory: the host with the shared parameters, and a model per task that is the host plus its own head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
import transformers
from transformers import PreTrainedModel

from supermerge.checkpoint import Checkpoint, TensorSource
from supermerge.errors import CheckpointError, RecipeError
from supermerge.offload import Offload
from supermerge.tasks.heads import Head, complete, head_config
from supermerge.tasks.host import Host
from supermerge.tasks.labels import head_labels
from supermerge.tasks.models import build, is_pooler, read_config
from supermerge.tasks.pooled import pooled_head
from supermerge.tasks.sharded import shard_models
from supermerge.tasks.spec import CLASSIFICATION
from supermerge.tasks.zero_shot import gives_image_embeddings, zero_shot_head

_GENERATIVE = {"causal-lm": "AutoModelForCausalLM", "seq2seq": "AutoModelForSeq2SeqLM"}
_CLASSES = {
    "text-classification": "AutoModelForSequenceClassification",
    "image-classification": "AutoModelForImageClassification",
    **_GENERATIVE,
}
_KEY = "supermerge"


@dataclass(frozen=True, slots=True)
class HeadSource:
    """What a task's model is made of: `sources` are searched in order for the tensors that the host does not have.

    `config` is the config.json of the head (the expert's own, mostly). With `pooling` the head is our pooled linear
    one, with `zero_shot` the sources hold text embeddings; otherwise it is that of the transformers class for `type`.
    `image` says that a regression reads images.
    """

    label: str
    type: str
    config: Mapping[str, Any]
    sources: tuple[TensorSource, ...]
    labels: tuple[str, ...] | None = None
    pooling: str | None = None
    zero_shot: bool = False
    image: bool = False

    @property
    def auto_class(self) -> Any:
        """The Auto class whose model has this head."""
        name = _CLASSES.get(self.type)
        if self.type == "regression":
            name = _CLASSES["image-classification" if self.image else "text-classification"]
        if name is None:
            raise RecipeError(
                f"{self.label}: there is no transformers class for tasks of type {self.type!r}.",
                hint="Use `supermerge.learn`, which takes any module and any loss.",
            )
        return getattr(transformers, name)

    def saved(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """A config.json that also says which kind of head it belongs to: what `from_saved` reads."""
        kind = {"type": self.type, "pooling": self.pooling, "zero_shot": self.zero_shot, "image": self.image}
        return {**config, _KEY: kind}

    @classmethod
    def from_saved(cls, label: str, config: Mapping[str, Any], sources: tuple[TensorSource, ...]) -> Self:
        """The source of a head that was saved with `config`. Raises CheckpointError where it was not saved by us."""
        kind = config.get(_KEY)
        if not isinstance(kind, Mapping) or set(kind) != {"type", "pooling", "zero_shot", "image"}:
            raise CheckpointError(
                f"{label}: its config.json does not say which kind of head it is.",
                hint="Give the output directory of `supermerge run`.",
            )
        names = config.get("id2label")
        labels = tuple(names[key] for key in sorted(names, key=int)) if names else None
        return cls(label, config=config, sources=sources, labels=labels, **kind)

    @property
    def of_class(self) -> bool:
        """Whether the model is a transformers class, built as a skeleton whose backbone is the host's."""
        return self.pooling is None and not self.zero_shot


def build_task_models(
    base: Checkpoint,
    wanted: Mapping[str, HeadSource],
    *,
    kind: Any = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    offload: Offload | None = None,
    shard: bool = False,
    weights: bool = True,
) -> tuple[Host, dict[str, Head]]:
    """The host, holding the base's weights, and the head of every task; all in eval mode.

    `kind` is the host's class; by default the generative one where a task generates, else the headless backbone.
    `offload` takes the host's parameters; with `shard` all processes of this run hold their rows of them; without
    `weights` they have no values. Raises CheckpointError for everything that is missing: no parameter is ever
    initialised; RecipeError where these tasks cannot share a sharded model.
    """
    skeletons = {
        name: build(head.auto_class, read_config(head.config, head.label), head.label, dtype)
        for name, head in wanted.items()
        if head.of_class
    }
    host = Host.of(
        kind or host_class(base, wanted),
        base,
        without_pooler=any(is_pooler(name) for model in skeletons.values() for name in model.state_dict()),
        dtype=dtype,
        device=torch.device(device),
        offload=offload,
        empty=shard or not weights,
    )
    heads = {name: _head(host, source, skeletons.get(name)) for name, source in wanted.items()}
    if shard:
        shard_models(host.model, {name: head.module for name, head in heads.items()})
        host.load(base)
    return host, heads


def host_class(base: Checkpoint, wanted: Mapping[str, HeadSource]) -> Any:
    """The class of the model that these tasks share: the generative one, one with image embeddings, or AutoModel."""
    generative = sorted({head.type for head in wanted.values()} & set(_GENERATIVE))
    if len(generative) > 1:
        raise RecipeError("Tasks of types causal-lm and seq2seq cannot share one model.")
    if generative:
        return getattr(transformers, _GENERATIVE[generative[0]])
    if any(head.zero_shot for head in wanted.values()):
        # A vision model is only zero-shot with its projection, which the headless class leaves out.
        for name in base.architectures:
            known = getattr(transformers, name, None)
            if known is not None and gives_image_embeddings(known):
                return known
    return transformers.AutoModel


def _head(host: Host, source: HeadSource, skeleton: PreTrainedModel | None) -> Head:
    if skeleton is not None:
        if source.type in CLASSIFICATION and skeleton.config.problem_type == "multi_label_classification":
            raise CheckpointError(
                f"{source.label}: its config has problem_type multi_label_classification, expected one class per "
                "example.",
                hint="Tasks of several labels per example are for `supermerge.learn`, which takes any loss.",
            )
        own = complete(skeleton, host, source.sources, source.label)
        module: torch.nn.Module = skeleton
        count = skeleton.config.num_labels
        config = skeleton.config.to_diff_dict() | {"architectures": [type(skeleton).__name__]}
    elif source.zero_shot:
        module, own = zero_shot_head(host, source.sources[0])
        count, config = len(module.text_embeds), {}
    else:
        module, own = pooled_head(host, source.pooling or "", source.sources, source.label)
        count, config = len(module.classifier.weight), dict(source.config)
    labels = None
    if source.type in CLASSIFICATION:
        named = {} if source.zero_shot else source.config
        labels = head_labels(named, names=source.labels, count=count, where=source.label)
    elif source.type == "regression" and count != 1:
        raise CheckpointError(
            f"{source.label}: its head has {count} outputs; a regression has one.",
            hint="Set num_labels to 1 when training the expert, or change the task's type.",
        )
    return Head(module.eval(), own, source.saved(head_config(config, labels)), labels)
