from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizer

from supermerge.demo.packages import Package


@pytest.fixture
def make_wheel(tmp_path: Path) -> Callable[..., tuple[Path, Package]]:
    """`make_wheel({member: bytes}, name=…)`: a wheel that pip accepts, in a directory of its own, and its Package."""

    def make(members: Mapping[str, bytes], name: str = "corpus", version: str = "1.0") -> tuple[Path, Package]:
        info = f"{name}-{version}.dist-info"
        file = tmp_path / "index" / f"{name}-{version}-py3-none-any.whl"
        file.parent.mkdir(exist_ok=True)
        with zipfile.ZipFile(file, "w") as archive:
            for member, content in members.items():
                archive.writestr(member, content)
            archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(f"{info}/RECORD", "")
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        return file, Package(name, version, file.name, megabytes=0.1, sha256=digest)

    return make


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pretrained backbone with its tokenizer: eight words, one layer."""
    directory = tmp_path_factory.mktemp("base")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "on", "ice", "snow", "frost", "sun", "sand", "fire"]
    (directory / "vocab.txt").write_text("\n".join(words))
    BertTokenizer(str(directory / "vocab.txt")).save_pretrained(directory)
    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(words), max_position_embeddings=16, **size)).save_pretrained(directory)
    return directory
