"""Which files of a directory hold its weights, and which go with them. Never a file outside the directory."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supermerge.errors import CheckpointError

# What an output directory copies so that it loads like its base: a list of what is known to be data, never code.
SIDE_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer*.json",
    "tokenizer*.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "vocab.bpe",
    "merges.txt",
    "spiece.model",
    "source.spm",
    "target.spm",
    "sentencepiece*.model",
    "*.tiktoken",
    "preprocessor_config.json",
    "processor_config.json",
    "image_processor_config.json",
    "video_preprocessor_config.json",
    "feature_extractor_config.json",
    "chat_template.json",
    "chat_template.jinja",
)
PICKLES = (".bin", ".pt", ".pth")


@dataclass(frozen=True, slots=True)
class Weights:
    """The files that hold a checkpoint's tensors; `weight_map` is the index's, if there is one."""

    files: tuple[Path, ...]
    weight_map: dict[str, str] | None = None


def find_weights(directory: Path, *, allow_pickle: bool) -> Weights:
    """The weights of a model directory.

    `model.safetensors`, else its index, else the only safetensors file, else pickles. Raises CheckpointError when there
    are none, or several that no index names.
    """
    single, index = directory / "model.safetensors", directory / "model.safetensors.index.json"
    if single.is_file():
        return Weights((inside(directory, single),))
    if index.is_file():
        return read_index(index)
    if (directory / "adapter_config.json").is_file():
        raise CheckpointError(
            f"{directory}: holds an adapter, not a model",
            hint="An adapter can be an expert of the model that it was trained on, but not a base or a head.",
        )
    others = sorted(directory.glob("*.safetensors"))
    if len(others) == 1:
        return Weights((inside(directory, others[0]),))
    if others:
        raise CheckpointError(
            f"{directory}: has {len(others)} safetensors files and no model.safetensors.index.json: "
            f"{', '.join(path.name for path in others[:5])}",
            hint="Name the one file you mean, or add the index.",
        )
    return _find_pickles(directory, allow_pickle=allow_pickle)


def _find_pickles(directory: Path, *, allow_pickle: bool) -> Weights:
    single, index = directory / "pytorch_model.bin", directory / "pytorch_model.bin.index.json"
    found = [path for path in (single, index) if path.is_file()] or sorted(
        path for suffix in PICKLES for path in directory.glob(f"*{suffix}")
    )
    if not found:
        raise CheckpointError(
            f"{directory}: no weights in it: neither model.safetensors nor model.safetensors.index.json",
            hint="Give a directory as `save_pretrained` writes it, or name a safetensors file.",
        )
    if not allow_pickle:
        refuse_pickle(found[0])
    if found[0] == index:
        return read_index(index)
    if len(found) > 1 and found[0] != single:
        raise CheckpointError(
            f"{directory}: has several pickle files: {', '.join(path.name for path in found[:5])}",
            hint="Name the one file you mean.",
        )
    return Weights((inside(directory, found[0]),))


def refuse_pickle(path: Path) -> None:
    """Raise CheckpointError: a pickle is only read when asked for."""
    raise CheckpointError(
        f"{path}: is a pickle, which is only read when you allow it",
        hint="Save it as safetensors, as `save_pretrained` does, or pass allow_pickle=True (reads tensors only).",
    )


def read_index(path: Path) -> Weights:
    """The shards that an index file names, each of them a plain file beside it. Raises CheckpointError."""
    weight_map = parse_weight_map(_bytes_of(inside(path.parent, path)), path)
    files: list[Path] = []
    for name in sorted(set(weight_map.values())):
        file = path.parent / name
        if not file.is_file():
            raise CheckpointError(
                f"{path}: names {name}, which is not there", hint="Copy or download the missing shard."
            )
        files.append(inside(path.parent, file))
    return Weights(tuple(files), weight_map)


def parse_weight_map(raw: bytes, path: Path) -> dict[str, str]:
    """Tensor name -> name of the file beside the index, from the bytes of an index. Raises CheckpointError."""
    weight_map = _parse_json(raw, path).get("weight_map")
    if not (isinstance(weight_map, dict) and weight_map and all(isinstance(file, str) for file in weight_map.values())):
        raise CheckpointError(
            f"{path}: its weight_map is not an object that maps tensor names to file names",
            hint="Copy or download the index again.",
        )
    for name in weight_map.values():
        if name in ("", ".", "..") or any(mark in name for mark in ("/", "\\", "\0")) or not name.isprintable():
            raise CheckpointError(
                f"{path}: its weight_map names {name!r:.200}, which is not a file beside it",
                hint="An index may only name files in its own directory: do not trust this checkpoint.",
            )
    return weight_map


def inside(directory: Path, file: Path) -> Path:
    """`file`, unless a symbolic link leads out of `directory` (a hub cache's own excepted): then CheckpointError."""
    root, real = directory.resolve(), file.resolve()
    allowed = [root, root.parent.parent / "blobs"] if root.parent.name == "snapshots" else [root]
    if not any(real.is_relative_to(place) for place in allowed):
        raise CheckpointError(
            f"{file}: is a link to {real}, outside its directory",
            hint="Name that file itself, or put a copy in place of the link.",
        )
    return file


def side_files(directory: Path) -> list[Path]:
    """Config, tokenizer, processor and chat template files of a model directory, by name."""
    found = {path for pattern in SIDE_FILES for path in directory.glob(pattern) if path.is_file()}
    return [inside(directory, path) for path in sorted(found)]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; raises CheckpointError naming the file and what is wrong."""
    return _parse_json(_bytes_of(path), path)


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}", hint="Check its permissions.") from error


def _parse_json(raw: bytes, path: Path) -> dict[str, Any]:
    try:
        document = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: is not valid JSON: {error}", hint="Copy or download the file again.") from error
    if not isinstance(document, dict):
        raise CheckpointError(f"{path}: is not a JSON object", hint="Copy or download the file again.")
    return document
