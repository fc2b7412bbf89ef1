from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import Tensor

import supermerge

Both = Callable[[str], tuple[dict[str, Tensor], dict[str, Tensor]]]


def _setting(name: str, meaning: str) -> Path:
    value = os.environ.get(name, "")
    if not value or not Path(value).exists():
        pytest.fail(f"{name} must name {meaning}; it is {value!r}")
    return Path(value)


@pytest.fixture(scope="session")
def mergekit() -> Path:
    return _setting("SUPERMERGE_MERGEKIT", "the executable mergekit-yaml of mergekit 0.1.5, in its own environment")


@pytest.fixture(scope="session")
def examples() -> Path:
    return _setting("SUPERMERGE_MERGEKIT_EXAMPLES", "the directory `examples` of mergekit's repository")


@pytest.fixture
def both(mergekit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Both:
    """`both(yaml)`: the tensors that mergekit and that supermerge make of one recipe, in the test's directory."""
    monkeypatch.chdir(tmp_path)

    def run(text: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        recipe = tmp_path / "recipe.yml"
        recipe.write_text(text)
        # Several documents are for mergekit-multi, beside mergekit-yaml.
        multi = "\n---\n" in text
        command = [str(mergekit.with_name("mergekit-multi") if multi else mergekit), str(recipe)]
        command += ["--intermediate-dir", "parts", "--out-path", "theirs"] if multi else ["theirs"]
        done = subprocess.run(
            [*command, "--no-write-model-card", "--allow-crimes"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        supermerge.run(recipe, output=tmp_path / "ours", allow_unrelated=True)
        return _load(tmp_path / "theirs"), _load(tmp_path / "ours")

    return run


def _load(directory: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for file in sorted(directory.glob("*.safetensors")):
        found |= load_file(file)
    return found
