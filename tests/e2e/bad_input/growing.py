"""`add`, `remove` and hierarchies that cannot be."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml
from case import Case, recipe
from safetensors.torch import load_file, save_file

import supermerge

LEARNED = {"name": "supermerge", "steps": 1}
ADD = ("add", "out", "--expert", "more=experts/more", "--recipe", "recipe.yaml")


_made: dict[str, tuple[Path, Path]] = {}


def grown(tiny: Path, *, method: Any = "linear") -> None:
    """A merge of both experts in `out`, a third expert, and a recipe that has it with a task."""
    document = yaml.safe_load((tiny / "recipe.yaml").read_text())
    document |= {"method": method, "if_worse": "warn", "output": {}}
    (tiny / "recipe.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    merge(tiny, str(method))
    shutil.copytree(tiny / "experts" / "mood", tiny / "experts" / "more")
    place = tiny / "experts" / "more" / "model.safetensors"
    draw = torch.Generator().manual_seed(0)
    tensors = {name: t + 0.01 * torch.randn(t.shape, generator=draw) for name, t in load_file(place).items()}
    save_file(tensors, place, metadata={"format": "pt"})
    document["tasks"]["more"] = {**document["tasks"]["mood"], "expert": "more"}
    document["experts"]["more"] = "experts/more"
    (tiny / "recipe.yaml").write_text(yaml.safe_dump(document, sort_keys=False))


def merge(tiny: Path, kind: str) -> None:
    """Make `out`, or copy the one that was made from the same recipe, with its paths changed."""
    if kind not in _made:
        supermerge.run(tiny / "recipe.yaml", output=tiny / "out")
        kept = Path(tempfile.mkdtemp()) / "out"
        shutil.copytree(tiny / "out", kept)
        _made[kind] = (kept, tiny)
        return
    kept, origin = _made[kind]
    shutil.copytree(kept, tiny / "out")
    lock = tiny / "out" / "recipe.lock.json"
    lock.write_text(lock.read_text().replace(str(origin), str(tiny)))


def without_its_task(tiny: Path) -> None:
    grown(tiny, method=LEARNED)
    recipe(tasks__more=None)(tiny)


def without_its_labels(tiny: Path) -> None:
    grown(tiny, method=LEARNED)
    recipe(tasks__more__validation=None)(tiny)


def unrelated(tiny: Path) -> None:
    grown(tiny)
    place = tiny / "experts" / "more" / "model.safetensors"
    draw = torch.Generator().manual_seed(0)
    tensors = {name: torch.randn(t.shape, generator=draw) for name, t in load_file(place).items()}
    save_file(tensors, place, metadata={"format": "pt"})


def edited(tiny: Path) -> None:
    grown(tiny)
    place = tiny / "out" / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(place).items()}
    tensors["embeddings.word_embeddings.weight"][0, 0] += 1
    save_file(tensors, place, metadata={"format": "pt"})


def old_one_gone(tiny: Path) -> None:
    grown(tiny)
    shutil.rmtree(tiny / "experts" / "mood")


def base_gone(tiny: Path) -> None:
    grown(tiny)
    shutil.rmtree(tiny / "base")


def base_changed(tiny: Path) -> None:
    grown(tiny)
    place = tiny / "base" / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(place).items()}
    tensors["encoder.layer.0.output.dense.bias"][0] += 1
    save_file(tensors, place, metadata={"format": "pt"})


def of_mergekit(tiny: Path) -> None:
    text = "merge_method: linear\nmodels:\n- {model: experts/topic, parameters: {weight: 1}}\n"
    text += "- {model: experts/mood, parameters: {weight: 1}}\ndtype: float32\n"
    (tiny / "recipe.yaml").write_text(text)
    supermerge.run(tiny / "recipe.yaml", output=tiny / "out", allow_unrelated=True)


def noted(tiny: Path) -> None:
    grown(tiny)
    (tiny / "out" / "notes.txt").write_text("mine")


def known(tiny: Path) -> None:
    grown(tiny)
    shutil.rmtree(tiny / "experts" / "more")
    shutil.copytree(tiny / "experts" / "mood", tiny / "experts" / "more")


CASES = [
    Case("add to a directory that no run wrote", grown, 4, ("base", "recipe.lock.json"), ("add", "base", *ADD[2:])),
    Case("add without a place", grown, 2, ("NAME=PATH",), ("add", "out", "--expert", "more")),
    Case(
        "add two experts at once",
        grown,
        2,
        ("--expert is given 2 times", "more=experts/more", "new=experts/new"),
        ("add", "out", "--expert", "more=experts/more", "--expert", "new=experts/new"),
    ),
    Case("add a merge to itself", grown, 3, ("new=out", "that it would be added to"), (*ADD[:3], "new=out")),
    Case("add to a merge with work in it", noted, 5, ("notes.txt", "no run wrote"), (*ADD[:3], "new=experts/more")),
    Case("add a name that is taken", grown, 3, ("mood", "has an expert of that name"), (*ADD[:3], "mood=experts/more")),
    Case("add under a name that is none", grown, 3, ("a/b", "is not a name"), (*ADD[:3], "a/b=experts/more")),
    Case("add an expert that is not there", grown, 4, ("experts/nowhere",), (*ADD[:3], "new=experts/nowhere")),
    Case("add an expert again under another name", known, 4, ("same weights as expert 'mood'",), ADD),
    Case("add an expert of another base", unrelated, 4, ("more", "Not fine-tuned from the base"), ADD),
    Case("add an expert for which there is no task", without_its_task, 3, ("tasks.more", "--recipe"), ADD),
    Case("add an expert without labelled examples", without_its_labels, 6, ("tasks.more", "labelled"), ADD),
    Case("add to a merge that was edited", edited, 7, ("model.safetensors has changed",), ADD),
    Case("add where an old expert is gone, without learning", old_one_gone, 4, ("linear", "mood", "not at"), ADD),
    Case("add where the base is gone", base_gone, 4, ("its base is not there any more",), ADD),
    Case("add where the base has changed", base_changed, 7, ("base: tensor encoder.layer.0.output.dense.bias",), ADD),
    Case("add to a merge of mergekit's recipe", of_mergekit, 3, ("mergekit",), (*ADD[:3], "more=experts/mood")),
    Case("remove an expert that is not in the merge", grown, 3, ("mod", "mood"), ("remove", "out", "--expert", "mod")),
    Case(
        "remove two experts at once",
        grown,
        2,
        ("--expert is given 2 times", "topic, mood"),
        ("remove", "out", "--expert", "topic", "--expert", "mood"),
    ),
    Case("remove where another expert is gone", old_one_gone, 4, ("mood",), ("remove", "out", "--expert", "topic")),
    Case("remove from a merge that was edited", edited, 7, ("has changed",), ("remove", "out", "--expert", "topic")),
    Case(
        "a misspelt key of a hierarchy",
        recipe(method={**LEARNED, "hierarchy": {"grup": 2}}),
        3,
        ("hierarchy.grup", "did you mean 'group'"),
    ),
    Case("groups of one", recipe(method={**LEARNED, "hierarchy": {"group": 1}}), 3, ("hierarchy.group = 1", "2")),
    Case(
        "groups that leave an expert out",
        recipe(method={**LEARNED, "hierarchy": {"groups": [["mood"]]}}),
        3,
        ("hierarchy.groups", "'topic' is in no group"),
    ),
    Case(
        "groups named and sized",
        recipe(method={**LEARNED, "hierarchy": {"groups": [["mood", "topic"]], "group": 2}}),
        3,
        ("'groups'", "'group'"),
    ),
]
