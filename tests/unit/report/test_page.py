from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest

from supermerge.report import Provenance, Results, charts
from supermerge.report import page as module


class Page(HTMLParser):
    """What a browser would see: elements with their attributes, the text of scripts, and the text outside them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self._in: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._in = tag

    def handle_endtag(self, tag: str) -> None:
        self._in = None

    def handle_data(self, data: str) -> None:
        (self.scripts if self._in == "script" else self.words).append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture
def draw(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Page]:
    """Pages without the drawing library, which the browser test covers and which takes seconds to put together."""
    monkeypatch.setattr(module, "vega", lambda: "/* vega */")

    def draw(results: Results, provenance: Provenance | None = None, *, with_charts: bool = False) -> Page:
        return Page(module.page(results, charts.build(results, (320,)) if with_charts else {}, provenance))

    return draw


def test_the_summary_says_what_was_merged_and_how_good_it_is(
    draw: Callable[..., Page], results: Results, provenance: Provenance
) -> None:
    text = draw(results, provenance).text
    assert "4 experts merged by SuperMerge" in text
    assert "Better than the base on every task" in text
    assert "Merged model 0.834 Experts 0.857 Base 0.649 Of the experts’ score 97.0 %" in text
    assert "Recommended: SuperMerge." in text
    learned = "412 coefficients, one per expert and tensor, link tanh, in 60 steps"
    assert f"{learned}, from 128 labelled examples and 1,024 unlabelled inputs" in text


def test_scores_command_and_recipe_are_there(draw: Callable[..., Page], results: Results) -> None:
    page = draw(results)
    assert "0.667 0.646–0.687" in page.text
    assert results.command in page.text
    assert results.recipe_yaml in "".join(page.words)
    assert len([block for block in page.all("div") if "data-copy" in block]) == 2


def test_every_chart_has_its_place_and_its_data(draw: Callable[..., Page], results: Results) -> None:
    page = draw(results, with_charts=True)
    places = [block["data-chart"] for block in page.all("div") if "data-chart" in block]
    data = json.loads(page.scripts[0])
    assert sorted(places, key=str) == sorted(data)
    assert data["scores"]["data"]["scores"][0]["task"] == "newsgroups"


def test_only_the_pages_own_scripts_may_run(draw: Callable[..., Page], results: Results) -> None:
    page = draw(results, with_charts=True)
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    assert "unsafe-eval" not in policy
    for script in page.scripts[1:]:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        if script.strip():
            assert f"'sha256-{digest}'" in policy


def test_nothing_points_outside(draw: Callable[..., Page], results: Results, provenance: Provenance) -> None:
    page = draw(results, provenance)
    for _, attributes in page.elements:
        assert "src" not in attributes
    links = [str(link.get("href")) for tag in ("a", "link") for link in page.all(tag)]
    assert {link for link in links if not link.startswith("#")} == {"data:,", "https://arxiv.org/abs/2412.10416"}


def test_names_from_outside_stay_text(draw: Callable[..., Page], hostile: Results) -> None:
    provenance = Provenance(
        "<script>alert(1)</script>",
        {"</style><svg onload=alert(1)>": '"><img src=x onerror=alert(1)>'},
        method_title="<b onclick=alert(1)>",
        paper="javascript:alert(1)",
        citation="</pre><script>alert(1)</script>",
    )
    page = draw(hostile, provenance, with_charts=True)
    assert [tag for tag, _ in page.elements if tag in ("script", "img", "svg", "iframe", "b", "style")] == [
        "style",
        *["script"] * 4,
    ]
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert "{{ 7*7 }}" in page.text
    assert all(not str(link["href"]).startswith("javascript") for link in page.all("a"))
    assert any("</script>" in json.dumps(chart) for chart in json.loads(page.scripts[0]).values())


def test_a_plain_merge_has_no_empty_box(draw: Callable[..., Page], empty: Results) -> None:
    page = draw(empty, with_charts=True)
    assert "no score was measured" in page.text
    assert page.all("figure") == page.all("table") == []
    sections = [section["id"] for section in page.all("section")]
    assert sections == ["cost", "reproduce"]
    assert [link["href"] for link in page.all("a")] == ["#summary", "#cost", "#reproduce"]
    assert len(page.all("script")) == 1


@pytest.mark.parametrize(
    ("parts", "absent"),
    [
        ({"learning": None}, "learning"),
        ({"coefficients": None}, "coefficients"),
        ({"geometry": None}, "vectors"),
        ({"tasks": {}, "models": [], "recommendation": None}, "scores"),
    ],
)
def test_a_missing_part_leaves_no_trace(
    draw: Callable[..., Page], build: Callable[..., Results], parts: dict[str, Any], absent: str
) -> None:
    page = draw(build(**parts), with_charts=True)
    assert absent not in [section["id"] for section in page.all("section")]
    assert f"#{absent}" not in [link["href"] for link in page.all("a")]


def test_a_lower_is_better_metric_is_marked(draw: Callable[..., Page], document: dict[str, Any]) -> None:
    document["tasks"]["spam"]["higher_is_better"] = False
    page = draw(Results.model_validate_json(json.dumps(document)), with_charts=True)
    assert "accuracy ↓" in page.text
    assert "Lower is better for accuracy" in page.text
