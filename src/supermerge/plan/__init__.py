"""What a recipe will read, hold and write: known before anything is read but headers."""

from supermerge.plan.plan import Plan, plan

__all__ = ["Plan", "plan"]
