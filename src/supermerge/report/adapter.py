"""What is said of a merge that was written as an adapter: what it is, and how much recompressing it lost."""

from __future__ import annotations

from supermerge.report.results import Adapter

_NAMES = {"LORA": "LoRA", "IA3": "IA3"}


def described(adapter: Adapter) -> str:
    """Kind, rank and size, and the relative errors where there are some."""
    rank = ""
    if adapter.ranks:
        low, high = adapter.ranks
        rank = f" of rank {low}" if low == high else f" of rank {low} to {high}"
    whole = f", and {adapter.whole} tensors whole" if adapter.whole else ""
    what = f"{_NAMES.get(adapter.kind, adapter.kind)}{rank} on {adapter.modules} modules{whole}"
    if not adapter.errors:
        return f"{what}: exactly the merge."
    worst = max(adapter.errors, key=lambda module: adapter.errors[module])
    mean = sum(adapter.errors.values()) / len(adapter.errors)
    return (
        f"{what}. {len(adapter.errors)} modules were recompressed to their rank, with a relative error of {mean:.2g} "
        f"on average and at most {adapter.errors[worst]:.2g} (of {worst})."
    )
