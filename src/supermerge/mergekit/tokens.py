"""One tokenizer for the output, and every model's embeddings in its order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from supermerge.checkpoint import Checkpoint, ChosenRows, MeanRow, Row, runs
from supermerge.checkpoint.fitting import fitted
from supermerge.checkpoint.vocabulary import Files, Vocabulary, read_object, read_vocabulary, vocabulary_tensors
from supermerge.errors import CheckpointError, RecipeError
from supermerge.mergekit.document import MergeDocument, Token, Tokenizer, TokenSource
from supermerge.mergekit.layout import base_of
from supermerge.mergekit.templates import with_template
from supermerge.mergekit.union import is_tokenizer_file, with_tokens


@dataclass(frozen=True, slots=True)
class Model:
    """A model and the files beside its weights, by name."""

    checkpoint: Checkpoint
    files: Files


@dataclass(frozen=True, slots=True)
class Retokenized:
    """The models with embeddings for the output's tokens, and the files of the output."""

    sources: Mapping[str, Checkpoint]
    files: Files
    vocabulary_size: int | None = None
    notes: list[str] = field(default_factory=list)


def retokenized(merge: MergeDocument, models: Mapping[str, Model]) -> Retokenized:
    """As `tokenizer` or `tokenizer_source` asks; without either, all models must have the base's tokens.

    Raises CheckpointError for tokenizers that are missing or do not match, RecipeError for tokens that are not there.
    """
    base, asked = base_of(merge), merge.tokens
    template = merge.chat_template
    if asked is None:
        others = {model: each.checkpoint for model, each in models.items() if model != base}
        same, notes = fitted(models[base].checkpoint, others)
        sources = {model: same.get(model, each.checkpoint) for model, each in models.items()}
        return Retokenized(sources, with_template(template, models[base].files, _all_files(models)), None, notes)
    vocabularies = {model: _vocabulary(model, each) for model, each in models.items()}
    files, wanted = _output(base, asked, models, vocabularies)
    sources = {
        model: _mapped(model, asked, wanted, base if merge.base_model else None, models, vocabularies)
        for model in models
    }
    size = _padded_size(wanted.size, asked.pad_to_multiple_of)
    return Retokenized(sources, with_template(template, files, _all_files(models)), size)


def _all_files(models: Mapping[str, Model]) -> list[Files]:
    return [model.files for model in models.values()]


def _vocabulary(name: str, model: Model) -> Vocabulary:
    found = read_vocabulary(model.files)
    if found is None:
        raise CheckpointError(
            f"{name}: has neither tokenizer.json nor vocab.json nor vocab.txt, which tokenizer_source needs",
            hint="Load its tokenizer with transformers and save it beside the model, which writes tokenizer.json.",
        )
    rows = _rows(model)
    return Vocabulary({token: index for token, index in found.tokens.items() if index < rows}, found.added)


def _rows(model: Model) -> int:
    config = read_object(model.files, "config.json") or {}
    nested = config.get("text_config")
    found = config.get("vocab_size", nested.get("vocab_size") if isinstance(nested, dict) else None)
    if not isinstance(found, int):
        raise CheckpointError(f"{model.checkpoint.label}: no vocab_size in config.json, which tokenizer_source needs")
    return found


def _output(
    base: str, asked: Tokenizer, models: Mapping[str, Model], vocabularies: Mapping[str, Vocabulary]
) -> tuple[Files, Vocabulary]:
    """The files and the tokens of the output."""
    origin = base if asked.source in ("union", "base") else asked.source
    if origin not in models:
        raise RecipeError(
            f"tokenizer source {origin!r} is not among the merged models",
            hint=f"Choose union, base or one of: {', '.join(models)}.",
        )
    files = {name: file for name, file in models[base].files.items() if not is_tokenizer_file(name)}
    files |= {name: file for name, file in models[origin].files.items() if is_tokenizer_file(name)}
    tokens = dict(vocabularies[origin].tokens)
    new: list[str] = []
    if asked.source == "union":
        for model, other in vocabularies.items():
            if model != base:
                in_order = sorted(other.tokens, key=other.tokens.__getitem__)
                new += [token for token in in_order if token not in tokens]
    new += [token for token in asked.tokens if token not in tokens]
    new = list(dict.fromkeys(new))
    size = vocabularies[origin].size
    added = {token: size + i for i, token in enumerate(new)}
    if added:
        files = with_tokens(files, added, _all_files(models))
    return files, Vocabulary({**tokens, **added}, vocabularies[origin].added | set(added))


def _padded_size(size: int, multiple: int | None) -> int:
    return size if multiple is None else -(-size // multiple) * multiple


def _mapped(
    model: str,
    asked: Tokenizer,
    wanted: Vocabulary,
    base: str | None,
    models: Mapping[str, Model],
    vocabularies: Mapping[str, Vocabulary],
) -> Checkpoint:
    """A model whose embeddings have a row for every token of `wanted`."""
    checkpoint = models[model].checkpoint
    size, padded = wanted.size, _padded_size(wanted.size, asked.pad_to_multiple_of)
    found: dict[str, list[tuple[Row, ...]]] = {}
    for name in vocabulary_tensors(checkpoint, _rows(models[model])):
        rows: list[tuple[Row, ...]] = [()] * size
        for token, index in wanted.tokens.items():
            places = _origins(model, token, asked, base, vocabularies)
            rows[index] = tuple((models[each].checkpoint, _stored(name, models[each]), row) for each, row in places)
        found[name] = rows
    whole = ChosenRows(checkpoint, {name: runs(rows) for name, rows in found.items()})
    if padded > size:
        # As much as any token, on average, rather than zeros, which would be a logit of 0.
        mean = MeanRow(whole)
        pad = {name: [*rows, *[((mean, name, 0),)] * (padded - size)] for name, rows in found.items()}
        whole = ChosenRows(checkpoint, {name: runs(rows) for name, rows in pad.items()})
    return checkpoint.through(whole)


def _stored(name: str, model: Model) -> str:
    """The name of that embedding in another model, which may have a single, tied one."""
    if name in model.checkpoint.tensors:
        return name
    return vocabulary_tensors(model.checkpoint, _rows(model))[0]


def _origins(
    model: str, token: str, asked: Tokenizer, base: str | None, vocabularies: Mapping[str, Vocabulary]
) -> list[tuple[str, int]]:
    """Which rows of which models give the embedding of `token` in `model`: their mean, or zeros where there are none.

    Its own, where it has the token. Else that of the only model that has it, else the base's, else the mean of all
    that have it; or whatever the recipe says about this token.
    """
    own, said = vocabularies[model].tokens.get(token), asked.tokens.get(token)
    if own is not None and not (said and said.force):
        return [(model, own)]
    if said is not None:
        return _as_said(token, said, vocabularies)
    having = [(each, found.tokens[token]) for each, found in vocabularies.items() if token in found.tokens]
    if base is not None and len(having) > 1 and token in vocabularies[base].tokens:
        return [(base, vocabularies[base].tokens[token])]
    return having


def _as_said(token: str, said: Token, vocabularies: Mapping[str, Vocabulary]) -> list[tuple[str, int]]:
    source = said.source
    if isinstance(source, TokenSource) and source.kind == "zero":
        return []
    model = (source.model or "") if isinstance(source, TokenSource) else source
    wanted = source.token if isinstance(source, TokenSource) and source.token is not None else token
    if model not in vocabularies:
        raise RecipeError(
            f"tokenizer.tokens.{token}: {model!r} is not among the merged models",
            hint=f"Choose one of: {', '.join(vocabularies)}.",
        )
    if isinstance(source, TokenSource) and source.token_id is not None:
        if source.token_id >= vocabularies[model].size:
            size = vocabularies[model].size
            raise RecipeError(f"tokenizer.tokens.{token}: {model} has {size} tokens, none is {source.token_id}")
        return [(model, source.token_id)]
    if wanted not in vocabularies[model].tokens:
        raise RecipeError(f"tokenizer.tokens.{token}: {model} has no token {wanted!r}")
    return [(model, vocabularies[model].tokens[wanted])]
