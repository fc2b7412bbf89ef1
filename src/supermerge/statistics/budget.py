"""How much is summed up at the same time."""

MATRICES_BYTES = 1 << 30
"""Bytes of matrices of linear layers; a larger single one is summed up alone."""
