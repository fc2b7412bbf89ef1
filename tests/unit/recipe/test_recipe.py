from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from supermerge.errors import RecipeError
from supermerge.recipe import Recipe

FULL = """\
version: 1
base: models/base
experts:
  news:  {model: models/news, density: 0.5, weight: 0.25}
  spam:  {model: org/spam@main, weight: 0.75}
method: {name: ties, density: 0.2, lr: 1e-2}
tasks:
  news: {type: text-classification, validation: data/news.valid.jsonl, test: "datasets:ag_news?split=test"}
  junk: {type: regression, expert: spam, validation: ~/junk.csv, head: heads/junk}
rules:
  - {match: "*.embeddings.*", method: linear}
  - {match: "*.bias", method: {name: ties, density: 0.9}}
output: {path: merged, dtype: bfloat16, shard_size: 2GiB}
memory: 16GB
seed: 3
"""


@pytest.fixture
def full(tmp_path: Path) -> Recipe:
    (tmp_path / "models" / "base").mkdir(parents=True)
    (tmp_path / "recipe.yaml").write_text(FULL)
    return Recipe.load(tmp_path / "recipe.yaml")


def test_reads_everything(full: Recipe, tmp_path: Path) -> None:
    assert full.path == tmp_path / "recipe.yaml"
    assert list(full.experts) == ["news", "spam"]
    assert full.experts["news"].params == {"density": 0.5}
    assert full.weights == [0.25, 0.75]
    assert (full.method.name, full.method.params) == ("ties", {"density": 0.2, "lr": 0.01})
    assert [(rule.match, rule.method.name) for rule in full.rules] == [("*.embeddings.*", "linear"), ("*.bias", "ties")]
    assert full.output.shard_size == 2 * 2**30
    assert full.memory == 16 * 10**9
    assert (full.seed, full.version) == (3, 1)
    assert full.tasks["news"].expert == "news"


def test_defaults() -> None:
    recipe = Recipe.of({"base": "org/base", "experts": {"a": "org/a"}})
    assert recipe.method.name == "supermerge"
    assert (recipe.output.path, recipe.output.dtype, recipe.output.shard_size) == (None, None, 5 * 10**9)
    assert (recipe.memory, recipe.seed, recipe.rules, recipe.tasks, recipe.weights) == (None, 0, (), {}, None)


def test_paths_are_relative_to_the_recipe_and_hub_ids_stay(full: Recipe, tmp_path: Path) -> None:
    assert full.base == str(tmp_path / "models/base")
    # `models` lies beside the recipe, so a missing `models/news` is a missing path and not a hub id.
    assert full.experts["news"].model == str(tmp_path / "models/news")
    assert full.experts["spam"].model == "org/spam@main"
    assert full.tasks["news"].validation == str(tmp_path / "data/news.valid.jsonl")
    assert full.tasks["news"].test == "datasets:ag_news?split=test"
    assert full.tasks["junk"].validation == str(Path("~/junk.csv").expanduser())
    assert full.tasks["junk"].head == str(tmp_path / "heads/junk")
    assert full.output.path == str(tmp_path / "merged")


@pytest.mark.parametrize("ref", ["./base", "../base", "base.safetensors", "/abs/base"])
def test_refs_that_can_only_be_paths(ref: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(f"base: {ref}\nexperts: {{a: org/a}}\n")
    assert Path(Recipe.load(tmp_path / "recipe.yaml").base).is_absolute()


def test_is_frozen(full: Recipe) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        full.seed = 4


def test_written_recipe_reads_back_the_same(full: Recipe, tmp_path: Path) -> None:
    elsewhere = tmp_path / "merged" / "deep"
    elsewhere.mkdir(parents=True)
    (elsewhere / "recipe.yaml").write_text(full.to_yaml(relative_to=elsewhere))
    again = Recipe.load(elsewhere / "recipe.yaml")
    assert again.model_dump() == full.model_dump()
    assert "../../models/base" in (elsewhere / "recipe.yaml").read_text()


def test_writes_only_what_was_given() -> None:
    text = Recipe.of({"base": "org/base", "experts": {"a": "org/a"}, "memory": "3GiB"}).to_yaml()
    assert text == "version: 1\nbase: org/base\nexperts:\n  a:\n    model: org/a\nmemory: 3GiB\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "recipe.yaml: expected a mapping with 'base' and 'experts', found nothing"),
        ("[1]", "found list"),
        ("experts: {a: x}", "recipe.yaml: key 'base' is missing"),
        ("base: b", "recipe.yaml: key 'experts' is missing"),
        ("base: b\nexperts: {}", "line 2: experts: Dictionary should have at least 1 item"),
        ("base: b\nexperts: {a: x}\nmetod: ties", "line 3: metod: unknown key 'metod'; did you mean 'method'?"),
        ("base: b\nexperts:\n  a: {modle: x}", "line 3: experts.a: unknown key 'modle'; did you mean 'model'?"),
        ("base: b\nexperts:\n  a: {density: 1}", "line 3: experts.a: an expert needs 'model'"),
        ("base: b\nexperts: {a: x}\noutput: {dtyp: x}", "output.dtyp: unknown key 'dtyp'; did you mean 'dtype'?"),
        ("base: b\nexperts: {a: x}\noutput: {dtype: bf16}", "output.dtype: found 'bf16'"),
        ("base: b\nexperts: {a: x}\noutput: {zzz: 1}", "unknown key 'zzz'; known: path, dtype, shard_size"),
        ("base: b\nexperts: {a: x}\nmemory: lots", "line 3: memory: 'lots' is not a size"),
        ("base: b\nexperts: {a: x}\nseed: true", "line 3: seed: should be a valid integer, found True"),
        ("base: b\nexperts: {a: x}\nseed: -1", "seed: should be greater than or equal to 0, found -1"),
        ("base: b\nexperts: {a: x}\nversion: 2", "version: found 2"),
        ("base: b\nexperts: {a/b: x}", "experts.a/b: 'a/b' is not a name"),
        ("base: b\nexperts: {..: x}", "'..' is not a name"),
        ("base: b\nexperts: {a: x, A: y}", "'a' and 'A' differ only in upper and lower case"),
        ("base: b\nexperts: {a: {model: x, weight: 1}, c: y}", "some experts have a 'weight' and c has none"),
        ("base: b\nexperts: {a: {model: x, weight: .nan}}", "experts.a.weight"),
        ("base: b\nexperts: {a: x}\nmethod: {steps: 3}", "method: key 'name' is missing"),
        ("base: b\nexperts: {a: x}\nrules: [{match: '*', methd: ties}]", "rules.0.methd: unknown key 'methd'"),
        ("base: b\nexperts: {a: x}\ntasks: {n: {type: regression, validation: v}}", "tasks.n: key 'expert' is missing"),
        (
            "base: b\nexperts: {a: x}\ntasks: {n: {type: regression, expert: z, validation: v}}",
            "tasks.n.expert is 'z', which is not among the experts: a",
        ),
        (
            "base: b\nexperts: {a: x}\ntasks:\n  a: {type: text-clasification, validation: v}",
            "line 4: tasks.a.type: found 'text-clasification'; did you mean 'text-classification'?",
        ),
        (
            "base: b\nexperts: {a: x}\ntasks:\n  a: {type: regression, validation: v, metric: acuracy}",
            "line 4: tasks.a: unknown metric 'acuracy'; did you mean 'accuracy'?",
        ),
        (
            "base: b\nexperts: {a: x}\ntasks:\n  a: {type: regression, vaildation: v}",
            "line 4: tasks.a.vaildation: unknown key 'vaildation'; did you mean 'validation'?",
        ),
        ("base: b\nmerge_method: ties\nmodels: []", "line 1: base: unknown key 'base'; known: name, models"),
    ],
)
def test_refuses(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(RecipeError) as caught:
        Recipe.load(tmp_path / "recipe.yaml")
    assert message in caught.value.message


def test_says_everything_at_once_in_the_order_of_the_lines(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("base: b\nexpert: x\nexperts:\n  a: {modle: x}\nmemory: lots\nseed: -1\n")
    with pytest.raises(RecipeError) as caught:
        Recipe.load(tmp_path / "recipe.yaml")
    lines = [line.split(": ")[0].split(", ")[1] for line in caught.value.message.splitlines()]
    assert lines == ["line 2", "line 4", "line 5", "line 6"]


def test_a_missing_file_a_directory_and_a_binary_file(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    for path, message in (
        (tmp_path / "none.yaml", "No such file"),
        (tmp_path, "Is a directory"),
        (tmp_path / "binary.yaml", "UTF-8"),
    ):
        with pytest.raises(RecipeError, match=message):
            Recipe.load(path)
