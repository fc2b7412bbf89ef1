from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from supermerge.report import Results


def read(document: dict[str, Any]) -> Results:
    return Results.model_validate_json(json.dumps(document))


def test_survives_writing_and_reading(results: Results) -> None:
    assert Results.model_validate_json(results.model_dump_json()) == results


def test_an_unknown_field_is_refused(document: dict[str, Any]) -> None:
    document["colour"] = "red"
    with pytest.raises(ValidationError, match="colour"):
        read(document)


def test_another_format_is_refused(document: dict[str, Any]) -> None:
    document["format"] = 2
    with pytest.raises(ValidationError, match="format"):
        read(document)


def test_a_number_as_text_is_refused(document: dict[str, Any]) -> None:
    document["models"][0]["mean"] = "0.5"
    with pytest.raises(ValidationError, match="mean"):
        read(document)


def test_a_score_that_is_not_a_number_is_refused(results: Results) -> None:
    parts = results.models[0].model_dump()
    parts["mean"] = float("nan")
    with pytest.raises(ValidationError, match="finite"):
        type(results.models[0]).model_validate(parts)


def test_coefficients_must_have_one_row_per_tensor(document: dict[str, Any]) -> None:
    document["coefficients"]["values"].pop()
    with pytest.raises(ValidationError, match=r"coefficients\.values: expected 103 rows of 4, found 102 rows of \[4\]"):
        read(document)


def test_cosines_must_be_square(document: dict[str, Any]) -> None:
    document["geometry"]["cosines"][1].pop()
    with pytest.raises(ValidationError, match=r"geometry\.cosines: expected 4 rows of 4, found 4 rows of \[3, 4\]"):
        read(document)


def test_scores_of_an_unknown_task_are_refused(document: dict[str, Any]) -> None:
    del document["tasks"]["spam"]
    with pytest.raises(ValidationError, match="unknown tasks: spam"):
        read(document)


def test_an_id_listed_twice_is_refused(document: dict[str, Any]) -> None:
    document["models"].append(document["models"][0])
    with pytest.raises(ValidationError, match="listed twice: base"):
        read(document)


def test_two_merged_models_are_refused(document: dict[str, Any]) -> None:
    document["models"].append({**document["models"][5], "id": "merged-again"})
    with pytest.raises(ValidationError, match="more than one is of kind merged"):
        read(document)


def test_a_recommendation_must_name_a_model(document: dict[str, Any]) -> None:
    document["recommendation"]["model"] = "method:none"
    with pytest.raises(ValidationError, match="method:none is not among the models"):
        read(document)


def test_importing_the_report_loads_no_heavy_library() -> None:
    heavy = "{'torch', 'transformers', 'altair', 'vl_convert', 'jinja2', 'pandas', 'yaml'}"
    code = f"import sys, supermerge.report; print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
