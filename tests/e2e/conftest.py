from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def tiny_original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny example, made once: base, two experts, data, recipe."""
    spec = importlib.util.spec_from_file_location("make_tiny", ROOT / "examples" / "tiny" / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    directory = tmp_path_factory.mktemp("tiny")
    module.make(directory, pretraining=0)
    return directory


@pytest.fixture
def tiny(tiny_original: Path, tmp_path: Path) -> Path:
    """A copy of the tiny example that a test may break."""
    directory = tmp_path / "tiny"
    shutil.copytree(tiny_original, directory)
    return directory


@pytest.fixture(scope="session")
def four_original(tiny_original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny example with two more experts, `topic2` and `mood2`: the first two, and noise. Their data are the same.

    Its recipe's method is `supermerge` with few steps.
    """
    import torch
    import yaml
    from safetensors.torch import load_file, save_file

    directory = tmp_path_factory.mktemp("four") / "tiny"
    shutil.copytree(tiny_original, directory)
    recipe = yaml.safe_load((directory / "recipe.yaml").read_text())
    for seed, name in enumerate(("topic", "mood")):
        more = directory / "experts" / f"{name}2"
        shutil.copytree(directory / "experts" / name, more)
        generator = torch.Generator().manual_seed(seed)
        tensors = load_file(more / "model.safetensors")
        noisy = {key: t + 0.02 * torch.randn(t.shape, generator=generator) for key, t in tensors.items()}
        save_file(noisy, more / "model.safetensors", metadata={"format": "pt"})
        recipe["experts"][f"{name}2"] = f"experts/{name}2"
        recipe["tasks"][f"{name}2"] = {**recipe["tasks"][name], "expert": f"{name}2"}
    recipe["method"] = {"name": "supermerge", "steps": 4, "lr": 0.1}
    (directory / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    return directory


@pytest.fixture
def four(four_original: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may break."""
    directory = tmp_path / "four"
    shutil.copytree(four_original, directory)
    return directory


Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """`cli("run", "recipe.yaml")` runs the command in a process of its own, in the test's directory."""

    def call(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "supermerge", *map(str, arguments)]
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, check=False, env={**os.environ, **environment}
        )

    return call
