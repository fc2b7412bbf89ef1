"""Where the tasks of a recipe are run: one model in memory, on which every task has its own head, encoder and loss."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from supermerge.checkpoint import Checkpoint, TensorSource
from supermerge.distributed import is_sharded, local
from supermerge.errors import RecipeError
from supermerge.offload import Offload
from supermerge.tasks.binding import Binding
from supermerge.tasks.bound import Bound
from supermerge.tasks.capacity import require_known, vocabulary, within
from supermerge.tasks.encode import LABELS, Batch, Encoder, Example, Labels, TextEncoder
from supermerge.tasks.encode_generation import CausalEncoder, Seq2SeqEncoder
from supermerge.tasks.encode_images import ImageEncoder, PixelCache
from supermerge.tasks.heads import Head
from supermerge.tasks.losses import aligned, counted, supervised_loss
from supermerge.tasks.models import running
from supermerge.tasks.pooled import PooledClassifier, backbone_of, pool
from supermerge.tasks.processors import image_processor_of, require_token, tokenising, tokenizer_of
from supermerge.tasks.rows import Row
from supermerge.tasks.spec import TaskSpec
from supermerge.tasks.task_models import HeadSource, build_task_models


class Workbench:
    """One model in memory, shared by all tasks.

    `base` and `experts` are the checkpoints as they are stored; heads come from the experts, or from where the task
    says. `model` is the shared backbone: its state_dict's names are those that `bind` gives
    a checkpoint's tensors. Whatever is written into its parameters (`load`, or a learner) is what every task's
    `logits`, `supervised_loss` and evaluation see. `image_cache` bounds the bytes of processed images kept in memory.
    With `offload`, which must be entered meanwhile, the backbone lies in a file. With `shard` every process of this run
    holds its rows of it, and all must do the same with it at the same time. Without `weights` the backbone is there for
    its names and shapes alone.

    Raises CheckpointError where a tensor of the backbone or of a head is in no file: nothing is ever initialised.
    """

    def __init__(
        self,
        base: Checkpoint,
        experts: Mapping[str, Checkpoint],
        tasks: Mapping[str, TaskSpec],
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        image_cache: int = 2**28,
        offload: Offload | None = None,
        shard: bool = False,
        weights: bool = True,
    ) -> None:
        self.specs = dict(tasks)
        self.device = torch.device(device)
        self._sharded = shard
        with ExitStack() as files:
            sources = {name: head_source(name, spec, experts, files) for name, spec in self.specs.items()}
            self._host, self.heads = build_task_models(
                base, sources, dtype=dtype, device=self.device, offload=offload, shard=shard, weights=weights
            )
        self._directories = {
            name: [base.directory, experts[spec.expert].directory] for name, spec in self.specs.items()
        }
        self._cache = PixelCache(image_cache)
        self._tokenizers: dict[str, Any] = {}
        self._encoders: dict[str, Encoder] = {}

    @property
    def model(self) -> PreTrainedModel:
        """The shared backbone."""
        return self._host.model

    @property
    def merged_names(self) -> tuple[str, ...]:
        """The base's file tensors that `model` is made of: what a merge of these tasks consists of."""
        return self._host.binding.file_names

    @property
    def copied_names(self) -> tuple[str, ...]:
        """The base's file tensors of a pooler that the tasks bring themselves: an output takes them from the base."""
        return self._host.poolers

    @property
    def binding(self) -> Binding:
        """Which file tensors of the base make which tensors of `model`."""
        return self._host.binding

    def bind(self, source: TensorSource) -> Bound:
        """`source`, which has the base's file names, seen under the names of `model.state_dict()`."""
        return self._host.bind(source)

    def load(self, source: TensorSource, only: Collection[str] | None = None) -> None:
        """Overwrite the shared weights, or those made of the tensors `only`, with `source`'s, named as the base's."""
        self._host.load(source, only)

    def give_back(self) -> None:
        """Give the weights' memory back, whoever still holds the modules: nothing can be loaded or run any more."""
        for tensor in (*self.model.parameters(), *self.model.buffers()):
            if is_sharded(tensor):
                local(tensor).untyped_storage().resize_(0)
            else:
                tensor.data = tensor.data.new_empty(0)

    def directories(self, task: str) -> list[Path | None]:
        """Where the files beside the weights are looked for: with the base, then with the task's expert."""
        return self._directories[task]

    def encoder(self, task: str) -> Encoder:
        """What turns the rows of a task into batches; made when first asked for."""
        if task not in self._encoders:
            self._encoders[task] = self._make_encoder(task)
        return self._encoders[task]

    def tokenizer(self, task: str) -> Any:
        """The base's tokenizer, or else the one of the task's expert."""
        if task not in self._tokenizers:
            self._tokenizers[task] = tokenizer_of(self._directories[task], f"task {task!r}")
        return self._tokenizers[task]

    def collate(self, task: str, rows: Sequence[Row]) -> Batch:
        """The rows as one batch."""
        return self.batch(task, self.encode(task, rows))

    def encode(self, task: str, rows: Sequence[Row]) -> list[Example]:
        """One example per row, in order.

        Raises DataError, e.g. for a label that the head does not know, and CheckpointError for tokens that the model
        does not.
        """
        if self.specs[task].image is not None:
            return self.encoder(task).encode(rows)
        with tokenising(task):
            examples = self.encoder(task).encode(rows)
        require_known(self.model, examples)
        return examples

    def batch(self, task: str, examples: Sequence[Example]) -> Batch:
        """The examples as tensors on the model's device, padded to the longest, with `labels` where they have some."""
        return {name: tensor.to(self.device) for name, tensor in self.encoder(task).collate(examples).items()}

    def places(self, task: str, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Logits, and the targets that they should predict, place by place: see `losses.aligned`."""
        inputs = {name: tensor for name, tensor in batch.items() if name != LABELS}
        labels = batch.get(LABELS)
        module: Any = self.heads[task].module
        kind = self.specs[task].type
        with self._running(task):
            if kind == "seq2seq" and labels is not None:
                inputs["decoder_input_ids"] = module.prepare_decoder_input_ids_from_labels(labels=labels)
            logits = module(**inputs).logits
        return (logits, None) if labels is None else aligned(kind, logits, labels)

    def logits(self, task: str, batch: Batch) -> Tensor:
        """Logits [n, classes]: one row per example, or per target token where the task generates."""
        logits, targets = self.places(task, batch)
        return logits if targets is None else counted(logits, targets)[0]

    def features(self, task: str, batch: Batch) -> Tensor:
        """What the backbone makes of every example, [n, width]: its last hidden state, averaged without the padding.

        Of an encoder-decoder it is the encoder's; of an image the average over patches, or over all places of a map.
        """
        inputs = {name: tensor for name, tensor in batch.items() if name != LABELS}
        module: Any = self.heads[task].module
        inner: Any = module if isinstance(module, PreTrainedModel) else getattr(module, "model", None)
        backbone: Any = module.backbone if isinstance(module, PooledClassifier) else backbone_of(inner)
        with self._running(task):
            hidden = backbone(**inputs).last_hidden_state
        if hidden.dim() == 4:
            hidden = hidden.flatten(2).transpose(1, 2)
        mask = inputs.get("attention_mask")
        if mask is None:
            mask = torch.ones(hidden.shape[:2], dtype=torch.long, device=hidden.device)
        return pool(hidden, mask, "mean")

    def supervised_loss(self, task: str, batch: Batch) -> Tensor:
        """The supervised loss of a batch with labels: mean cross-entropy in nats, or the mean squared error."""
        logits, targets = self.places(task, batch)
        if targets is None:
            raise RecipeError(f"Task {task!r}: a supervised loss needs labelled examples.")
        return supervised_loss(self.specs[task].type, *counted(logits, targets))

    def _running(self, task: str) -> AbstractContextManager[None]:
        """See `running`; a sharded model's errors may be the other processes'."""
        return nullcontext() if self._sharded else running(task, self.heads[task].module)

    def _make_encoder(self, task: str) -> Encoder:
        spec = self.specs[task]
        labels = Labels(self.heads[task].labels, f"the head of task {task!r}")
        if spec.image is not None:
            processor = image_processor_of(self._directories[task], f"task {task!r}")
            return ImageEncoder(processor, labels, self._cache)
        tokenizer, pad_id = self.tokenizer(task), self.pad_id(task)
        max_length = within(self.model, spec.max_length)
        if spec.type == "causal-lm":
            start = tokenizer.bos_token_id
            start_id = start if start is not None and start < vocabulary(self.model) else None
            return CausalEncoder(tokenizer, max_length=max_length, pad_id=pad_id, start_id=start_id)
        if spec.type == "seq2seq":
            config: Any = self.heads[task].module.config
            where = f"task {task!r}: decoder_start_token_id in the config.json of expert {spec.expert!r}"
            require_token(getattr(config, "decoder_start_token_id", None), where, vocabulary(self.model))
            return Seq2SeqEncoder(tokenizer, max_length=max_length, pad_id=pad_id)
        accepted = _inputs_of(self.heads[task])
        return TextEncoder(tokenizer, labels, accepted=accepted, max_length=max_length, pad_id=pad_id)

    def pad_id(self, task: str) -> int:
        """The token that fills up a batch.

        The config's own where it has one: decoders that classify look for it to find the last token. Else the
        tokenizer's, or its end-of-text token; the config is then told. One that the model has no embedding for does not
        count: it was added to the tokenizer alone.
        """
        tokenizer = self.tokenizer(task)
        config: Any = getattr(self.heads[task].module, "config", self.model.config)
        known = [getattr(config, "pad_token_id", None), tokenizer.pad_token_id, tokenizer.eos_token_id, 0]
        pad_id = next(token for token in known if token is not None and 0 <= token < vocabulary(self.model))
        config.pad_token_id = pad_id
        return pad_id


def head_source(name: str, spec: TaskSpec, experts: Mapping[str, Checkpoint], files: ExitStack) -> HeadSource:
    """What the model of a task is made of; what it opens is left to `files`. RecipeError for an unknown expert."""
    expert = experts.get(spec.expert)
    if expert is None:
        raise RecipeError(f"tasks.{name}: its expert {spec.expert!r} is not one of {', '.join(experts)}.")
    config: Mapping[str, Any] = expert.config
    sources: tuple[TensorSource, ...] = (expert,)
    if spec.embeddings is not None:
        sources = (files.enter_context(Checkpoint.open(spec.embeddings)),)
    elif spec.head != "expert":
        head = files.enter_context(Checkpoint.open(spec.head))
        sources = (head, expert)
        # The config beside a single file may be another model's.
        if head.config and not Path(spec.head).is_file():
            config = head.config
    return HeadSource(
        label=f"the head of task {name!r} ({sources[0].label})",
        type=spec.type,
        config=config,
        sources=sources,
        labels=spec.labels,
        pooling=spec.pooling,
        zero_shot=spec.embeddings is not None,
        image=spec.image is not None,
    )


def _inputs_of(head: Head) -> frozenset[str]:
    module = head.module.backbone if isinstance(head.module, PooledClassifier) else head.module
    return frozenset(inspect.signature(module.forward).parameters)
