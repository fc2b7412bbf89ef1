from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from supermerge.inspection import inspect


@pytest.fixture
def models(tmp_path: Path, write_models: Callable[..., None]) -> Path:
    write_models(tmp_path, "news", "spam")
    return tmp_path


def test_shows_checkpoints(supermerge_command: Callable[..., object], models: Path) -> None:
    done = supermerge_command("inspect", models / "base", models / "news")
    assert (done.code, done.err) == (0, "")
    rows = {line.split()[0]: line.split() for line in done.out.splitlines() if line}
    assert rows["base"][2:4] == ["3", "65"]
    assert rows["news"][2:4] == ["4", "73"]


def test_compares_with_a_base(supermerge_command: Callable[..., object], models: Path) -> None:
    done = supermerge_command("inspect", models / "news", models / "spam", "--base", models / "base")
    assert done.code == 0
    for words in ("2 tensors would be merged, 1 come from the base", "head.weight", "cos news", "+1.00"):
        assert words in done.out


def test_json_is_one_document(supermerge_command: Callable[..., object], models: Path) -> None:
    done = supermerge_command("inspect", models / "news", "--base", models / "base", "--json")
    found = json.loads(done.out)
    assert [model["name"] for model in found["models"]] == ["base", "news"]
    assert found["models"][0]["dtypes"] == {"float32": 64, "int64": 1}
    assert found["comparison"]["cosines"][0][0] == pytest.approx(1.0)
    assert done.err == ""


def test_geometry_is_that_of_the_task_vectors(models: Path) -> None:
    from safetensors.torch import load_file

    base, news = (load_file(models / name / "model.safetensors") for name in ("base", "news"))
    names = ("embed.weight", "layer.0.weight")
    norm = sum(float((news[name] - base[name]).double().pow(2).sum()) for name in names) ** 0.5
    length = sum(float(base[name].double().pow(2).sum()) for name in names) ** 0.5
    compared = inspect([str(models / "news")], base=str(models / "base")).comparison
    assert compared is not None
    assert compared.norms == pytest.approx([norm], rel=1e-6)
    assert compared.relative_norms == pytest.approx([norm / length], rel=1e-6)


def test_names_tell_checkpoints_apart(models: Path) -> None:
    found = inspect([str(models / "news" / "model.safetensors"), str(models / "spam" / "model.safetensors")])
    assert [model.name for model in found.models] == ["news/model.safetensors", "spam/model.safetensors"]


def test_a_checkpoint_that_does_not_fit(
    supermerge_command: Callable[..., object], models: Path, tmp_path: Path, write_models: Callable[..., None]
) -> None:
    write_models(tmp_path / "other", shape=(8, 3))
    done = supermerge_command("inspect", models / "news", "--base", tmp_path / "other" / "base")
    assert (done.code, done.out) == (4, "")
    assert "embed.weight" in done.err


def test_a_missing_checkpoint(supermerge_command: Callable[..., object], models: Path) -> None:
    done = supermerge_command("inspect", models / "none")
    assert (done.code, done.out) == (4, "")
    assert str(models / "none") in done.err
