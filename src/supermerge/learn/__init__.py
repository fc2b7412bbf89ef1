"""Learning the coefficients of a merge, in the memory of one model."""

from supermerge.learn.coefficients import Coefficients
from supermerge.learn.learn import Learned, learn
from supermerge.learn.loop import Diverged, EarlyStopping, Saving

__all__ = ["Coefficients", "Diverged", "EarlyStopping", "Learned", "Saving", "learn"]
