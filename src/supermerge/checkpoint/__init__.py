"""Bytes to tensors and back: checkpoints, matching them, and writing new ones. Knows nothing of merging."""

from supermerge.checkpoint.checkpoint import Checkpoint
from supermerge.checkpoint.finite import require_finite
from supermerge.checkpoint.hashing import hash_stored, hash_tensor
from supermerge.checkpoint.match import Match, match
from supermerge.checkpoint.memory import Resident
from supermerge.checkpoint.output import OutputDirectory
from supermerge.checkpoint.renamed import Renamed
from supermerge.checkpoint.source import Buffer, TensorInfo, TensorSource
from supermerge.checkpoint.tensor_file import load_tensors, save_tensors
from supermerge.checkpoint.writer import ShardWriter

__all__ = [
    "Buffer",
    "Checkpoint",
    "Match",
    "OutputDirectory",
    "Renamed",
    "Resident",
    "ShardWriter",
    "TensorInfo",
    "TensorSource",
    "hash_stored",
    "hash_tensor",
    "load_tensors",
    "match",
    "require_finite",
    "save_tensors",
]
