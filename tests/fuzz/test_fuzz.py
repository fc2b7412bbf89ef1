"""Every reader takes any bytes: the corpus and past crashes replayed, Hypothesis on bytes and on almost good ones."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
EXAMPLES = 2000 if "SUPERMERGE_FUZZ" in os.environ else 60
SEEDS = {name: [path.read_bytes() for path in sorted((CORPUS / name).iterdir())] for name in TARGETS}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_is_taken(name: str) -> None:
    assert SEEDS[name]
    for seed in SEEDS[name]:
        TARGETS[name](seed)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_any_bytes(name: str, data: st.DataObject) -> None:
    TARGETS[name](data.draw(st.binary(max_size=200)))


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_good_bytes_with_a_part_replaced(name: str, data: st.DataObject) -> None:
    seed = data.draw(st.sampled_from(SEEDS[name]))[:2000]
    start = data.draw(st.integers(0, len(seed)))
    stop = data.draw(st.integers(start, min(len(seed), start + 20)))
    TARGETS[name](seed[:start] + data.draw(st.binary(max_size=20) | st.text(max_size=8).map(encoded)) + seed[stop:])


def encoded(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


@settings(max_examples=EXAMPLES)
@given(
    name=st.sampled_from(["header", "index", "lock", "coefficients", "jsonl"]),
    key=st.sampled_from(["dtype", "shape", "data_offsets", "weight_map", "base", "experts", "groups", "text", "label"]),
    value=json_values,
)
def test_any_json_in_the_place_of_a_value(name: str, key: str, value: Any) -> None:
    """Well-formed JSON of the wrong kind gets past the parsers and into what comes after them."""
    tail = SEEDS[name][-1]
    start = b"\x08\0" if name == "header" else b""
    document = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "format": "1", "link": "tanh"}
    inner = {**document["a"], key: value} if name == "header" else document["a"]
    TARGETS[name](start + json.dumps({**document, "a": inner, key: value}).encode())
    TARGETS[name](start + json.dumps(value).encode())
    TARGETS[name](tail)
