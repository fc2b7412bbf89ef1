"""What the numbers say: which model stands for the experts, how the merged one compares, and the verdict in words."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Literal

from supermerge.report.provenance import Provenance
from supermerge.report.results import ModelResult, Results, Score

EXPERTS_ID = "experts"
Kind = Literal["base", "expert", "merged", "method"]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the score table; the experts share one line, each with its own task."""

    id: str
    label: str
    kind: Kind
    scores: dict[str, Score]
    mean: float | None
    normalised: float | None
    rank: float | None = None
    seconds: float | None = None
    peak_rss_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """`headline` is one short clause, `sentences` say why; `good` is None where nothing can be said."""

    good: bool | None
    headline: str
    sentences: list[str]


def title(results: Results, provenance: Provenance | None) -> str:
    """What was merged, by which method, or how many methods were compared."""
    kinds = Counter(model.kind for model in results.models)
    if kinds["method"] and not kinds["merged"]:
        return f"{kinds['method']} way{_s(kinds['method'])} to merge {kinds['expert']} expert{_s(kinds['expert'])}"
    method = (provenance.method_title if provenance else None) or results.method
    count = len(expert_names(results, provenance))
    return f"{count} expert{_s(count)} merged by {method}" if count else f"Merged by {method}"


def is_measured(results: Results) -> bool:
    """Whether anything was scored or learned."""
    return bool(results.models) or results.learning is not None


def expert_names(results: Results, provenance: Provenance | None) -> list[str]:
    """The names of the merged experts, from wherever they are known; empty if they are not."""
    if provenance and provenance.experts:
        return list(provenance.experts)
    found = results.coefficients or results.geometry
    return found.experts if found else [model.label for model in results.models if model.kind == "expert"]


def own_expert(results: Results, task: str) -> ModelResult | None:
    """The expert made for `task`: the one it names, else the one named like it, else the best on it."""
    experts = {model.id: model for model in results.models if model.kind == "expert" and task in model.scores}
    named = experts.get(f"expert:{results.tasks[task].expert or task}")
    if named is not None or not experts:
        return named
    sign = 1 if results.tasks[task].higher_is_better else -1
    return max(experts.values(), key=lambda model: sign * model.scores[task].value)


def score_rows(results: Results) -> list[Row]:
    """Base, experts, merged, then the other methods, in their order, with different labels; empty without scores."""
    rows = [_row(model) for model in results.models if model.kind != "expert" and model.scores]
    experts = {task: own_expert(results, task) for task in results.tasks}
    scores = {task: expert.scores[task] for task, expert in experts.items() if expert is not None}
    if scores:
        complete = len(scores) == len(results.tasks)
        mean = sum(score.value for score in scores.values()) / len(scores) if complete and direction(results) else None
        rows.append(Row(EXPERTS_ID, "Experts", "expert", scores, mean, 1.0 if complete else None))
    order = {"base": 0, "expert": 1, "merged": 2, "method": 3}
    labels = Counter(row.label for row in rows)
    distinct = [replace(row, label=f"{row.label} ({row.id})") if labels[row.label] > 1 else row for row in rows]
    return sorted(distinct, key=lambda row: order[row.kind])


def best_merged(results: Results, task: str) -> set[str]:
    """Ids of the merged and method rows that score best at `task` (several when they tie)."""
    values = {row.id: row.scores[task].value for row in score_rows(results) if _is_merge(row) and task in row.scores}
    if len(values) < 2:
        return set()
    best = max(values.values()) if results.tasks[task].higher_is_better else min(values.values())
    return {id_ for id_, value in values.items() if value == best}


def direction(results: Results) -> Literal[1, -1] | None:
    """1 if a higher mean is better, -1 if a lower one is, None if the tasks disagree and a mean says nothing."""
    signs = {task.higher_is_better for task in results.tasks.values()}
    if len(signs) != 1:
        return None
    return 1 if signs.pop() else -1


def verdict(results: Results) -> Verdict:
    """How the merged model compares to the base, to the experts and to the other methods."""
    rows = {row.id: row for row in score_rows(results)}
    merged = next((row for row in rows.values() if row.kind == "merged"), None)
    if merged is None:
        return _without_merged(results, list(rows.values()))
    base, experts = rows.get("base"), rows.get(EXPERTS_ID)
    sentences = _against_experts(results, merged, experts) + _against_others(results, merged, rows)
    if base is None:
        return Verdict(None, "Scored without its base", sentences)
    shared = [task for task in results.tasks if task in merged.scores and task in base.scores]
    better = [task for task in shared if _gain(results, task, merged, base) > 0]
    worse = [task for task in shared if _gain(results, task, merged, base) < 0]
    clear = sum(_is_clear(merged.scores[task], base.scores[task]) for task in better)
    sentences.insert(0, _against_base(len(better), len(shared), clear))
    mean_gain = _mean_gain(results, merged, base)
    if mean_gain is not None and mean_gain < 0:
        return Verdict(False, "Worse than the base on average", sentences)
    if worse:
        clearly = any(_is_clear(merged.scores[task], base.scores[task]) for task in worse)
        start = "Better than the base on average, worse on" if mean_gain else "Worse than the base on"
        return Verdict(False if clearly else None, f"{start} {_listed(worse)}", sentences)
    if len(better) == len(shared) and shared:
        many = "every task" if len(shared) > 1 else "its task"
        return Verdict(True, f"Better than the base on {many}", sentences)
    return Verdict(None, "No worse than the base on any task", sentences)


def _without_merged(results: Results, rows: list[Row]) -> Verdict:
    sign = direction(results)
    means = [(row.mean, row.label) for row in rows if row.kind == "method" and row.mean is not None]
    if not rows:
        return Verdict(None, "Not scored", ["No task with test data was given, so no score was measured."])
    if sign is None or not means:
        return Verdict(None, "Scored task by task", ["The table has the scores of each model."])
    _, best = max(means, key=lambda pair: sign * pair[0])
    return Verdict(None, f"{best} has the best mean score", [f"{len(means)} method{_s(len(means))} compared."])


def _row(model: ModelResult) -> Row:
    return Row(
        id=model.id,
        label=model.label,
        kind=model.kind,
        scores=model.scores,
        mean=model.mean,
        normalised=model.normalised,
        rank=model.rank,
        seconds=model.seconds,
        peak_rss_bytes=model.peak_rss_bytes,
    )


def _is_merge(row: Row) -> bool:
    return row.kind in ("merged", "method")


def _gain(results: Results, task: str, row: Row, other: Row) -> float:
    difference = row.scores[task].value - other.scores[task].value
    return difference if results.tasks[task].higher_is_better else -difference


def _mean_gain(results: Results, row: Row, other: Row) -> float | None:
    sign = direction(results)
    if sign is None or row.mean is None or other.mean is None:
        return None
    return sign * (row.mean - other.mean)


def _is_clear(score: Score, other: Score) -> bool:
    return score.low > other.high or score.high < other.low


def _against_base(better: int, shared: int, clear: int) -> str:
    where = "" if better == shared == 1 else f" on {better} of {shared} task{_s(shared)}"
    if better == 0:
        return f"It beats the base{where}."
    if better == 1:
        tail = "by more than the 95 % intervals" if clear else "but not by more than the 95 % intervals"
        return f"It beats the base{where}, {tail}."
    beyond = "all" if clear == better else str(clear or "none")
    return f"It beats the base{where}, {beyond} of them by more than the 95 % intervals."


def _against_experts(results: Results, merged: Row, experts: Row | None) -> list[str]:
    shared = [] if experts is None else [task for task in merged.scores if task in experts.scores]
    if experts is None or not shared:
        return []
    behind = [
        task
        for task in shared
        if _gain(results, task, merged, experts) < 0 and _is_clear(merged.scores[task], experts.scores[task])
    ]
    if behind:
        return [f"It is clearly behind the expert on {_listed(behind)}."]
    return [f"It is not clearly behind the expert{' on any task' if len(shared) > 1 else ''}."]


def _against_others(results: Results, merged: Row, rows: dict[str, Row]) -> list[str]:
    gains = {
        row.label: gain
        for row in rows.values()
        if row.kind == "method" and (gain := _mean_gain(results, merged, row)) is not None
    }
    if not gains:
        return []
    ahead = [label for label, gain in gains.items() if gain < 0]
    if not ahead:
        return [f"Its mean score is the best of the {len(gains) + 1} methods compared."]
    return [f"{_listed(ahead)} {'has' if len(ahead) == 1 else 'have'} a better mean score."]


def _listed(names: list[str], limit: int = 3) -> str:
    shown = names if len(names) <= limit + 1 else [*names[:limit], f"{len(names) - limit} more"]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _s(count: int) -> str:
    return "" if count == 1 else "s"
