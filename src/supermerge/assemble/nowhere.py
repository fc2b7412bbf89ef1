"""A sink for a merge of which only the by-products are wanted: geometry, hashes, and that all values are finite."""

from __future__ import annotations

from torch import Tensor


class Nowhere:
    """Forgets what it is given."""

    def write_flat(self, name: str, start: int, tensor: Tensor) -> None:
        """Elements from `start` on of the flattened tensor."""
