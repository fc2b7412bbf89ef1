"""Published merging methods, one paper per file: `get("ties")`, `names()`."""

from supermerge.methods.context import BLOCK, PART, Context
from supermerge.methods.measured import KINDS, Measured, Statistics
from supermerge.methods.registry import Bound, LearnedSpec, Method, Scope, get, learned, method, names
from supermerge.methods.survey import Survey
from supermerge.methods.transforms import weighted_sum

__all__ = [
    "BLOCK",
    "KINDS",
    "PART",
    "Bound",
    "Context",
    "LearnedSpec",
    "Measured",
    "Method",
    "Scope",
    "Statistics",
    "Survey",
    "get",
    "learned",
    "method",
    "names",
    "weighted_sum",
]
