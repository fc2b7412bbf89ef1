"""Passes of data through one expert, measured once, kept beside it, and reusable without the data."""

from supermerge.statistics.measure import measure
from supermerge.statistics.stored import Stored

__all__ = ["Stored", "measure"]
