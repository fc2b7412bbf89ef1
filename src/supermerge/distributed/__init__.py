"""Several processes for one run, as `torchrun` starts them: who this one is, what the others have, and how all end.

A run that was started plainly is alone: nothing is exchanged, and `torch.distributed` is never imported.
"""

from supermerge.distributed.peers import ALONE, PeerLeft, Peers, deal, union
from supermerge.distributed.rows import is_sharded, local, rows_of
from supermerge.distributed.united import current, launched, leads, processes, processes_here, united

__all__ = [
    "ALONE",
    "PeerLeft",
    "Peers",
    "current",
    "deal",
    "is_sharded",
    "launched",
    "leads",
    "local",
    "processes",
    "processes_here",
    "rows_of",
    "union",
    "united",
]
