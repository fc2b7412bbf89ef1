"""Which tensor of an expert is which of the base's, found from the names themselves, never from a list of models."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from supermerge.checkpoint.source import TensorInfo

# PyTorch's and TensorFlow's old and new names of one parameter; either side may have either.
SPELLINGS = (
    (".gamma", ".weight"),
    (".beta", ".bias"),
    (".weight_g", ".parametrizations.weight.original0"),
    (".weight_v", ".parametrizations.weight.original1"),
)
_NUMBER = re.compile(r"(?:^|(?<=\.))\d+(?=\.|$)")


@dataclass(frozen=True, slots=True)
class NameMap:
    """`names` maps base name -> the expert's stored name, for those that the expert has.

    `base_prefix` and `expert_prefix` stand in front of the names that the other side has without (one is empty).
    `rival` is another expert prefix that fits as well, so that the choice is a guess.
    """

    names: dict[str, str]
    base_prefix: str
    expert_prefix: str
    rival: str | None


def map_names(base: Mapping[str, TensorInfo], expert: Mapping[str, TensorInfo]) -> NameMap:
    """Match names under the prefix, on either side, that lets most tensors of equal shape find each other."""
    scores = _scores(base, expert)
    ranked = sorted(scores, key=lambda pair: (-scores[pair], len(pair[0]) + len(pair[1]), pair))
    base_prefix, expert_prefix = ranked[0] if ranked else ("", "")
    rival = None
    if len(ranked) > 1 and scores[ranked[1]] == scores[ranked[0]] and (base_prefix or expert_prefix):
        rival = "".join(ranked[1])
    names: dict[str, str] = {}
    used: set[str] = set()
    for name, info in base.items():
        for candidate in _candidates(name, base_prefix, expert_prefix):
            exact = candidate[1]
            found = expert.get(candidate[0])
            if found is not None and found.name not in used and (exact or found.shape == info.shape):
                names[name] = found.name
                used.add(found.name)
                break
    return NameMap(names, base_prefix, expert_prefix, rival)


def _scores(base: Mapping[str, TensorInfo], expert: Mapping[str, TensorInfo]) -> Counter[tuple[str, str]]:
    """(base prefix, expert prefix) -> how many tensors it matches; one of equal shape outweighs all of other shapes."""
    heavy = len(base) + len(expert)
    scores: Counter[tuple[str, str]] = Counter()
    for name, info in base.items():
        for prefix, rest in _cuts(name):
            if rest in expert:
                scores[prefix, ""] += heavy if expert[rest].shape == info.shape else 1
    for name, info in expert.items():
        for prefix, rest in _cuts(name):
            if prefix and rest in base:
                scores["", prefix] += heavy if base[rest].shape == info.shape else 1
    return scores


def _cuts(name: str) -> Iterator[tuple[str, str]]:
    """("", name), then the name cut after each of its dots."""
    yield "", name
    for dot in re.finditer(r"\.", name):
        yield name[: dot.end()], name[dot.end() :]


def _candidates(name: str, base_prefix: str, expert_prefix: str) -> Iterator[tuple[str, bool]]:
    """Names that the expert may have for a base name, likeliest first, and whether it is the very name."""
    plain = [expert_prefix + name.removeprefix(base_prefix), name]
    for candidate in plain:
        yield candidate, True
    for candidate in plain:
        for pair in SPELLINGS:
            for here, there in (pair, pair[::-1]):
                if candidate.endswith(here):
                    yield candidate.removesuffix(here) + there, False


def pattern(name: str) -> str:
    """The name with its numbers as `*`: the same for the same parameter of every layer."""
    return _NUMBER.sub("*", name)


def modules(name: str) -> Iterator[str]:
    """The modules that a tensor belongs to, outermost first, layers as `*`; its own name if it belongs to none."""
    text = pattern(name)
    yield from (text[: dot.end()] for dot in re.finditer(r"\.", text))
    if "." not in text:
        yield text
