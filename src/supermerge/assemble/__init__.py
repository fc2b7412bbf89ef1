"""The streaming pass: a method and matched checkpoints in, merged tensors out, in bounded memory."""

from supermerge.assemble.choice import Choice
from supermerge.assemble.geometry import Geometry
from supermerge.assemble.merge import merge
from supermerge.assemble.merged import Merged
from supermerge.assemble.nowhere import Nowhere
from supermerge.assemble.several import several_into
from supermerge.assemble.stream import Assembled, Sink, assemble, merge_into, output_infos
from supermerge.assemble.workers import at_most_threads, give_back_freed_memory
from supermerge.methods import weighted_sum

__all__ = [
    "Assembled",
    "Choice",
    "Geometry",
    "Merged",
    "Nowhere",
    "Sink",
    "assemble",
    "at_most_threads",
    "give_back_freed_memory",
    "merge",
    "merge_into",
    "output_infos",
    "several_into",
    "weighted_sum",
]
