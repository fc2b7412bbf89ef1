"""Tasks: labelled or unlabelled data, a head, a loss and a metric for one expert. Importing this imports no torch."""

from supermerge.tasks.spec import TaskSpec

__all__ = ["TaskSpec"]
