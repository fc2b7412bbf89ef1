"""What a recipe will read, hold and write: known before anything is read but headers."""

from supermerge.plan.plan import Plan, plan, plan_of

__all__ = ["Plan", "plan", "plan_of"]
