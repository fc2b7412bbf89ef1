"""`init: auto`, the default of SuperMerge: what a recipe starts from that does not say it.

Iso-C's merge is the better start of full fine-tunes: eight task vectors times 0.3 are far outside what the base can
take, and one number per tensor does not find its way back with a few labels (docs/benchmarks.md, both suites).
"""

from __future__ import annotations

from supermerge.checkpoint import Match
from supermerge.checkpoint.adapters import adapter_of
from supermerge.methods.settings import LearnSettings

MERGE = "iso_c"
EACH = 0.3
"""Task arithmetic's coefficient: what up to three experts start from where Iso-C is no start."""
_MOST = 500_000_000
"""Numbers that all experts share: Iso-C decomposes every matrix, which takes minutes up to here and then hours."""


def automatic_start(settings: LearnSettings, k: int, match: Match | None) -> float | str:
    """What `auto` means for these `k` experts: Iso-C's merge, or where that is no start, 0.3 each, and at most 1/k.

    It is none for a single expert and for adapters, which learn as factors; where the experts' vectors are made by `on`
    or in groups; with link softmax, which cannot leave experts out; for large models; and without a `match`.
    """
    each = min(EACH, 1 / k)
    own = settings.on is None and settings.hierarchy is None and settings.link != "softmax"
    if match is None or k == 1 or not own:
        return each
    if any(adapter_of(match.base, source) is not None for source in match.experts.values()):
        return each
    size = sum(match.base.tensors[name].numel for name in match.merged)
    return MERGE if size <= _MOST else each
