"""One merge as mergekit's YAML describes it: every key checked, those that cannot be honoured refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, model_validator

from supermerge.mergekit.settings import Setting, read_setting
from supermerge.mergekit.signatures import SIGNATURES, Signature
from supermerge.tasks.spec import closest

_REFUSED = {
    "modules": "parts of a model cannot be merged apart by this version; use models, or slices for one stack of layers",
    "residual_weight": "mergekit reads this key and does nothing with it; remove it",
}


def _reference(written: Any) -> Any:
    """A model's reference as text, `path` or `path@revision`."""
    if isinstance(written, dict) and "model" in written:
        unknown = sorted(set(written) - {"model", "lora", "override_architecture"})
        if unknown:
            raise ValueError(f"unknown key {unknown[0]!r}; known: model, lora, override_architecture")
        if written.get("override_architecture"):
            raise ValueError("override_architecture: only a model's own architecture is read; remove the key")
        if written.get("lora"):
            raise ValueError(_no_adapters(f"{written['model']} + {written['lora']}"))
        return _reference(written["model"])
    if isinstance(written, dict) and set(written) <= {"path", "revision"} and isinstance(written.get("path"), str):
        revision = written.get("revision")
        return f"{written['path']}@{revision}" if revision else written["path"]
    if isinstance(written, str) and "+" in written:
        raise ValueError(_no_adapters(written))
    return written


def _no_adapters(reference: str) -> str:
    return (
        f"{reference!r}: adapters are not read in recipes of mergekit's; merge it into its model, and name the result"
    )


def _dtype(written: Any) -> Any:
    return written.removeprefix("torch.") if isinstance(written, str) else written


Reference = Annotated[str, BeforeValidator(_reference), Field(min_length=1)]
Dtype = Annotated[Literal["float32", "float16", "bfloat16"], BeforeValidator(_dtype)]
Parameters = dict[str, Annotated[Setting, PlainValidator(read_setting)]]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _none_that_cannot_be_honoured(cls, written: Any) -> Any:
        for key, reason in _REFUSED.items():
            if isinstance(written, dict) and key in written:
                raise ValueError(f"{key}: {reason}")
        return written


class Source(_Part):
    """A model, and its own parameters."""

    model: Reference
    parameters: Parameters = Field(default_factory=dict)


class SourceLayers(Source):
    """Layers of a model, from the first of `layer_range` up to, and without, the second."""

    layer_range: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=2, max_length=2)]

    @property
    def count(self) -> int:
        """How many layers."""
        return self.layer_range[1] - self.layer_range[0]

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.count <= 0:
            raise ValueError(f"layer_range {self.layer_range} holds no layers")
        return self


class Slice(_Part):
    """Some consecutive layers of the output, and the layers that they are merged from."""

    sources: Annotated[list[SourceLayers], Field(min_length=1)]
    base_model: Reference | None = None
    parameters: Parameters = Field(default_factory=dict)

    @model_validator(mode="after")
    def _equal_lengths(self) -> Self:
        counts = [source.count for source in self.sources]
        if len(set(counts)) > 1:
            raise ValueError(f"the sources of a slice have {', '.join(map(str, counts))} layers; all need the same")
        _distinct([source.model for source in self.sources])
        return self


class TokenSource(_Part):
    """Where the embedding of one token comes from: a model, zeros, or a token of a model."""

    kind: Literal["zero", "model_token"]
    model: Reference | None = None
    token_id: Annotated[int, Field(ge=0)] | None = None
    token: str | None = None

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        wanted = self.kind == "model_token"
        if wanted != (self.model is not None) or wanted != ((self.token is None) != (self.token_id is None)):
            raise ValueError("expected kind: zero alone, or kind: model_token with model and one of token and token_id")
        return self


class Token(_Part):
    """What is said about one token: the source of its embedding, for models that lack it or (`force`) for all."""

    source: TokenSource | Reference
    force: bool = False


class Tokenizer(_Part):
    """The tokenizer of the output: `source` is union, base or a model."""

    source: Reference = "union"
    tokens: dict[str, Token] = Field(default_factory=dict)
    pad_to_multiple_of: Annotated[int, Field(ge=1)] | None = None


class MergeDocument(_Part):
    """One document of a file. `name` is what later documents call its result."""

    name: str | None = Field(default=None, min_length=1)
    models: list[Source] = Field(default_factory=list)
    slices: list[Slice] = Field(default_factory=list)
    merge_method: str
    base_model: Reference | None = None
    dtype: Dtype | None = None
    out_dtype: Dtype | None = None
    tokenizer_source: Reference | None = None
    tokenizer: Tokenizer | None = None
    chat_template: str | None = Field(default=None, min_length=1)
    parameters: Parameters = Field(default_factory=dict)

    @property
    def signature(self) -> Signature:
        """What its method takes."""
        return SIGNATURES[self.merge_method]

    @property
    def tokens(self) -> Tokenizer | None:
        """What it says about the tokenizer, by either key."""
        return Tokenizer(source=self.tokenizer_source) if self.tokenizer_source else self.tokenizer

    @property
    def written_dtype(self) -> Literal["float32", "float16", "bfloat16"] | None:
        """The dtype of the output, where it says one."""
        return self.out_dtype or self.dtype

    @property
    def references(self) -> list[str]:
        """Every model that is merged, the base first, each once."""
        sources = [*self.models, *(source for part in self.slices for source in part.sources)]
        bases = [self.base_model, *(part.base_model for part in self.slices)]
        return list(dict.fromkeys([*(base for base in bases if base), *(source.model for source in sources)]))

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.merge_method not in SIGNATURES:
            known = closest(self.merge_method, tuple(SIGNATURES))
            raise ValueError(f"merge_method: unknown method {self.merge_method!r}{known}")
        if bool(self.models) == bool(self.slices):
            raise ValueError("expected one of 'models' and 'slices'")
        if self.tokenizer_source and self.tokenizer:
            raise ValueError("tokenizer_source and tokenizer say the same; keep one")
        _distinct([source.model for source in self.models])
        based = self.base_model or (self.slices and all(part.base_model for part in self.slices))
        if self.signature.base == "needed" and not based:
            raise ValueError(f"base_model: {self.merge_method} needs one")
        for place, given, own in self._parameters():
            for name in given:
                self._check_parameter(place, name, own)
        return self

    def _parameters(self) -> Iterator[tuple[str, Parameters, bool]]:
        """Every place with parameters, and whether they are one model's own."""
        yield "parameters", self.parameters, False
        for i, source in enumerate(self.models):
            yield f"models.{i}.parameters", source.parameters, True
        for i, part in enumerate(self.slices):
            yield f"slices.{i}.parameters", part.parameters, False
            for j, source in enumerate(part.sources):
                yield f"slices.{i}.sources.{j}.parameters", source.parameters, True

    def _check_parameter(self, place: str, name: str, own: bool) -> None:
        known = self.signature
        if name not in known.parameters:
            names = closest(name, known.parameters) if known.parameters else ""
            raise ValueError(f"{place}: {self.merge_method} has no parameter {name!r}{names}")
        if own and name not in known.each:
            raise ValueError(f"{place}: {name!r} holds for all models; write it under the 'parameters' of the merge")


def _distinct(models: list[str]) -> None:
    twice = next((model for model in models if models.count(model) > 1), None)
    if twice is not None:
        raise ValueError(f"{twice!r} is listed twice; keep one of them")
