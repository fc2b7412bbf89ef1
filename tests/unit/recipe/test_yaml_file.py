from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supermerge.errors import RecipeError
from supermerge.yaml_file import read_yaml, write_yaml


def test_reads_scalars_as_yaml_1_2() -> None:
    text = "on: ties, a: no, b: 1e-3, c: 010, d: 1:30, e: 0x10, f: 2024-01-02, g: true, h: null, 5: x, i: .inf, j: -1.5"
    value = read_yaml(f"{{{text}}}", "r").value
    assert value == {
        "on": "ties",
        "a": "no",
        "b": 1e-3,
        "c": 10,
        "d": "1:30",
        "e": 16,
        "f": "2024-01-02",
        "g": True,
        "h": None,
        "5": "x",
        "i": math.inf,
        "j": -1.5,
    }


def test_knows_the_line_of_every_key_and_item() -> None:
    document = read_yaml("a: 1\nb:\n  c: 2\n  d:\n  - x\n  - {e: 3}\n", "r")
    assert document.line(("b", "d", 1, "e")) == 6
    assert document.line(("b", "c")) == 3
    assert document.line(("b", "missing", "deeper")) == 2
    assert document.line(("missing",)) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "r, line 3: key 'a' appears twice; the first is on line 1"),
        ("a:\n  x: 1\n  x: 1\n", "r, line 3: key 'x' appears twice"),
        ("a: [1, 2\nb: 3\n", "r, line 2, column"),
        ("a: 'open\n", "not valid YAML"),
        ("? [1, 2]\n: x\n", "r, line 1: a key is a list or a mapping"),
        ("a: &x [*x]\n", "an alias contains itself"),
        ("a: !!python/object:os.system x\n", "could not determine a constructor"),
        ("a: 1\n---\nb: 2\n", "expected a single document"),
        ("a: \x00\n", "not valid YAML"),
    ],
)
def test_refuses(text: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read_yaml(text, "r")
    assert message in caught.value.message


def test_refuses_aliases_that_explode() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    with pytest.raises(RecipeError, match="aliases expand to more than"):
        read_yaml("\n".join(lines), "r")


def test_merge_keys_work() -> None:
    assert read_yaml("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\n", "r").value["b"] == {"x": 1, "y": 3}


def test_empty_is_none() -> None:
    assert read_yaml("# nothing\n", "r").value is None


words = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Cn", "Co")), max_size=12)
scalars = words | st.integers() | st.floats(allow_nan=False) | st.booleans() | st.none()
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3))


@given(values)
def test_written_values_read_back(value: object) -> None:
    assert read_yaml(write_yaml({"value": value}), "r").value == {"value": value}


@pytest.mark.parametrize("text", ["1e-3", "on", "no", "010", "1:30", "0o7", "null", "~", "", "<<", "2024-01-02"])
def test_strings_stay_strings(text: str) -> None:
    assert read_yaml(write_yaml([text]), "r").value == [text]
