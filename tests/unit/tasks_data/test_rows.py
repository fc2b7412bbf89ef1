from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from supermerge.tasks.rows import Row

texts = st.lists(st.text(alphabet="ab", max_size=3), max_size=2).map(tuple)
optional = st.none() | st.text(alphabet="ab", max_size=3)


def test_hash_is_blake3_of_lengths_and_parts() -> None:
    def length(n: int) -> bytes:
        return n.to_bytes(8, "little", signed=True)

    content = (1).to_bytes(4, "little") + length(2) + "é".encode() + length(-1) + length(-1) + length(-1)
    assert Row("p", texts=("é",)).hash == blake3(content).hexdigest()


def test_place_and_label_do_not_count() -> None:
    row = Row("a:1", texts=("x",), label=1)
    assert replace(row, place="b:7", label="two", label_name="two").hash == row.hash


@settings(deadline=None)
@given(texts, optional, optional, texts, optional, optional)
def test_equal_hash_means_equal_content(
    ours: tuple[str, ...],
    prompt: str | None,
    target: str | None,
    theirs: tuple[str, ...],
    their_prompt: str | None,
    their_target: str | None,
) -> None:
    one = Row("a", texts=ours, prompt=prompt, target=target)
    other = Row("b", texts=theirs, prompt=their_prompt, target=their_target)
    same = (ours, prompt, target) == (theirs, their_prompt, their_target)
    assert (one.hash == other.hash) == same


def test_an_image_counts_by_its_bytes(tmp_path: Path, png: Callable[[int], bytes]) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(png(1))
    assert Row("a", image=file).hash == Row("b", image=png(1)).hash
    assert Row("a", image=file).hash != Row("b", image=png(2)).hash
