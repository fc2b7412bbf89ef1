"""Bytes to tensors and back: checkpoints, matching them, and writing new ones. Knows nothing of merging."""

from supermerge.checkpoint.checkpoint import Checkpoint
from supermerge.checkpoint.finite import require_finite
from supermerge.checkpoint.hashing import hash_tensor
from supermerge.checkpoint.memory import Resident
from supermerge.checkpoint.renamed import Renamed
from supermerge.checkpoint.source import Buffer, TensorInfo, TensorSource

__all__ = ["Buffer", "Checkpoint", "Renamed", "Resident", "TensorInfo", "TensorSource", "hash_tensor", "require_finite"]
