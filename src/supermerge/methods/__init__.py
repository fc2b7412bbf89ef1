"""Published merging methods, one paper per file: `get("ties")`, `names()`."""

from supermerge.methods.context import BLOCK, Context
from supermerge.methods.registry import Bound, LearnedSpec, Method, Scope, get, learned, method, names
from supermerge.methods.survey import Survey
from supermerge.methods.transforms import weighted_sum

__all__ = [
    "BLOCK",
    "Bound",
    "Context",
    "LearnedSpec",
    "Method",
    "Scope",
    "Survey",
    "get",
    "learned",
    "method",
    "names",
    "weighted_sum",
]
