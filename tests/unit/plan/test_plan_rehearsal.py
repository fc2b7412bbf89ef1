from __future__ import annotations

import pytest

from supermerge.methods import get
from supermerge.plan.rehearsal import bytes_per_element, survey_passes


def test_passes_of_a_survey() -> None:
    assert survey_passes(get("linear").bind(), 3) == 0
    assert survey_passes(get("ties").bind({"zero_sign": "positive"}), 3) == 1
    assert survey_passes(get("ties").bind({"zero_sign": "majority"}), 3) == 2


def test_a_sum_holds_the_sum_and_one_product() -> None:
    for k in (2, 5):
        assert bytes_per_element(get("task_arithmetic").bind(), k) == pytest.approx(8, abs=1)


def test_trimming_holds_a_copy_of_every_task_vector() -> None:
    two, four = (bytes_per_element(get("ties").bind(), k) for k in (2, 4))
    assert four - two >= 8
