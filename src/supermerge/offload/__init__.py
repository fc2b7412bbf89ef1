"""A model that computes although its weights do not fit into memory: they lie in a file, and are read for every use."""

from supermerge.offload.asking import asks_about
from supermerge.offload.offload import Offload, computing, offload_of, offloaded, values_of, write_rows
from supermerge.offload.scratch import Scratch

__all__ = ["Offload", "Scratch", "asks_about", "computing", "offload_of", "offloaded", "values_of", "write_rows"]
