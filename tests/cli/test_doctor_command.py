from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from huggingface_hub import constants


@pytest.fixture
def recipe(tmp_path: Path, write_models: Callable[..., None]) -> Path:
    write_models(tmp_path, "news", "spam")
    path = tmp_path / "recipe.yaml"
    path.write_text("base: base\nexperts: {news: news, spam: spam}\nmethod: linear\noutput: {path: merged}\n")
    return path


def test_one_table_of_checks(supermerge_command: Callable[..., object], recipe: Path) -> None:
    before = sorted(recipe.parent.rglob("*"))
    done = supermerge_command("doctor", recipe)
    assert (done.code, done.err) == (0, "")
    for row in (
        "✓  recipe                     2 experts, method linear, 0 tasks",
        "✓  method                     linear, without data",
        "✓  base                       3 tensors, 264 B",
        "✓  news                       4 tensors, 296 B",
        "✓  base and experts together  2 tensors to merge, 1 from the base",
        "✓  relation to the base       like fine-tuned from it",
        "✓  values                     all finite; distances from the base: news 9.",
    ):
        assert row in done.out
    assert sorted(recipe.parent.rglob("*")) == before


def test_what_fails_is_told_and_what_hangs_on_it_is_skipped(
    supermerge_command: Callable[..., object], recipe: Path
) -> None:
    (recipe.parent / "news" / "model.safetensors").write_bytes(b"{}")
    done = supermerge_command("doctor", recipe, "--json")
    document = json.loads(done.out)
    assert (done.code, document["ok"], document["exit_code"]) == (4, False, 4)
    status = {check["check"]: check["status"] for check in document["checks"]}
    assert status == {
        "recipe": "ok",
        "method": "ok",
        "base": "ok",
        "news": "failed",
        "spam": "ok",
        "base and experts together": "skipped",
        "memory and disk": "skipped",
        "values": "skipped",
    }
    assert "the file has 2 bytes" in next(c["found"] for c in document["checks"] if c["check"] == "news")


def test_an_output_that_exists_is_no_failure(supermerge_command: Callable[..., object], recipe: Path) -> None:
    (recipe.parent / "merged").mkdir()
    done = supermerge_command("doctor", recipe)
    assert done.code == 0
    assert "a run needs --force" in " ".join(done.out.split())


def test_blobs_of_the_hub_s_cache_are_compared_with_its_hashes(
    supermerge_command: Callable[..., object], recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache as the hub's own client lays it out: links in snapshots, blobs named by their SHA-256."""
    place, commit = recipe.parent, "0123456789abcdef0123456789abcdef01234567"
    repository = place / "hub" / "models--owner--news"
    for name in ("blobs", "refs", f"snapshots/{commit}"):
        (repository / name).mkdir(parents=True)
    raw = (place / "news" / "model.safetensors").read_bytes()
    blob = repository / "blobs" / sha256(raw).hexdigest()
    blob.write_bytes(raw)
    (repository / "snapshots" / commit / "model.safetensors").symlink_to(f"../../blobs/{blob.name}")
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(place / "hub"))
    recipe.write_text(recipe.read_text().replace("news: news", "news: owner/news"))
    done = supermerge_command("doctor", recipe)
    assert done.code == 0
    assert "4 tensors, 296 B, 1 files as published on the hub" in done.out
    blob.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    done = supermerge_command("doctor", recipe)
    assert done.code == 4
    assert f"published is {blob.name}" in " ".join(done.out.split())
