"""RegMean++: Gram matrices of layers whose predecessors are merged, against a merge grown by hand."""

from __future__ import annotations

from contextlib import ExitStack

import torch

from supermerge.cache import cache_directory
from supermerge.checkpoint import Checkpoint
from supermerge.methods import Context, get
from supermerge.methods.layers import layer_of
from supermerge.run.prepared import Prepared
from supermerge.statistics import supplied
from supermerge.statistics.gram import input_grams


def test_every_layer_sees_what_the_merged_layers_before_it_give(ready: Prepared, files: ExitStack) -> None:
    bench, experts = ready.require_bench("the test"), ready.match.experts
    plain = get("regmean_plus_plus").bind({"ridge": 0.001})
    (bound,) = supplied([plain], ready.statistics(), files)
    assert bound.measured is not None

    weights = {name: [source.read(name).float() for source in experts.values()] for name in ready.match.merged}
    base = {name: ready.opened.base.read(name).float() for name in ready.match.merged}
    mean = {name: torch.stack(each).mean(0) for name, each in weights.items()}
    done = {name: value for name, value in mean.items() if layer_of(name) is None}
    for number in (0, 1):
        layer = f"encoder.layer.{number}"
        inside = [name for name in weights if layer_of(name) == layer]
        grams = []
        for place, expert in enumerate(experts):
            hybrid = {name: done.get(name, mean[name]) for name in weights}
            hybrid |= {name: weights[name][place] for name in inside}
            bench.load(Checkpoint.open(hybrid))
            grams.append(input_grams(bench, {expert: bench.encode(expert, ready.rows[expert].labelled)})[0])
        for name in inside:
            context = Context(name, tuple(base[name].shape), tuple(experts))
            seen = bound.measured.of(("merged_gram",), context, base[name].shape).of("merged_gram")
            if name not in grams[0]:
                assert seen is None
                done[name] = mean[name]
                continue
            assert seen is not None
            for found, each in zip(seen, grams, strict=True):
                assert torch.allclose(found, each[name], rtol=1e-3, atol=1e-5), name
            taus = torch.stack(weights[name]) - base[name]
            done[name] = bound(base[name], taus, context)
    first = "encoder.layer.0.attention.self.query.weight"
    last = "encoder.layer.1.output.dense.weight"
    ordinary, _ = input_grams(bench, {"mood": bench.encode("mood", ready.rows["mood"].labelled)})
    bench.load(experts["mood"])
    alone, _ = input_grams(bench, {"mood": bench.encode("mood", ready.rows["mood"].labelled)})
    assert not torch.allclose(ordinary[first], alone[first], rtol=1e-2)
    assert not torch.allclose(ordinary[last], alone[last], rtol=1e-2)


def test_nothing_is_left_behind(ready: Prepared) -> None:
    home = cache_directory() / "statistics"
    before = set(home.glob("growing-*"))
    with ExitStack() as files:
        supplied([get("regmean_plus_plus").bind()], ready.statistics(), files)
        assert set(home.glob("growing-*")) > before
    assert set(home.glob("growing-*")) == before
