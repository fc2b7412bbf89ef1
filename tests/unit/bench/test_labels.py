from __future__ import annotations

from suites.labels import Label, placed


def test_a_name_alone_is_right_of_its_point() -> None:
    assert placed(["ties"], [(100.0, 50.0)], 640) == [Label(50.0, left=False)]


def test_a_name_that_would_leave_the_chart_is_left_of_its_point() -> None:
    assert placed(["supermerge"], [(630.0, 50.0)], 640) == [Label(50.0, left=True)]


def test_names_and_points_do_not_meet() -> None:
    # Four points in one place but for a pixel, and one where the first name would be.
    at = [(200.0, 50.0), (201.0, 51.0), (200.0, 52.0), (202.0, 50.0), (230.0, 50.0)]
    found = placed(["task_arithmetic"] * 5, at, 640)
    sides = [(label.left, round(label.y)) for label in found]
    for one, (left, y) in enumerate(sides):
        assert all(abs(y - other) >= 11 for place, (side, other) in enumerate(sides) if place != one and side == left)
    assert not any(not left and abs(y - 50) < 10 for left, y in sides[:4])


def test_where_nothing_is_free_a_name_stays() -> None:
    crowd = [(float(x), float(y)) for x in range(0, 200, 8) for y in range(-64, 80, 8)]
    found = dict(zip(crowd, placed(["ties"] * len(crowd), crowd, 640), strict=True))
    assert found[96.0, 0.0] == Label(0.0, left=False)
