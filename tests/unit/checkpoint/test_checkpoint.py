from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from huggingface_hub import errors as hub_errors
from torch import Tensor, nn

from supermerge.checkpoint import Checkpoint, Resident
from supermerge.errors import CheckpointError, NetworkError, UsageError

Save = Callable[[str, dict[str, Tensor]], Path]
WEIGHTS = {"a": torch.arange(6.0).view(2, 3)}


def test_directory_file_and_string_paths(save: Save) -> None:
    directory = save("model", WEIGHTS)
    for ref in (directory, str(directory), directory / "model.safetensors"):
        with Checkpoint.open(ref) as checkpoint:
            assert checkpoint.label == str(ref)
            assert checkpoint.directory == directory
            assert checkpoint.revision is None
            assert torch.equal(checkpoint.read("a"), WEIGHTS["a"])


def test_a_home_directory_is_found(save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save("model", WEIGHTS)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Checkpoint.open("~/model").directory == tmp_path / "model"


def test_an_open_checkpoint_outlives_those_opened_from_it(save: Save) -> None:
    checkpoint = Checkpoint.open(save("model", WEIGHTS))
    with Checkpoint.open(checkpoint) as again:
        assert torch.equal(again.read("a"), WEIGHTS["a"])
        assert (again.identity, again.label) == (checkpoint.identity, checkpoint.label)
        assert (again.directory, again.fingerprint()) == (checkpoint.directory, checkpoint.fingerprint())
    assert torch.equal(checkpoint.read("a"), WEIGHTS["a"])
    checkpoint.close()
    with pytest.raises(UsageError, match=r"model\.safetensors: is closed"):
        checkpoint.read("a")


def test_closed_memory_is_not_read() -> None:
    checkpoint = Checkpoint.open(WEIGHTS)
    checkpoint.close()
    with pytest.raises(UsageError, match="tensors in memory: is closed"):
        checkpoint.read("a")


def test_a_mapping_and_a_module_in_memory() -> None:
    module = nn.Linear(3, 2)
    checkpoint = Checkpoint.open(module)
    assert (checkpoint.label, checkpoint.directory, checkpoint.config) == ("Linear", None, {})
    assert (checkpoint.side_files(), checkpoint.fingerprint()) == ([], ())
    assert torch.equal(checkpoint.read("weight"), module.weight)
    assert not checkpoint.read("weight").requires_grad
    assert Checkpoint.open(module).identity == checkpoint.identity
    assert Checkpoint.open(WEIGHTS, label="mine").label == "mine"


def test_tensors_in_any_layout_are_read_in_row_order() -> None:
    matrix = torch.arange(6.0).view(2, 3)
    checkpoint = Checkpoint.open({"a": matrix.t()})
    assert torch.equal(checkpoint.read_flat("a", 0, 3), torch.tensor([0.0, 3.0, 1.0]))


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        ({"a": 3}, "'a' is a int, not a tensor"),
        ({"a": torch.zeros(2, device="meta")}, "tensor 'a' is a meta tensor"),
        ({"a": torch.zeros(2, 2).to_sparse()}, "tensor 'a' is a sparse_coo tensor"),
        ({}, "holds no tensors"),
    ],
)
def test_what_is_no_plain_tensor_is_refused(tensors: dict[str, Tensor], expected: str) -> None:
    with pytest.raises(CheckpointError, match=expected):
        Checkpoint.open(tensors)


def test_other_objects_are_a_usage_error() -> None:
    with pytest.raises(UsageError, match="not list"):
        Checkpoint.open(cast(Any, [1]))


def test_resident_gives_the_same_bytes(save: Save) -> None:
    checkpoint = Checkpoint.open(save("model", WEIGHTS))
    resident = Resident(checkpoint, checkpoint.tensors)
    checkpoint.close()
    assert resident.label == checkpoint.label
    assert resident.tensors == checkpoint.tensors
    assert torch.equal(resident.read("a", slice(1, 2)), WEIGHTS["a"][1:2])


def test_config_and_side_files(save: Save) -> None:
    directory = save("model", WEIGHTS)
    (directory / "config.json").write_text('{"model_type": "bert"}')
    for name in ("tokenizer.json", "chat_template.jinja", "README.md", "modeling_x.py", "training_args.bin"):
        (directory / name).write_text("{}")
    checkpoint = Checkpoint.open(directory)
    assert checkpoint.config == {"model_type": "bert"}
    assert [path.name for path in checkpoint.side_files()] == ["chat_template.jinja", "config.json", "tokenizer.json"]


@pytest.mark.parametrize(
    ("text", "expected"), [("{nope", "is not valid JSON"), ("[]", "is not a JSON object"), ("[" * 100_000, "JSON")]
)
def test_a_broken_config_is_named(save: Save, text: str, expected: str) -> None:
    directory = save("model", WEIGHTS)
    (directory / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=rf"config\.json: .*{expected}"):
        _ = Checkpoint.open(directory).config


def test_a_changed_file_is_noticed(save: Save) -> None:
    directory = save("model", WEIGHTS)
    checkpoint = Checkpoint.open(directory)
    checkpoint.require_unchanged()
    path = directory / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"\x01")
    with pytest.raises(CheckpointError, match=r"model\.safetensors: changed while it was being read"):
        checkpoint.require_unchanged()
    path.unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors: cannot be opened"):
        checkpoint.require_unchanged()


# Which files


@pytest.mark.parametrize(
    "name", ["/no/such/place", "./missing", "missing/", "a/b/c", "x.safetensors", "x y", "a--b", "-x"]
)
def test_a_path_that_is_not_there(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        CheckpointError, match="there is no such file or directory, and it cannot be a hub id"
    ) as caught:
        Checkpoint.open(name)
    assert caught.value.exit_code == 4
    assert name in caught.value.message


def test_a_misspelt_path_below_a_directory_is_no_hub_id(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(save("model", WEIGHTS).parent)
    with pytest.raises(CheckpointError, match="model/nwes: there is no such file or directory"):
        Checkpoint.open("model/nwes")


def test_a_directory_without_weights(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no weights in it: neither model\.safetensors"):
        Checkpoint.open(tmp_path)


def test_the_only_safetensors_file_is_taken(save: Save) -> None:
    directory = save("model", WEIGHTS)
    (directory / "model.safetensors").rename(directory / "weights.safetensors")
    assert Checkpoint.open(directory).fingerprint()[0].path.name == "weights.safetensors"
    (directory / "other.safetensors").write_bytes((directory / "weights.safetensors").read_bytes())
    with pytest.raises(
        CheckpointError, match=r"2 safetensors files and no .*: other\.safetensors, weights\.safetensors"
    ):
        Checkpoint.open(directory)


def test_an_adapter_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="holds an adapter, not a model"):
        Checkpoint.open(tmp_path)


def test_a_file_that_is_no_weights(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(CheckpointError, match=r"notes\.txt: is not a file of weights"):
        Checkpoint.open(tmp_path / "notes.txt")


@pytest.mark.parametrize("weight_map", [None, {}, [], {"a": 1}, "x"])
def test_an_index_without_a_weight_map(tmp_path: Path, weight_map: object) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(CheckpointError, match="its weight_map is not an object"):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize(
    "name", ["../secret.safetensors", "/etc/passwd", "sub/x.safetensors", "..", "", "a\\b", "a\0b"]
)
def test_an_index_may_not_lead_elsewhere(save: Save, tmp_path: Path, name: str) -> None:
    save("sub", WEIGHTS)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(CheckpointError, match="which is not a file beside it"):
        Checkpoint.open(tmp_path)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-00001-of-00001.safetensors"}}')
    with pytest.raises(CheckpointError, match=r"names model-00001-of-00001\.safetensors, which is not there"):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_links_out_of_the_directory_are_refused(save: Save, tmp_path: Path, name: str) -> None:
    secret = save("secret", WEIGHTS) / "model.safetensors"
    directory = save("model", WEIGHTS)
    (directory / name).unlink(missing_ok=True)
    (directory / name).symlink_to(secret)

    def use() -> None:
        checkpoint = Checkpoint.open(directory)
        assert checkpoint.config == {}
        checkpoint.side_files()

    with pytest.raises(CheckpointError, match=f"{name}: is a link to .*, outside its directory"):
        use()


def test_a_directory_or_file_named_by_a_link_is_fine(save: Save, tmp_path: Path) -> None:
    directory = save("model", WEIGHTS)
    (tmp_path / "link").symlink_to(directory)
    (tmp_path / "link.safetensors").symlink_to(directory / "model.safetensors")
    first, second = Checkpoint.open(tmp_path / "link"), Checkpoint.open(tmp_path / "link.safetensors")
    assert first.identity == second.identity == Checkpoint.open(directory).identity


# Pickles


class Evil:
    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return os.mkdir, ("evil-was-here",)


def test_pickles_need_permission(tmp_path: Path) -> None:
    torch.save(WEIGHTS, tmp_path / "pytorch_model.bin")
    for ref in (tmp_path, tmp_path / "pytorch_model.bin"):
        with pytest.raises(CheckpointError, match="is a pickle, which is only read when you allow it"):
            Checkpoint.open(ref)
        checkpoint = Checkpoint.open(ref, allow_pickle=True)
        assert torch.equal(checkpoint.read("a"), WEIGHTS["a"])
        assert checkpoint.fingerprint()[0].path == tmp_path / "pytorch_model.bin"


def kinds() -> dict[str, Tensor]:
    matrix = torch.arange(12.0).view(3, 4)
    return {
        "matrix": matrix,
        "view": matrix[1:],
        "again": matrix,
        "half": torch.randn(5).bfloat16(),
        "parameter": nn.Parameter(torch.randn(4)),
        "empty": torch.zeros(0, 3),
        "counts": torch.arange(4),
    }


@pytest.mark.parametrize("how", ["plain", "transposed", "compressed", "legacy"])
def test_pickles_of_every_kind(tmp_path: Path, how: str) -> None:
    path = tmp_path / "weights.bin"
    tensors = kinds() | ({"turned": torch.arange(6.0).view(2, 3).t()} if how == "transposed" else {})
    torch.save(tensors, path, _use_new_zipfile_serialization=how != "legacy")
    if how == "compressed":
        with zipfile.ZipFile(path) as archive:
            records = {entry.filename: archive.read(entry) for entry in archive.infolist()}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, record in records.items():
                archive.writestr(name, record)
    with Checkpoint.open(path, allow_pickle=True) as checkpoint:
        assert set(checkpoint.tensors) == set(tensors)
        for name, tensor in tensors.items():
            assert torch.equal(checkpoint.read(name), tensor)
        assert torch.equal(checkpoint.read_flat("view", 2, 5), torch.tensor([6.0, 7.0, 8.0]))


def test_opening_a_pickle_reads_no_tensor(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(10_000_000)}, tmp_path / "big.bin")
    with Checkpoint.open(tmp_path / "big.bin", allow_pickle=True) as checkpoint:
        os.truncate(tmp_path / "big.bin", 1000)
        with pytest.raises(CheckpointError, match="ended at byte 1000 while being read"):
            checkpoint.read("a")


@pytest.mark.parametrize("end", [10, 500, -200, -1])
def test_cut_pickles_are_named(tmp_path: Path, end: int) -> None:
    torch.save(kinds(), tmp_path / "bad.bin")
    content = (tmp_path / "bad.bin").read_bytes()
    (tmp_path / "bad.bin").write_bytes(content[:end])
    with pytest.raises(CheckpointError, match=r"bad\.bin: cannot be read as a file of tensors"):
        Checkpoint.open(tmp_path / "bad.bin", allow_pickle=True)


def test_pickles_in_shards(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "pytorch_model-00001-of-00002.bin")
    torch.save({"b": torch.zeros(3)}, tmp_path / "pytorch_model-00002-of-00002.bin")
    (tmp_path / "pytorch_model.bin.index.json").write_text(
        '{"weight_map": {"a": "pytorch_model-00001-of-00002.bin", "b": "pytorch_model-00002-of-00002.bin"}}'
    )
    assert set(Checkpoint.open(tmp_path, allow_pickle=True).tensors) == {"a", "b"}


def test_safetensors_come_before_pickles(save: Save) -> None:
    directory = save("model", WEIGHTS)
    torch.save({"b": torch.zeros(3)}, directory / "pytorch_model.bin")
    assert set(Checkpoint.open(directory, allow_pickle=True).tensors) == {"a"}


def test_code_in_a_pickle_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Evil()}, tmp_path / "evil.bin")
    with pytest.raises(CheckpointError, match=r"evil\.bin: cannot be read as a file of tensors"):
        Checkpoint.open(tmp_path / "evil.bin", allow_pickle=True)
    assert not (tmp_path / "evil-was-here").exists()


@pytest.mark.parametrize("content", [b"", b"not a pickle", b"PK\x03\x04 cut", pickle.dumps({"a": 1}, 2), b"\x80\x02}."])
def test_broken_pickles_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"bad\.pt: "):
        Checkpoint.open(tmp_path / "bad.pt", allow_pickle=True)


def test_a_pickle_of_something_else(tmp_path: Path) -> None:
    torch.save([torch.ones(2)], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match="holds a list, not named tensors"):
        Checkpoint.open(tmp_path / "list.pt", allow_pickle=True)
    torch.save({"model": WEIGHTS, "step": 3}, tmp_path / "training.pt")
    with pytest.raises(CheckpointError, match="'model' is a dict, not a named tensor"):
        Checkpoint.open(tmp_path / "training.pt", allow_pickle=True)


def test_several_pickles_need_a_choice(tmp_path: Path) -> None:
    for name in ("a.pt", "b.pt"):
        torch.save(WEIGHTS, tmp_path / name)
    with pytest.raises(CheckpointError, match=r"several pickle files: a\.pt, b\.pt"):
        Checkpoint.open(tmp_path, allow_pickle=True)


# The hub


@pytest.fixture
def hub_cache(tmp_path: Path, save: Save, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with one repository, as the hub's own client lays it out."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "models--owner--name"
    snapshot = repository / "snapshots" / commit
    for place in (snapshot, repository / "blobs", repository / "refs"):
        place.mkdir(parents=True)
    (save("model", WEIGHTS) / "model.safetensors").rename(repository / "blobs" / "feed")
    (snapshot / "model.safetensors").symlink_to("../../blobs/feed")
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return snapshot


def test_a_cached_repository_is_read_offline(hub_cache: Path) -> None:
    for ref in ("owner/name", "owner/name@main", f"owner/name@{hub_cache.name}"):
        checkpoint = Checkpoint.open(ref, offline=True)
        assert (checkpoint.directory, checkpoint.revision, checkpoint.label) == (hub_cache, hub_cache.name, ref)
        assert torch.equal(checkpoint.read("a"), WEIGHTS["a"])


@pytest.mark.parametrize("ref", ["owner/other", "owner/name@v2", "gpt9"])
def test_offline_and_not_cached(hub_cache: Path, monkeypatch: pytest.MonkeyPatch, ref: str) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=f"{ref}: neither a path here nor in the hub's cache, and offline"):
        Checkpoint.open(ref)


def hub_error(kind: type[hub_errors.HfHubHTTPError]) -> hub_errors.HfHubHTTPError:
    error = kind.__new__(kind)
    error.args = ("the hub said no",)
    return error


@pytest.mark.parametrize(
    ("failure", "kind", "expected"),
    [
        (hub_error(hub_errors.RepositoryNotFoundError), CheckpointError, "neither a path here nor a repository"),
        (hub_error(hub_errors.RevisionNotFoundError), CheckpointError, "the repository has no revision 'v1'"),
        (hub_error(hub_errors.GatedRepoError), CheckpointError, "asks you to be let in first"),
        (hub_errors.HFValidationError("bad name"), CheckpointError, "neither a path here nor a hub id: bad name"),
        (hub_errors.LocalEntryNotFoundError("no route"), NetworkError, "the hub could not be reached: no route"),
        (ConnectionError("refused"), NetworkError, "the hub could not be reached: refused"),
    ],
)
def test_what_the_hub_may_say(
    monkeypatch: pytest.MonkeyPatch, failure: Exception, kind: type[CheckpointError], expected: str
) -> None:
    def fail(*_: object, **__: object) -> str:
        raise failure

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(kind, match=f"owner/name@v1: .*{expected}"):
        Checkpoint.open("owner/name@v1", offline=False)


def test_pickles_are_only_downloaded_when_allowed(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def download(*_: object, allow_patterns: list[str], **__: object) -> str:
        asked.append(allow_patterns)
        if "*.bin" in allow_patterns:
            torch.save(WEIGHTS, hub_cache / "pytorch_model.bin")
        return str(hub_cache)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    (hub_cache / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no weights in it"):
        Checkpoint.open("owner/name")
    Checkpoint.open("owner/name", allow_pickle=True)
    assert ["*.bin" in patterns for patterns in asked] == [False, False, True]
