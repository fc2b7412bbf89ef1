"""Checkpoints that are missing, damaged, hostile, or of another model."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from case import MOOD, QUERY, RUN, Case, Tensors, head, header, index, json_file, recipe, text, weights
from safetensors.torch import load_file, save_file

DATALESS = (*RUN, "--set", "method=task_arithmetic", "--set", "tasks={}")


def first(document: dict[str, Any]) -> dict[str, Any]:
    """The header entry of the tensor that lies first in the file."""
    return next(entry for name, entry in document.items() if name != "__metadata__")


def cut(tiny: Path) -> None:
    (tiny / MOOD).write_bytes((tiny / MOOD).read_bytes()[:-1000])


def longer(tiny: Path) -> None:
    (tiny / MOOD).write_bytes((tiny / MOOD).read_bytes() + b"PK\x03\x04")


def copy_base_over_expert(tiny: Path) -> None:
    base = load_file(tiny / "base" / "model.safetensors")
    weights(lambda tensors: tensors.update({f"bert.{name}": tensor for name, tensor in base.items()}))(tiny)


def list_twice(tiny: Path) -> None:
    shutil.copytree(tiny / "experts" / "mood", tiny / "experts" / "again")
    recipe(experts={"topic": "experts/topic", "mood": "experts/mood", "again": "experts/again"})(tiny)


def redraw(tensors: Tensors) -> None:
    generator = torch.Generator().manual_seed(9)
    for name, tensor in tensors.items():
        if tensor.is_floating_point():
            tensors[name] = torch.randn(tensor.shape, generator=generator) * (tensor.std(correction=0) + 0.1)


def flip_exponents(tiny: Path) -> None:
    """The highest bit of the exponent of every 97th number, as a failing memory would."""
    raw = bytearray((tiny / MOOD).read_bytes())
    start = 8 + int.from_bytes(raw[:8], "little")
    for place in range(start + 3, len(raw), 4 * 97):
        raw[place] ^= 0x40
    (tiny / MOOD).write_bytes(raw)


def one_huge_value_far_inside(tensors: Tensors) -> None:
    """Beyond what the check of the relation to the base samples."""
    tensors[QUERY][20, 7] = 1e30


def duplicate(tiny: Path) -> None:
    raw = (tiny / MOOD).read_bytes()
    length = int.from_bytes(raw[:8], "little")
    inner = raw[8 : 8 + length].rstrip()[1:-1].decode()
    head(("{" + inner + "," + inner + "}").encode())(tiny)


def pickled(tiny: Path) -> None:
    tensors = load_file(tiny / MOOD)
    (tiny / MOOD).unlink()
    torch.save(tensors, tiny / "experts" / "mood" / "pytorch_model.bin")


def code_in_a_pickle(tiny: Path) -> None:
    (tiny / MOOD).unlink()
    (tiny / "experts" / "mood" / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch merged'\ntR.")


def two_files(tiny: Path) -> None:
    shutil.copy(tiny / MOOD, tiny / "experts" / "mood" / "a.safetensors")
    (tiny / MOOD).rename(tiny / "experts" / "mood" / "b.safetensors")


def link_outside(tiny: Path) -> None:
    (tiny / MOOD).rename(tiny / "elsewhere.safetensors")
    (tiny / MOOD).symlink_to(tiny / "elsewhere.safetensors")


def a_pipe(tiny: Path) -> None:
    (tiny / MOOD).unlink()
    os.mkfifo(tiny / MOOD)


def config_link_outside(tiny: Path) -> None:
    (tiny / "base" / "config.json").rename(tiny / "data" / "config.json")
    (tiny / "base" / "config.json").symlink_to("../data/config.json")


def tokenizer_link_outside(tiny: Path) -> None:
    (tiny / "experts/mood/tokenizer.json").unlink()
    (tiny / "experts/mood/tokenizer.json").symlink_to("/etc/hostname")


def code_beside_the_model(tiny: Path) -> None:
    """What a repository with its own modelling code looks like; running it would leave `merged` behind."""
    (tiny / "base" / "modeling_evil.py").write_text("import os\nos.mkdir('merged')\nclass Evil: pass\n")
    (tiny / "base" / "config.json").write_text(
        '{"model_type": "evil", "auto_map": {"AutoConfig": "modeling_evil.Evil", "AutoModel": "modeling_evil.Evil"}}'
    )


def configs(**changes: object) -> Callable[[Path], object]:
    """The configs of base and experts, changed alike."""
    places = ("base", "experts/mood", "experts/topic")
    return lambda tiny: [json_file(f"{place}/config.json", lambda d: d.update(changes))(tiny) for place in places]


def no_tokenizer(tiny: Path) -> None:
    for directory in ("base", "experts/mood", "experts/topic"):
        for file in (tiny / directory).glob("*token*"):
            file.unlink()


def tokens_added_to_the_tokenizer_alone(tiny: Path) -> None:
    for directory in ("base", "experts/mood", "experts/topic"):
        path = tiny / directory / "tokenizer.json"
        document = json.loads(path.read_text())
        words = document["model"]["vocab"]
        words["lovely"] = len(words)
        path.write_text(json.dumps(document))


def as_dtype(dtype: torch.dtype) -> Any:
    return weights(lambda tensors: tensors.update({name: tensor.to(dtype) for name, tensor in tensors.items()}))


def wider(tiny: Path) -> None:
    """An expert with one more layer than the base."""

    def grow(tensors: Tensors) -> None:
        for name in [name for name in tensors if ".layer.1." in name]:
            tensors[name.replace(".layer.1.", ".layer.2.")] = tensors[name] + 0.01

    weights(grow)(tiny)


def nothing_in_it(tiny: Path) -> None:
    shutil.rmtree(tiny / "experts" / "mood")
    (tiny / "experts" / "mood").mkdir()


def empty_checkpoint(tiny: Path) -> None:
    save_file({}, tiny / MOOD)


def moved_to_first(directory: Path, document: dict[str, Any]) -> None:
    name = next(iter(document["weight_map"]))
    document["weight_map"][name] = "model-00002-of-00002.safetensors"


def rename_shard(to: str) -> Any:
    def change(directory: Path, document: dict[str, Any]) -> None:
        for name, file in document["weight_map"].items():
            document["weight_map"][name] = to if file.startswith("model-00002") else file

    return change


GAPS = head(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}' + b"\0" * 8, length=54)


def a_tokenizer_of_one_word(tiny: Path) -> None:
    for place in ("base", "experts/topic", "experts/mood"):
        json_file(f"{place}/tokenizer.json", lambda words: words["model"].update(vocab={"a": 0}))(tiny)


CASES = [
    Case("an expert's file is not there", lambda t: (t / MOOD).unlink(), 4, ("experts/mood", "no weights")),
    Case("an expert's directory is not there", lambda t: shutil.rmtree(t / "experts/mood"), 4, ("experts/mood",)),
    Case("the base's directory is not there", lambda t: shutil.rmtree(t / "base"), 4, ("base",), own_process=True),
    Case("an expert's directory is empty", nothing_in_it, 4, ("experts/mood", "no weights")),
    Case("a path that is no hub id either", recipe(base="no such:model"), 4, ("no such:model", "hub id")),
    Case("a hub id, offline and not in the cache", recipe(base="nobody/nothing"), 4, ("nobody/nothing", "offline")),
    Case("a text file for a model", recipe(base="./data/mood.valid.jsonl"), 4, ("mood.valid.jsonl", "weights")),
    Case("two files and no index", two_files, 4, ("experts/mood", "2 safetensors files")),
    Case("a file of no tensors", empty_checkpoint, 4, ("mood", "no tensors")),
    Case("a pipe for a model", a_pipe, 4, (MOOD, "not a plain file")),
    Case("a file of no bytes", text(b"", MOOD), 4, (MOOD, "0 bytes")),
    Case("a file cut short", cut, 4, (MOOD, "cut short"), own_process=True),
    Case("bytes behind the last tensor", longer, 4, (MOOD, "4 bytes after")),
    Case("a file of noise", text(b"\xff" * 64, MOOD), 4, (MOOD, "header of 18446744073709551615 bytes")),
    Case("a header longer than the file", head(b"{}", length=5000), 4, (MOOD, "5000 bytes")),
    Case("a header of 99 megabytes that is not there", head(b"{}", length=99_000_000), 4, (MOOD, "99000000 bytes")),
    Case("a header that is no JSON", head(b"{nonsense}"), 4, (MOOD, "not valid JSON")),
    Case("a header that is a list", head(b"[1, 2]"), 4, (MOOD, "not a JSON object")),
    Case("a header that is not UTF-8", head(b'{"\xff\xfe": 1}'), 4, (MOOD, "not UTF-8")),
    Case("a header nested ten thousand deep", head(b'{"a":' * 10_000 + b"1" + b"}" * 10_000), 4, (MOOD, "nested")),
    Case("a number of five thousand digits", head(b'{"a":' + b"9" * 5000 + b"}"), 4, (MOOD, "JSON")),
    Case("a tensor twice in one header", duplicate, 4, (MOOD, "twice")),
    Case("a tensor of an unknown dtype", header(lambda d: first(d).update(dtype="F4")), 4, (MOOD, "F4", "F32")),
    Case("a tensor without a dtype", header(lambda d: first(d).pop("dtype")), 4, (MOOD, "no dtype")),
    Case("a negative size", header(lambda d: first(d).update(shape=[-1, 4])), 4, (MOOD, "shape", "-1")),
    Case("a size with a fraction", header(lambda d: first(d).update(shape=[1.5])), 4, (MOOD, "shape", "1.5")),
    Case("sizes beyond all memory", header(lambda d: first(d).update(shape=[2**31, 2**31, 4])), 4, (MOOD, "shape")),
    Case("offsets in reverse", header(lambda d: first(d).update(data_offsets=[8, 0])), 4, (MOOD, "data_offsets")),
    Case("offsets and shape disagree", header(lambda d: first(d).update(shape=[3])), 4, (MOOD, "needs 12 bytes")),
    Case(
        "tensors that overlap", header(lambda d: list(d.values())[2].update(list(d.values())[1])), 4, (MOOD, "inside")
    ),
    Case("bytes that belong to no tensor", GAPS, 4, (MOOD, "belong to no tensor")),
    Case("metadata that is no text", header(lambda d: d.update(__metadata__={"a": 1})), 4, (MOOD, "__metadata__")),
    Case("an index that leads elsewhere", index(rename_shard("../../base/model.safetensors")), 4, ("do not trust",)),
    Case("an index with an absolute path", index(rename_shard("/etc/passwd")), 4, ("/etc/passwd", "do not trust")),
    Case(
        "an index that names a missing shard", index(rename_shard("model-9.safetensors")), 4, ("model-9.safetensors",)
    ),
    Case("an index that puts a tensor elsewhere", index(moved_to_first), 4, ("index puts tensor",)),
    Case("an index that lacks a tensor", index(lambda p, d: d["weight_map"].popitem()), 4, ("index does not name",)),
    Case("an index without its map", index(lambda p, d: d.pop("weight_map")), 4, ("weight_map",)),
    Case("an index that maps to a list", index(lambda p, d: d["weight_map"].update(x=["y"])), 4, ("weight_map",)),
    Case("a shard that is a link elsewhere", link_outside, 4, (MOOD, "link", "outside")),
    Case("a config that is a link elsewhere", config_link_outside, 4, ("config.json", "link", "outside")),
    Case("a tokenizer that is a link elsewhere", tokenizer_link_outside, 4, ("tokenizer.json", "link", "outside")),
    Case("a pickle", pickled, 4, ("pytorch_model.bin", "pickle", "safetensors")),
    Case("a pickle with code in it", code_in_a_pickle, 4, ("pytorch_model.bin", "pickle"), own_process=True),
    Case("a model that brings its own code", code_beside_the_model, 4, ("evil", "their own code"), own_process=True),
    Case("no config", lambda t: (t / "base/config.json").unlink(), 4, ("base", "config.json")),
    Case("a config that is no JSON", text("{", "base/config.json"), 4, ("base/config.json", "not valid JSON")),
    Case("a config of another size", json_file("base/config.json", lambda d: d.update(hidden_size=64)), 4, ("base",)),
    Case(
        "a config whose classes are a list",
        json_file("experts/mood/config.json", lambda d: d.update(id2label=["good", "bad"])),
        4,
        ("the head of task 'mood'", "transformers cannot read config.json (bert)"),
    ),
    Case(
        "configs of a billion layers",
        configs(num_hidden_layers=10**9),
        4,
        ("config.json", "num_hidden_layers = 1000000000", "10,000"),
    ),
    Case("configs of more layers", configs(num_hidden_layers=9), 4, ("lacks",)),
    Case(
        "a config of words", json_file("base/config.json", lambda d: d.update(hidden_size="big")), 4, ("config.json",)
    ),
    Case(
        "a config whose class names are no numbers",
        json_file("experts/mood/config.json", lambda d: d.update(id2label={"a": "good", "b": "bad"})),
        4,
        ("mood", "config.json"),
    ),
    Case(
        "a config that leaves a layer out",
        json_file("experts/mood/config.json", lambda d: d.update(num_hidden_layers=1)),
        4,
        ("expert 'mood'", "num_hidden_layers is 1", "2 in the base's"),
    ),
    Case(
        "a head of several labels per example",
        json_file("experts/mood/config.json", lambda d: d.update(problem_type="multi_label_classification")),
        4,
        ("the head of task 'mood'", "multi_label_classification", "one class per example"),
    ),
    Case("no tokenizer", no_tokenizer, 4, ("tokenizer", "tokenizer.json")),
    Case(
        "a tokenizer that lacks its own token for unknown words",
        a_tokenizer_of_one_word,
        4,
        ("task 'topic'", "[UNK]", "tokenizer.json"),
    ),
    Case("a tokenizer that is no JSON", text("{", "base/tokenizer.json"), 4, ("base", "tokenizer")),
    Case(
        "a token that the model has no embedding for",
        tokens_added_to_the_tokenizer_alone,
        4,
        ("topic.valid.jsonl:", "token 36", "36 that the model"),
    ),
    Case(
        "an expert of another shape",
        weights(lambda w: w.update({QUERY: torch.zeros(4, 32)})),
        4,
        ("[4, 32]", "[32, 32]"),
    ),
    Case(
        "an expert of another architecture",
        weights(lambda w: (w.clear(), w.update(x=torch.ones(3)))),
        4,
        ("architecture",),
    ),
    Case("an expert that lacks a tensor", weights(lambda w: w.pop(QUERY)), 4, ("query.weight", "missing")),
    Case("an expert with one more layer", wider, 4, ("mood", "no such layer")),
    Case(
        "an expert without its head", weights(lambda w: [w.pop(n) for n in list(w) if "classifier" in n]), 4, ("head",)
    ),
    Case("an expert in whole numbers", as_dtype(torch.int32), 4, ("mood", "int32", "float32")),
    Case("an expert quantised to bytes", as_dtype(torch.uint8), 4, ("mood", "uint8", "float32")),
    Case("an expert that is the base", copy_base_over_expert, 4, ("mood", "same weights as the base")),
    Case(
        "the base listed as an expert", recipe(experts={"a": "base", "b": "experts/mood"}, tasks=None), 4, ("a", "base")
    ),
    Case("an expert listed twice", list_twice, 4, ("again", "same weights as expert 'mood'")),
    Case(
        "the same path twice",
        recipe(experts={"a": "experts/mood", "b": "experts/mood"}, tasks=None, method="linear"),
        4,
        ("b", "'a'"),
    ),
    Case(
        "NaN in an expert",
        weights(lambda w: w[QUERY].fill_(float("nan"))),
        4,
        ("query.weight", "mood"),
        own_process=True,
    ),
    Case("infinity in an expert", weights(lambda w: w[QUERY][0].fill_(float("inf"))), 4, ("query.weight", "mood")),
    Case(
        "NaN in the base",
        weights(lambda w: w["encoder.layer.0.output.dense.weight"][3].fill_(float("nan")), "base"),
        4,
        ("output.dense.weight", "base", "NaN"),
    ),
    Case(
        "NaN in an expert's head",
        weights(lambda w: w["classifier.weight"].fill_(float("nan"))),
        4,
        ("experts/mood", "classifier.weight", "NaN"),
    ),
    Case("NaN, merged without data", weights(lambda w: w[QUERY].fill_(float("nan"))), 4, ("query.weight",), DATALESS),
    Case("exponents with flipped bits", flip_exponents, 4, ("mood",), DATALESS),
    Case("one absurdly large value", weights(one_huge_value_far_inside), 4, ("mood",), DATALESS),
    Case(
        "an absurdly large value in the base",
        weights(lambda w: w["embeddings.word_embeddings.weight"][3].fill_(1e25), "base"),
        4,
        ("base",),
        DATALESS,
    ),
    Case(
        "a base of other training", weights(redraw, "base"), 4, ("topic", "mood", "--allow-unrelated"), own_process=True
    ),
]
