"""Recipe in, finished directory out; and the scores of models on a recipe's tasks."""

from supermerge.run.comparing import compare
from supermerge.run.evaluating import evaluate
from supermerge.run.merging import run
from supermerge.run.result import Result

__all__ = ["Result", "compare", "evaluate", "run"]
