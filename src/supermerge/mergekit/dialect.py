"""From mergekit's parameters of one tensor to a method of ours with the same arithmetic. See docs/mergekit.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from supermerge.errors import RecipeError
from supermerge.mergekit.signatures import SIGNATURES
from supermerge.mergekit.values import Values
from supermerge.methods import Bound, get, weighted_sum
from supermerge.methods.transforms import normalised

Params = Mapping[str, Any]


def bound(method: str, values: Values, *, based: bool) -> Bound:
    """Our method for one tensor. `values.each` begins with the base; `based`: whether mergekit is given one.

    Raises RecipeError for what has no counterpart here.
    """
    for key in ("normalize", "rescale", "int8_mask", "filter_wise", "nuslerp_row_wise", "nuslerp_flatten"):
        if not isinstance(values.whole.get(key, False), bool):
            raise RecipeError(f"{method}: {key} = {values.whole[key]!r}: expected true or false")
    if method in _WITH_TASK_VECTORS:
        return _WITH_TASK_VECTORS[method](method, values.whole, values.each[1:])
    if method == "nuslerp":
        return _nuslerp(values, based=based)
    if method == "multislerp":
        return _multislerp(values, based=based)
    return _AMONG_MODELS[method](values)


def _weights(each: Sequence[Params]) -> list[float]:
    return [params["weight"] for params in each]


def _common(method: str, key: str, each: Sequence[Params]) -> float:
    """A parameter that our method has one of for all models."""
    found = list(dict.fromkeys(params[key] for params in each))
    if len(found) > 1:
        raise RecipeError(
            f"{method}: {key} has the values {', '.join(map(str, found))} for different models of one tensor",
            hint=f"Give one {key} for all models: that is all this version does.",
        )
    return found[0]


def _refuse(method: str, key: str, value: object, instead: str) -> RecipeError:
    return RecipeError(f"{method}: {key} = {value!r} cannot be honoured", hint=instead)


def _task_arithmetic(method: str, whole: Params, each: Sequence[Params]) -> Bound:
    for params in each:
        if params["density"] != 1:
            raise _refuse(method, "density", params["density"], "Nothing is dropped here: use dare_linear or ties.")
    if whole["rescale"]:
        raise _refuse(method, "rescale", True, "task_arithmetic drops nothing, so there is nothing to rescale.")
    return _summed(method, whole, each, {})


def _summed(method: str, whole: Params, each: Sequence[Params], params: Params) -> Bound:
    """A weighted sum of task vectors: normalised weights are divided by their sum."""
    weights = normalised(_weights(each), method) if whole["normalize"] else _weights(each)
    return get(SIGNATURES[method].ours).bind({"scale": whole["lambda"], **params}, weights=weights)


def _elected(method: str, whole: Params, each: Sequence[Params], params: Params) -> Bound:
    """A sum, or with `normalize` a mean, of the elements with the elected sign."""
    how = {"merge": "mean" if whole["normalize"] else "sum"}
    return get(method).bind({"scale": whole["lambda"], **how, **params}, weights=_weights(each))


def _ties(method: str, whole: Params, each: Sequence[Params]) -> Bound:
    if whole["rescale"]:
        raise _refuse(method, "rescale", True, "Trimmed task vectors are not rescaled here; scale them with lambda.")
    density = tuple(min(params["density"], 1) for params in each)
    return _elected(method, whole, each, {"density": density, "trim": "tensor"})


def _dropped(method: str, whole: Params, each: Sequence[Params]) -> Params:
    if not whole["rescale"]:
        raise _refuse(method, "rescale", False, "Dropping here always rescales; lower lambda instead.")
    return {"drop": tuple(1 - min(params["density"], 1) for params in each), "rescale": "l1"}


def _dare_linear(method: str, whole: Params, each: Sequence[Params]) -> Bound:
    return _summed(method, whole, each, _dropped(method, whole, each))


def _dare_ties(method: str, whole: Params, each: Sequence[Params]) -> Bound:
    return _elected(method, whole, each, _dropped(method, whole, each))


def _pruned(method: str, whole: Params, each: Sequence[Params]) -> Params:
    if not whole["rescale"]:
        raise _refuse(method, "rescale", False, "Dropping here always rescales; lower lambda instead.")
    density = tuple(min(params["density"], 1) for params in each)
    return {"density": density, "epsilon": _common(method, "epsilon", each), "rescale": "l1"}


def _della(method: str, whole: Params, each: Sequence[Params]) -> Bound:
    return _elected(method, whole, each, _pruned(method, whole, each))


def _della_linear(method: str, whole: Params, each: Sequence[Params]) -> Bound:
    return _summed(method, whole, each, _pruned(method, whole, each))


def _breadcrumbs(method: str, whole: Params, each: Sequence[Params]) -> Bound:
    if whole["rescale"]:
        raise _refuse(method, "rescale", True, "Breadcrumbs are not rescaled here; scale them with lambda.")
    density = tuple(min(params["density"], 1) for params in each)
    crumbs = {"density": density, "gamma": _common(method, "gamma", each), "along": "tensor"}
    if method == "breadcrumbs":
        return _summed(method, whole, each, crumbs)
    if whole["normalize"]:
        raise _refuse(method, "normalize", True, "breadcrumbs_ties adds up what agrees; lower lambda instead.")
    return get(method).bind({"scale": whole["lambda"], **crumbs}, weights=_weights(each))


def _plain(renamed: Mapping[str, str]) -> Callable[[str, Params, Sequence[Params]], Bound]:
    """A method whose parameters are of the merge alone, under other names here."""

    def make(method: str, whole: Params, each: Sequence[Params]) -> Bound:
        return get(SIGNATURES[method].ours).bind({ours: whole[theirs] for theirs, ours in renamed.items()})

    return make


def _model_stock(method: str, whole: Params, each: Sequence[Params]) -> Bound:
    return get(method).bind({"per": "row" if whole["filter_wise"] else "tensor"})


def _ramplus(method: str, whole: Params, each: Sequence[Params]) -> Bound:
    params = {"rate": whole["r"], "limit": whole["alpha"], "epsilon": whole["epsilon"], "per": "tensor"}
    return get("ramplus").bind(params)


_WITH_TASK_VECTORS: dict[str, Callable[[str, Params, Sequence[Params]], Bound]] = {
    "task_arithmetic": _task_arithmetic,
    "ties": _ties,
    "dare_linear": _dare_linear,
    "dare_ties": _dare_ties,
    "della": _della,
    "della_linear": _della_linear,
    "breadcrumbs": _breadcrumbs,
    "breadcrumbs_ties": _breadcrumbs,
    "slerp": _plain({"t": "t"}),
    "nearswap": _plain({"t": "t"}),
    "arcee_fusion": _plain({}),
    "ram": _plain({"epsilon": "epsilon"}),
    "ramplus_tl": _ramplus,
    "sce": _plain({"select_topk": "density"}),
    "model_stock": _model_stock,
}


def sum_of_models(base: Tensor, taus: Tensor, *, total: float, weights: Sequence[float]) -> Tensor:
    """Σᵢ wᵢ θᵢ over base and experts: total · θp + Σᵢ wᵢ τᵢ; `total` is the sum of all weights, the base's too."""
    return weighted_sum(base if total == 1 else base * total, taus, weights)


def _linear(values: Values) -> Bound:
    weights = _weights(values.each)
    total = sum(weights)
    if values.whole["normalize"]:
        weights, total = normalised(weights, "linear"), 1.0
    method = replace(get("linear"), function=sum_of_models, factored=None)
    return Bound(method, {"total": total, "weights": tuple(weights[1:])})


def _karcher(values: Values) -> Bound:
    return get("karcher").bind({"base_weight": 1.0, **values.whole})


def _passthrough(values: Values) -> Bound:
    return get("passthrough").bind({"scale": values.each[0]["scale"]})


def _nuslerp(values: Values, *, based: bool) -> Bound:
    whole = values.whole
    along = "tensor" if whole["nuslerp_flatten"] else "first" if whole["nuslerp_row_wise"] else "last"
    if based:
        return get("nuslerp").bind({"along": along}, weights=_weights(values.each[1:]))
    if along != "tensor":
        raise _refuse("nuslerp", "nuslerp_flatten", False, "Without a base_model only whole tensors are interpolated.")
    _, t = normalised(_weights(values.each), "nuslerp")
    return get("slerp").bind({"t": t})


def _multislerp(values: Values, *, based: bool) -> Bound:
    whole = values.whole
    if not whole["normalize_weights"]:
        raise _refuse("multislerp", "normalize_weights", False, "Weights are divided by their sum here.")
    if whole["eps"] != 1e-8:
        raise _refuse("multislerp", "eps", whole["eps"], "Nothing is added to lengths here; remove the key.")
    # Without a base all models are experts, the first too.
    weights = _weights(values.each[1:])
    return get("multislerp").bind({"on": "task_vectors" if based else "weights"}, weights=weights)


_AMONG_MODELS: dict[str, Callable[[Values], Bound]] = {
    "linear": _linear,
    "karcher": _karcher,
    "passthrough": _passthrough,
}
