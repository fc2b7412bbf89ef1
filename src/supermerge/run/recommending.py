"""Which of the compared methods to use. Test examples choose nothing: they only tell whether a difference is real."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from supermerge.report.numbers import score, seconds
from supermerge.report.results import ModelResult, Recommendation
from supermerge.tasks.paired import Difference, difference
from supermerge.tasks.score import Score


@dataclass(frozen=True, slots=True)
class Contender:
    """A method's row, and its scores on the test examples with what a paired test needs."""

    row: ModelResult
    scores: Mapping[str, Score]


def ranked(rows: Sequence[ModelResult]) -> list[ModelResult]:
    """The rows of methods with `rank`: their mean rank over the tasks, 1 for the best; equals share theirs."""
    methods = [row for row in rows if row.kind in ("merged", "method")]
    return [row.model_copy(update={"rank": _rank(row, methods)}) if row in methods else row for row in rows]


def _rank(row: ModelResult, methods: Sequence[ModelResult]) -> float:
    ranks: list[float] = []
    for task, mine in row.scores.items():
        sign = 1 if Score(mine.metric, 0, 0, 0, 1).higher_is_better else -1
        others = [sign * other.scores[task].value for other in methods]
        better, equal = sum(v > sign * mine.value for v in others), sum(v == sign * mine.value for v in others)
        ranks.append(better + (equal + 1) / 2)
    return sum(ranks) / len(ranks)


def recommended(contenders: Sequence[Contender]) -> Recommendation | None:
    """The method with the best mean score on the held-back validation examples, or the runner-up where it is cheaper
    and no test example set apart for it says that it is worse.

    None where fewer than two methods have such a score, or where the tasks' metrics have no mean.
    """
    judged = [each for each in contenders if each.row.validation is not None]
    metrics = {found.metric for each in judged for found in each.scores.values()}
    if len(judged) < 2 or len(metrics) != 1:
        return None
    sign = 1 if all(found.higher_is_better for each in judged for found in each.scores.values()) else -1
    best, second = sorted(judged, key=lambda each: (-sign * (each.row.validation or 0.0), each.row.seconds or 0.0))[:2]
    found = difference(best.scores, second.scores)
    cheaper = (second.row.seconds or 0.0) < (best.row.seconds or 0.0)
    chosen = second if cheaper and not found.significant else best
    return Recommendation(
        model=chosen.row.id,
        reason=_reason(best.row, second.row, chosen.row, found),
        runner_up=(second if chosen is best else best).row.id,
        difference=found.value if chosen is best else 0.0 - found.value,
        low=found.low if chosen is best else 0.0 - found.high,
        high=found.high if chosen is best else 0.0 - found.low,
        p=found.p,
        n=found.n,
    )


def _reason(best: ModelResult, second: ModelResult, chosen: ModelResult, found: Difference) -> str:
    assert best.validation is not None
    assert second.validation is not None
    leads = "scores best" if best.validation != second.validation else "is level with the best and the cheapest of them"
    start = (
        f"{best.label} {leads} on the held-back validation examples ({score(best.validation)}; "
        f"{second.label} {score(second.validation)})."
    )
    interval = f"{found.value:+.3f} (95 % interval {found.low:+.3f} to {found.high:+.3f}, p = {found.p:.2g})"
    test = f"On the {found.n:,} test examples, which chose nothing, it is {interval} against {second.label}:"
    if found.significant:
        better = (
            "a significant difference."
            if found.value > 0
            else "significantly worse. The held-back examples were too few to choose on: give more validation examples."
        )
        return f"{start} {test} {better}"
    cost = f"{seconds(chosen.seconds or 0.0)} against {seconds((second if chosen is best else best).seconds or 0.0)}"
    return f"{start} {test} no significant difference, so take the cheaper, {chosen.label} ({cost})."
