from __future__ import annotations

import re
from collections.abc import Callable

import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

from supermerge.report import Provenance, Results, charts
from supermerge.report.card import card


def parsed(text: str) -> list[Token]:
    """All tokens below the front matter, inline ones included, as CommonMark with tables reads them."""
    body = text.split("\n---\n", 1)[1]
    blocks = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(body)
    return [token for block in blocks for token in (block, *(block.children or []))]


def front_matter(text: str) -> dict[str, object]:
    assert text.startswith("---\n")
    return yaml.safe_load(text[4:].split("\n---\n", 1)[0])


def test_front_matter_is_what_the_hub_reads(results: Results, provenance: Provenance) -> None:
    assert front_matter(card(results, {}, provenance)) == {
        "base_model": ["example/minilm", "example/news", "example/reuters"],
        "base_model_relation": "merge",
        "license": "apache-2.0",
        "library_name": "transformers",
        "tags": ["merge", "supermerge"],
    }


def test_paths_are_no_base_models(results: Results) -> None:
    found = front_matter(card(results, {}, Provenance("models/base", {"a": "./a"})))
    assert "base_model" not in found
    assert "license" not in found


def test_scores_command_recipe_citation_and_use(results: Results, provenance: Provenance) -> None:
    text = card(results, charts.build(results, (880,)), provenance)
    assert "| **SuperMerge** | 0.667 (0.646–0.687) |" in text
    fences = [token for token in parsed(text) if token.type == "fence"]
    assert [token.info for token in fences] == ["python", "sh", "yaml", "bibtex"]
    assert "AutoModel.from_pretrained(" in fences[0].content
    assert "supermerge.load(\"path/to/this/directory\", task='newsgroups')" in fences[0].content
    assert fences[1].content == results.command + "\n"
    assert yaml.safe_load(fences[2].content) == yaml.safe_load(results.recipe_yaml)
    pictures = [token.attrs["src"] for token in parsed(text) if token.type == "image"]
    assert pictures == [f"charts/{name}.png" for name in charts.build(results, (880,))]
    assert "https://arxiv.org/abs/2412.10416" in text


def test_a_generative_model_is_loaded_with_its_head(results: Results) -> None:
    tasks = {name: task.model_copy(update={"type": "causal-lm"}) for name, task in results.tasks.items()}
    assert "AutoModelForCausalLM.from_pretrained" in card(results.model_copy(update={"tasks": tasks}), {}, None)


def test_names_from_outside_stay_text(hostile: Results) -> None:
    provenance = Provenance("</a>`|[x](y)", {"b\n# c": "<script>"}, method_title="![i](j)", paper="javascript:x")
    text = card(hostile, charts.build(hostile, (880,)), provenance)
    tokens = parsed(text)
    assert not [token for token in tokens if token.type in ("html_inline", "html_block", "link_open")]
    assert all(str(token.attrs["src"]).startswith("charts/") for token in tokens if token.type == "image")
    rows = [line for line in text.splitlines() if line.startswith("| ") and "0." in line]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {7}
    headings = [tokens[i + 1].content for i, token in enumerate(tokens) if token.type == "heading_open"]
    assert headings[1:] == ["Scores", "Charts", "Use", "Reproduce"]
    fences = [token.content for token in tokens if token.type == "fence"]
    assert fences[1] == hostile.command + "\n"


def test_a_plain_merge_has_a_short_card(empty: Results) -> None:
    text = card(empty, {}, None)
    assert "## Scores" not in text
    assert "## Charts" not in text
    assert "supermerge.load" not in text
    assert "\n\n\n" not in text


def test_a_merge_without_data_says_how_far_the_experts_moved(build: Callable[..., Results]) -> None:
    geometry = {"experts": ["a|b", "c"], "norms": [1.5, 20], "relative_norms": [0.01, 0.2], "cosines": [[1, 0], [0, 1]]}
    text = card(build(tasks={}, models=[], recommendation=None, learning=None, geometry=geometry), {}, None)
    assert "| a\\|b | 1.00 % | 1.5 |\n| c | 20.00 % | 20 |\n" in text
