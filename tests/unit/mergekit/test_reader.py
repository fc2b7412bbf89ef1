"""What is read of mergekit's YAML, and what is refused: exit code 3, with the place and a suggestion."""

from __future__ import annotations

from pathlib import Path

import pytest

from supermerge.errors import RecipeError
from supermerge.recipe import Recipe

HEAD = "models:\n- {model: org/a, parameters: {weight: 1}}\n- {model: org/b, parameters: {weight: 2}}\n"


def load(tmp_path: Path, text: str, *overrides: str) -> Recipe:
    (tmp_path / "m.yml").write_text(text)
    return Recipe.load(tmp_path / "m.yml", overrides)


def test_becomes_a_recipe(tmp_path: Path) -> None:
    recipe = load(tmp_path, HEAD + "merge_method: ties\nbase_model: org/base\ndtype: torch.bfloat16\n")
    assert (recipe.base, {name: expert.model for name, expert in recipe.experts.items()}) == (
        "org/base",
        {"a": "org/a", "b": "org/b"},
    )
    assert (recipe.method.name, recipe.output.dtype) == ("ties", "bfloat16")


def test_out_dtype_is_the_outputs(tmp_path: Path) -> None:
    recipe = load(tmp_path, HEAD + "merge_method: linear\ndtype: float32\nout_dtype: float16\n")
    assert recipe.output.dtype == "float16"


def test_models_may_be_written_out(tmp_path: Path) -> None:
    text = "models: [{model: {model: {path: org/a, revision: v1}}}, {model: org/b@main}]\nmerge_method: karcher\n"
    assert load(tmp_path, text).mergekit.inputs == ["org/a@v1", "org/b@main"]


def test_paths_are_beside_the_recipe_or_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("recipes/near/a", "work/far/b"):
        (tmp_path / place).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    text = "models: [{model: near/a}, {model: far/b}, {model: org/c}]\nmerge_method: karcher\n"
    found = load(tmp_path / "recipes", text).mergekit.inputs
    assert found == [str(tmp_path / "recipes/near/a"), str(tmp_path / "work/far/b"), "org/c"]


def test_written_again_it_says_the_same(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    text = "name: x\n" + HEAD.replace("org/a", "a") + "merge_method: linear\n---\n"
    text += "models: [{model: x, parameters: {weight: 1}}, {model: org/c, parameters: {weight: 2}}]\n"
    text += "merge_method: linear\n"
    recipe = load(tmp_path, text)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "recipe.yaml").write_text(recipe.to_yaml(relative_to=tmp_path / "out"))
    again = Recipe.load(tmp_path / "out" / "recipe.yaml")
    assert "../a" in recipe.to_yaml(relative_to=tmp_path / "out")
    assert again.digest == recipe.digest
    assert again.mergekit == recipe.mergekit


def test_set_changes_the_last_document(tmp_path: Path) -> None:
    text = HEAD + "merge_method: linear\n"
    assert load(tmp_path, text, "out_dtype=float16").output.dtype == "float16"
    assert Recipe.of(load(tmp_path, text), ["dtype=bfloat16"]).output.dtype == "bfloat16"


SLICES = "merge_method: passthrough\nslices:\n- sources: [{model: org/a, layer_range: [0, 2]}]\n"
KARCHER = "models: [{model: x}]\nmerge_method: karcher\n"
REFUSED = {
    HEAD + "merge_method: tie\n": "merge_method: unknown method 'tie'; did you mean 'ties'?",
    HEAD + "merge_method: linear\nbase_modle: x\n": "line 5: base_modle: unknown key 'base_modle'; did you mean 'base_",
    HEAD.replace("model: org/b", "modle: org/b") + "merge_method: linear\n": "did you mean 'model'?",
    HEAD + "merge_method: ties\n": "base_model: ties needs one",
    HEAD + "merge_method: ties\nbase_model: x\nparameters: {densty: 0.5}\n": "'densty'; did you mean 'density'?",
    HEAD + "merge_method: task_arithmetic\nbase_model: x\nparameters: {lamda: 1}\n": "did you mean 'lambda'?",
    "models: [{model: a, parameters: {t: 1}}]\nmerge_method: slerp\nbase_model: b\n": "parameters: 't' holds for all",
    HEAD + "merge_method: linear\ndtype: float8\n": "found 'float8'",
    HEAD + "merge_method: linear\nmodules: {}\n": "modules: parts of a model cannot be merged apart",
    HEAD + SLICES: "expected one of 'models' and 'slices'",
    "merge_method: linear\n": "expected one of 'models' and 'slices'",
    SLICES.replace("[0, 2]", "[2, 2]"): "holds no layers",
    SLICES.replace("[{", "[{model: b, layer_range: [0, 3]}, {"): "have 3, 2 layers",
    SLICES + "  residual_weight: 0.5\n": "residual_weight: mergekit reads this key and does nothing",
    "models: [{model: a+b}]\nmerge_method: passthrough\n": "'a+b': adapters are not read in recipes of mergekit's",
    "models: [{model: {model: a, lora: b}}]\nmerge_method: passthrough\n": "adapters are not read",
    "models: [{model: {model: a, override_architecture: X}}]\nmerge_method: passthrough\n": "override_architecture",
    "models: [{model: a}, {model: a}]\nmerge_method: karcher\n": "'a' is listed twice",
    HEAD + "merge_method: linear\ntokenizer_source: base\ntokenizer: {source: base}\n": "say the same; keep one",
    HEAD + "merge_method: linear\ntokenizer: {sorce: base}\n": "did you mean 'source'?",
    HEAD + "merge_method: linear\nparameters: {normalize: yess}\n": "expected a number, true or false",
    HEAD + "merge_method: linear\nparameters: {normalize: [{filte: mlp, value: 1}]}\n": "expected 'value' and",
    HEAD + "merge_method: linear\n---\n" + HEAD + "merge_method: linear\n": "two documents have no name",
    f"name: x\n{HEAD}merge_method: linear\n---\nname: y\n{HEAD}merge_method: linear\n": "so none says what is written",
    f"name: x\n{HEAD}merge_method: linear\n---\n{HEAD}merge_method: linear\n": "nothing uses the merge 'x'",
    f"name: x\n{KARCHER}---\n{KARCHER}": "in a circle: x -> x",
    HEAD + "merge_method: linear\n---\nmodels: []\n": "line 6: key 'merge_method' is missing",
}


@pytest.mark.parametrize("text", REFUSED)
def test_refuses(text: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        load(tmp_path, text)
    assert REFUSED[text] in caught.value.message
    assert caught.value.exit_code == 3
