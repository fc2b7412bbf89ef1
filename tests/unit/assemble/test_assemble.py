from __future__ import annotations

import pytest
import torch
from torch import nn

import supermerge
from supermerge.assemble import Choice, assemble, merge, merge_into, output_infos
from supermerge.assemble.merge import StateDict
from supermerge.assemble.merged import Merged
from supermerge.checkpoint import Checkpoint, ShardWriter, hash_tensor, match
from supermerge.errors import CheckpointError, RecipeError, RefusedError
from supermerge.events import subscribed
from supermerge.methods import BLOCK, Context, get


def model(seed: int, scale: float = 1.0) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {
        "embed.weight": scale * torch.randn(12, 8, generator=draw),
        "norm.weight": scale * torch.randn(8, generator=draw),
        "ids": torch.arange(3),
    }


def experts(count: int = 2) -> dict[str, dict[str, torch.Tensor]]:
    base = model(0)
    out = {}
    for i in range(count):
        noise = model(i + 1, 0.1)
        out[f"e{i}"] = {name: t + noise[name] if t.is_floating_point() else t for name, t in base.items()}
    return out


def matched(base=None, others=None):
    others = others or experts()
    return match(
        Checkpoint.open(base or model(0)), {name: Checkpoint.open(tensors) for name, tensors in others.items()}
    )


def test_merge_takes_state_dicts_in_a_mapping_or_a_list():
    by_name = merge(model(0), experts(), "linear")
    assert list(by_name) == list(model(0))
    in_order = supermerge.merge(model(0), list(experts().values()), method="linear")
    for name, tensor in by_name.items():
        assert torch.equal(tensor, in_order[name])
    mean = (experts()["e0"]["norm.weight"] + experts()["e1"]["norm.weight"]) / 2
    assert torch.allclose(by_name["norm.weight"], mean, atol=1e-6)


def test_merge_takes_modules_weights_and_parameters():
    base, other = nn.Linear(3, 2), nn.Linear(3, 2)
    merged = merge(base, {"only": other}, "task_arithmetic", weights=[0.5])
    assert torch.allclose(merged["bias"], (base.bias + other.bias).detach() / 2, atol=1e-6)
    with pytest.raises(RecipeError, match="did you mean 'scale'"):
        merge(base, {"only": other}, "task_arithmetic", scal=1)


def test_rules_choose_the_method_by_name_and_the_first_match_wins():
    rules = [("norm.*", get("task_arithmetic").bind({"scale": 0})), ("*", get("linear").bind())]
    merged = merge(model(0), experts(), "ties", rules=rules)
    assert torch.equal(merged["norm.weight"], model(0)["norm.weight"])
    assert torch.equal(merged["embed.weight"], merge(model(0), experts(), "linear")["embed.weight"])


def test_a_survey_covers_the_tensors_of_its_method_only():
    rules = [("norm.*", get("linear").bind())]
    merged = merge(model(0), experts(), "ties", rules=rules, density=0.5)
    only = {name: tensor for name, tensor in model(0).items() if name != "norm.weight"}
    others = {key: {name: tensors[name] for name in only} for key, tensors in experts().items()}
    alone = merge(only, others, "ties", density=0.5)
    assert torch.equal(merged["embed.weight"], alone["embed.weight"])


def test_assemble_yields_fp32_in_the_order_of_the_base():
    half = {name: t.bfloat16() if t.is_floating_point() else t for name, t in model(0).items()}
    produced = list(assemble("linear", matched(half)))
    assert [name for name, _ in produced] == ["embed.weight", "norm.weight"]
    assert all(tensor.dtype == torch.float32 for _, tensor in produced)
    assert [name for name, _ in assemble("linear", matched(), names=["norm.weight"])] == ["norm.weight"]


@pytest.mark.parametrize("method", ["linear", "ties", "tsv_m"])
def test_what_was_merged_can_be_trained(method):
    by_name = dict(assemble(method, matched(), threads=1))
    unwritten = Merged("a merge", matched(), Choice(get(method).bind()))
    read = {name: unwritten.read(name) for name in unwritten.tensors}
    for tensors in (by_name, merge(model(0), experts(), method), read):
        parameter = nn.Parameter(tensors["embed.weight"])
        parameter.view(-1).square().sum().backward()
        with torch.no_grad():
            parameter.view(-1)[0] += 1
        assert torch.equal(parameter.grad[0, 1:], 2 * parameter.detach()[0, 1:])


def test_tied_tensors_stay_tied_and_count_once():
    def tied(tensors):
        return {**tensors, "head.weight": tensors["embed.weight"]}

    base, others = tied(model(0)), {name: tied(tensors) for name, tensors in experts().items()}
    for name, params in (("dare", {"drop": 0.5}), ("ties", {"density": 0.3})):
        merged = merge(base, others, name, **params)
        assert torch.equal(merged["head.weight"], merged["embed.weight"])
        assert torch.equal(merged["norm.weight"], merge(model(0), experts(), name, **params)["norm.weight"])
    rules = [("embed.*", get("linear").bind())]
    merged = merge(base, others, "ties", rules=rules)
    assert torch.equal(merged["head.weight"], merged["embed.weight"])


def test_hashes_of_everything_read_and_the_geometry_come_along():
    wanted = matched()
    sink = StateDict(output_infos(wanted))
    seen = merge_into(sink, "linear", wanted, geometry=True)
    assert seen.base_hashes == {name: hash_tensor(tensor) for name, tensor in model(0).items()}
    for name, tensors in experts().items():
        hashes = {key: hash_tensor(tensor) for key, tensor in tensors.items() if tensor.is_floating_point()}
        assert seen.expert_hashes[name] == hashes
    assert seen.geometry is not None
    floats = ("embed.weight", "norm.weight")
    flat = [torch.cat([(e[name] - model(0)[name]).flatten() for name in floats]) for e in experts().values()]
    assert seen.geometry.norms == pytest.approx([float(tau.norm()) for tau in flat], rel=1e-5)
    cosine = float(torch.dot(flat[0], flat[1]) / flat[0].norm() / flat[1].norm())
    assert seen.geometry.cosines[0][1] == pytest.approx(cosine, abs=1e-5)
    assert seen.geometry.cosines[1][1] == pytest.approx(1)
    base_norm = float(torch.cat([model(0)[name].flatten() for name in floats]).norm())
    assert seen.geometry.relative_norms[0] == pytest.approx(float(flat[0].norm()) / base_norm, rel=1e-5)
    tau = experts()["e0"]["norm.weight"] - model(0)["norm.weight"]
    assert float(seen.geometry.grams["norm.weight"][0, 0]) == pytest.approx(float(tau.norm()) ** 2, rel=1e-5)
    assert seen.geometry.base["norm.weight"] == pytest.approx(float(model(0)["norm.weight"].norm()) ** 2, rel=1e-5)
    assert merge_into(sink, "linear", wanted).geometry is None


def test_geometry_of_a_task_vector_of_zeros_has_cosine_zero():
    base = {"w": torch.zeros(4)}
    wanted = matched(base, {"a": {"w": torch.ones(4)}, "b": {"w": torch.tensor([1.0, 1, 0, 0])}})
    geometry = merge_into(StateDict(output_infos(wanted)), "linear", wanted, geometry=True).geometry
    assert geometry is not None
    assert geometry.relative_norms[0] > 1e100
    assert geometry.cosines[0][1] == pytest.approx(0.5**0.5)


def test_the_cast_happens_once_and_an_overflow_is_refused():
    wanted = matched()
    sink = StateDict(output_infos(wanted, torch.bfloat16))
    merge_into(sink, "linear", wanted, dtype=torch.bfloat16)
    assert sink.tensors["norm.weight"].dtype == torch.bfloat16
    assert sink.tensors["ids"].dtype == torch.int64
    assert torch.equal(sink.tensors["norm.weight"], merge(model(0), experts(), "linear")["norm.weight"].bfloat16())
    huge = matched({"w": torch.zeros(2)}, {"a": {"w": torch.tensor([1.0, 1e6])}})
    with pytest.raises(RefusedError, match=r"merged tensor 'w': a value of 1e\+06 does not fit into torch.float16"):
        merge_into(StateDict(output_infos(huge, torch.float16)), "linear", huge, dtype=torch.float16)


def test_shards_written_from_several_threads_read_back_and_hash_alike(tmp_path):
    base = {f"t{i}": torch.randn(BLOCK + i) for i in range(4)} | {"ids": torch.arange(5)}
    others = {
        name: {key: t + torch.randn_like(t) if t.is_floating_point() else t for key, t in base.items()} for name in "ab"
    }
    wanted = matched(base, others)
    merged = merge(base, others, "ties")
    for threads in (1, 3):
        directory = tmp_path / str(threads)
        directory.mkdir()
        with ShardWriter(directory, output_infos(wanted), shard_size=600_000) as writer:
            merge_into(writer, "ties", wanted, threads=threads)
            hashes = writer.close()
        assert hashes == {name: hash_tensor(tensor) for name, tensor in merged.items()}
        with Checkpoint.open(directory) as stored:
            assert torch.equal(stored.read("t2"), merged["t2"])


def test_one_rank_s_tensors_only():
    wanted = matched()
    infos = [info for info in output_infos(wanted) if info.name == "norm.weight"]
    sink = StateDict(infos)
    merge_into(sink, "ties", wanted, names=["norm.weight"])
    assert torch.equal(sink.tensors["norm.weight"], merge(model(0), experts(), "ties")["norm.weight"])


def test_contradictions_are_refused_before_anything_is_written():
    class Untouched:
        def write_flat(self, name, start, tensor):
            raise AssertionError(name)

    with pytest.raises(RecipeError, match="sum to 0"):
        merge_into(Untouched(), "linear", matched(), weights=[1, -1])
    with pytest.raises(RecipeError, match="learns its coefficients"):
        merge_into(Untouched(), "supermerge", matched())


def test_an_error_of_the_sink_stops_the_pass():
    class Full:
        def write_flat(self, name, start, tensor):
            raise CheckpointError(f"no room for {name}")

    before = torch.get_num_threads()
    with pytest.raises(CheckpointError, match="no room"):
        merge_into(Full(), "linear", matched())
    assert torch.get_num_threads() == before


def test_phases_and_progress_are_told():
    events = []
    with subscribed(events.append):
        merge(model(0), experts(), "ties")
    phases = [event.fields["phase"] for event in events if event.kind == "phase_started"]
    assert phases == ["survey", "merge"]
    progress = [event.fields for event in events if event.kind == "progress" and event.fields["phase"] == "merge"]
    assert [fields["done"] for fields in progress] == [1, 2, 3]
    assert {fields["total"] for fields in progress} == {3}


@pytest.mark.parametrize("shape", [(100, 2816), (3, BLOCK + 5), (2, 7, 9000), (BLOCK + 1,), ()])
def test_methods_of_rows_see_whole_rows_whatever_the_piece(shape):
    draw = torch.Generator().manual_seed(0)
    base = {"a.weight": torch.randn(shape, generator=draw)}
    others = {name: {"a.weight": base["a.weight"] + torch.randn(shape, generator=draw)} for name in ("e0", "e1")}
    bound = get("della").bind({"density": 0.6})
    taus = torch.stack([other["a.weight"] - base["a.weight"] for other in others.values()])
    whole = bound(base["a.weight"], taus, Context("a.weight", shape, ("e0", "e1"), 5))
    assert torch.equal(merge(base, others, "della", density=0.6, seed=5)["a.weight"], whole)
