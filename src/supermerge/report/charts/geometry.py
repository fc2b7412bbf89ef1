"""Task vectors: how long they are and how alike they point."""

from __future__ import annotations

import altair as alt

from supermerge.report.charts.chart import DIVERGING, Chart, Rows, extent, finish, label_limit
from supermerge.report.palette import colour
from supermerge.report.results import Results


def norms(results: Results, widths: tuple[int, ...]) -> Chart | None:
    """The length of each task vector, relative to the base."""
    geometry = results.geometry
    if geometry is None or not geometry.experts:
        return None
    data: Rows = [
        {"expert": expert, "order": order, "norm": norm, "relative": relative, "shown": f"{relative:.2%} ({norm:.3g})"}
        for order, (expert, norm, relative) in enumerate(
            zip(geometry.experts, geometry.norms, geometry.relative_norms, strict=True)
        )
    ]
    return Chart(
        "norms", "Size of the task vectors",
        "How far each expert moved from the base: the norm of its task vector as a share of the base's norm "
        "(in brackets: the norm itself).",
        {width: _norms(len(data), width) for width in widths}, {"norms": data},
    )  # fmt: skip


def cosines(results: Results, widths: tuple[int, ...]) -> Chart | None:
    """The cosine between every two task vectors."""
    geometry = results.geometry
    if geometry is None or len(geometry.experts) < 2:
        return None
    pairs = [(i, j) for i in range(len(geometry.experts)) for j in range(len(geometry.experts)) if i != j]
    data: Rows = [
        {
            "first": geometry.experts[i], "second": geometry.experts[j], "first_order": i, "second_order": j,
            "cosine": geometry.cosines[i][j],
        }
        for i, j in pairs
    ]  # fmt: skip
    half = extent([row["cosine"] for row in data])
    return Chart(
        "cosines", "Angles between the task vectors",
        "Cosine of every two task vectors: near 0 they touch different directions, below 0 they pull against each other.",
        {width: _cosines(len(geometry.experts), half, width) for width in widths}, {"cosines": data},
    )  # fmt: skip


def _norms(num_experts: int, width: int) -> dict[str, object]:
    limit = label_limit(width)
    chart = alt.Chart(alt.NamedData(name="norms")).encode(
        x=alt.X("relative:Q", axis=alt.Axis(format="~%", tickCount=5, title=None)),
        y=alt.Y(
            "expert:N", sort=alt.EncodingSortField("order", op="min"), title=None, axis=alt.Axis(labelLimit=limit - 6)
        ),
    )
    bars = chart.mark_bar(height=10, fill=colour("faint")).encode(
        tooltip=[
            alt.Tooltip("expert:N", title="Expert"), alt.Tooltip("norm:Q", title="Norm", format=".4g"),
            alt.Tooltip("relative:Q", title="Of the base", format=".2%"),
        ]
    )  # fmt: skip
    text = chart.mark_text(align="left", dx=6).encode(text="shown:N")
    return finish(
        alt.layer(bars, text).properties(width=width - limit - 96, height=24 * num_experts),
        "Norm of every expert's task vector relative to the base",
    )


def _cosines(num_experts: int, half: float, width: int) -> dict[str, object]:
    limit = label_limit(width)
    cell = min(56, max(8, (width - limit - 14) // num_experts))
    chart = alt.Chart(alt.NamedData(name="cosines")).encode(
        x=alt.X(
            "second:N", sort=alt.EncodingSortField("second_order", op="min"), title=None,
            axis=alt.Axis(domain=False, ticks=False, labelAngle=-45, labelLimit=90),
        ),
        y=alt.Y(
            "first:N", sort=alt.EncodingSortField("first_order", op="min"), title=None, axis=alt.Axis(labelLimit=limit - 6)
        ),
    )  # fmt: skip
    cells = chart.mark_rect(stroke=colour("paper"), strokeWidth=1).encode(
        fill=alt.Fill("cosine:Q", scale=alt.Scale(type="quantize", domain=[-half, half], range=DIVERGING), legend=None),
        tooltip=[
            alt.Tooltip("first:N", title="Expert"), alt.Tooltip("second:N", title="and"),
            alt.Tooltip("cosine:Q", title="Cosine", format=".4f"),
        ],
    )  # fmt: skip
    parts = [cells]
    if cell >= 27:
        strong = alt.condition(f"abs(datum.cosine) > {0.6 * half}", alt.value(colour("paper")), alt.value(colour("ink")))
        small = 11 if cell >= 34 else 9
        parts.append(chart.mark_text(fontSize=small).encode(text=alt.Text("cosine:Q", format=".2f"), fill=strong))
    return finish(
        alt.layer(*parts).properties(width=cell * num_experts, height=min(cell, 34) * num_experts),
        "Cosine between every two task vectors",
    )
