from __future__ import annotations

from suites.items import Item
from suites.parts import Sizes, parts

ITEMS = [Item(f"text {number}", "even" if number % 2 == 0 else "odd") for number in range(2000)]


def test_no_content_is_in_two_parts_and_the_shares_are_as_said() -> None:
    found = parts([*ITEMS, *ITEMS[:50]], Sizes(train=5000))
    contents = [item.content for members in found.values() for item in members]
    assert len(contents) == len(set(contents)) == 2000
    sizes = {name: len(members) for name, members in found.items()}
    assert 450 < sizes["test"] < 550
    assert 80 < sizes["development"] < 160
    assert 130 < sizes["pool"] < 230
    assert 190 < sizes["unlabelled"] < 290


def test_a_text_is_in_the_same_part_of_every_task() -> None:
    other = [Item(item.content, "another task's label") for item in reversed(ITEMS)]
    one, two = parts(ITEMS, Sizes(train=5000)), parts(other, Sizes(train=5000))
    for name in one:
        assert {item.content for item in one[name]} == {item.content for item in two[name]}


def test_items_of_a_group_stay_together() -> None:
    grouped = [
        Item(f"glyph {number}", "a" if number % 3 else "b", group=f"font {number // 10}") for number in range(900)
    ]
    places: dict[str, set[str]] = {}
    for name, members in parts(grouped, Sizes()).items():
        for item in members:
            places.setdefault(item.group, set()).add(name)
    assert len(places) == 90
    assert all(len(found) == 1 for found in places.values())


def test_the_sources_own_test_side_stays_and_its_texts_leave_training() -> None:
    own = [Item(f"text {number}", "a" if number % 2 else "b", test=number >= 300) for number in range(400)]
    again = [Item("text 350", "a", test=False)]
    found = parts([*again, *own], Sizes())
    assert {item.content for item in found["test"]} == {f"text {number}" for number in range(300, 400)}
    assert "text 350" not in {item.content for item in found["train"]}


def test_a_class_that_training_does_not_know_is_nowhere() -> None:
    rare = [Item(f"rare {number}", "rare", test=True) for number in range(5)]
    assert all(item.label != "rare" for members in parts([*ITEMS, *rare], Sizes()).values() for item in members)


def test_a_class_that_the_cut_of_the_training_part_leaves_out_is_nowhere() -> None:
    rare = [Item(f"rare {number}", "rare") for number in range(40)]
    whole = parts([*ITEMS, *rare], Sizes(train=5000))
    place = min(number for number, item in enumerate(whole["train"]) if item.label == "rare")
    cut = parts([*ITEMS, *rare], Sizes(train=place))
    assert any(item.label == "rare" for item in whole["test"])
    assert all(item.label != "rare" for members in cut.values() for item in members)
