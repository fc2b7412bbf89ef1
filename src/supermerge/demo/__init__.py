"""A real example from end to end: a pretrained backbone, real tasks, experts trained on the spot, and a recipe."""

from supermerge.demo.demo import demo
from supermerge.demo.preparation import prepare

__all__ = ["demo", "prepare"]
