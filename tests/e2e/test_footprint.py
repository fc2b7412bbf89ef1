"""What a run touches: nothing is written outside its output and the caches, and nothing is asked of a network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import supermerge
from supermerge.recipe import Recipe

OBSERVED = Path(__file__).parent / "observed.py"
# What the test's own process may have set for itself.
UNSET = ("HF_", "XDG_", "TORCHINDUCTOR_")
# Importing transformers makes PyTorch create the cache of its compiler, which stays empty.
COMPILER_CACHE = "torchinductor_*"
# What draws the charts of a page is put together once.
PAGE_SCRIPT = "vega-*.js"
READING = ("evaluate", "plan", "inspect", "doctor", "verify", "verify --check")
"""Commands that write nothing."""
ON_A_MERGE = ("verify", "verify --check", "add", "remove")
SLOW = (*READING, "compare with learning", "statistics", "add", "remove")
STATISTICS = "statistics"
"""What is measured of an expert lies beside it."""
COMMANDS = {
    "learned run": ("run", "recipe.yaml", "-o", "out/merged", "--set", "method.steps=3"),
    "run without data": ("run", "recipe.yaml", "-o", "out/merged", "--set", "method=ties", "--set", "tasks={}"),
    "compare": ("compare", "recipe.yaml", "--methods", "linear,ties", "-o", "out/comparison"),
    "compare with learning": ("compare", "recipe.yaml", "--methods", "supermerge,ties", "-o", "out/comparison"),
    "statistics": ("run", "recipe.yaml", "-o", "out/merged", "--set", "method=regmean"),
    "add": ("add", "out/merged", "--expert", "more=experts/more"),
    "remove": ("remove", "out/merged", "--expert", "mood"),
    "verify": ("verify", "out/merged"),
    "verify --check": ("verify", "out/merged", "--check"),
    "doctor": ("doctor", "recipe.yaml"),
    "evaluate": ("evaluate", "base", "--recipe", "recipe.yaml"),
    "plan": ("plan", "recipe.yaml"),
    "inspect": ("inspect", "experts/mood", "--base", "base"),
}


def everything(*places: Path) -> set[Path]:
    return {path for place in places for path in place.rglob("*")}


def seen(log: Path, kind: str) -> list[str]:
    return [line.partition(" ")[2] for line in log.read_text().splitlines() if line.startswith(f"{kind} ")]


def merge_two_of_three(tiny: Path) -> None:
    """A merge in `out/merged`, and an expert that is not in it."""
    supermerge.run(Recipe.load(tiny / "recipe.yaml", ["method=linear", "tasks={}"]), output=tiny / "out" / "merged")
    shutil.copytree(tiny / "experts" / "mood", tiny / "experts" / "more")
    file = tiny / "experts" / "more" / "model.safetensors"
    base = load_file(tiny / "base" / "model.safetensors")
    moved = {
        name: tensor + 0.5 * (tensor - base[short]) if (short := name.removeprefix("bert.")) in base else tensor
        for name, tensor in load_file(file).items()
    }
    save_file(moved, file, metadata={"format": "pt"})


@pytest.mark.parametrize(
    "command", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in COMMANDS]
)
def test_writes_and_connections(command: str, tiny: Path, tmp_path: Path) -> None:
    (tiny / "out").mkdir()
    if command in ON_A_MERGE:
        merge_two_of_three(tiny)
    places = {name: tmp_path / name for name in ("home", "temporary", "cache")}
    for place in places.values():
        place.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(UNSET)}
    environment |= {"HOME": str(places["home"]), "TMPDIR": str(places["temporary"]), "HF_HOME": str(places["cache"])}
    environment["SUPERMERGE_CACHE"] = str(places["cache"])
    before = everything(tiny, *places.values())
    log = tmp_path / "log"
    done = subprocess.run(
        [sys.executable, "-B", str(OBSERVED), str(log), *COMMANDS[command]],
        cwd=tiny,
        # Not offline: it must not even try.
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    allowed = [tiny / "out", places["cache"], places["temporary"], Path(os.devnull)]
    if command == "statistics":
        allowed += [tiny / "experts" / expert / STATISTICS for expert in ("topic", "mood")]
    written = {Path(path) for path in seen(log, "write")}
    assert [path for path in sorted(written) if not any(path.is_relative_to(place) for place in allowed)] == []
    assert seen(log, "connect") == []
    assert seen(log, "start") == []
    left = everything(tiny, *places.values()) - before
    left -= set(places["temporary"].glob(COMPILER_CACHE)) | set(places["cache"].glob(PAGE_SCRIPT))
    assert [path for path in sorted(left) if not any(path.is_relative_to(place) for place in allowed)] == []
    assert not any(path.is_relative_to(places[name]) for path in left for name in ("cache", "temporary"))
    if command == "statistics":
        assert any(STATISTICS in path.parts for path in left)
    if command in READING:
        assert left == set()


def test_code_beside_the_weights_is_never_run(tiny: Path, tmp_path: Path) -> None:
    """A base that claims its own model, config and tokenizer classes, as repositories with code on the hub do."""
    source = "from pathlib import Path\nPath('ran').write_text('')\nclass Evil: pass\n"
    for name in ("modeling_evil.py", "tokenization_evil.py", "configuration_evil.py"):
        (tiny / "base" / name).write_text(source)
    for name, key in (("config.json", "AutoModel"), ("tokenizer_config.json", "AutoTokenizer")):
        path = tiny / "base" / name
        kind = "modeling_evil.Evil" if key == "AutoModel" else ["tokenization_evil.Evil", None]
        path.write_text(json.dumps({**json.loads(path.read_text()), "auto_map": {key: kind}}))
    log = tmp_path / "log"
    done = subprocess.run(
        [sys.executable, "-B", str(OBSERVED), str(log), "run", "recipe.yaml", "--set", "method.steps=2"],
        cwd=tiny,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert seen(log, "code") == []
    assert not (tiny / "ran").exists()
    if done.returncode == 0:
        assert list((tiny / "merged").rglob("*.py")) == []
