"""From the numbers of a run to what people read: the page, its charts and the model card."""

from supermerge.report.results import Results
from supermerge.report.write import Provenance, write_report

__all__ = ["Provenance", "Results", "write_report"]
