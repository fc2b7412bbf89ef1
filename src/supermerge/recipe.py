"""Recipe: what the user wants merged, as they wrote it. Frozen, checked, and without torch."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from blake3 import blake3
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from supermerge.errors import RecipeError
from supermerge.mergekit.reader import Mergekit, is_mergekit, named_models, read_mergekit
from supermerge.recipe_errors import explain
from supermerge.recipe_overrides import apply_overrides
from supermerge.recipe_paths import relocate
from supermerge.sizes import parse_size, write_size
from supermerge.tasks.spec import TaskSpec
from supermerge.yaml_file import Document, read_documents, read_yaml, write_yaml

Size = Annotated[int, BeforeValidator(parse_size), PlainSerializer(write_size, when_used="json")]
Finite = Annotated[float, Field(allow_inf_nan=False, strict=True)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+-]*$", max_length=100)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Open(BaseModel):
    """A part whose unknown keys are parameters of a method, checked against that method when the recipe is planned."""

    model_config = ConfigDict(frozen=True, extra="allow")

    @property
    def params(self) -> dict[str, Any]:
        """The keys that are not this part's own: parameters of the method."""
        return dict(self.model_extra or {})


class Expert(_Open):
    """One fine-tuned model: `model` (or the base, if only an `adapter` is given), and its own method parameters.

    A list of numbers, as its `weight` or as a parameter of its own, is a gradient: spread over the layers.
    """

    model: str | None = Field(default=None, min_length=1)
    adapter: str | None = Field(default=None, min_length=1)
    weight: Finite | Annotated[list[Finite], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _names_something(self) -> Self:
        for key in self.params:
            near = get_close_matches(key, Expert.model_fields, n=1)
            if near:
                raise ValueError(f"unknown key {key!r}; did you mean {near[0]!r}?")
        if self.model is None and self.adapter is None:
            raise ValueError("an expert needs 'model' (a path or a hub id) or 'adapter'")
        return self

    @property
    def ref(self) -> str:
        """What makes it an expert: its adapter, or else its model."""
        return self.adapter or str(self.model)


class MethodChoice(_Open):
    """A method by name, with its parameters beside the name."""

    name: str = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, given: Any) -> Any:
        return {"name": given} if isinstance(given, str) else given

    @model_serializer
    def _short_if_plain(self) -> str | dict[str, Any]:
        return {"name": self.name, **self.params} if self.params else self.name


class Rule(_Part):
    """Tensors whose name fits the glob `match` are merged by `method` instead; the first rule that fits wins."""

    match: str = Field(min_length=1)
    method: MethodChoice


class Output(_Part):
    """Where the merged model goes, its dtype (the base's where absent) and the size of its files.

    Experts that are adapters may be merged into an adapter (`save_as`), in fp32 where no dtype is given: exactly where
    that is possible, or to the best of `rank`.
    """

    path: str | None = Field(default=None, min_length=1)
    dtype: Literal["float32", "float16", "bfloat16", "float64"] | None = None
    shard_size: Size = 5 * 10**9
    save_as: Literal["dense", "adapter"] = "dense"
    rank: Annotated[int, Field(ge=1, strict=True)] | None = None

    @model_validator(mode="after")
    def _rank_is_of_an_adapter(self) -> Self:
        if self.rank is not None and self.save_as == "dense":
            raise ValueError("'rank' is that of an adapter; give save_as: adapter, or leave it out")
        return self


class Recipe(_Part):
    """A merge to make: see the fields. `Recipe.load` reads a file; `Recipe.of` takes a file, a mapping or a Recipe.

    A file of mergekit's is read too: `mergekit` then holds all that it says, and the fields name its models.
    """

    base: str = Field(min_length=1)
    experts: dict[Name, Expert] = Field(min_length=1)
    method: MethodChoice = MethodChoice(name="supermerge")
    tasks: dict[Name, TaskSpec] = Field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    output: Output = Output()
    memory: Size | None = None
    if_worse: Literal["fail", "warn"] = "fail"
    seed: int = Field(default=0, ge=0, lt=2**63, strict=True)
    version: Literal[1] = 1

    _path: Path | None = PrivateAttr(default=None)
    _mergekit: Mergekit | None = PrivateAttr(default=None)

    @property
    def path(self) -> Path | None:
        """The file that the recipe was read from, if any."""
        return self._path

    @property
    def mergekit(self) -> Mergekit | None:
        """What it says in full where it is mergekit's."""
        return self._mergekit

    @classmethod
    def load(cls, path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Recipe:
        """Read `path`, apply `overrides` (`key.key=value`) and check it; its paths are relative to its directory."""
        file = Path(path)
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise RecipeError(f"{file}: not a text file in UTF-8", hint="A recipe is a YAML file.") from error
        except OSError as error:
            reason = error.strerror or "cannot be read"
            raise RecipeError(f"{file}: {reason}", hint="Give the path of a recipe, a YAML file.") from error
        documents = read_documents(text, str(file))
        if is_mergekit(documents):
            return cls._of_mergekit(read_mergekit(documents, str(file), file.parent, overrides), file)
        return cls._checked(read_yaml(text, str(file)), str(file), file, overrides)

    @classmethod
    def of(cls, recipe: Recipe | str | os.PathLike[str] | Mapping[str, Any], overrides: Sequence[str] = ()) -> Recipe:
        """A Recipe from a file, from a mapping (paths relative to the working directory), or from a Recipe."""
        if isinstance(recipe, (str, os.PathLike)):
            return cls.load(recipe, overrides)
        if isinstance(recipe, Recipe):
            if not overrides:
                return recipe
            if recipe.mergekit is not None:
                again = read_documents(recipe.to_yaml(), "recipe")
                return cls._of_mergekit(read_mergekit(again, "recipe", Path(), overrides), recipe.path)
            value = recipe.model_dump(mode="json", exclude_unset=True)
            return cls._checked(Document(value, {}), "recipe", recipe.path, overrides)
        return cls._checked(Document(recipe, {}), "recipe", None, overrides)

    @classmethod
    def _checked(cls, document: Document, where: str, file: Path | None, overrides: Sequence[str]) -> Recipe:
        if not isinstance(document.value, Mapping):
            found = "nothing" if document.value is None else type(document.value).__name__
            raise RecipeError(f"{where}: expected a mapping with 'base' and 'experts', found {found}")
        directory = Path() if file is None else file.parent
        value = _long_form(apply_overrides(_long_form(document.value), overrides))
        try:
            recipe = cls.model_validate(relocate(value, lambda path: Path(os.path.abspath(directory / path))))
        except ValidationError as error:
            raise explain(error, cls, Document(value, document.lines), where) from error
        recipe._path = file
        return recipe

    @classmethod
    def _of_mergekit(cls, mergekit: Mergekit, file: Path | None) -> Recipe:
        """mergekit's recipe in our words: its models, method and dtype. The rest is left to `supermerge.mergekit`."""
        final = mergekit.final
        (first, base), *others = named_models(final.references).items()
        recipe = cls(
            base=base,
            experts={name: Expert(model=model) for name, model in others or [(first, base)]},
            method=MethodChoice(name=final.signature.ours),
            output=Output(dtype=final.written_dtype),
        )
        recipe._path, recipe._mergekit = file, mergekit
        return recipe

    @field_validator("experts", "tasks")
    @classmethod
    def _distinct_as_file_names(cls, named: dict[str, Any]) -> dict[str, Any]:
        # heads/<task> is a directory, and some file systems do not tell upper from lower case.
        seen: dict[str, str] = {}
        for name in named:
            other = seen.setdefault(name.lower(), name)
            if other != name:
                raise ValueError(f"{other!r} and {name!r} differ only in upper and lower case")
        return named

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        known = ", ".join(self.experts)
        for name, task in self.tasks.items():
            if task.expert not in self.experts:
                raise ValueError(f"tasks.{name}.expert is {task.expert!r}, which is not among the experts: {known}")
        without = [name for name, expert in self.experts.items() if expert.weight is None]
        if 0 < len(without) < len(self.experts):
            raise ValueError(f"some experts have a 'weight' and {', '.join(without)} has none; give all or none")
        return self

    @property
    def weights(self) -> list[float | list[float]] | None:
        """The experts' weights (or gradients) in the order of the recipe, or None where the method's default holds."""
        given = [expert.weight for expert in self.experts.values()]
        weights: list[float | list[float]] = [weight for weight in given if weight is not None]
        return weights or None

    def to_yaml(self, relative_to: Path | None = None) -> str:
        """What was written, and nothing more, as YAML; local paths relative to the directory `relative_to` if given."""
        if self._mergekit is not None:
            return self._mergekit.to_yaml(relative_to)
        value = {"version": self.version, **self.model_dump(mode="json", exclude_unset=True)}
        if relative_to is not None:
            start = relative_to.resolve()
            value = relocate(value, lambda path: Path(os.path.relpath(path.resolve(), start)))
        return write_yaml(value)

    @property
    def digest(self) -> str:
        """BLAKE3 of everything the recipe says, defaults included: the same wishes, however written, are the same."""
        said = self.model_dump(mode="json") if self._mergekit is None else list(self._mergekit.written)
        return blake3(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _long_form(value: Mapping[str, Any]) -> dict[str, Any]:
    """Short forms written out, so that `--set experts.news.weight=1` and `--set method.steps=9` have a place to go."""
    long = dict(value)
    if isinstance(long.get("method"), str):
        long["method"] = {"name": long["method"]}
    if isinstance(long.get("experts"), Mapping):
        long["experts"] = {
            name: {"model": expert} if isinstance(expert, str) else expert for name, expert in long["experts"].items()
        }
    if isinstance(long.get("tasks"), Mapping):
        experts = long.get("experts") if isinstance(long.get("experts"), Mapping) else {}
        long["tasks"] = {
            name: {"expert": name, **task} if isinstance(task, Mapping) and name in (experts or {}) else task
            for name, task in long["tasks"].items()
        }
    return long
