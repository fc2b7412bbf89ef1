from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest

from supermerge.cli import console
from supermerge.methods import names


def test_lists_every_method(supermerge_command: Callable[..., object]) -> None:
    done = supermerge_command("methods")
    assert (done.code, done.err) == (0, "")
    assert [line.split()[0] for line in done.out.splitlines()[1:] if line.strip()][:-1] == names()


def test_a_narrow_terminal_has_whole_titles_and_no_addresses(
    supermerge_command: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "_PIPE_WIDTH", 80)
    out = supermerge_command("methods").out
    assert len(out.splitlines()) == len(names()) + 3
    assert "Matching models in their task subspaces (MaTS)  labelled" in out
    assert "https" not in out
    monkeypatch.setattr(console, "_PIPE_WIDTH", 120)
    assert "https://arxiv.org/abs/2306.01708" in supermerge_command("methods").out


def test_paragraphs_fill_the_lines(supermerge_command: Callable[..., object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_PIPE_WIDTH", 80)
    first, *_, last = supermerge_command("methods", "ties").out.split("\n\n")[2].splitlines()
    assert first.startswith("τ̃ᵢ = the `density` largest elements")
    assert last.startswith("int(density · d) + 1 of d elements")


def test_explains_one(supermerge_command: Callable[..., object]) -> None:
    done = supermerge_command("methods", "ties")
    for words in ("https://arxiv.org/abs/2306.01708", "density", "0.2", "model | tensor", "number from 0 to 1"):
        assert words in done.out


@pytest.mark.parametrize("name", names())
def test_says_what_each_needs_and_costs_and_when_to_use_it(
    name: str, supermerge_command: Callable[..., object]
) -> None:
    out = supermerge_command("methods", name).out
    shown = dict(re.findall("^(Needs|Cost|Use it for|Not for): (.*)$", out, flags=re.MULTILINE))
    assert list(shown) == ["Needs", "Cost", "Use it for", "Not for"]
    assert "expert" in shown["Needs"]
    described = json.loads(supermerge_command("methods", name, "--json").out)
    for key, label in (("cost", "Cost"), ("use", "Use it for"), ("avoid", "Not for")):
        assert described[key].startswith(shown[label])
        assert described[key].endswith(".")


def test_says_how_many_experts(supermerge_command: Callable[..., object]) -> None:
    for name, words in (("slerp", "1 to 2 experts"), ("nuslerp", "exactly 2"), ("model_stock", "2 experts or more")):
        assert words in supermerge_command("methods", name).out
    assert "unlabelled examples of every task" in supermerge_command("methods", "adamerging").out
    assert "its values do not matter" in supermerge_command("methods", "linear").out


def test_explains_a_learned_one(supermerge_command: Callable[..., object]) -> None:
    lines = supermerge_command("methods", "adamerging").out.splitlines()
    parameters = {line.split()[0]: line.split()[1] for line in lines if len(line.split()) > 1}
    assert (parameters["lr"], parameters["link"], parameters["loss"]) == ("0.001", "clamp", "entropy")


def test_json(supermerge_command: Callable[..., object]) -> None:
    listed = json.loads(supermerge_command("methods", "--json").out)
    assert [method["name"] for method in listed] == names()
    one = json.loads(supermerge_command("methods", "supermerge", "--json").out)
    assert (one["kind"], one["data"], one["parameters"]["link"]["default"]) == ("learned", "labelled", "tanh")


def test_an_unknown_one(supermerge_command: Callable[..., object]) -> None:
    done = supermerge_command("methods", "tise")
    assert (done.code, done.out) == (3, "")
    assert "Did you mean 'ties'?" in done.err
