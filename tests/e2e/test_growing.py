"""`add` and `remove`: an expert more or less, exactly where the others are there, and on the merge alone where not."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import supermerge
from supermerge.errors import CheckpointError, RecipeError
from supermerge.learn import Coefficients
from supermerge.lock import Lock, hash_file
from supermerge.recipe import Recipe
from supermerge.run.checking import check
from supermerge.run.growing import add, remove
from supermerge.verify import verify

QUERY = "encoder.layer.0.attention.self.query.weight"
FREE = {"linear": {}, "ties": {"density": 0.4}, "dare_linear": {"drop": 0.3}}


def recipes(place: Path, method: Any, *, output: dict[str, Any] | None = None) -> tuple[Path, Path]:
    """Two recipes: of three experts, and of all four."""
    whole = yaml.safe_load((place / "recipe.yaml").read_text())
    whole |= {"method": method, "if_worse": "warn", "output": output or {}}
    (place / "four.yaml").write_text(yaml.safe_dump(whole, sort_keys=False))
    del whole["experts"]["mood2"], whole["tasks"]["mood2"]
    (place / "three.yaml").write_text(yaml.safe_dump(whole, sort_keys=False))
    return place / "three.yaml", place / "four.yaml"


def merged(recipe: Path) -> Path:
    return supermerge.run(recipe, output=recipe.parent / "merged").directory


def tree(directory: Path) -> dict[str, str]:
    """The hash of every file below."""
    return {str(path.relative_to(directory)): hash_file(path) for path in directory.rglob("*") if path.is_file()}


def slow(value: object) -> Any:
    return pytest.param(value, marks=pytest.mark.slow)


@pytest.mark.parametrize("method", ["linear", slow("ties"), "dare_linear"])
def test_without_data_to_add_and_to_remove_is_to_merge_anew(four: Path, method: str) -> None:
    three, whole = recipes(four, {"name": method, **FREE[method]})
    out = merged(three)
    before = tree(out)
    add(out, "mood2", str(four / "experts" / "mood2"), Recipe.load(whole))
    at_once = supermerge.run(whole, output=four / "at-once").directory
    assert (out / "model.safetensors").read_bytes() == (at_once / "model.safetensors").read_bytes()
    assert set(Lock.read(out).experts) == {"topic", "mood", "topic2", "mood2"}
    assert (out / "heads" / "mood2").is_dir()
    assert check(out) == verify(out).tensors
    remove(out, "mood2")
    after = tree(out)
    for name in ("model.safetensors", "recipe.yaml", "config.json", "heads/topic/model.safetensors"):
        assert after[name] == before[name]
    assert not (out / "heads" / "mood2").exists()
    history = Lock.read(out).history
    assert [(change.action, change.expert, change.how) for change in history] == [
        ("added", "mood2", "all experts"),
        ("removed", "mood2", "all experts"),
    ]
    assert not list(four.glob(".merged*"))


def test_the_recipe_in_the_directory_is_enough_for_a_method_without_data(four: Path) -> None:
    three, whole = recipes(four, "task_arithmetic", output={"dtype": "bfloat16"})
    out = merged(three)
    add(out, "mood2", str(four / "experts" / "mood2"))
    at_once = supermerge.run(whole, output=four / "at-once").directory
    assert (out / "model.safetensors").read_bytes() == (at_once / "model.safetensors").read_bytes()
    assert set(Recipe.load(out / "recipe.yaml").tasks) == {"topic", "mood", "topic2"}


@pytest.mark.parametrize("more", [slow("granularity: tensor"), "granularity: row", "hierarchy: {group: 2}"])
def test_learning_goes_on_from_the_coefficients_so_far(four: Path, more: str) -> None:
    method = yaml.safe_load(f"{{name: supermerge, init: 0.3, steps: 3, lr: 0.1, {more}}}")
    three, _ = recipes(four, method)
    out = merged(three)
    so_far = Coefficients.load(out / "coefficients.safetensors")
    _, whole = recipes(four, {**method, "steps": 0})
    add(out, "mood2", str(four / "experts" / "mood2"), Recipe.load(whole))
    grown = Coefficients.load(out / "coefficients.safetensors")
    assert grown.experts == (*so_far.experts, "mood2")
    for tensor in so_far.groups:
        torch.testing.assert_close(grown.effective(tensor)[:3], so_far.effective(tensor), rtol=0, atol=1e-6)
        torch.testing.assert_close(grown.effective(tensor)[3], torch.full_like(grown.effective(tensor)[3], 0.3))
    assert "hierarchy" not in (out / "recipe.yaml").read_text()
    change = Lock.read(out).history[0]
    assert (change.how, change.coefficients is not None) == ("all experts", True)
    assert check(out) == verify(out).tensors
    remove(out, "topic2")
    smaller = Coefficients.load(out / "coefficients.safetensors")
    assert smaller.experts == ("topic", "mood", "mood2")
    for tensor in so_far.groups:
        kept = grown.effective(tensor)[[0, 1, 3]]
        torch.testing.assert_close(smaller.effective(tensor), kept, rtol=0, atol=1e-6)


def test_the_start_that_the_merge_has_learned_on_stays(four: Path) -> None:
    method = {"name": "supermerge", "steps": 2, "lr": 0.1}
    three, _ = recipes(four, method)
    out = merged(three)
    so_far = Coefficients.load(out / "coefficients.safetensors")
    assert so_far.experts == ("topic", "mood", "topic2", "start:iso_c")
    _, whole = recipes(four, {**method, "steps": 0})
    add(out, "mood2", str(four / "experts" / "mood2"), Recipe.load(whole))
    grown = Coefficients.load(out / "coefficients.safetensors")
    assert grown.experts == ("topic", "mood", "topic2", "mood2", "start:iso_c")
    for tensor in so_far.groups:
        c = grown.effective(tensor)
        torch.testing.assert_close(c[[0, 1, 2, 4]], so_far.effective(tensor), rtol=0, atol=1e-6)
        assert float(c[3]) == 0
    assert check(out) == verify(out).tensors


@pytest.mark.parametrize("how", ["gone", slow("changed")])
def test_without_the_old_experts_the_merge_so_far_is_one_of_two(four: Path, how: str) -> None:
    method = {"name": "supermerge", "init": 0.3, "steps": 2, "lr": 0.05}
    three, whole = recipes(four, method)
    out = merged(three)
    before = tree(out)
    place = four / "experts" / "mood"
    if how == "gone":
        shutil.rmtree(place)
    else:
        tensors = load_file(place / "model.safetensors")
        tensors[f"bert.{QUERY}"][0, 0] += 1
        save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})
    result = add(out, "mood2", str(four / "experts" / "mood2"), Recipe.load(whole))
    assert "mood (" in result.results.warnings[0]
    assert "as if that were one expert, 'previous'" in result.results.warnings[0]
    assert set(Lock.read(out).experts) == {"previous", "mood2"}
    assert Lock.read(out).history[-1].how == "merge so far"
    assert {path.name for path in (out / "heads").iterdir()} == {"topic", "mood", "topic2", "mood2"}
    # The merge so far is kept whole, so that everything can still be made again.
    assert tree(out / "previous") == before
    assert verify(out).inputs == ("base", "previous", "mood2")
    assert check(out) == verify(out).tensors
    base = load_file(four / "base" / "model.safetensors")[QUERY]
    c = Coefficients.load(out / "coefficients.safetensors").effective(QUERY)
    expected = base + c[0] * (load_file(out / "previous" / "model.safetensors")[QUERY] - base)
    expected += c[1] * (load_file(four / "experts/mood2/model.safetensors")[f"bert.{QUERY}"] - base)
    torch.testing.assert_close(load_file(out / "model.safetensors")[QUERY], expected)
    assert supermerge.load(out, "mood") is not None
    # From here on all experts are there again: the merge so far is one of them.
    again = remove(out, "mood2")
    assert not again.results.warnings
    assert set(Lock.read(out).experts) == {"previous"}
    assert tree(out / "previous") == before
    verify(out)


def test_old_tasks_without_examples_are_said_to_be_unprotected_and_keep_their_heads(four: Path) -> None:
    three, whole = recipes(four, {"name": "supermerge", "steps": 1})
    out = merged(three)
    recipe = yaml.safe_load(whole.read_text())
    for task in ("topic", "topic2"):
        del recipe["tasks"][task]
    whole.write_text(yaml.safe_dump(recipe, sort_keys=False))
    result = add(out, "mood2", str(four / "experts" / "mood2"), Recipe.load(whole))
    assert "No examples protect topic, topic2" in result.results.warnings[0]
    assert {path.name for path in (out / "heads").iterdir()} == {"topic", "mood", "topic2", "mood2"}
    verify(out)


def test_a_newcomer_alone_must_look_fine_tuned_from_the_base(four: Path) -> None:
    three, _ = recipes(four, "linear")
    place = four / "experts" / "topic" / "model.safetensors"
    save_file({name: -5 * tensor for name, tensor in load_file(place).items()}, place, metadata={"format": "pt"})
    out = supermerge.run(three, output=four / "merged", allow_unrelated=True).directory
    add(out, "mood2", str(four / "experts" / "mood2"))
    assert len(Lock.read(out).experts) == 4


def test_what_is_refused_leaves_the_directory_as_it_was(four: Path) -> None:
    three, whole = recipes(four, "linear")
    out = merged(three)
    before = tree(out)
    mood2 = str(four / "experts" / "mood2")
    other = yaml.safe_load(whole.read_text())
    other["experts"]["news"] = other["experts"].pop("topic")
    del other["tasks"]["topic"]
    with pytest.raises(RecipeError, match="expert 'news' is not in the merge"):
        add(out, "mood2", mood2, Recipe.of(other | {"base": str(four / "base")}))
    del other["experts"]["news"]
    with pytest.raises(RecipeError, match="'topic' is in the merge and not in the recipe"):
        add(out, "mood2", mood2, Recipe.of(other | {"base": str(four / "base")}))
    with pytest.raises(RecipeError, match="the recipe says that mood2 is"):
        add(out, "mood2", str(four / "experts" / "mood"), Recipe.load(whole))
    shutil.rmtree(four / "experts" / "mood")
    with pytest.raises(CheckpointError, match=r"linear merges all experts at once.*mood \(not at "):
        add(out, "mood2", mood2)
    with pytest.raises(CheckpointError, match=r"without topic.*mood \(not at "):
        remove(out, "topic")
    shutil.move(four / "base", four / "elsewhere")
    with pytest.raises(CheckpointError, match="its base is not there any more"):
        add(out, "mood2", mood2)
    assert tree(out) == before


def test_where_the_old_experts_are_now_the_recipe_may_say(four: Path) -> None:
    three, whole = recipes(four, "linear")
    out = merged(three)
    shutil.move(four / "experts" / "mood", four / "moved")
    recipe = yaml.safe_load(whole.read_text())
    recipe["experts"]["mood"] = "moved"
    whole.write_text(yaml.safe_dump(recipe, sort_keys=False))
    add(out, "mood2", str(four / "experts" / "mood2"), Recipe.load(whole))
    assert verify(out).inputs == ("base", "topic", "mood", "topic2", "mood2")


def test_the_last_expert_cannot_be_removed(tiny: Path) -> None:
    recipe = {"base": str(tiny / "base"), "experts": {"topic": str(tiny / "experts/topic")}, "method": "linear"}
    out = supermerge.run(recipe, output=tiny / "one").directory
    with pytest.raises(RecipeError, match="the only expert"):
        remove(out, "topic")


@pytest.mark.parametrize("sign", [signal.SIGKILL, slow(signal.SIGTERM)])
def test_killed_in_the_middle_and_resumed(four: Path, sign: signal.Signals) -> None:
    method = {"name": "supermerge", "steps": 8, "lr": 0.05, "save_every": 0.001}
    three, whole = recipes(four, method)
    out = merged(three)
    before = tree(out)
    shutil.copytree(out, four / "copy")
    add(four / "copy", "mood2", str(four / "experts" / "mood2"), Recipe.load(whole))
    command = [sys.executable, "-m", "supermerge", "add", str(out), "--recipe", str(whole), "--expert", "mood2="]
    command[-1] += str(four / "experts" / "mood2")
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    state = four / ".merged.supermerge-state"
    while process.poll() is None and not list(state.glob("*.safetensors")):
        pass
    process.send_signal(sign)
    _, said = process.communicate()
    assert process.returncode == (-sign if sign == signal.SIGKILL else 130), said
    assert tree(out) == before
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Resumed after" in done.stderr
    for name in ("model.safetensors", "coefficients.safetensors"):
        assert (out / name).read_bytes() == (four / "copy" / name).read_bytes()
    assert not list(four.glob(".merged*"))
    events = [json.loads(line) for line in (out / "run.jsonl").read_text().splitlines()]
    assert any(event["event"] == "step" for event in events)
