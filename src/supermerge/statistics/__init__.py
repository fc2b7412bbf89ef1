"""Passes of data through one expert, measured once, kept beside it, and reusable without the data."""

from supermerge.statistics.measure import Setup
from supermerge.statistics.stored import Stored
from supermerge.statistics.supply import supplied

__all__ = ["Setup", "Stored", "supplied"]
