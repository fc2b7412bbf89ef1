"""What every registered method must keep, whatever its formula. One row per method; a method without a row fails."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from forms import FORMS, Lora
from forms import opened as opened_as
from threads_as_peers import together

from supermerge.assemble import merge_into, output_infos, pieces
from supermerge.assemble.merge import StateDict
from supermerge.checkpoint import Checkpoint, Match, ShardWriter
from supermerge.distributed import ALONE, Peers, deal
from supermerge.errors import CheckpointError, RecipeError
from supermerge.learn.basis import Basis
from supermerge.methods import BLOCK, KINDS, Bound, Measured, Statistics, get, names, weighted_sum
from supermerge.methods.measured import own_shape
from supermerge.methods.registry import takes


@dataclass(frozen=True)
class Row:
    """What holds for one method. Parameters are those under which it holds; None says that it does not."""

    params: dict = field(default_factory=dict)
    k: tuple[int, int] = (1, 4)
    one_expert: dict | None = None  # one expert is returned
    identical: dict | None = None  # experts that are all the same are returned
    permutes: bool = True  # the order of the experts does not matter, to rounding …
    generic: bool = False  # … where no singular values coincide, which would leave the directions to choose open


ROWS = {
    "linear": Row(one_expert={}, identical={}),
    "task_arithmetic": Row(one_expert={"scale": 1}),
    "ties": Row(one_expert={"density": 1}, identical={"density": 1}),
    # Draws go by the expert's name, so permuted experts keep theirs.
    "dare_linear": Row(one_expert={"drop": 0, "scale": 1}),
    "dare_ties": Row(one_expert={"drop": 0}, identical={"drop": 0}),
}
ROWS |= {
    "slerp": Row(k=(1, 2), one_expert={"t": 1}, identical={"t": 1}),
    "nuslerp": Row(k=(2, 2), identical={}),
    "karcher": Row(one_expert={}, identical={}),
    "multislerp": Row(one_expert={}, identical={}),
    "model_stock": Row(k=(2, 4), identical={}),
    "nearswap": Row(k=(1, 1), one_expert={"t": 10}),
    "passthrough": Row(k=(1, 1), one_expert={}),
    "magmax": Row(one_expert={"scale": 1}, identical={"scale": 1}, permutes=False),  # the later of equal magnitudes
    "emr": Row(one_expert={}, identical={}),
    "consensus": Row(one_expert={"tasks": 1, "scale": 1}),
    "ram": Row(one_expert={"epsilon": 0}, identical={"epsilon": 0}),
    "ramplus": Row(one_expert={"epsilon": 0}, identical={"epsilon": 0}),
    "arcee_fusion": Row(k=(1, 1)),
}
ROWS |= {
    "della": Row(identical={"density": 1}, one_expert={"density": 1}),
    "della_linear": Row(one_expert={"density": 1, "scale": 1}),
    "breadcrumbs": Row(one_expert={"density": 1, "gamma": 0, "scale": 1}),
    "breadcrumbs_ties": Row(one_expert={"density": 1, "gamma": 0, "scale": 1}),
    "sce": Row(params={"density": 0.5}, one_expert={}, identical={}),
    "rankmean": Row(one_expert={}, identical={}),
    "awd": Row(params={"steps": 20}, one_expert={"scale": 1, "steps": 5}),
    "cabs": Row(permutes=False, one_expert={"keep": 8, "of": 8}, identical={"keep": 8, "of": 8}),
    "pcb": Row(),
    # Its coordinates are singular vectors of the k × n stack of a neuron's task vectors.
    "neuromerging": Row(generic=True, one_expert={"density": 1, "along": 1, "across": 1}),
}
UNSCALED = {"low": 1, "high": 1}
ROWS |= {
    "tsv_m": Row(generic=True, one_expert={}),
    "iso_c": Row(),
    "iso_cts": Row(generic=True),
    "cart": Row(generic=True, one_expert={}, identical={}),
    "svc": Row(one_expert={"scale": 1}, identical={"merge": "mean", "scale": 1}),
    "dc_merge": Row(generic=True, one_expert={"density": 1}),
    "wudi": Row(
        params={"steps": 5},
        one_expert={"rest": "mean", "steps": 5},
        identical={"solver": "closed", "rest": "mean"},
    ),
    "swudi": Row(one_expert={"rest": "mean"}, identical={"time": 1e9, "rest": "mean"}),
    "doge": Row(generic=True, params={"steps": 5}),
    "larv": Row(generic=True, one_expert={**UNSCALED, "merge": "sum"}, identical={**UNSCALED, "merge": "mean"}),
    "knots": Row(generic=True, one_expert={"density": 1, "scale": 1}, identical={"density": 1, "scale": 1}),
    "core_space": Row(generic=True, one_expert={}),
}
# Methods on statistics of the experts, which the tests draw.
ROWS |= {
    "fisher": Row(one_expert={}, identical={}),
    "regmean": Row(one_expert={}, identical={}),
    "regmean_plus_plus": Row(one_expert={}, identical={}),
    "mats": Row(
        one_expert={"subspace": "inputs", "tolerance": 1e-9}, identical={"subspace": "inputs", "tolerance": 1e-9}
    ),
    "gradient_matching": Row(one_expert={"scale": 1}),
    "lot": Row(one_expert={"ridge": 1e-9}, identical={"ridge": 1e-9}),
    # Eigenvectors of equal eigenvalues are anyone's guess.
    "cat": Row(generic=True, one_expert={"scale": 1}),
    "esm": Row(generic=True),
    "sens_merging": Row(one_expert={"scale": 1}),
}
STATIC = sorted(ROWS)


class Drawn(Measured):
    """Statistics that depend on the names of expert, tensor and kind alone, as measured ones would."""

    def of(self, kinds, context, shape):
        values = {
            kind: [
                self.one(kind, expert, context, shape)
                for expert in (["base"] if KINDS[kind].of_base else context.experts)
            ]
            for kind in kinds
            if own_shape(kind, context.shape) is not None
        }
        return Statistics(values, {kind: [1.0 + len(expert) for expert in context.experts] for kind in kinds})

    def one(self, kind, expert, context, shape):
        seed = int.from_bytes(hashlib.sha256(f"{kind}/{expert}/{context.name}".encode()).digest()[:6], "little")
        draw = torch.Generator().manual_seed(seed)
        if KINDS[kind].elementwise:
            flat = torch.rand(math.prod(context.shape), generator=draw) ** 4
            return flat[context.offset : context.offset + math.prod(shape)].view(shape)
        shape = own_shape(kind, context.shape)
        if KINDS[kind].side not in ("inputs", "outputs"):
            return torch.rand(shape, generator=draw)
        rows = torch.randn(2 * shape[0] + 1, shape[0], generator=draw)
        return rows.T @ rows / len(rows)


def bound(name: str, params: dict) -> Bound:
    """The method with these parameters and, where it needs some, statistics."""
    made = get(name).bind(params)
    return made.with_statistics(Drawn()) if made.kinds else made


def test_every_method_has_a_row():
    assert [name for name in names() if get(name).kind == "static"] == STATIC


def model(
    seed: int, k: int, *, size: int = 0, dtype: torch.dtype = torch.float32, grid: bool = False, form: str = "dense"
):
    """A base and k experts with tensors of every kind.

    On a `grid` every number is a multiple of 1/8: task vectors collide and cancel often, and exactly.
    """
    draw = torch.Generator().manual_seed(seed)
    shapes = {"b.weight": (6, 4), "a.bias": (5,), "conv": (3, 2, 2, 2), "scale": (), "wide": (2, 9), "empty": (0, 3)}
    shapes |= {f"layers.{i}.weight": shape for i, shape in enumerate([(4, 6), (5, 5), (6, 4)])}
    if size:
        shapes["long"] = (size,)

    def drawn(scale: float) -> dict[str, torch.Tensor]:
        normal = {name: torch.randn(shape, generator=draw) for name, shape in shapes.items()}
        return {name: (t * scale * 8).round() / 8 if grid else t * scale for name, t in normal.items()}

    base = {name: tensor.to(dtype) for name, tensor in drawn(1).items()}
    experts = {
        f"expert {i}": {name: (base[name] + tau).to(dtype) for name, tau in drawn(0.1).items()} for i in range(k)
    }
    if form == "lora":

        def numbers(shape: tuple[int, ...]) -> torch.Tensor:
            normal = 0.3 * torch.randn(shape, generator=draw)
            return (normal * 8).round() / 8 if grid else normal

        experts = {name: Lora.on(base, numbers) for name in experts}
    for tensors in (base, *experts.values()):
        tensors["position_ids"] = torch.arange(4)
        tensors["mask"] = torch.tensor([True, False])
    return base, experts


def matched(base, experts):
    """As `supermerge.checkpoint.match`, without its refusal of experts that are equal to each other or to the base."""
    opened = Checkpoint.open(base)
    floating = [name for name, tensor in base.items() if tensor.is_floating_point()]
    return Match(
        base=opened,
        experts={name: opened_as(opened, tensors) for name, tensors in experts.items()},
        merged=floating,
        copied=[name for name in base if name not in floating],
        heads={},
        prefixes={},
        tied={},
        notes=[],
    )


def merge(base, experts, method, *, threads=1, **params):
    match = matched(base, experts)
    sink = StateDict(output_infos(match))
    merge_into(sink, bound(method, params), match, threads=threads)
    return sink.tensors


def experts_of(name: str):
    low, high = ROWS[name].k
    return st.integers(low, high)


def everything(data, name: str, *, grid: bool | None = None, **options):
    seed, k = data.draw(st.integers(0, 2**20)), data.draw(experts_of(name))
    return model(seed, k, grid=data.draw(st.booleans()) if grid is None else grid, **options)


def assert_same(left, right):
    assert list(left) == list(right)
    for key in left:
        assert left[key].dtype == right[key].dtype
        assert torch.equal(left[key], right[key]), key


def assert_close(left, right, tolerance=2e-5):
    for key in left:
        assert torch.allclose(left[key].float(), right[key].float(), rtol=tolerance, atol=tolerance), key


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", STATIC)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_experts_equal_to_the_base_give_the_base(name, form, data):
    base, experts = everything(data, name, form=form)
    same = base if form == "dense" else Lora.on(base, torch.zeros)
    assert_same(merge(base, dict.fromkeys(experts, same), name, **ROWS[name].params), base)


def layout(tensors):
    return [(name, tensor.dtype, tensor.shape) for name, tensor in tensors.items()]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", STATIC)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_names_shapes_dtypes_and_integers_are_the_base_s_and_nothing_is_changed_in_place(name, form, data):
    dtype = data.draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64]))
    base, experts = everything(data, name, form=form, dtype=dtype)
    for expert in experts.values():
        expert["position_ids"] = expert["position_ids"] + 7
    before = {key: tensor.clone() for key, tensor in base.items()}
    also_before = {name: {key: tensor.clone() for key, tensor in expert.items()} for name, expert in experts.items()}
    merged = merge(base, experts, name, **ROWS[name].params)
    assert layout(merged) == layout(base)
    assert torch.equal(merged["position_ids"], base["position_ids"])
    assert torch.equal(merged["mask"], base["mask"])
    assert_same(base, before)
    for expert, tensors in experts.items():
        assert_same(tensors, also_before[expert])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", [name for name in STATIC if ROWS[name].permutes])
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_the_order_of_the_experts_does_not_matter(name, form, data):
    base, experts = everything(data, name, form=form, grid=False if ROWS[name].generic else None)
    order = data.draw(st.permutations(list(experts)))
    merged = merge(base, experts, name, **ROWS[name].params)
    assert_close(merged, merge(base, {key: experts[key] for key in order}, name, **ROWS[name].params))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", [name for name in STATIC if ROWS[name].one_expert is not None])
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**20), grid=st.booleans())
def test_one_expert_is_returned(name, form, seed, grid):
    base, experts = model(seed, 1, grid=grid, form=form)
    assert_close(merge(base, experts, name, **ROWS[name].one_expert), experts["expert 0"])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", [name for name in STATIC if ROWS[name].identical is not None])
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_identical_experts_are_returned(name, form, data):
    base, experts = everything(data, name, form=form)
    same = dict.fromkeys(experts, experts["expert 0"])
    assert_close(merge(base, same, name, **ROWS[name].identical), experts["expert 0"])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", [name for name in STATIC if get(name).bind(ROWS[name].params).chunked])
@settings(max_examples=4, deadline=None)
@given(data=st.data())
def test_cut_into_pieces_is_the_same_bytes_as_whole(name, form, data):
    size = data.draw(st.integers(BLOCK - 3, 2 * BLOCK + 20))
    base, experts = everything(data, name, form=form, size=size)
    outcomes = []
    for elements in (BLOCK, 64 * BLOCK):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pieces, "_READ_ELEMENTS", elements)
            outcomes.append(merge(base, experts, name, **ROWS[name].params))
    assert_same(*outcomes)


@pytest.mark.parametrize("name", [name for name in STATIC if get(name).process])
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_what_it_makes_of_every_task_vector_adds_up_to_its_merge(name, data):
    base, experts = everything(data, name, grid=False if ROWS[name].generic else None)
    method = get(name)
    params = {"merge": "sum"} if "merge" in method.parameters.model_fields else {}
    made = method.bind(params)
    scale = 1.0 if "scale" in takes(method.process) else made.values.get("scale", 1.0)
    c = [0.3 if scale is None else scale] * len(experts)
    basis = Basis(tuple(experts), on=made)
    match = matched(base, experts)
    sink = StateDict(output_infos(match))
    merge_into(sink, basis.bound(method, lambda base, vectors, _: weighted_sum(base, vectors, c)), match, threads=1)
    assert_close(sink.tensors, merge(base, experts, name, **params))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", STATIC)
@settings(max_examples=4, deadline=None)
@given(data=st.data())
def test_any_number_of_threads_gives_the_same_bytes(name, form, data):
    base, experts = everything(data, name, form=form, size=3000)
    one = merge(base, experts, name, threads=1, **ROWS[name].params)
    assert_same(one, merge(base, experts, name, threads=3, **ROWS[name].params))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", STATIC)
@settings(max_examples=3, deadline=None)
@given(data=st.data())
def test_any_shard_size_gives_the_same_bytes(name, form, data):
    base, experts = everything(data, name, form=form)
    expected = merge(base, experts, name, **ROWS[name].params)
    match = matched(base, experts)
    with TemporaryDirectory() as directory:
        writer = ShardWriter(Path(directory), output_infos(match), shard_size=data.draw(st.integers(50, 1500)))
        merge_into(writer, bound(name, ROWS[name].params), match, threads=data.draw(st.integers(1, 2)))
        writer.close()
        with Checkpoint.open(directory) as written:
            assert set(written.tensors) == set(expected)
            assert_same({key: written.read(key) for key in expected}, expected)


@pytest.mark.parametrize("name", STATIC)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_function_changes_none_of_its_arguments(name, dtype):
    k = min(3, ROWS[name].k[1])
    base, taus = torch.randn(6, 4).to(dtype), 0.1 * torch.randn(k, 6, 4).to(dtype)
    before = base.clone(), taus.clone()
    bound(name, ROWS[name].params).merge(base, taus)
    assert torch.equal(base, before[0])
    assert torch.equal(taus, before[1])


def wide(tensors):
    if isinstance(tensors, Lora):
        return Lora(wide(dict(tensors)), tensors.factors)
    return {key: t.float() if t.is_floating_point() else t for key, t in tensors.items()}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", STATIC)
@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_storage_in_bfloat16_only_rounds_once_at_the_end(name, form, data):
    base, experts = everything(data, name, form=form, dtype=torch.bfloat16)
    merged = merge(base, experts, name, **ROWS[name].params)
    exact = merge(wide(base), {key: wide(tensors) for key, tensors in experts.items()}, name, **ROWS[name].params)
    assert_same(merged, {key: t.to(merged[key].dtype) for key, t in exact.items()})


@pytest.mark.parametrize("name", STATIC)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_is_refused_with_tensor_and_expert(name, value):
    k = max(ROWS[name].k[0], min(2, ROWS[name].k[1]))
    base, experts = model(0, k)
    experts[f"expert {k - 1}"]["b.weight"][2, 1] = value
    with pytest.raises(CheckpointError, match=rf"expert 'expert {k - 1}'.*'b.weight'.*\[2, 1\]"):
        merge(base, experts, name, **ROWS[name].params)
    base["conv"][0, 0, 0, 1] = value
    with pytest.raises(CheckpointError, match=r"base .*'conv'"):
        merge(base, model(0, k)[1], name, **ROWS[name].params)


@pytest.mark.parametrize("name", [name for name in STATIC if get(name).statistics])
def test_a_method_on_statistics_is_refused_without_them(name):
    base, experts = model(0, 2)
    with pytest.raises(RecipeError, match=rf"method {name} needs statistics of the experts \("):
        merge_into(StateDict([]), name, matched(base, experts))
    get(name).bind().rehearse(2)


@pytest.mark.parametrize("name", STATIC)
def test_a_misspelt_parameter_is_refused(name):
    with pytest.raises(RecipeError, match="unknown parameter 'weihgts'"):
        get(name).bind({"weihgts": 1})


@pytest.mark.parametrize("name", STATIC)
def test_a_wrong_number_of_experts_is_refused(name):
    method = get(name)
    wrong = [k for k in (method.least - 1, (method.most or 0) + 1) if k < method.least or method.most]
    assert ROWS[name].k[0] == method.least
    assert method.most is None or ROWS[name].k[1] == method.most
    for k in wrong:
        with pytest.raises(RecipeError, match=f"{k} experts"):
            method.bind(ROWS[name].params).check(k)


@pytest.mark.parametrize("name", [name for name in STATIC if "weights" in get(name).parameters.model_fields])
def test_weights_of_another_length_than_the_experts_are_refused(name):
    k = ROWS[name].k[0]
    with pytest.raises(RecipeError, match=f"weights has {k + 1} values for {k} experts"):
        get(name).bind(ROWS[name].params, weights=[1.0] * (k + 1)).check(k)


def digest() -> str:
    """One hash over the results of all methods."""
    total = hashlib.sha256()
    for name in STATIC:
        base, experts = model(3, min(3, ROWS[name].k[1]))
        for key, tensor in merge(base, experts, name, **ROWS[name].params).items():
            total.update(key.encode() + bytes(tensor.contiguous().view(-1).view(torch.uint8).tolist()))
    return total.hexdigest()


@pytest.mark.slow
def test_the_seed_of_python_s_hashes_changes_nothing():
    code = f"import runpy; print(runpy.run_path({__file__!r})['digest']())"
    outcomes = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "42")
    }
    assert outcomes == {digest() + "\n"}


# Where the model is looked at in other ways than by default.
SURVEYED = [
    ("ties", {"trim": "model", "zero_sign": "majority"}),
    ("neuromerging", {"across": None}),
    ("sce", {"density": 0.3}),
]


@pytest.mark.parametrize(
    ("name", "params"), [*((name, ROWS[name].params) for name in STATIC), *SURVEYED], ids=lambda value: str(value)
)
def test_several_processes_give_the_bytes_of_one(name, params):
    base, experts = model(5, ROWS[name].k[1], size=3 * BLOCK + 7)
    match = matched(base, experts)

    def work(peers: Peers) -> dict[str, torch.Tensor]:
        sink = StateDict(output_infos(match))
        mine = deal({key: tensor.numel() for key, tensor in base.items()}, peers.size)[peers.rank]
        merge_into(sink, bound(name, params), match, threads=1, names=mine, peers=peers)
        return {key: sink.tensors[key] for key in mine}

    alone = work(ALONE)
    merged = {key: tensor for part in together(3, work) for key, tensor in part.items()}
    assert_same({key: merged[key] for key in alone}, alone)
