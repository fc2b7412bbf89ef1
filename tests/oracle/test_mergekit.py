"""mergekit itself as the oracle. `make test-slow` with SUPERMERGE_MERGEKIT and SUPERMERGE_MERGEKIT_EXAMPLES set.

Where the arithmetic is the same, outputs are equal to one bf16 ulp. docs/mergekit.md lists and explains the rest.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
import llama

pytestmark = pytest.mark.slow
Both = Callable[[str], tuple[dict[str, Tensor], dict[str, Tensor]]]

EXAMPLES = ["arcee_fusion", "bio-merge", "gradient-slerp", "linear", "orcamini-platy-44layer", "ties"]
# mergekit computes these in the 16 bits of `dtype`, and rounding decides there which elements are chosen: the largest
# share of elements that may then differ. In fp32 none does.
CHOSEN_IN_16_BITS = {"arcee_fusion": 0.10, "ties": 0.005}
# Layers of the models that the examples name.
LAYERS = {"model_a": 3, "model_b": 3}


def different(theirs: dict[str, Tensor], ours: dict[str, Tensor]) -> tuple[int, int]:
    """How many elements are more than one bf16 ulp (of the larger one) apart, of how many.

    Where terms around 1/4 cancel, what is left is the rounding of fp32: 2⁻²⁵, its ulp there, is no difference.
    """
    assert theirs.keys() == ours.keys()
    apart = total = 0
    for name, tensor in theirs.items():
        a, b = tensor.double(), ours[name].double()
        assert a.shape == b.shape, name
        ulp = 2.0 ** (torch.maximum(a.abs(), b.abs()).clamp(min=2.0**-18).log2().floor() - 7)
        apart += int(((a - b).abs() > ulp).sum())
        total += tensor.numel()
    return apart, total


@pytest.fixture
def example(examples: Path, tmp_path: Path) -> Callable[[str], str]:
    """The text of an example; every model that it names is made in the test's directory, tiny."""

    def read(name: str) -> str:
        text = (examples / f"{name}.yml").read_text(encoding="utf-8")
        dtype = torch.bfloat16 if "dtype: bfloat16" in text else torch.float16
        bases = re.findall(r"base_model: (\S+)", text)
        models = dict.fromkeys([*bases, *re.findall(r"model: (\S+)", text)])
        layers = LAYERS.get(next(iter(models)), 40)
        base = llama.base(layers)
        for seed, model in enumerate(models):
            llama.write(tmp_path / model, llama.expert(base, seed) if seed else base, dtype)
        return text

    return read


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_as_they_are(name: str, example: Callable[[str], str], both: Both) -> None:
    apart, total = different(*both(example(name)))
    assert apart <= CHOSEN_IN_16_BITS.get(name, 0) * total


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_in_fp32(name: str, example: Callable[[str], str], both: Both) -> None:
    text = re.sub(r"^dtype: (\w+)", r"dtype: float32\nout_dtype: \1", example(name), flags=re.MULTILINE)
    apart, _ = different(*both(text))
    assert apart == 0


def test_all_examples_are_here(examples: Path) -> None:
    assert sorted(path.stem for path in examples.glob("*.yml")) == EXAMPLES


def _models(*weights: str) -> str:
    return "models:\n" + "".join(f"  - {{model: {'abcd'[i]}, parameters: {{{w}}}}}\n" for i, w in enumerate(weights))


TAIL = "base_model: base\ndtype: float32\n"
WEIGHTED = _models("weight: 0.5", "weight: [0.2, 1]", "weight: [{filter: mlp, value: 0.7}, {value: -0.3}]")
THINNED = _models("weight: 0.5, density: 0.4", "weight: [0.2, 1], density: [0.9, 0.3]")
PLAIN = _models("", "", "")
RECIPES = {
    "linear without normalisation": WEIGHTED + "merge_method: linear\ndtype: float32\nparameters: {normalize: false}\n",
    "linear": WEIGHTED + "merge_method: linear\ndtype: float32\n",
    "task arithmetic": WEIGHTED + "merge_method: task_arithmetic\nparameters: {lambda: 0.7}\n" + TAIL,
    "task arithmetic, normalised": WEIGHTED + "merge_method: task_arithmetic\nparameters: {normalize: true}\n" + TAIL,
    "ties, weighted mean": THINNED + "merge_method: ties\n" + TAIL,
    "ties, sum": THINNED + "merge_method: ties\nparameters: {normalize: false, lambda: 1.3, int8_mask: true}\n" + TAIL,
    "ties, one tensor": THINNED + "merge_method: ties\nparameters: {normalize: [{filter: mlp, value: false}]}\n" + TAIL,
    "breadcrumbs": THINNED + "merge_method: breadcrumbs\nparameters: {gamma: 0.1}\n" + TAIL,
    "breadcrumbs with ties": THINNED + "merge_method: breadcrumbs_ties\nparameters: {gamma: 0.1}\n" + TAIL,
    "dare without dropping": WEIGHTED + "merge_method: dare_ties\n" + TAIL,
    "della without dropping": WEIGHTED + "merge_method: della\n" + TAIL,
    "slerp": _models("")
    + "merge_method: slerp\nparameters: {t: [{filter: mlp, value: [0, 1]}, {value: 0.4}]}\n"
    + TAIL,
    "nuslerp with base": _models("weight: 0.3", "weight: [0.2, 1]") + "merge_method: nuslerp\n" + TAIL,
    "nuslerp, last dimension": _models("weight: 0.3", "weight: 0.9")
    + "merge_method: nuslerp\nparameters: {nuslerp_flatten: false}\n"
    + TAIL,
    "nuslerp, first dimension": _models("weight: 0.3", "weight: 0.9")
    + "merge_method: nuslerp\nparameters: {nuslerp_flatten: false, nuslerp_row_wise: true}\n"
    + TAIL,
    "nuslerp without base": _models("weight: 0.3", "weight: 0.9") + "merge_method: nuslerp\ndtype: float32\n",
    "multislerp": _models("weight: 0.3", "weight: 0.9", "weight: 0.5") + "merge_method: multislerp\n" + TAIL,
    "multislerp without base": _models("weight: 0.3", "weight: 0.9", "weight: 0.5")
    + "merge_method: multislerp\ndtype: float32\n",
    "karcher": PLAIN + "merge_method: karcher\ndtype: float32\n",
    "karcher with base": PLAIN + "merge_method: karcher\n" + TAIL,
    # Of experts that agree: where they oppose each other mergekit extrapolates.
    "model stock": "models: [{model: a}, {model: a1}, {model: a2}]\nmerge_method: model_stock\n" + TAIL,
    "model stock, per row": "models: [{model: a}, {model: a1}, {model: a2}]\nmerge_method: model_stock\n"
    "parameters: {filter_wise: true}\n" + TAIL,
    "nearswap": _models("") + "merge_method: nearswap\nparameters: {t: [0.001, 0.05]}\n" + TAIL,
    "arcee fusion": _models("") + "merge_method: arcee_fusion\n" + TAIL,
    "ram": PLAIN + "merge_method: ram\nparameters: {epsilon: 0.01}\n" + TAIL,
    "ram plus": PLAIN + "merge_method: ramplus_tl\nparameters: {epsilon: 0.02, r: 0.3, alpha: 0.5}\n" + TAIL,
    "sce": PLAIN + "merge_method: sce\nparameters: {select_topk: 0.6}\n" + TAIL,
    "passthrough, scaled": _models("scale: [{filter: down_proj, value: 0.5}, {filter: o_proj, value: [0, 1]}]")
    + "merge_method: passthrough\ndtype: float32\n",
    "slices of two models": "slices:\n"
    "  - sources: [{model: a, layer_range: [0, 2], parameters: {weight: 1}}, "
    "{model: b, layer_range: [1, 3], parameters: {weight: [0, 2]}}]\n"
    "  - sources: [{model: c, layer_range: [1, 3], parameters: {weight: 0.2}}, "
    "{model: d, layer_range: [0, 2], parameters: {weight: 0.3}}]\n"
    "merge_method: linear\ndtype: float32\n",
    "two documents": "name: middle\n" + WEIGHTED + "merge_method: task_arithmetic\n" + TAIL + "---\n"
    "models: [{model: middle, parameters: {weight: 1}}, {model: d, parameters: {weight: 3}}]\n"
    "merge_method: linear\ndtype: float32\n",
}


@pytest.fixture
def models(tmp_path: Path) -> None:
    """base, a, b, c and d, of three layers, and two that were trained from a."""
    base = llama.base()
    for seed, name in enumerate(["base", *"abcd"]):
        llama.write(tmp_path / name, llama.expert(base, seed) if seed else base, torch.float32)
    for seed, name in enumerate(["a1", "a2"]):
        llama.write(tmp_path / name, llama.expert(llama.expert(base, 1), 10 + seed), torch.float32)


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize("name", RECIPES)
def test_recipes_in_fp32(name: str, both: Both) -> None:
    apart, _ = different(*both(RECIPES[name] + "out_dtype: bfloat16\n"))
    assert apart == 0


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize("method", ["dare_linear", "dare_ties", "della", "della_linear"])
def test_random_ones_drop_as_many_and_keep_the_magnitude(method: str, both: Both) -> None:
    one = "models: [{model: a, parameters: {weight: 1, density: 0.6}}]\n"
    epsilon = "parameters: {epsilon: 0.1}\n" if "della" in method else ""
    theirs, ours = both(f"{one}merge_method: {method}\n{epsilon}{TAIL}")
    base, expert = llama.base(), llama.expert(llama.base(), 1)
    for name, start in base.items():
        magnitude = float((expert[name] - start).abs().sum())
        for merged in (theirs, ours):
            assert float((merged[name].double() - start.double()).abs().sum()) == pytest.approx(magnitude, rel=1e-4)
    shares = [
        sum(int((merged[name] != base[name]).sum()) for name in base) / sum(t.numel() for t in base.values())
        for merged in (theirs, ours)
    ]
    # 6,832 draws: five standard deviations are 0.03.
    assert shares == pytest.approx([0.6, 0.6], abs=0.03)
