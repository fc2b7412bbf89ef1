"""Bytes to tensors and back: checkpoints, matching them, and writing new ones. Knows nothing of merging."""

from supermerge.checkpoint.adapters import open_expert
from supermerge.checkpoint.checkpoint import Checkpoint, place_of
from supermerge.checkpoint.chosen_rows import ChosenRows, MeanRow, Row, Run, runs
from supermerge.checkpoint.composed import Composed
from supermerge.checkpoint.finite import require_finite
from supermerge.checkpoint.hashing import hash_shard, hash_stored, hash_tensor
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
    "ChosenRows",
    "Composed",
    "Match",
    "MeanRow",
    "OutputDirectory",
    "Renamed",
    "Resident",
    "Row",
    "Run",
    "ShardWriter",
    "TensorInfo",
    "TensorSource",
    "hash_shard",
    "hash_stored",
    "hash_tensor",
    "load_tensors",
    "match",
    "open_expert",
    "place_of",
    "require_finite",
    "runs",
    "save_tensors",
]
