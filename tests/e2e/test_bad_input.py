"""Bad input: the exit code of the contract, one clear message, no traceback, no output directory."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

Cli = Callable[..., subprocess.CompletedProcess[str]]


def _weights(tiny: Path, change: Callable[[dict[str, torch.Tensor]], None], where: str = "experts/mood") -> None:
    path = tiny / where / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def _recipe(tiny: Path, **changes: object) -> None:
    """Set dotted keys (with __ for dots) of the recipe."""
    path = tiny / "recipe.yaml"
    recipe = yaml.safe_load(path.read_text())
    for key, value in changes.items():
        *parents, last = key.split("__")
        place = recipe
        for parent in parents:
            place = place[parent]
        place[last] = value
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))


def _data(tiny: Path, name: str, rows: list[dict[str, object]]) -> None:
    (tiny / "data" / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def _rows(tiny: Path, name: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (tiny / "data" / name).read_text().splitlines()]


def _cut(tiny: Path) -> None:
    path = tiny / "experts" / "mood" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def _overlap(tiny: Path) -> None:
    _data(tiny, "mood.test.jsonl", _rows(tiny, "mood.test.jsonl") + _rows(tiny, "mood.valid.jsonl")[:3])


def _copy_base_over_expert(tiny: Path) -> None:
    base = load_file(tiny / "base" / "model.safetensors")
    _weights(tiny, lambda tensors: tensors.update({f"bert.{name}": tensor for name, tensor in base.items()}))


def _list_twice(tiny: Path) -> None:
    shutil.copytree(tiny / "experts" / "mood", tiny / "experts" / "again")
    _recipe(tiny, experts={"topic": "experts/topic", "mood": "experts/mood", "again": "experts/again"})


def _retrain_from_scratch(tiny: Path) -> None:
    generator = torch.Generator().manual_seed(9)

    def redraw(tensors: dict[str, torch.Tensor]) -> None:
        for name, tensor in tensors.items():
            if tensor.is_floating_point():
                tensors[name] = torch.randn(tensor.shape, generator=generator) * (tensor.std(correction=0) + 0.1)

    _weights(tiny, redraw, "base")


@dataclass(frozen=True)
class Case:
    name: str
    spoil: Callable[[Path], object]
    code: int
    says: tuple[str, ...]
    arguments: tuple[str, ...] = ()


QUERY = "bert.encoder.layer.1.attention.self.query.weight"
CASES = [
    Case("typo", lambda t: _recipe(t, metod="ties"), 3, ("metod", "method")),
    Case("method typo", lambda t: _recipe(t, method="tiess"), 3, ("tiess", "ties")),
    Case("parameter typo", lambda t: _recipe(t, method={"name": "supermerge", "step": 3}), 3, ("step", "steps")),
    Case("missing file", lambda t: (t / "experts/mood/model.safetensors").unlink(), 4, ("experts/mood",)),
    Case("missing data", lambda t: (t / "data/mood.valid.jsonl").unlink(), 6, ("mood.valid.jsonl", "no such file")),
    Case(
        "another shape",
        lambda t: _weights(t, lambda w: w.update({QUERY: torch.zeros(4, 32)})),
        4,
        ("mood", "encoder.layer.1.attention.self.query.weight", "[4, 32]", "[32, 32]"),
    ),
    Case(
        "another architecture",
        lambda t: _weights(t, lambda w: (w.clear(), w.update({"conv.weight": torch.zeros(3)}))),
        4,
        ("mood", "architecture"),
    ),
    Case("tensor missing", lambda t: _weights(t, lambda w: w.pop(QUERY)), 4, ("mood", "query.weight")),
    Case("expert is the base", _copy_base_over_expert, 4, ("mood", "same weights as the base")),
    Case("expert twice", _list_twice, 4, ("again", "same weights as expert 'mood'")),
    Case("NaN", lambda t: _weights(t, lambda w: w[QUERY].fill_(float("nan"))), 4, ("query.weight", "mood")),
    Case("infinity", lambda t: _weights(t, lambda w: w[QUERY][0].fill_(float("inf"))), 4, ("query.weight", "mood")),
    Case("unrelated base", _retrain_from_scratch, 4, ("topic", "mood", "--allow-unrelated")),
    Case("truncated", _cut, 4, ("experts/mood/model.safetensors",)),
    Case(
        "corrupt header",
        lambda t: (t / "experts/mood/model.safetensors").write_bytes(b"\xff" * 64),
        4,
        ("experts/mood/model.safetensors",),
    ),
    Case(
        "unknown label",
        lambda t: _data(t, "mood.valid.jsonl", [*_rows(t, "mood.valid.jsonl"), {"text": "x", "label": "meh"}]),
        6,
        ("meh", "good"),
    ),
    Case("empty validation", lambda t: _data(t, "mood.valid.jsonl", []), 6, ("mood.valid.jsonl", "no examples")),
    Case(
        "one class",
        lambda t: _data(t, "mood.valid.jsonl", [r for r in _rows(t, "mood.valid.jsonl") if r["label"] == "good"]),
        6,
        ("mood", "good", "class"),
    ),
    Case("validation in test", _overlap, 6, ("mood", "3 of 32")),
    Case(
        "column missing",
        lambda t: _data(t, "mood.valid.jsonl", [{"sentence": "x", "label": "good"}]),
        6,
        ("text", "sentence"),
    ),
    Case(
        "text for an image",
        lambda t: _recipe(
            t,
            tasks__mood={
                "type": "image-classification",
                "expert": "mood",
                "image": "text",
                "validation": "data/mood.valid.jsonl",
            },
        ),
        6,
        ("mood.valid.jsonl", "image"),
    ),
    Case("output exists", lambda t: (t / "merged").mkdir(), 5, ("merged", "--force")),
    Case("task without expert", lambda t: _recipe(t, tasks__mood__expert="nobody"), 3, ("nobody", "mood")),
    Case("unknown metric", lambda t: _recipe(t, tasks__mood__metric="acuracy"), 3, ("acuracy", "accuracy")),
    Case("too little memory", lambda t: _recipe(t, memory="1MB"), 5, ("memory",)),
    Case(
        "learning diverges",
        lambda t: _recipe(t, method={"name": "supermerge", "link": "identity", "lr": 1e30, "steps": 20}),
        7,
        ("diverged", "last-good.safetensors"),
    ),
    Case("no test rows to evaluate", lambda t: None, 2, ("recipe",), ("evaluate", "merged")),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input(case: Case, tiny: Path, cli: Cli) -> None:
    case.spoil(tiny)
    existed = (tiny / "merged").exists()
    usual = ("run", tiny / "recipe.yaml", "--quiet", "--set", "output.path=merged")
    done = cli(*(case.arguments or usual), TERM="dumb")
    message = " ".join(done.stderr.split())
    assert done.returncode == case.code, message
    assert all(word in message for word in case.says), message
    assert "Traceback" not in done.stderr + done.stdout
    assert (tiny / "merged").exists() == existed
    left = {path.name for path in tiny.iterdir()} - {"base", "experts", "data", "recipe.yaml", "merged"}
    assert left <= {"merged.last-good.safetensors"}
