"""README.md: the model card, with the front matter that the model hub reads."""

from __future__ import annotations

from collections.abc import Mapping

import yaml

from supermerge.report import markdown
from supermerge.report.adapter import described
from supermerge.report.charts.chart import Chart
from supermerge.report.page import environment
from supermerge.report.provenance import Provenance
from supermerge.report.results import Results
from supermerge.report.summary import score_rows, title, verdict

# Tasks whose model class keeps its head; the others load the backbone, to which supermerge.load adds a head.
_WHOLE = {"causal-lm": "AutoModelForCausalLM", "seq2seq": "AutoModelForSeq2SeqLM"}


def card(results: Results, charts: Mapping[str, Chart], provenance: Provenance | None) -> str:
    """The model card as Markdown; names, paths and commands in it are escaped."""
    env = environment()
    env.filters.update(md=markdown.escaped, fenced=markdown.fenced, url=markdown.url)
    return (
        env.get_template("card.md.j2")
        .render(
            results=results,
            provenance=provenance,
            charts=charts,
            front_matter=yaml.safe_dump(_front_matter(results, provenance), sort_keys=False, allow_unicode=True),
            intro="Made with supermerge: one model in place of several fine-tuned ones, by merging their weights.",
            rows=score_rows(results),
            verdict=verdict(results),
            title=title(results, provenance),
            method_title=(provenance.method_title if provenance else None) or results.method,
            usage=_usage(results, provenance),
            adapter=described(results.adapter) if results.adapter else None,
        )
        .lstrip()
    )


def _front_matter(results: Results, provenance: Provenance | None) -> dict[str, object]:
    found: dict[str, object] = {}
    if provenance and (base_models := provenance.base_models()):
        found["base_model"] = base_models
        found["base_model_relation"] = "merge"
    if provenance and provenance.license:
        found["license"] = provenance.license
    library = "peft" if results.adapter else "transformers"
    return {**found, "library_name": library, "tags": ["merge", "supermerge"]}


def _usage(results: Results, provenance: Provenance | None) -> str:
    types = {task.type for task in results.tasks.values()}
    name = _WHOLE[types.pop()] if len(types) == 1 and types <= _WHOLE.keys() else "AutoModel"
    lines = [f"from transformers import {name}", "", f'model = {name}.from_pretrained("path/to/this/directory")']
    if results.adapter:
        base = provenance.base if provenance else "path/to/the/base"
        lines = [
            "from peft import PeftModel",
            f"from transformers import {name}",
            "",
            f"base = {name}.from_pretrained({base!r})",
            'model = PeftModel.from_pretrained(base, "path/to/this/directory")',
        ]
    if results.tasks:
        lines += ["", "import supermerge", ""]
        first, *others = results.tasks
        lines.append(f'model = supermerge.load("path/to/this/directory", task={first!r})')
        if others:
            lines.append(f"# or task={', '.join(map(repr, others))}")
    return "\n".join(lines)
