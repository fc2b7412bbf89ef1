from __future__ import annotations

import threading

import pytest

from supermerge.assemble.workers import parallel


@pytest.mark.parametrize("ordered", [True, False])
def test_of_several_errors_the_first_in_the_order_of_the_items_is_told(ordered: bool) -> None:
    second_failed = threading.Event()

    def work(item: int) -> int:
        if item == 1:
            second_failed.wait(10)
            raise ValueError("first")
        if item == 2:
            second_failed.set()
            raise ValueError("second")
        return item

    with pytest.raises(ValueError, match="first"):
        list(parallel(range(3), work, threads=3, cost=lambda _: 1, limit=100, ordered=ordered))
