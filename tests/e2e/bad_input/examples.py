"""Examples that are missing, malformed, or do not fit their task."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from case import RUN, Case, data, recipe, rows, text
from PIL import Image
from PIL.PngImagePlugin import PngInfo

VALID = "data/mood.valid.jsonl"


def csv(content: str | bytes) -> Callable[[Path], object]:
    """The validation examples as a CSV file with this content."""

    def spoil(tiny: Path) -> None:
        text(content, "data/mood.csv")(tiny)
        recipe(tasks__mood__validation="data/mood.csv")(tiny)

    return spoil


def a_pipe(tiny: Path) -> None:
    (tiny / VALID).unlink()
    os.mkfifo(tiny / VALID)


def picture(content: bytes, name: str = "a.png") -> Callable[[Path], object]:
    """A folder of pictures with this one in it."""

    def spoil(tiny: Path) -> None:
        (tiny / "data" / "images" / "good").mkdir(parents=True)
        (tiny / "data" / "images" / "good" / name).write_bytes(content)
        recipe(
            tasks__mood={
                "type": "image-classification",
                "expert": "mood",
                "validation": "data/images",
                "metric": "accuracy",
            }
        )(tiny)

    return spoil


def saved(image: Image.Image, **options: Any) -> bytes:
    """The image as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def with_text(length: int) -> bytes:
    """A PNG file with a compressed text of this length."""
    text = PngInfo()
    text.add_text("a", "b" * length, zip=True)
    return saved(Image.new("RGB", (4, 4)), pnginfo=text)


def damaged_data_set(tiny: Path) -> None:
    (tiny / "data" / "set").mkdir()
    text("{", "data/set/state.json")(tiny)
    recipe(tasks__mood__validation="data/set")(tiny)


GOOD = '{"text": "lovely dog", "label": "good"}\n'
IMAGE = {"type": "image-classification", "expert": "mood", "image": "text", "validation": VALID}
CASES = [
    Case("the examples are not there", lambda t: (t / VALID).unlink(), 6, (VALID, "no such file"), own_process=True),
    Case("the examples are a directory of nothing", lambda t: ((t / VALID).unlink(), (t / VALID).mkdir()), 6, (VALID,)),
    Case("no examples", text("", VALID), 6, (VALID, "no examples")),
    Case("blank lines alone", text("\n\n\n", VALID), 6, (VALID, "no examples")),
    Case("a line that is no JSON", text(GOOD + "{good}\n", VALID), 6, (f"{VALID}:2", "not valid JSON")),
    Case("a line that is a list", text(GOOD + "[1]\n", VALID), 6, (f"{VALID}:2", "list")),
    Case(
        "a key twice in a line",
        text(GOOD + '{"text": "x", "label": "good", "label": "bad"}\n', VALID),
        6,
        (f"{VALID}:2", "key 'label' appears twice"),
    ),
    Case("a pipe for examples", a_pipe, 6, (VALID, "neither a plain file nor a folder")),
    Case("a line nested ten thousand deep", text("[" * 10_000 + "\n", VALID), 6, (f"{VALID}:1", "JSON")),
    Case("a number of five thousand digits", text('{"text": "x", "label": ' + "9" * 5000 + "}\n", VALID), 6, (VALID,)),
    Case("a line that is not UTF-8", text(b'{"text": "\xff", "label": "good"}\n', VALID), 6, (f"{VALID}:1", "UTF-8")),
    Case("half of a surrogate pair", text('{"text": "\\ud800", "label": "good"}\n', VALID), 6, (VALID, "surrogate")),
    Case("a column is missing", text('{"sentence": "x", "label": "good"}\n', VALID), 6, ("'text'", "'sentence'")),
    Case("a text that is a number", text('{"text": 5, "label": "good"}\n', VALID), 6, ("'text'", "int 5")),
    Case("a text that is not there", text('{"text": null, "label": "good"}\n', VALID), 6, ("'text'", "nothing")),
    Case("a label that is not there", text('{"text": "x", "label": null}\n', VALID), 6, ("'label'", "nothing")),
    Case("a label that is a list", text('{"text": "x", "label": ["good"]}\n', VALID), 6, ("'label'", "list")),
    Case(
        "an unknown label",
        data("mood.valid.jsonl", lambda t, r: [*r, {"text": "x", "label": "meh"}]),
        6,
        ("meh", "good"),
    ),
    Case("a label beyond the head", data("mood.valid.jsonl", lambda t, r: [*r, {"text": "x", "label": 7}]), 6, ("7",)),
    Case(
        "an unknown label in the test data",
        data("mood.test.jsonl", lambda t, r: [*r, {"text": "x", "label": "meh"}]),
        6,
        ("mood.test.jsonl", "meh"),
    ),
    Case(
        "one class", data("mood.valid.jsonl", lambda t, r: [x for x in r if x["label"] == "good"]), 6, ("good", "class")
    ),
    Case("one example", data("mood.valid.jsonl", lambda t, r: r[:1]), 6, ("mood",)),
    Case(
        "validation examples in the test data",
        data("mood.test.jsonl", lambda t, r: r + rows(t, "mood.valid.jsonl")[:3]),
        6,
        ("mood", "3 of 32"),
        own_process=True,
    ),
    Case("the same file for validation and test", recipe(tasks__mood__test=VALID), 6, ("32 of 32",)),
    Case("a CSV file with a field too many", csv("text,label\nx,good,bad\n"), 6, ("mood.csv:2", "3 fields")),
    Case("a CSV file with an open quote", csv('text,label\n"x,good\n'), 6, ("mood.csv:2", "CSV")),
    Case("a CSV file with a column twice", csv("text,text,label\nx,x,good\n"), 6, ("mood.csv:1", "twice")),
    Case("a CSV file with a header alone", csv("text,label\n"), 6, ("mood.csv", "no examples")),
    Case("a CSV file with a NUL", csv(b"text,label\nx\x00,good\n"), 6, ("mood.csv",)),
    Case("a field beyond all limits", csv("text,label\n" + "x" * 200_000 + ",good\n"), 6, ("mood.csv:2", "field")),
    Case(
        "a Parquet file that is none",
        lambda t: (text("PAR1", "data/mood.parquet")(t), recipe(tasks__mood__validation="data/mood.parquet")(t)),
        6,
        ("mood.parquet", "Parquet"),
    ),
    Case("a file of an unknown kind", recipe(tasks__mood__validation="recipe.yaml"), 6, ("recipe.yaml", ".jsonl")),
    Case("text for an image", recipe(tasks__mood=IMAGE), 6, ("mood.valid.jsonl", "image")),
    Case("a picture that is none", picture(b"not a picture"), 6, ("a.png", "image")),
    Case("a picture of 16 bits", picture(saved(Image.new("I;16", (4, 4)))), 6, ("a.png", "8 bits", "I;16")),
    Case("a picture with a text that fills the memory", picture(with_text(2_000_000)), 6, ("a.png", "cannot be read")),
    Case(
        "a picture that is a program",
        picture(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "a.eps"),
        6,
        ("a.eps",),
    ),
    Case(
        "a folder of pictures for a text task",
        lambda t: recipe(tasks__mood__validation="data")(t),
        6,
        ("data", "images"),
    ),
    Case(
        "a data set of an unknown option",
        recipe(tasks__mood__validation="datasets:glue?splt=train"),
        6,
        ("splt", "split"),
    ),
    Case("a data set without a name", recipe(tasks__mood__validation="datasets:"), 6, ("names no data set",)),
    Case("a saved data set that is damaged", damaged_data_set, 6, ("data/set",)),
    Case("a loss that needs labels, without labels", recipe(tasks__mood__validation=None), 6, ("mood", "labelled")),
    Case("a loss that needs unlabelled data", recipe(method="adamerging"), 6, ("unlabelled",)),
    Case("plan does not read examples, run does", lambda t: shutil.rmtree(t / "data"), 6, ("no such file",), RUN),
]
