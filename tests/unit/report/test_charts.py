from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import altair as alt
import pytest
import vl_convert
from PIL import Image

from supermerge.report import Results, charts
from supermerge.report.charts.chart import Chart, columns
from supermerge.report.palette import COLOURS

ALL = ["means", "scores", "coefficients", "coefficients-by-tensor", "learning", "norms", "cosines", "cost"]


@pytest.fixture(scope="module")
def built(results: Results) -> dict[str, Chart]:
    return charts.build(results)


@pytest.fixture(scope="module")
def large(results: Results) -> dict[str, Chart]:
    """Charts of 8 experts, 9 tasks, 12 layers: 205 tensors."""
    document = results.model_dump(mode="json")
    kinds = [f"attention.{x}.{y}" for x in ("query", "key", "value", "output") for y in ("weight", "bias")]
    kinds += [f"{x}.{y}" for x in ("mlp.up", "mlp.down", "norm.before", "norm.after") for y in ("weight", "bias")]
    tensors = [f"encoder.layer.{layer}.{kind}" for layer in range(12) for kind in kinds]
    tensors += ["cls_token", "mask_token", "position_embeddings", "patch.weight", "patch.bias"]
    tensors += [f"final.{i}x.weight" for i in range(8)]
    names = [f"an expert with a rather long name {i}" for i in range(8)]
    size = len(names)
    document["coefficients"] = {
        "experts": names,
        "tensors": tensors,
        "values": [[((i * 7 + j) % 13 - 4) / 20 for i in range(size)] for j in range(len(tensors))],
    }
    document["geometry"] = {
        "experts": names,
        "norms": [1.0] * size,
        "relative_norms": [0.01] * size,
        "cosines": [[0.1 if i != j else 1.0 for i in range(size)] for j in range(size)],
    }
    task, score = document["tasks"]["spam"], document["models"][0]["scores"]["spam"]
    document["tasks"] = {f"a task with a rather long name {i}": task for i in range(9)}
    for model in document["models"]:
        model["scores"] = dict.fromkeys(document["tasks"], score)
        model["label"] = f"The method of {model['label']} and others"
    return charts.build(Results.model_validate_json(json.dumps(document)))


def svg(chart: Chart, width: int) -> str:
    return vl_convert.vegalite_to_svg({**chart.specs[width], "datasets": chart.data}, show_warnings=True)


def drawn_width(text: str) -> float:
    found = re.search(r'<svg[^>]* width="([\d.]+)"', text)
    assert found is not None
    return float(found[1])


def test_the_sample_has_every_chart(built: dict[str, Chart]) -> None:
    assert list(built) == ALL
    assert all(list(chart.specs) == list(charts.WIDTHS) for chart in built.values())


@pytest.mark.parametrize("name", ALL)
def test_specifications_are_valid_vega_lite(built: dict[str, Chart], name: str) -> None:
    for spec in built[name].specs.values():
        assert alt.Chart.from_dict(spec, validate=True)


@pytest.mark.parametrize("name", ALL)
def test_charts_fit_their_width(built: dict[str, Chart], name: str, capfd: pytest.CaptureFixture[str]) -> None:
    chart = built[name]
    for width in charts.WIDTHS:
        assert drawn_width(svg(chart, width)) <= width
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", ALL)
def test_many_long_names_fit_too(large: dict[str, Chart], name: str) -> None:
    chart = large[name]
    for width in (charts.WIDTHS[0], charts.WIDTHS[-1]):
        assert drawn_width(svg(chart, width)) <= width * 1.1


def test_every_tensor_has_a_cell_for_every_expert(large: dict[str, Chart]) -> None:
    cells = large["coefficients-by-tensor"].data["tensors"]
    assert len(cells) == 205 * 8
    assert len({(cell["expert"], cell["kind"], cell["layer"]) for cell in cells}) == 205 * 8
    first = next(cell for cell in cells if cell["tensor"] == "encoder.layer.3.mlp.up.bias" and cell["order"] == 2)
    assert (first["layer"], first["kind"]) == ("3", "mlp.up.bias")


def many(results: Results, experts: int) -> Results:
    """So many experts, of which those with an odd number have twice the coefficients, and the last one the largest."""
    document = results.model_dump(mode="json")
    tensors = [f"layer.{layer}.{kind}.weight" for layer in range(12) for kind in "abcdefghijklmnop"]
    values = [[0.1 + 0.1 * (i % 2) + (i == experts - 1) for i in range(experts)] for _ in tensors]
    names = [f"e{i}" for i in range(experts)]
    document["coefficients"] = {"experts": names, "tensors": tensors, "values": values}
    return Results.model_validate_json(json.dumps(document))


def test_of_many_experts_those_with_the_largest_coefficients_have_a_panel(results: Results) -> None:
    chart = charts.build(many(results, 40))["coefficients-by-tensor"]
    shown = list(dict.fromkeys(cell["expert"] for cell in chart.data["tensors"]))
    assert shown == [f"e{i}" for i in (*range(1, 31, 2), 39)]
    assert "Of 40 experts, the 16 with the largest coefficients." in chart.caption
    few = charts.build(many(results, 16))["coefficients-by-tensor"]
    assert len({cell["expert"] for cell in few.data["tensors"]}) == 16
    assert "largest" not in few.caption


DRAW = """
import resource, sys
from pathlib import Path
from supermerge.report import Results, charts
results = Results.model_validate_json(Path(sys.argv[1]).read_text())
for chart in charts.build(results).values():
    if chart.name.startswith("coefficients"):
        chart.png()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


def test_the_pictures_of_many_experts_take_little_more_memory(results: Results, tmp_path: Path) -> None:
    peaks = []
    for experts in (2, 64):
        (tmp_path / "results.json").write_text(many(results, experts).model_dump_json())
        command = [sys.executable, "-c", DRAW, str(tmp_path / "results.json")]
        # Its peak starts at the size of the process that forked it, so a small one stands between it and pytest.
        between = [sys.executable, "-c", "import subprocess, sys; subprocess.run(sys.argv[1:], check=True)", *command]
        peaks.append(int(subprocess.run(between, capture_output=True, text=True, check=True).stdout))
    # A panel for every expert would take 168 MB.
    assert peaks[1] - peaks[0] < 90e6


def test_layers_show_the_mean_of_their_tensors(results: Results, built: dict[str, Chart]) -> None:
    found = results.coefficients
    assert found is not None
    own = [row[1] for name, row in zip(found.tensors, found.values, strict=True) if ".layer.4." in name]
    cells = built["coefficients"].data["coefficients"]
    cell = next(cell for cell in cells if cell["layer"] == "4" and cell["expert"] == "reuters")
    assert cell["mean"] == pytest.approx(sum(own) / 16)
    assert (cell["low"], cell["high"], cell["tensors"]) == (min(own), max(own), 16)


def test_every_interval_is_drawn(results: Results, built: dict[str, Chart]) -> None:
    rows = built["scores"].data["scores"]
    assert len(rows) == 4 * 7
    merged = next(row for row in rows if row["kind"] == "merged" and row["task"] == "spam")
    score = results.models[5].scores["spam"]
    assert (merged["value"], merged["low"], merged["high"]) == (score.value, score.low, score.high)


def test_a_chart_becomes_a_picture_that_is_not_see_through(built: dict[str, Chart]) -> None:
    picture = Image.open(io.BytesIO(built["means"].png(scale=1))).convert("RGBA")
    assert picture.getpixel((0, 0)) == (*bytes.fromhex(COLOURS["paper"]["light"][1:]), 255)
    assert picture.getextrema()[3] == (255, 255)
    accent = tuple(bytes.fromhex(COLOURS["accent"]["light"][1:]))
    assert sum(count for count, pixel in picture.convert("RGB").getcolors(1 << 16) or [] if pixel == accent) > 100


@pytest.mark.parametrize(
    ("parts", "missing"),
    [
        ({"learning": None}, {"learning"}),
        ({"coefficients": None}, {"coefficients", "coefficients-by-tensor"}),
        ({"geometry": None}, {"norms", "cosines"}),
        ({"cost": {"phases": []}}, {"cost"}),
        ({"tasks": {}, "models": [], "recommendation": None}, {"means", "scores"}),
    ],
)
def test_missing_numbers_mean_no_chart(build: Callable[..., Results], parts: dict[str, Any], missing: set[str]) -> None:
    assert set(ALL) - set(charts.build(build(**parts))) == missing


def test_one_expert_has_no_angles(build: Callable[..., Results]) -> None:
    geometry = {"experts": ["one"], "norms": [1.0], "relative_norms": [0.1], "cosines": [[1.0]]}
    found = charts.build(build(geometry=geometry))
    assert "norms" in found
    assert "cosines" not in found


def test_small_cosines_are_pale(build: Callable[..., Results]) -> None:
    def darkest(cosine: float) -> float:
        geometry = {"experts": ["one", "two"], "norms": [1.0, 1.0], "relative_norms": [0.1, 0.1]}
        found = charts.build(build(geometry={**geometry, "cosines": [[1.0, cosine], [cosine, 1.0]]}))["cosines"]
        return found.specs[charts.WIDTHS[0]]["layer"][0]["encoding"]["fill"]["scale"]["domain"][1]

    assert [darkest(0.02), darkest(-0.8)] == [0.5, 0.8]


def test_a_start_is_explained(build: Callable[..., Results]) -> None:
    def caption(*names: str) -> str:
        parts = {"experts": names, "tensors": ["layer.0.w", "layer.1.w"], "values": [[0.5] * len(names)] * 2}
        return charts.build(build(coefficients=parts))["coefficients"].caption

    assert "“start:iso_c” is the merge that learning started at" in caption("news", "start:iso_c")
    assert "start" not in caption("news", "spam")


def test_memory_may_be_unknown(build: Callable[..., Results]) -> None:
    chart = charts.build(build(cost={"phases": [{"name": "learn", "seconds": 1.0}]}))["cost"]
    assert chart.title == "Time by phase"
    assert drawn_width(svg(chart, 320)) <= 320


def test_a_learning_curve_may_have_no_held_back_loss(document: dict[str, Any], build: Callable[..., Results]) -> None:
    learning = {
        **document["learning"],
        "best_step": None,
        "curve": [{"step": s, "loss": 1.0 / (s + 1)} for s in range(3)],
    }
    chart = charts.build(build(learning=learning))["learning"]
    assert chart.data["best"] == []
    assert "held back" not in chart.caption
    assert "held back" not in svg(chart, 320)


def test_panels_stand_in_even_rows() -> None:
    assert columns(4, 700, 150) == 4
    assert columns(5, 700, 150) == 3
    assert columns(8, 200, 150) == 1
    assert columns(3, 100, 150) == 1
