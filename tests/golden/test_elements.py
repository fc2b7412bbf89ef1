"""Hand-computed merges that choose element by element: base, task vectors, parameters, numbers expected."""

import pytest

ONE, TWO = [3, -1, 2, 0], [1, 2, -4, 1]

EXAMPLES = {
    "nearswap": ("nearswap", {"t": 0.5}, [1, 1, 1], [[3, -0.5, 0.1]], [1.5, 0.5, 1.1]),
    "passthrough": ("passthrough", {"scale": 2}, [1, 2], [[1, -1]], [4, 2]),
    "magmax": ("magmax", {"scale": 1}, [0] * 4, [ONE, TWO], [3, 2, -4, 1]),
    "magmax, half": ("magmax", {}, [1] * 4, [ONE, TWO], [2.5, 2, -1, 1.5]),
    "magmax, the later of equal magnitudes": ("magmax", {"scale": 1}, [0], [[1], [-1]], [-1]),
    "emr": ("emr", {}, [0] * 4, [ONE, TWO], [3, 2, -4, 1]),
    "emr, the elected sign": ("emr", {}, [0] * 2, [[3, 1], [-2, -5]], [3, -5]),
    "emr, a sum of zero": ("emr", {}, [0], [[1], [-1]], [-1]),
    "consensus of two, threshold 0.4": ("consensus", {"scale": 1}, [0] * 4, [ONE, TWO], [0, 1, -2, 0]),
    "consensus of two, scale": ("consensus", {"scale": 0.5}, [1] * 4, [ONE, TWO], [1, 1.5, 0, 1]),
    # With threshold 1 the masks are (1, 0, 0, 0) and (0, 1, 1, 1).
    "consensus of one, threshold 1": (
        "consensus",
        {"scale": 1, "tasks": 1, "threshold": 1},
        [0] * 4,
        [ONE, TWO],
        [4, 1, -2, 1],
    ),
    "consensus of two, threshold 1": (
        "consensus",
        {"scale": 1, "threshold": [1, 1]},
        [0] * 4,
        [ONE, TWO],
        [0, 0, 0, 0],
    ),
    "consensus of none is task arithmetic": ("consensus", {"scale": 1, "tasks": 0}, [0] * 4, [ONE, TWO], [4, 1, -2, 1]),
    "consensus of more than all is the base": ("consensus", {"tasks": 3}, [5] * 4, [ONE, TWO], [5] * 4),
    "ram, disjoint and shared": ("ram", {}, [0] * 3, [[1, 0, 2], [0, 3, 4]], [1, 3, 3]),
    "ram, small changes do not count": ("ram", {"epsilon": 0.5}, [0] * 2, [[1, 0.4], [0.5, 2]], [1, 2]),
    # One own and one shared element each: ρ = 1, limited to 0.2, so own elements count 1.02 times.
    "ramplus": ("ramplus", {}, [0] * 3, [[1, 0, 2], [0, 3, 4]], [1.02, 3.06, 3]),
    "ramplus, per tensor": ("ramplus", {"per": "tensor"}, [0] * 3, [[1, 0, 2], [0, 3, 4]], [1.02, 3.06, 3]),
    "ramplus, below the limit": (
        "ramplus",
        {"rate": 1, "limit": 5},
        [0] * 3,
        [[1, 1, 2], [0, 0, 4]],
        [1.5, 1.5, 3],
    ),
    # Importances 0.3279 twice and 0 twice: the threshold 0 + 1.5 · 0.3279 keeps nothing.
    "arcee fusion, nothing stands out": (
        "arcee_fusion",
        {},
        [[0, 0], [0, 0]],
        [[[1, -1], [0, 0]]],
        [[0, 0], [0, 0]],
    ),
    # Importances: 0.3279 in the first row, 0.1 · 0.00498 in the second, else 0: the quartiles are 0, 0 and 0.000498.
    "arcee fusion, the large change stands out": (
        "arcee_fusion",
        {},
        [[0, 0]] * 5,
        [[[1, -1], [0.1, -0.1], [0, 0], [0, 0], [0, 0]]],
        [[1, -1], [0, 0], [0, 0], [0, 0], [0, 0]],
    ),
}


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_merge_equals_the_numbers_computed_by_hand(example, check):
    check(*example)
