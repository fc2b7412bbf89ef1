"""Learning in a tree: what its coefficients say is what is written, wherever it was interrupted."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import supermerge
from supermerge.checkpoint import Checkpoint
from supermerge.events import Event, subscribed
from supermerge.learn import Coefficients
from supermerge.lock import Lock
from supermerge.methods import get
from supermerge.recipe import Recipe
from supermerge.resolve import learn_settings
from supermerge.run.checking import check
from supermerge.run.learned import basis_of, learn_merge
from supermerge.run.prepared import prepared
from supermerge.verify import verify

FILES = ("model.safetensors", "coefficients.safetensors")


def run(place: Path, output: str, *overrides: str) -> Path:
    return supermerge.run(Recipe.load(place / "recipe.yaml", overrides), output=place / output).directory


def bytes_of(directory: Path) -> dict[str, bytes]:
    return {name: (directory / name).read_bytes() for name in FILES}


@pytest.mark.parametrize(
    "keys", ["{group: 4}", "{groups: [[mood2, mood, topic2, topic]]}", "{group: 9, by: similarity}"]
)
def test_one_group_of_all_is_the_merge_without_a_hierarchy(four: Path, keys: str) -> None:
    assert bytes_of(run(four, "tree", f"method.hierarchy={keys}")) == bytes_of(run(four, "flat", "method.init=0.25"))


@pytest.mark.parametrize(
    "more", ["granularity: tensor", "granularity: row, link: clamp", "granularity: layer, link: softmax"]
)
def test_the_model_is_what_the_experts_coefficients_say(four: Path, more: str) -> None:
    """The last level's model, learned on the groups' merges, and the one that is written from the experts, agree."""
    recipe = Recipe.load(
        four / "recipe.yaml", [f"method={{name: supermerge, steps: 3, lr: 0.1, hierarchy: {{}}, {more}}}"]
    )
    merged = supermerge.run(recipe, output=four / "out").directory
    coefficients = Coefficients.load(merged / "coefficients.safetensors")
    assert coefficients.experts == ("topic", "mood", "topic2", "mood2")
    assert coefficients.link == "identity"
    settings = learn_settings(recipe)
    assert settings is not None
    with prepared(recipe) as ready, Checkpoint.open(merged) as written:
        with basis_of(ready, settings) as basis:
            learned = learn_merge(ready.session(None), get("supermerge"), settings, basis, None)
        assert {name: w.tolist() for name, w in learned.learned.coefficients.w.items()} == {
            name: w.tolist() for name, w in coefficients.w.items()
        }
        for name, tensor in learned.learned.state_dict().items():
            torch.testing.assert_close(written.read(name), tensor, rtol=0, atol=1e-6)
    assert check(merged) == verify(merged).tensors


def test_every_group_learns_on_its_own_experts_tasks_and_starts_where_it_should(four: Path) -> None:
    steps: list[Event] = []
    with subscribed(lambda event: steps.append(event) if event.kind in ("step", "note") else None):
        merged = run(
            four,
            "out",
            "method.steps=1",
            "method.patience=null",
            "method.hierarchy={groups: [[topic, mood], [topic2, mood2]]}",
        )
    notes = [event.fields["message"] for event in steps if event.kind == "note"]
    assert [note for note in notes if note.startswith("Group")] == [
        "Group 1 of 3: topic, mood",
        "Group 2 of 3: topic2, mood2",
        "Group 3 of 3: topic+mood, topic2+mood2",
    ]
    tasks = [list(event.fields["losses"]) for event in steps if event.kind == "step"]
    assert tasks == [["topic", "mood"], ["topic2", "mood2"], ["topic", "mood", "topic2", "mood2"]]
    assert json.loads((merged / "metrics.json").read_text())["learning"]["tree"] == "((topic, mood), (topic2, mood2))"
    assert Lock.read(merged).tree == "((topic, mood), (topic2, mood2))"
    none = run(four, "none", "method.steps=0", "method.hierarchy={}")
    found = Coefficients.load(none / "coefficients.safetensors")
    for group in found.w:
        torch.testing.assert_close(found.w[group], torch.full((4,), 0.3 / 2))


def test_groups_by_similarity_and_a_lone_expert(four: Path) -> None:
    merged = run(four, "out", "method.hierarchy={by: similarity}")
    assert Lock.read(merged).tree == "((topic, topic2), (mood, mood2))"
    recipe = Recipe.load(four / "recipe.yaml", ["method.hierarchy={}"])
    fewer = recipe.model_dump(mode="json", exclude_unset=True)
    del fewer["experts"]["mood2"], fewer["tasks"]["mood2"]
    out = supermerge.run(fewer, output=four / "three").directory
    assert Lock.read(out).tree == "((topic, mood), topic2)"
    found = Coefficients.load(out / "coefficients.safetensors")
    assert found.experts == ("topic", "mood", "topic2")


def test_groups_are_kept_where_asked_for_and_load(four: Path) -> None:
    merged = run(four, "out", "method.hierarchy={keep: true}")
    assert {path.name for path in (merged / "groups").iterdir()} == {"topic+mood", "topic2+mood2"}
    place = merged / "groups" / "topic+mood"
    of_group, base = load_file(place / "model.safetensors"), load_file(four / "base" / "model.safetensors")
    coefficients = Coefficients.load(place / "coefficients.safetensors")
    name = "encoder.layer.0.attention.self.query.weight"
    expected = base[name].clone()
    for c, expert in zip(coefficients.effective(name), ("topic", "mood"), strict=True):
        expected += (load_file(four / "experts" / expert / "model.safetensors")[f"bert.{name}"] - base[name]) * float(c)
    assert torch.equal(of_group[name], expected)
    from transformers import AutoModel

    _, info = AutoModel.from_pretrained(place, output_loading_info=True, add_pooling_layer=False)
    assert not info["missing_keys"]
    verify(merged)
    assert not list(four.glob(".out*"))
    assert not (run(four, "plain", "method.hierarchy={}") / "groups").exists()


def test_teachers_are_the_experts_on_every_level(four: Path) -> None:
    merged = run(four, "out", "method.loss=distill", "method.hierarchy={}", "method.steps=2")
    assert json.loads((merged / "metrics.json").read_text())["learning"]["tree"]


@pytest.mark.parametrize("at", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(3, marks=pytest.mark.slow)])
def test_killed_in_any_group_and_resumed(four: Path, at: int) -> None:
    command = [sys.executable, "-m", "supermerge", "run", str(four / "recipe.yaml"), "--log-format", "json"]
    command += ["--set", "method.hierarchy={}", "--set", "method.save_every=0.001"]
    expected = bytes_of(run(four, "whole", "method.hierarchy={}", "method.save_every=0.001"))
    process = subprocess.Popen([*command, "-o", str(four / "out")], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    seen = 0
    for line in process.stderr:
        seen += "Group" in line
        if seen == at and '"step"' in line and '"step": 2,' in line:
            break
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (four / "out").exists()
    done = subprocess.run([*command, "-o", str(four / "out")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Resumed after" in done.stderr
    # Groups that were whole are not learned again.
    assert done.stderr.count("Group ") == 3 - (at - 1)
    assert bytes_of(four / "out") == expected
    assert not list(four.glob(".out*"))
