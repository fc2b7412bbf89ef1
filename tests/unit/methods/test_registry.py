from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest
import torch

from supermerge.errors import RecipeError
from supermerge.methods import get, names, registry
from supermerge.methods.registry import LearnedSpec, learned, method


def test_an_unknown_method_is_refused_with_a_suggestion():
    with pytest.raises(RecipeError, match=r"unknown method 'teis'\. Did you mean 'ties'"):
        get("teis")


def test_an_alias_gives_the_method_it_stands_for():
    assert get("dare") is get("dare_linear")
    assert "dare" not in names()


def test_every_method_says_what_it_is():
    for name in names():
        entry = get(name)
        assert entry.title
        assert entry.paper.startswith("https://")
        assert len(entry.doc.splitlines()) >= 3, name
        assert entry.scope in ("element", "row", "tensor", "model") or callable(entry.scope)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"densty": 1}, "unknown parameter 'densty' \\(did you mean 'density'\\?\\)"),
        ({"density": 2}, "density = 2: input should be less than or equal to 1"),
        ({"density": [0.5, 1.5]}, "density = 1.5: input should be less than or equal to 1"),
        ({"trim": "layer"}, "trim = 'layer': input should be 'model' or 'tensor'"),
        ({"scale": float("nan")}, "scale = nan: input should be a finite number"),
        ({"scale": "much"}, "scale = 'much'"),
    ],
)
def test_a_parameter_that_cannot_be_is_refused(params, message):
    with pytest.raises(RecipeError, match=message):
        get("ties").bind(params)


def test_defaults_are_filled_in_and_weights_are_a_parameter():
    bound = get("ties").bind({"scale": 2}, weights=[1, 2])
    assert bound.values == {
        "weights": (1.0, 2.0),
        "density": 0.2,
        "scale": 2.0,
        "trim": "model",
        "merge": "mean",
        "zero_sign": "positive",
    }


def test_the_scope_of_ties_follows_its_trim():
    assert get("ties").bind().scope == "model"
    assert get("ties").bind({"trim": "tensor"}).scope == "tensor"
    assert get("ties").bind({"trim": "tensor"}).chunked


def test_contradictions_surface_in_the_rehearsal():
    with pytest.raises(RecipeError, match=r"linear: the weights \[1\.0, -1\.0\] sum to 0"):
        get("linear").bind(weights=[1, -1]).rehearse(2)
    with pytest.raises(RecipeError, match="density has 3 values for 2 experts"):
        get("ties").bind({"density": [0.1, 0.2, 0.3]}).rehearse(2)


def test_a_learned_method_cannot_merge_without_data():
    with pytest.raises(RecipeError, match="learns its coefficients from data"):
        get("supermerge").bind().merge(torch.zeros(2), torch.zeros(1, 2))
    with pytest.raises(RecipeError, match="unknown parameter 'scale'"):
        get("adamerging").bind({"scale": 1})


def test_the_same_name_twice_is_refused():
    def again(base, taus):
        return base

    with pytest.raises(RecipeError, match="'ties' is registered twice"):
        method("ties", scope="element", title="again", paper="https://example.org")(again)
    with pytest.raises(RecipeError, match="'dare' is registered twice"):
        learned("dare", LearnedSpec("tanh", "cross_entropy", 0.3, "tensor", "labelled"), title="", paper="", doc="")


def test_other_packages_add_methods_through_an_entry_point():
    code = """
import sys, types
from importlib.metadata import EntryPoint
from supermerge.methods import get, names, registry
plugin = types.ModuleType("plugin")
exec('''
from supermerge.methods import method
@method("doubled", scope="element", title="Doubled", paper="https://example.org")
def doubled(base, taus, *, factor: float = 2.0):
    "Twice."
    return base + factor * taus.sum(0)
''', plugin.__dict__)
sys.modules["plugin"] = plugin
registry.entry_points = lambda group: [EntryPoint("doubled", "plugin", group)]
import torch
assert "doubled" in names()
print(get("doubled").bind({"factor": 3}).merge(torch.ones(1), torch.ones(1, 1)).item())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "4.0\n", done.stderr


def test_a_broken_plugin_is_named(monkeypatch):
    monkeypatch.setattr(registry, "entry_points", lambda group: [EntryPoint("broken", "no_such_package", group)])
    registry._discover.cache_clear()
    with pytest.raises(RecipeError, match="'broken' of no_such_package cannot be imported"):
        names()
    monkeypatch.undo()
    assert "ties" in names()
