from __future__ import annotations

from supermerge.report.layers import OUTSIDE, Place, places, shorten


def test_the_first_number_closes_the_layer() -> None:
    assert places(["bert.encoder.layer.11.attention.self.query.weight", "embeddings.weight"]) == [
        Place("11", "attention.self.query.weight"),
        Place(OUTSIDE, "embeddings.weight"),
    ]


def test_stacks_are_told_apart() -> None:
    found = places(["encoder.block.0.layer.1.w", "decoder.block.0.layer.2.w", "shared.weight"])
    assert found == [Place("encoder 0", "layer.1.w"), Place("decoder 0", "layer.2.w"), Place(OUTSIDE, "shared.weight")]


def test_a_number_at_either_end_is_no_layer() -> None:
    assert [place.layer for place in places(["0.weight", "blocks.3"])] == [OUTSIDE, OUTSIDE]


def test_kinds_are_cut_until_few_enough() -> None:
    kinds = ["mlp.experts.0.w", "mlp.experts.1.w", "attn.q.w", "attn.k.w"]
    assert shorten(kinds, 4) == kinds
    assert shorten(kinds, 3) == ["mlp.experts", "mlp.experts", "attn.q", "attn.k"]
    assert shorten(kinds, 1) == ["mlp", "mlp", "attn", "attn"]
    assert shorten([], 3) == []
