"""What an adapter that holds a merge consists of, from headers alone; or every reason why none can hold it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from supermerge.assemble.adapter.names import inside, require_adapters, require_kept_base, trained_names
from supermerge.assemble.choice import Choice
from supermerge.assemble.thin import matrix_shape
from supermerge.checkpoint import Match
from supermerge.checkpoint.adapters import AdapterView, Changed, Directed, LowRank, Rescaled, Shifted
from supermerge.checkpoint.adapters.saved import Product, SavedAdapter, Scales, saved_modules
from supermerge.checkpoint.names import pattern
from supermerge.errors import RecipeError
from supermerge.methods import Bound

_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Learning:
    """How coefficients are learned; `summed` says that those are of the experts' own task vectors, and of no others."""

    granularity: str
    summed: bool


@dataclass(frozen=True, slots=True)
class AdapterLayout:
    """An adapter that is to be written: `saved`, and for every tensor of the base that it changes what it is there.

    `products` and `scales` map a tensor of the base to its module, `whole` to its name in the model. Tensors in `exact`
    are written as the factors that the merge makes, the other products as the best of their rank.
    """

    saved: SavedAdapter
    products: Mapping[str, str]
    scales: Mapping[str, str]
    whole: Mapping[str, str]
    exact: frozenset[str]


def adapter_layout(
    match: Match, choice: Choice, *, rank: int | None, learning: Learning | None, names: Mapping[str, str] | None = None
) -> AdapterLayout:
    """The adapter that holds the merge of `match`, whose experts must all be adapters on the base.

    `names` are those of the model that the adapter is for, by the base's ones; by default of the model that the experts
    were trained in. RecipeError where no adapter can hold the merge.
    """
    views = require_adapters(match)
    require_kept_base(choice, len(views))
    return _Layout(match, choice, views, rank, learning, names or trained_names(match, views)).made()


class _Layout:
    """Sorts the tensors that experts change, and collects `problems` on the way."""

    def __init__(
        self,
        match: Match,
        choice: Choice,
        views: Mapping[str, AdapterView],
        rank: int | None,
        learning: Learning | None,
        names: Mapping[str, str],
    ) -> None:
        self.match, self.choice, self.views, self.rank, self.learning = match, choice, views, rank, learning
        self.names = names
        self.as_scales = rank is None and all(view.settings.kind == "IA3" for view in views.values())
        self.products: dict[str, Product] = {}
        self.scales: dict[str, Scales] = {}
        self.whole: list[str] = []
        self.exact: set[str] = set()
        self.problems: list[tuple[str, str]] = []

    def made(self) -> AdapterLayout:
        for name in self.match.merged:
            changes = {expert: view.changed[name] for expert, view in self.views.items() if name in view.changed}
            if changes:
                self._sort(name, changes)
        self._require_no_problems()
        self._complete_saved_modules()
        module = {name: trained.rpartition(".")[0] for name, trained in self.names.items()}
        saved = SavedAdapter(
            kind="IA3" if self.as_scales else "LORA",
            modules=frozenset(module.values()),
            products={module[name]: product for name, product in self.products.items()},
            scales={module[name]: scales for name, scales in self.scales.items()},
            whole={self.names[name]: self.match.base.tensors[name] for name in self.whole},
        )
        return AdapterLayout(
            saved,
            {name: module[name] for name in self.products},
            {name: module[name] for name in self.scales},
            {name: self.names[name] for name in self.whole},
            frozenset(self.exact & self.products.keys()),
        )

    def _sort(self, name: str, changes: Mapping[str, Changed]) -> None:
        kinds = [change.change for change in changes.values()]
        own = any(change.stored[0] is self.views[expert].store for expert, change in changes.items())
        if own or any(isinstance(kind, Shifted) for kind in kinds):
            self.whole.append(name)
        elif len(self.match.base.tensors[name].shape) < 2:
            self._bias(name)
        elif self.as_scales:
            self._scale(name, [kind for kind in kinds if isinstance(kind, Rescaled)])
        else:
            self._multiply(name, changes)

    def _bias(self, name: str) -> None:
        """IA3 scales a bias together with its weight; elsewhere it is written whole."""
        if not self.as_scales:
            self.whole.append(name)
        elif self.learning and self.learning.granularity in ("tensor", "row"):
            text = f"granularity {self.learning.granularity} gives a bias a coefficient of its own, which IA3 does not"
            self.problems.append((name, text))

    def _scale(self, name: str, kinds: Sequence[Rescaled]) -> None:
        source, stored = kinds[0].scales
        shape = source.tensors[stored].shape
        if any(kind.scales[0].tensors[kind.scales[1]].shape != shape for kind in kinds):
            self.problems.append((name, "is scaled by its inputs in one expert and by its outputs in another"))
        elif self.learning and not self.learning.summed:
            self.problems.append((name, "is learned on task vectors that a method makes of weights, not of scales"))
        elif self.learning and self.learning.granularity == "row" and not kinds[0].by_row:
            self.problems.append((name, "is scaled by columns, and granularity row has a coefficient per row"))
        elif self.choice(name).kinds:
            self.problems.append((name, f"{self.choice(name).method.name} needs statistics of weights, not of scales"))
        else:
            self.scales[name] = Scales(shape, shape[1] != 1, is_transposed(kinds[0]))

    def _multiply(self, name: str, changes: Mapping[str, Changed]) -> None:
        shape = self.match.base.tensors[name].shape
        inner = {expert: _low_rank(change) for expert, change in changes.items()}
        if self.rank is None:
            for expert, change in changes.items():
                if not isinstance(change.change, LowRank):
                    kind = "DoRA" if isinstance(change.change, Directed) else "IA3"
                    self.problems.append((name, f"{kind} of expert {expert!r} is no product of low rank"))
        known = [change for change in inner.values() if change is not None]
        total = sum(change.rank for change in known)
        exact = self.rank is None and self._has_factors(self.choice(name))
        wanted = total if exact else min(self.rank or total, *matrix_shape(shape))
        transposed = (
            known[0].transposed
            if known
            else any(isinstance(c.change, Rescaled) and is_transposed(c.change) for c in changes.values())
        )
        embedding = bool(known) and known[0].left[1].endswith("lora_embedding_A")
        self.products[name] = Product(shape, wanted, transposed, embedding)
        if exact:
            self.exact.add(name)

    def _has_factors(self, bound: Bound) -> bool:
        """Whether a merge of task vectors in factors is made of factors."""
        if bound.method.learned is not None:
            return self.learning is not None and self.learning.summed
        return bound.factored(len(self.views)) is not None

    def _complete_saved_modules(self) -> None:
        """PEFT saves a module with all of its tensors, and every module whose name ends alike."""
        saved = saved_modules(
            self.names[name] for name in self.whole if self.as_scales or not self.names[name].endswith(".bias")
        )
        for name in self.match.base.tensors:
            if inside(self.names[name], saved) and name not in self.whole:
                self.whole.append(name)
        for name in self.whole:
            self.products.pop(name, None)
            self.scales.pop(name, None)

    def _require_no_problems(self) -> None:
        if not self.problems:
            return
        counts = Counter((pattern(name), text) for name, text in self.problems)
        lines = [
            f"  {name}{f' ({count} tensors)' if count > 1 else ''}: {text}" for (name, text), count in counts.items()
        ]
        more = [f"  and {len(lines) - _SHOWN} more such lines"] if len(lines) > _SHOWN else []
        raise RecipeError(
            "output.save_as: no adapter holds this merge exactly:\n" + "\n".join([*lines[:_SHOWN], *more]),
            hint="Give output.rank for a LoRA of that rank that comes closest, or save_as: dense.",
        )


def _low_rank(change: Changed) -> LowRank | None:
    inner = change.change.inner if isinstance(change.change, Directed) else change.change
    return inner if isinstance(inner, LowRank) else None


def is_transposed(scales: Rescaled) -> bool:
    """Whether a weight that IA3 scales is stored [in, out]: scales of outputs then go by column."""
    source, stored = scales.scales
    return scales.by_row == (source.tensors[stored].shape[1] != 1)
