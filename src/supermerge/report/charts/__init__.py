"""Every chart of a report, as Vega-Lite specifications: one source for the interactive page and the card's pictures."""

from __future__ import annotations

from supermerge.report.charts import coefficients, cost, geometry, learning, scores
from supermerge.report.charts.chart import Chart
from supermerge.report.results import Results

# Content widths in pixels of a phone, of a tablet or printed page, and of a desk.
WIDTHS = (320, 640, 880)
_ALL = (
    scores.method_means,
    scores.task_scores,
    coefficients.by_layer,
    coefficients.by_tensor,
    learning.curve,
    geometry.norms,
    geometry.cosines,
    cost.phases,
)


def build(results: Results, widths: tuple[int, ...] = WIDTHS) -> dict[str, Chart]:
    """The charts that `results` has numbers for, by name."""
    drawn = (draw(results, widths) for draw in _ALL)
    return {chart.name: chart for chart in drawn if chart is not None}
