"""IA3 experts, one per text task: trained with peft, with a linear head on the mean hidden state."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import IA3Config, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

from supermerge.demo.sources.corpus import Example
from supermerge.demo.train import fit_probe
from supermerge.tasks.pooled import pool

# The paper's places: keys, values, and what goes into the output of a feed-forward block.
TARGETS = {"llama": (("k_proj", "v_proj"), "down_proj"), "bert": (("key", "value"), "output.dense")}


@dataclass(frozen=True, slots=True)
class Training:
    """How long and how fast: rates are those of the vectors and of the head, which starts as a linear probe."""

    examples: int = 1000
    epochs: int = 1
    batch: int = 16
    lr: float = 2e-2
    head_lr: float = 3e-3
    length: int = 32
    seed: int = 0


def train(
    base: Path, examples: Sequence[Example], labels: Sequence[str], settings: Training, directory: Path
) -> dict[str, float]:
    """Train on `examples` and save the adapter with its head; the loss of the first and last 20 steps, CPU seconds."""
    started = time.process_time()
    torch.manual_seed(settings.seed)
    tokenizer = AutoTokenizer.from_pretrained(base)
    backbone = AutoModel.from_pretrained(base)
    keys_and_values, outputs = TARGETS[backbone.config.model_type]
    vectors = IA3Config(target_modules=[*keys_and_values, outputs], feedforward_modules=[outputs])
    model = get_peft_model(backbone, vectors).eval()
    head = nn.Linear(model.config.hidden_size, len(labels))
    chosen = list(examples[: settings.examples])
    targets = torch.tensor([labels.index(example.label) for example in chosen])

    def features(places: Sequence[int]) -> Tensor:
        inputs = tokenizer(
            [chosen[place].text for place in places],
            truncation=True,
            max_length=settings.length,
            padding=True,
            return_tensors="pt",
        )
        mask = inputs["attention_mask"]
        return pool(model(input_ids=inputs["input_ids"], attention_mask=mask).last_hidden_state, mask, "mean")

    with torch.no_grad():
        probed = range(min(1000, len(chosen)))
        parts = [features(probed[start : start + 64]) for start in range(0, len(probed), 64)]
    fit_probe(head, torch.cat(parts), targets[: len(probed)])
    tuned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [{"params": tuned, "lr": settings.lr}, {"params": list(head.parameters()), "lr": settings.head_lr}]
    optimiser = torch.optim.AdamW(groups, weight_decay=0.0)
    batches = _batches(len(chosen), settings)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: max(0.0, 1 - step / len(batches)))
    losses: list[float] = []
    for places in batches:
        loss = nn.functional.cross_entropy(head(features(places)), targets[places])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(float(loss.detach()))
    model.save_pretrained(directory)
    _add_head(directory, head)
    first, last = (sum(part) / len(part) for part in (losses[:20], losses[-20:]))
    return {"first_loss": first, "last_loss": last, "cpu_s": time.process_time() - started}


def _batches(count: int, settings: Training) -> list[list[int]]:
    order = random.Random(settings.seed)
    batches: list[list[int]] = []
    for _ in range(settings.epochs):
        shuffled = order.sample(range(count), count)
        batches += [shuffled[start : start + settings.batch] for start in range(0, count, settings.batch)]
    return batches


def _add_head(directory: Path, head: nn.Linear) -> None:
    """The head goes into the adapter as a module that was trained whole."""
    weights, config = directory / "adapter_model.safetensors", directory / "adapter_config.json"
    tensors = {name: tensor.clone() for name, tensor in load_file(weights).items()}
    for part, value in head.state_dict().items():
        tensors[f"base_model.model.classifier.{part}"] = value
    save_file(tensors, weights)
    config.write_text(json.dumps({**json.loads(config.read_text()), "modules_to_save": ["classifier"]}))
