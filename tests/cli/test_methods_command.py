from __future__ import annotations

import json
from collections.abc import Callable

from supermerge.methods import names


def test_lists_every_method(supermerge_command: Callable[..., object]) -> None:
    done = supermerge_command("methods")
    assert (done.code, done.err) == (0, "")
    assert [line.split()[0] for line in done.out.splitlines()[1:] if line.strip()][:-1] == names()


def test_explains_one(supermerge_command: Callable[..., object]) -> None:
    done = supermerge_command("methods", "ties")
    for words in ("https://arxiv.org/abs/2306.01708", "density", "0.2", "model | tensor", "number from 0 to 1"):
        assert words in done.out


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
