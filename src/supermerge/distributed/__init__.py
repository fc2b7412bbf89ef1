"""Several processes for one run, as `torchrun` starts them: who this one is, what the others have, and how all end.

A run that was started plainly is alone: nothing is exchanged, and `torch.distributed` is never imported.
"""

from supermerge.distributed.peers import ALONE, PeerLeft, Peers, deal, union
from supermerge.distributed.united import current, launched, leads, united

__all__ = ["ALONE", "PeerLeft", "Peers", "current", "deal", "launched", "leads", "union", "united"]
