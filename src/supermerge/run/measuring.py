"""The statistics that a recipe's methods need: measured on the learning rows, or found where they were kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from supermerge.assemble import Choice
from supermerge.distributed import current
from supermerge.methods import Bound
from supermerge.run.prepared import Prepared


def kinds_of(bounds: Sequence[Bound]) -> list[str]:
    """Every kind of statistics that some of `bounds` need and do not have, each once."""
    return list(dict.fromkeys(kind for bound in bounds if bound.measured is None for kind in bound.kinds))


@contextmanager
def measured(ready: Prepared, choice: Choice) -> Iterator[Choice]:
    """`choice` with the statistics that its methods need; their files are open inside the block.

    Of several processes the first measures what is missing; the others find it.
    """
    if not kinds_of(choice.bounds):
        yield choice
        return
    from supermerge.statistics import supplied

    with ExitStack() as files:
        with current().after_first(), ready.alone() as able:
            complete = supplied(choice.bounds, able.statistics(), files)
        with_them = {id(bound): each for bound, each in zip(choice.bounds, complete, strict=True)}
        yield Choice(
            with_them[id(choice.default)],
            tuple((pattern, with_them[id(bound)]) for pattern, bound in choice.rules),
            {name: with_them[id(bound)] for name, bound in choice.by_name.items()},
        )
