"""The report as a person sees it: opened from disk in Chromium, without network, on a phone, a desk and paper."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, sync_playwright

from supermerge.report import Provenance, Results, write_report

SAMPLE = Path(__file__).parents[1] / "unit" / "report" / "sample.json"
CHARTS = {"means", "scores", "coefficients", "coefficients-by-tensor", "learning", "norms", "cosines", "cost"}
HOSTILE = "</script><script>window.broken=1</script>\"'><img src=x onerror='window.broken=2'>{{7*7}} \\u0022"
PHONE, DESK = 375, 1280


@dataclass
class Tab:
    """An open page and what went wrong in it."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.fail("this test needs Chromium: install Debian's package with `apt-get install chromium`")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The pages of a full run, of one with hostile names, and of a plain merge without tasks."""
    sample = json.loads(SAMPLE.read_text("utf-8"))
    renamed = json.dumps(sample).replace('"expert:reuters"', json.dumps(f"expert:{HOSTILE}"))
    hostile = json.loads(renamed.replace('"reuters"', json.dumps(HOSTILE)))
    hostile["command"] = hostile["recipe_yaml"] = hostile["coefficients"]["tensors"][0] = HOSTILE
    parts = {
        "tasks": {},
        "models": [],
        "recommendation": None,
        "learning": None,
        "coefficients": None,
        "geometry": None,
    }
    found: dict[str, Path] = {}
    for name, document in {"full": sample, "hostile": hostile, "plain": {**sample, **parts}}.items():
        directory = tmp_path_factory.mktemp(name)
        provenance = Provenance("models/base", {"a": "models/a"}, citation=HOSTILE if name == "hostile" else None)
        write_report(directory, Results.model_validate_json(json.dumps(document)), provenance)
        found[name] = directory / "report.html"
    return found


@pytest.fixture
def visit(browser: Browser, reports: dict[str, Path]) -> Iterator[Callable[..., Tab]]:
    """`visit("full", width, dark=True)` opens a report with every way to a network closed and waits for its charts."""
    contexts: list[BrowserContext] = []

    def visit(name: str, width: int, *, dark: bool = False) -> Tab:
        context = browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme="dark" if dark else "light", offline=True
        )
        contexts.append(context)
        tab = Tab(context.new_page())

        def refuse(route: Route) -> None:
            tab.requests.append(route.request.url)
            route.abort()

        context.route(lambda url: not url.startswith("file://"), refuse)
        tab.page.on("console", lambda message: tab.complaints.append(f"{message.type}: {message.text}"))
        tab.page.on("pageerror", lambda error: tab.complaints.append(str(error)))
        # A busy machine may be slow; what is tested is what the page shows, not when.
        tab.page.set_default_timeout(180_000)
        tab.page.goto(reports[name].as_uri())
        settle(tab.page)
        return tab

    yield visit
    for context in contexts:
        context.close()


def until(page: Page, expression: str) -> None:
    """Ask again and again: `wait_for_function` would evaluate in the page, whose policy forbids it."""
    patience = time.monotonic() + 180
    while not page.evaluate(expression):
        assert time.monotonic() < patience, expression
        page.wait_for_timeout(50)


def settle(page: Page) -> None:
    until(page, "document.querySelector('[data-chart]:not([data-state=drawn])') === null")


def drawings(page: Page) -> dict[str, dict[str, float]]:
    """Per chart: how many marks it has, and the box of its drawing on the page."""
    return page.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll("[data-chart]")].map((place) => {
            const drawing = place.querySelector("svg");
            const { right, width, height } = drawing.getBoundingClientRect();
            const boxes = [...drawing.querySelectorAll(".mark-rect path, .mark-symbol path, .mark-line path")]
                .map((mark) => mark.getBoundingClientRect());
            const marks = boxes.filter((box) => box.width + box.height > 0).length;
            return [place.dataset.chart, { marks, right, width, height }];
        }))"""
    )


@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("name", ["full", "hostile", "plain"])
def test_page_is_whole(visit: Callable[..., Tab], name: str, width: int) -> None:
    tab = visit(name, width)
    found = drawings(tab.page)
    assert set(found) == ({"cost"} if name == "plain" else CHARTS)
    for chart, drawing in found.items():
        assert drawing["marks"] >= 2, chart
        assert drawing["width"] > 150, chart
        assert drawing["height"] > 50, chart
        assert drawing["right"] <= width, chart
    assert tab.page.evaluate("document.documentElement.scrollWidth") == width
    assert tab.page.evaluate("window.broken") is None
    assert tab.complaints == []
    assert tab.requests == []


def test_every_coefficient_and_score_is_drawn(visit: Callable[..., Tab]) -> None:
    found = drawings(visit("full", DESK).page)
    assert found["coefficients-by-tensor"]["marks"] >= 103 * 4
    assert found["coefficients"]["marks"] >= 7 * 4
    assert found["scores"]["marks"] == 7 * 4
    assert found["means"]["marks"] == 7
    assert found["cosines"]["marks"] == 4 * 3


def test_dark_mode_changes_page_and_charts(visit: Callable[..., Tab]) -> None:
    colours = """() => {
        const fill = (selector) => getComputedStyle(document.querySelector(selector)).fill;
        return [getComputedStyle(document.body).backgroundColor,
                fill("[data-chart=means] .role-axis-label text"), fill("[data-chart=coefficients] .mark-rect path")];
    }"""
    light = visit("full", DESK).page.evaluate(colours)
    dark = visit("full", DESK, dark=True).page.evaluate(colours)
    assert all(first != second for first, second in zip(light, dark, strict=True))
    assert light[0] == "rgb(252, 251, 248)"
    assert dark[0] == "rgb(23, 23, 22)"


def test_paper_is_white_even_from_dark_mode(visit: Callable[..., Tab]) -> None:
    page = visit("full", DESK, dark=True).page
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(31, 30, 27)"
    assert not page.locator(".copy").first.is_visible()
    assert not page.locator("nav").is_visible()


def test_charts_are_drawn_again_for_another_width(visit: Callable[..., Tab]) -> None:
    tab = visit("full", DESK)
    wide = drawings(tab.page)["scores"]["width"]
    tab.page.set_viewport_size({"width": PHONE, "height": 800})
    until(tab.page, "document.querySelector('[data-chart=cost] svg').getBoundingClientRect().width < 340")
    assert wide > 640
    assert drawings(tab.page)["scores"]["right"] <= PHONE
    assert tab.complaints == []


def test_hover_shows_names_as_text(visit: Callable[..., Tab]) -> None:
    tab = visit("hostile", DESK)
    tab.page.locator("[data-chart=coefficients] .mark-rect path").nth(1).hover()
    shown = tab.page.locator("#vg-tooltip-element")
    shown.wait_for(state="visible")
    assert HOSTILE in shown.inner_text()
    assert tab.page.evaluate("window.broken") is None
    assert tab.complaints == []


def test_the_command_can_be_copied(visit: Callable[..., Tab], reports: dict[str, Path]) -> None:
    tab = visit("full", DESK)
    tab.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    button = tab.page.locator("[data-copy] .copy").first
    # The button says so for a moment only, which a busy machine can miss: everything it says is written down.
    tab.page.evaluate(
        """() => {
            window.said = [];
            const button = document.querySelector("[data-copy] .copy");
            new MutationObserver(() => window.said.push(button.textContent)).observe(button, { childList: true });
        }"""
    )
    button.click()
    until(tab.page, "window.said.includes('Copied')")
    assert tab.page.evaluate("navigator.clipboard.readText()") == "supermerge run recipe.yaml -o merged"
    assert tab.complaints == []
