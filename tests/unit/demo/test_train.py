from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModelForSequenceClassification

from supermerge.checkpoint import Checkpoint
from supermerge.demo.pupils import TextPupil
from supermerge.demo.sources.corpus import Example
from supermerge.demo.train import Training, fit, fit_probe

LABELS = ("cold", "warm")
WORDS = {"cold": ["ice", "snow", "frost"], "warm": ["sun", "sand", "fire"]}


def _examples(number: int) -> list[Example]:
    draw = random.Random(0)
    labels = [draw.choice(LABELS) for _ in range(number)]
    return [Example(" ".join(draw.choice([*WORDS[label], "the", "on"]) for _ in range(5)), label) for label in labels]


def _train(base: Path, directory: Path, progress: Callable[[int], None] = lambda done: None) -> None:
    training = Training(lr=1e-3, epochs=2, batch_size=4, max_length=12)
    pupil = TextPupil(base, _examples(50), LABELS, training.max_length)
    fit([pupil], training, progress)
    pupil.save(directory)


def test_the_expert_loads_as_a_classifier_and_names_its_classes(base: Path, tmp_path: Path) -> None:
    _train(base, tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert model.config.id2label == {0: "cold", 1: "warm"}
    assert (tmp_path / "tokenizer.json").exists()


def test_everything_is_trained_but_the_word_embeddings_and_the_unused_pooler(base: Path, tmp_path: Path) -> None:
    _train(base, tmp_path)
    with Checkpoint.open(base) as before, Checkpoint.open(tmp_path) as after:
        same = {name for name in before.tensors if torch.equal(before.read(name), after.read(f"bert.{name}"))}
        heads = {name for name in after.tensors if name.removeprefix("bert.") not in before.tensors}
    assert same == {"embeddings.word_embeddings.weight", "pooler.dense.weight", "pooler.dense.bias"}
    assert heads == {"classifier.weight", "classifier.bias"}


def test_the_same_seed_gives_the_same_expert_and_every_step_is_told(base: Path, tmp_path: Path) -> None:
    told: list[int] = []
    _train(base, tmp_path / "one", told.append)
    _train(base, tmp_path / "two")
    assert told == list(range(1, Training(epochs=2, batch_size=4).steps(50) + 1))
    files = [tmp_path / name / "model.safetensors" for name in ("one", "two")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_the_probe_separates_what_can_be_separated_and_scales_with_the_features() -> None:
    labels = torch.arange(60) % 3
    features = torch.eye(3, 8)[labels] + 0.1 * torch.randn(60, 8, generator=torch.Generator().manual_seed(0))
    small, large = nn.Linear(8, 3), nn.Linear(8, 3)
    fit_probe(small, features, labels)
    fit_probe(large, 64 * features, labels)
    assert (small(features).argmax(dim=1) == labels).all()
    assert torch.equal(small.weight, 64 * large.weight)
