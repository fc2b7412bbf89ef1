"""The numbers of a run, gathered into `metrics.json`, and the page and card made from them."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from supermerge.assemble import Geometry
from supermerge.assemble.adapter import AdapterLayout
from supermerge.learn.objectives import OBJECTIVES, weighted_objectives
from supermerge.learn.tree import written
from supermerge.methods.settings import LearnSettings
from supermerge.report import results as report
from supermerge.report.write import write_report
from supermerge.run.environment import environment
from supermerge.run.journal import Journal
from supermerge.run.learned import LearnedMerge
from supermerge.run.output import Written, provenance
from supermerge.run.prepared import Prepared


def results_of(
    ready: Prepared,
    journal: Journal,
    target: Path,
    models: list[report.ModelResult],
    tasks: dict[str, report.TaskResult],
    *,
    learned: LearnedMerge | None = None,
    written: Written | None = None,
    output_bytes: int = 0,
) -> report.Results:
    """Everything that the report shows; local paths as seen from `target`, the directory it will be in."""
    elsewhere = written.read_elsewhere if written else 0
    return report.Results(
        # What is not UTF-8 can stand on no page: its bytes are told.
        command=shlex.join(["supermerge", *sys.argv[1:]]).encode("utf-8", "backslashreplace").decode(),
        recipe_yaml=ready.recipe.to_yaml(relative_to=target),
        method=ready.recipe.method.name,
        created=datetime.now(UTC).replace(microsecond=0),
        environment=environment(),
        tasks=tasks,
        models=models,
        learning=_learning(learned, ready) if learned else None,
        coefficients=_coefficients(learned) if learned else None,
        geometry=_geometry(written.assembled.geometry) if written and written.assembled.geometry else None,
        adapter=_adapter(written.layout, written.errors) if written and written.layout else None,
        warnings=list(journal.warnings),
        cost=report.Cost(
            phases=journal.phases,
            bytes_read=sum(source.bytes_read for source in ready.opened.inputs) + elsewhere,
            bytes_written=output_bytes,
            output_bytes=output_bytes or None,
        ),
    )


def write_results(
    directory: Path, ready: Prepared, journal: Journal, target: Path, results: report.Results
) -> report.Results:
    """Write report.html, the card and its charts for `target`, then metrics.json; the results with all of their cost.

    A page cannot know what making it takes, so only metrics.json has the phase `report`.
    """
    write_report(directory, results, provenance(ready.recipe, ready.opened, target))
    cost = results.cost.model_copy(update={"phases": journal.phases})
    whole = results.model_copy(update={"cost": cost})
    (directory / "metrics.json").write_text(whole.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return whole


def _learning(learned: LearnedMerge, ready: Prepared) -> report.Learning:
    settings: LearnSettings = learned.settings
    kinds = {OBJECTIVES[name].labelled for name in weighted_objectives(settings.loss)}
    history = learned.learned.history
    return report.Learning(
        steps=max((record.step for record in history), default=0),
        best_step=learned.learned.best_step,
        curve=[report.CurvePoint(step=r.step, loss=r.loss, held_back=r.held_back) for r in history],
        seconds=learned.seconds,
        loss=settings.loss if isinstance(settings.loss, str) else " + ".join(settings.loss),
        link=settings.link,
        granularity=settings.granularity,
        lr=settings.lr,
        labelled=sum(len(rows.labelled) for rows in ready.rows.values()) if True in kinds else 0,
        unlabelled=sum(len(rows.unlabelled or rows.labelled) for rows in ready.rows.values()) if False in kinds else 0,
        tree=None if learned.tree is None else written(learned.tree),
    )


def _coefficients(learned: LearnedMerge) -> report.Coefficients:
    found = learned.learned.coefficients
    names = list(found.groups)
    effective = [found.effective(name).float() for name in names]
    return report.Coefficients(
        experts=list(found.experts),
        tensors=names,
        values=[(c if c.dim() == 1 else c.mean(1)).tolist() for c in effective],
    )


def _adapter(layout: AdapterLayout, errors: Mapping[str, float]) -> report.Adapter:
    saved = layout.saved
    ranks = [product.rank for product in saved.products.values()]
    return report.Adapter(
        kind=saved.kind,
        modules=len(saved.products) + len(saved.scales),
        whole=len(saved.whole),
        ranks=[min(ranks), max(ranks)] if ranks else None,
        errors=dict(errors),
    )


def _geometry(found: Geometry) -> report.Geometry:
    return report.Geometry(
        experts=list(found.experts), norms=found.norms, relative_norms=found.relative_norms, cosines=found.cosines
    )
