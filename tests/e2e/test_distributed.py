"""Runs of several processes, as `torchrun` starts them: the bytes of one process, and one end for all."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).parents[1]))
import llama
from processes import together
from supermerge.recipe import Recipe
from supermerge.run import run
from supermerge.verify import verify

# One of every scope; the second also measures the model in several passes.
METHODS = ("linear", "ties", "pcb", "della", "tsv_m")
EVERY_METHOD = """
import sys
from supermerge.distributed import united
from supermerge.recipe import Recipe
from supermerge.run import run
with united():
    for method in sys.argv[2:]:
        recipe = Recipe.load("recipe.yaml", [f"method={method}"])
        run(recipe, output=f"{sys.argv[1]}-{method}", allow_unrelated=True)
"""
RUN = ("-m", "supermerge", "run", "recipe.yaml", "-o", "out", "--allow-unrelated", "--set", "method=linear")


@pytest.fixture
def llamas(tmp_path: Path) -> Path:
    """A recipe of three tiny Llamas, whose merge has seven files."""
    base = llama.base()
    llama.write(tmp_path / "base", base)
    experts = {f"e{seed}": f"e{seed}" for seed in (1, 2, 3)}
    for seed, name in enumerate(experts, 1):
        llama.write(tmp_path / name, llama.expert(base, seed))
    recipe = {"base": "base", "experts": experts, "method": "linear", "output": {"shard_size": 2500}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return tmp_path


def weights(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.glob("model*"))}


def lock(directory: Path) -> dict:
    """The lock file without what no two runs have in common: the time, the report, its numbers."""
    found = json.loads((directory / "recipe.lock.json").read_text())
    for name in ("metrics.json", "report.html", "README.md"):
        del found["output"]["files"][name]
    return {**found, "created": None, "threads": None}


@pytest.mark.parametrize("size", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_the_bytes_are_those_of_one_process(llamas: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.chdir(llamas)
    for method in METHODS:
        recipe = Recipe.load("recipe.yaml", [f"method={method}"])
        run(recipe, output=f"one-{method}", allow_unrelated=True)
    ended = together(("-c", EVERY_METHOD, "many", *METHODS), llamas, size)
    assert ended.codes == [0] * size, ended.errors
    for method in METHODS:
        one, many = llamas / f"one-{method}", llamas / f"many-{method}"
        assert len(weights(one)) > 4
        assert weights(many) == weights(one), method
        # Of the recipe, the paths as seen from the output are the same.
        assert lock(many) == lock(one), method
    read = [json.loads((llamas / f"{kind}-linear" / "metrics.json").read_text())["cost"] for kind in ("one", "many")]
    assert read[0]["bytes_written"] == read[1]["bytes_written"]
    assert read[1]["bytes_read"] >= read[0]["bytes_read"]


@pytest.mark.slow
def test_torchrun_starts_it_and_the_first_process_alone_tells_of_it(llamas: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *RUN]
    done = subprocess.run(command, cwd=llamas, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("preparing:") == 1
    assert done.stdout.count("Report") == 1
    assert verify(llamas / "out").tensors


@pytest.mark.parametrize("command", [("compare", "--methods", "linear,ties"), ("plan",), ("evaluate",)])
def test_the_other_commands_are_refused(llamas: Path, command: tuple[str, ...]) -> None:
    name, *options = command
    ended = together(("-m", "supermerge", name, "recipe.yaml", *options), llamas, 2)
    assert ended.codes == [2, 2]
    assert f"`supermerge {name}` is for one process, and torchrun started 2." in ended.errors[0]
    assert ended.errors[1] == ""


HEARS_LATE = """
import os, sys, time
from supermerge.distributed.group import ProcessGroup
missing = ProcessGroup._missing
def late(self, *args, **kwargs):
    found = missing(self, *args, **kwargs)
    time.sleep(os.environ["RANK"] == "1")  # the others must not be gone when this one asks them for the reason
    return found
ProcessGroup._missing = late
sys.argv = ["supermerge", *sys.argv[3:]]
from supermerge.cli.main import program
program()
"""


def test_an_error_of_one_process_is_told_once_and_ends_all_with_its_exit_code(llamas: Path) -> None:
    broken = load_file(llamas / "e2" / "model.safetensors")
    broken["model.layers.1.mlp.up_proj.weight"][3, 4] = float("nan")
    save_file(broken, llamas / "e2" / "model.safetensors", metadata={"format": "pt"})
    ended = together(("-c", HEARS_LATE, *RUN), llamas, 3)
    assert ended.codes == [4, 4, 4], ended.errors
    said = [text for text in ended.errors if "error:" in text]
    assert len(said) == 1
    assert "tensor 'model.layers.1.mlp.up_proj.weight' has 1 values that are NaN or infinite" in said[0]
    assert not [path for path in llamas.iterdir() if "out" in path.name]


INTERRUPTED_TOO = """
import os, signal, sys, time
from supermerge.distributed import united
from supermerge.errors import CheckpointError, SupermergeError
rank = os.environ["RANK"]
try:
    with united() as group:
        group.exchange("all are here")
        if rank == "0":
            time.sleep(0.5)
            raise KeyboardInterrupt
        if rank == "1":
            raise CheckpointError("broken")
        time.sleep(2)  # the first has been told by then, and this one is not there yet
        missing = group._missing
        group._missing = lambda *args, **kwargs: (missing(*args, **kwargs), time.sleep(1))[0]
        group.exchange("nobody answers")
except SupermergeError as error:
    code = error.exit_code
except KeyboardInterrupt:
    code = 130
sys.stderr.flush()
os._exit(code)
"""


def test_the_first_process_waits_for_those_that_hear_late_when_it_is_interrupted_as_well(tmp_path: Path) -> None:
    assert together(("-c", INTERRUPTED_TOO), tmp_path, 3).codes == [4, 4, 4]


DIES = """
import os, signal, sys
import supermerge.assemble.passes as passes
merge, count = passes.Passes.merge, [0]
def merge_or_die(self, *args, **kwargs):
    count[0] += 1
    if os.environ["RANK"] == os.environ["DIES"] and count[0] == 2:
        os.kill(os.getpid(), getattr(signal, os.environ["OF"]))
    return merge(self, *args, **kwargs)
passes.Passes.merge = merge_or_die
sys.argv = ["supermerge", *sys.argv[3:]]
from supermerge.cli.main import program
program()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dies", "of", "told_by", "said"),
    [
        (1, "SIGKILL", (0, 2), "Lost process 1 of 3"),
        (0, "SIGKILL", (1,), "Lost process 0 of 3"),
        (2, "SIGINT", (2,), "Interrupted."),
    ],
)
def test_when_a_process_dies_the_others_end_and_the_same_command_succeeds(
    llamas: Path, dies: int, of: str, told_by: tuple[int, ...], said: str
) -> None:
    ended = together(("-c", DIES, *RUN), llamas, 3, DIES=str(dies), OF=of)
    assert ended.codes == [-9 if rank == dies and of == "SIGKILL" else 130 for rank in range(3)], ended.errors
    telling = [rank for rank, text in enumerate(ended.errors) if "error:" in text]
    assert len(telling) == 1
    assert telling[0] in told_by
    assert said in ended.errors[telling[0]]
    assert not (llamas / "out").exists()
    again = together(RUN, llamas, 3)
    assert again.codes == [0, 0, 0], again.errors
    assert verify(llamas / "out").tensors
    assert torch.isfinite(load_file(next((llamas / "out").glob("*.safetensors"))).popitem()[1]).all()


LEARN = ("--set", "method.name=supermerge", "--set", "method.steps=6", "--set", "method.save_every=0.001")


def coefficients(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(directory / "coefficients.safetensors")


def test_a_recipe_is_learned_sharded_and_what_is_left_to_do_the_first_process_does_alone(tiny: Path) -> None:
    # It starts at a merge that needs statistics of the experts.
    steps = ("run", "recipe.yaml", *LEARN, "--set", "method.init=fisher", "--quiet", "-o")
    alone = together(("-m", "supermerge", *steps, "alone"), tiny, 1)
    assert alone.codes == [0], alone.errors
    for place in list(tiny.rglob("statistics")):
        shutil.rmtree(place)
    many = together(("-m", "supermerge", *steps, "many", "--set", "method.residency=sharded"), tiny, 2)
    assert many.codes == [0, 0], many.errors
    expected, found = coefficients(tiny / "alone"), coefficients(tiny / "many")
    assert found.keys() == expected.keys()
    for group, w in expected.items():
        assert torch.allclose(found[group], w, rtol=0, atol=1e-4), group
    told = [json.loads((tiny / name / "metrics.json").read_text())["models"] for name in ("alone", "many")]
    assert [model["scores"].keys() for model in told[1]] == [model["scores"].keys() for model in told[0]]
    assert [model["mean"] for model in told[1]] == pytest.approx([model["mean"] for model in told[0]], abs=0.02)
    assert verify(tiny / "many").tensors


LOSES = """
import os, sys
from supermerge.learn.shared_engine import SharedEngine
step, count = SharedEngine.step, [0]
def step_or_die(self, *args, **kwargs):
    count[0] += 1
    if os.environ["RANK"] == "1" and count[0] == 4:
        os.kill(os.getpid(), 9)
    return step(self, *args, **kwargs)
SharedEngine.step = step_or_die
sys.argv = ["supermerge", *sys.argv[1:]]
from supermerge.cli.main import program
program()
"""


@pytest.mark.slow
def test_learning_goes_on_after_a_process_is_lost_and_ends_with_the_same_coefficients(tiny: Path) -> None:
    run_it = ("run", "recipe.yaml", *LEARN, "-o")
    whole = together(("-m", "supermerge", *run_it, "whole"), tiny, 2)
    assert whole.codes == [0, 0], whole.errors
    lost = together(("-c", LOSES, *run_it, "out"), tiny, 2)
    assert lost.codes == [130, -9], lost.errors
    assert "Lost process 1 of 2" in lost.errors[0]
    assert not (tiny / "out").exists()
    again = together(("-m", "supermerge", *run_it, "out"), tiny, 2)
    assert again.codes == [0, 0], again.errors
    assert "Resumed after 3 steps." in again.errors[0]
    expected = coefficients(tiny / "whole")
    assert coefficients(tiny / "out").keys() == expected.keys()
    for group, w in coefficients(tiny / "out").items():
        assert torch.equal(w, expected[group]), group
    assert weights(tiny / "out") == weights(tiny / "whole")
    assert verify(tiny / "out").tensors
