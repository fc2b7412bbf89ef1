from __future__ import annotations

from itertools import pairwise
from typing import get_args

import pytest

from supermerge.report import palette
from supermerge.report.palette import COLOURS, RAMP, Theme

THEMES: tuple[Theme, ...] = get_args(Theme)


def luminance(colour: str) -> float:
    """WCAG 2 relative luminance."""
    channels = [value / 255 for value in bytes.fromhex(colour[1:])]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    darker, lighter = sorted([luminance(first), luminance(second)])
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("text", ["ink", "muted", "accent", "caution"])
@pytest.mark.parametrize("ground", ["paper", "panel"])
def test_text_is_readable(theme: Theme, text: str, ground: str) -> None:
    assert contrast(COLOURS[text][theme], COLOURS[ground][theme]) >= 4.5


@pytest.mark.parametrize("theme", THEMES)
def test_heat_maps_read_without_hue(theme: Theme) -> None:
    """Lightness alone orders each arm, so that no colour vision is needed to see how large a value is."""
    values = [luminance(COLOURS[name][theme]) for name in RAMP]
    middle = len(values) // 2
    sign = 1 if values[middle] > values[0] else -1
    assert all(sign * (second - first) > 0 for first, second in pairwise(values[: middle + 1]))
    assert all(sign * (first - second) > 0 for first, second in pairwise(values[middle:]))


def test_variables_become_colours() -> None:
    assert palette.resolved("a var(--ink) b", "dark") == f"a {COLOURS['ink']['dark']} b"
    assert f"--accent: {COLOURS['accent']['light']};" in palette.css("light")


def test_an_unknown_colour_is_a_mistake() -> None:
    with pytest.raises(KeyError, match="pink"):
        palette.colour("pink")
