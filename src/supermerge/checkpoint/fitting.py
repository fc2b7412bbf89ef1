"""Whether experts speak the base's tokens, and embeddings that differ in nothing but padding made equal in size."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from supermerge.checkpoint.checkpoint import Checkpoint
from supermerge.checkpoint.chosen_rows import ChosenRows, Row, runs
from supermerge.checkpoint.source import TensorInfo
from supermerge.checkpoint.vocabulary import Vocabulary, read_vocabulary
from supermerge.errors import CheckpointError

_SHOWN = 3
_HINT = (
    "Experts must have the base's tokens. Models with different tokenizers can be merged by a mergekit recipe with "
    "tokenizer_source (union, base or a model): see docs/mergekit.md."
)


def fitted(base: Checkpoint, experts: Mapping[str, Checkpoint]) -> tuple[dict[str, Checkpoint], list[str]]:
    """The experts with as many rows per token as the base has, and notes for the user.

    A vocabulary may be padded: the matrices then have more rows than there are tokens. Rows of the base that an expert
    lacks are the base's, rows that the base lacks are left out, as no token has them. Raises CheckpointError where
    tokens differ: where a token of one has another index in the other, or where one has tokens that the other lacks.
    """
    found: dict[str, Checkpoint] = {}
    notes: list[str] = []
    for name, expert in experts.items():
        resized = _resized(base, expert)
        if not (resized or _may_differ(base, expert)):
            found[name] = expert
            continue
        here, there = read_vocabulary(_files(base)), read_vocabulary(_files(expert))
        if here is None or there is None:
            found[name] = expert  # what cannot be compared is left to the comparison of shapes
            continue
        _require_same(name, base, expert, here, there, resized)
        found[name] = _padded(base, expert, resized) if resized else expert
        notes += [_said(name, base, expert, info) for info in resized[:1]]
    return found, notes


def _files(checkpoint: Checkpoint) -> dict[str, Path | bytes]:
    return {file.name: file for file in checkpoint.side_files()}


def _may_differ(base: Checkpoint, expert: Checkpoint) -> bool:
    """Whether both have tokenizers and they are not the same files."""
    here, there = _files(base), _files(expert)
    for name in ("tokenizer.json", "vocab.json", "vocab.txt"):
        mine, theirs = here.get(name), there.get(name)
        if isinstance(mine, Path) and isinstance(theirs, Path):
            return mine.stat().st_size != theirs.stat().st_size or mine.read_bytes() != theirs.read_bytes()
    return False


def _resized(base: Checkpoint, expert: Checkpoint) -> list[TensorInfo]:
    """Tensors of the base with one row per token of which the expert has more or fewer rows."""
    sizes = base.config.get("vocab_size"), expert.config.get("vocab_size")
    if None in sizes or sizes[0] == sizes[1]:
        return []
    return [
        info
        for info in base.tensors.values()
        if info.name in expert.tensors
        and info.shape[:1] == (sizes[0],)
        and expert.tensors[info.name].shape == (sizes[1], *info.shape[1:])
    ]


def _require_same(
    name: str, base: Checkpoint, expert: Checkpoint, here: Vocabulary, there: Vocabulary, resized: list[TensorInfo]
) -> None:
    ordinary = here.tokens.keys() - here.added, there.tokens.keys() - there.added
    moved = [token for token in ordinary[0] & ordinary[1] if here.tokens[token] != there.tokens[token]]
    lost, new = ordinary[0] - there.tokens.keys(), ordinary[1] - here.tokens.keys()
    if resized:
        # Rows were added or taken away: then added tokens count too.
        lost, new = here.tokens.keys() - there.tokens.keys(), there.tokens.keys() - here.tokens.keys()
    problems = [
        f"{len(tokens)} {what}, such as {', '.join(map(repr, sorted(tokens)[:_SHOWN]))}"
        for tokens, what in (
            (moved, "tokens have another index"),
            (lost, "tokens of the base are missing"),
            (new, "tokens are not the base's"),
        )
        if tokens
    ]
    if problems:
        raise CheckpointError(
            f"expert {name!r} ({expert.label}): its vocabulary is not that of the base ({base.label}): "
            f"{'; '.join(problems)}",
            hint=_HINT,
        )


def _padded(base: Checkpoint, expert: Checkpoint, resized: list[TensorInfo]) -> Checkpoint:
    chosen = {}
    for info in resized:
        own = expert.tensors[info.name].shape[0]
        rows: list[tuple[Row, ...]] = [
            ((expert if index < own else base, info.name, index),) for index in range(info.shape[0])
        ]
        chosen[info.name] = runs(rows)
    return expert.through(ChosenRows(expert, chosen))


def _said(name: str, base: Checkpoint, expert: Checkpoint, info: TensorInfo) -> str:
    own, wanted = expert.tensors[info.name].shape[0], info.shape[0]
    what = "are left out" if own > wanted else "are the base's"
    return f"expert {name!r}: same tokens, {own} rows of {info.name} where the base has {wanted}; the rest {what}"
