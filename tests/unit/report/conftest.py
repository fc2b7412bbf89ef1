from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from supermerge.report import Provenance, Results

# Closes a script, an attribute, a cell and a code span; runs a script and a template; opens a link and a heading.
HOSTILE = (
    "</script><script>alert(1)</script>\"'><img src=x onerror=alert(1)> | `` [a](javascript:alert(1)) \n# {{ 7*7 }}"
)


SAMPLE = (Path(__file__).parent / "sample.json").read_text("utf-8")


@pytest.fixture
def document() -> dict[str, Any]:
    """The sample run as JSON: 4 tasks, 5 merges beside base and experts, 103 tensors."""
    return json.loads(SAMPLE)


@pytest.fixture(scope="session")
def results() -> Results:
    return Results.model_validate_json(SAMPLE)


@pytest.fixture
def provenance() -> Provenance:
    return Provenance(
        base="example/minilm@main",
        experts={
            "newsgroups": "example/news",
            "reuters": "example/reuters",
            "reviews": "./reviews",
            "spam": "models/spam",
        },
        hub_ids=frozenset({"example/minilm@main", "example/news", "example/reuters"}),
        license="apache-2.0",
        method_title="SuperMerge",
        paper="https://arxiv.org/abs/2412.10416",
        citation="@article{supermerge2024,\n  title = {SuperMerge}\n}",
    )


@pytest.fixture
def build(document: dict[str, Any]) -> Callable[..., Results]:
    """`build(learning=None, tasks={})`: the sample with some of its parts replaced."""

    def build(**parts: Any) -> Results:
        return Results.model_validate_json(json.dumps({**document, **parts}))

    return build


@pytest.fixture
def hostile(document: dict[str, Any]) -> Results:
    """The sample with a hostile name in place of one task, its expert, its tensors, the command and the recipe."""
    name = "reuters"
    text = (
        json.dumps(document)
        .replace(f'"{name}"', json.dumps(HOSTILE))
        .replace(f'"expert:{name}"', json.dumps(f"expert:{HOSTILE}"))
    )
    renamed = json.loads(text)
    renamed["command"] = renamed["recipe_yaml"] = f"```\n{HOSTILE}\n````"
    renamed["method"] = renamed["recommendation"]["reason"] = HOSTILE
    renamed["coefficients"]["tensors"][0] = HOSTILE
    renamed["models"][-1]["label"] = HOSTILE
    return Results.model_validate_json(json.dumps(renamed))


@pytest.fixture
def empty(build: Callable[..., Results]) -> Results:
    """A merge without tasks, learning or geometry."""
    return build(
        tasks={}, models=[], learning=None, coefficients=None, geometry=None, recommendation=None, cost={"phases": []}
    )
