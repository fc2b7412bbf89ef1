"""What a run writes beside the merged weights: config, tokenizer, heads, recipe, lock, metrics and report."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import torch

from supermerge.assemble import Assembled, Choice, Sink, merge_into, output_infos
from supermerge.assemble.adapter import AdapterLayout, merge_into_adapter
from supermerge.checkpoint import Checkpoint, ShardWriter
from supermerge.checkpoint.adapters import CONFIG_NAME, WEIGHTS_NAME
from supermerge.distributed import ALONE, Peers, union
from supermerge.lock import Change, Lock, LockedOutput, LockedSource, hash_file
from supermerge.methods import get
from supermerge.recipe import Expert, Recipe
from supermerge.report.provenance import Provenance
from supermerge.resolve import Opened
from supermerge.run.adapter import adapter_of_recipe
from supermerge.run.environment import versions
from supermerge.run.prepared import Prepared
from supermerge.verify import require_written

# The learned numbers, in the output directory.
COEFFICIENTS = "coefficients.safetensors"
_OF_A_MODEL = ("config.json", "generation_config.json")


@dataclass(frozen=True, slots=True)
class Written:
    """What was read on the way, the hash of every tensor written, and what an adapter is and lost, if it is one.

    `files` are the hashes of the files of weights that this process wrote, by name.
    """

    assembled: Assembled
    hashes: dict[str, str]
    files: Mapping[str, str]
    layout: AdapterLayout | None = None
    errors: Mapping[str, float] = field(default_factory=dict)
    read_elsewhere: int = 0
    """Bytes of checkpoints that other processes read."""


def write_weights(directory: Path, ready: Prepared, choice: Choice, peers: Peers = ALONE) -> Written:
    """Stream the merge into safetensors files, and read them back. Several processes write whole files each.

    An adapter, which is one file, is written by the first of them: to the others nothing is known of it.
    """
    layout = adapter_of_recipe(ready)
    if layout is None:
        return _write_shards(directory, ready, choice, peers)
    found = _write_adapter(directory, ready, choice, layout) if peers.rank == 0 else Written(Assembled(), {}, {})
    peers.exchange(None)
    return found


def _write_shards(directory: Path, ready: Prepared, choice: Choice, peers: Peers) -> Written:
    kept = {*ready.match.merged, *ready.match.copied}
    infos = [info for info in output_infos(ready.match, _output_dtype(ready.recipe)) if info.name in kept]
    before = _bytes_read(ready)
    with ShardWriter(directory, infos, shard_size=ready.recipe.output.shard_size, peers=peers) as writer:
        names = writer.names
        assembled = _merge_names([name for name in _names(ready) if name in names], writer, ready, choice, peers)
        own = writer.close()
    parts = peers.exchange((assembled, own, _bytes_read(ready) - before))
    files = require_written(directory, infos, own)
    hashes = union([hashes for _, hashes, _ in parts], {info.name: place for place, info in enumerate(infos)})
    seen = Assembled.of_all([part for part, _, _ in parts], _names(ready))
    return Written(seen, hashes, files, read_elsewhere=sum(read for _, _, read in parts) - parts[peers.rank][2])


def _write_adapter(directory: Path, ready: Prepared, choice: Choice, layout: AdapterLayout) -> Written:
    infos = layout.saved.infos(_output_dtype(ready.recipe) or torch.float32)
    with ShardWriter(directory, infos, shard_size=ready.recipe.output.shard_size, single=WEIGHTS_NAME) as writer:
        assembled, errors = merge_all(writer, ready, choice, layout)
        hashes = writer.close()
    (directory / CONFIG_NAME).write_text(layout.saved.config(), encoding="utf-8")
    files = require_written(directory, infos, hashes)
    return Written(assembled, hashes, files, layout, errors)


def merge_all(
    sink: Sink, ready: Prepared, choice: Choice, layout: AdapterLayout | None
) -> tuple[Assembled, Mapping[str, float]]:
    """The merge of a recipe, into `sink`: the same bytes every time; and the relative errors of an adapter."""
    if layout is None:
        return _merge_names(_names(ready), sink, ready, choice, ALONE), {}
    dtype, seed = _output_dtype(ready.recipe) or torch.float32, ready.recipe.seed
    found = merge_into_adapter(sink, layout, choice, ready.match, seed=seed, dtype=dtype)
    return found.assembled, found.errors


def _merge_names(names: Sequence[str], sink: Sink, ready: Prepared, choice: Choice, peers: Peers) -> Assembled:
    dtype, seed = _output_dtype(ready.recipe), ready.recipe.seed
    return merge_into(sink, choice, ready.match, seed=seed, names=names, dtype=dtype, geometry=True, peers=peers)


def _names(ready: Prepared) -> list[str]:
    """The tensors that a merged model has."""
    return [*ready.match.merged, *ready.match.copied]


def _bytes_read(ready: Prepared) -> int:
    return sum(source.bytes_read for source in ready.opened.inputs)


def _output_dtype(recipe: Recipe) -> torch.dtype | None:
    return getattr(torch, recipe.output.dtype) if recipe.output.dtype else None


def write_model_files(directory: Path, ready: Prepared) -> dict[str, str]:
    """Config, tokenizer or processor files of the base, and the heads of the tasks; the hash of every head tensor.

    An adapter has the config of its model there, so that none lies beside it.
    """
    base, as_adapter = ready.opened.base, ready.recipe.output.save_as == "adapter"
    for name, file in ready.opened.files.items():
        if as_adapter and name in _OF_A_MODEL:
            continue
        if isinstance(file, bytes):
            (directory / name).write_bytes(file)
        else:
            shutil.copyfile(file, directory / name)
    if ready.bench is None:
        return {}
    from supermerge.tasks.save import backbone_config, save_heads

    dtype = _output_dtype(ready.recipe) or base.tensors[ready.match.merged[0]].dtype
    if not as_adapter:
        config = backbone_config(base.config, ready.bench.model, dtype)
        (directory / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    # Tokenizers and processors may lie with the experts alone.
    for expert in ready.opened.experts.values():
        for file in expert.side_files():
            if not (directory / file.name).exists() and not (as_adapter and file.name in _OF_A_MODEL):
                shutil.copyfile(file, directory / file.name)
    return save_heads(ready.bench.heads, directory)


def write_lock(
    directory: Path,
    recipe: Recipe,
    sources: Opened,
    written: Written,
    *,
    tree: str | None,
    history: Sequence[Change],
) -> None:
    """Write `recipe.lock.json`: what was read and written, by content. The last file that is written."""
    names = {
        str(path.relative_to(directory)): path
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.suffix != ".jsonl"
    }
    files = {name: written.files.get(name) or hash_file(path) for name, path in names.items()}
    base_hashes, expert_hashes = _read_hashes(sources, written.assembled)
    lock = Lock(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=versions(),
        seed=recipe.seed,
        threads=torch.get_num_threads(),
        recipe=hash_file(directory / "recipe.yaml"),
        base=_locked(recipe.base, sources.base, base_hashes),
        experts={
            name: _locked_expert(recipe.experts[name], checkpoint, expert_hashes.get(name, {}))
            for name, checkpoint in sources.experts.items()
        },
        output=LockedOutput(files=files, tensors=written.hashes, errors=dict(written.errors)),
        tree=tree,
        history=tuple(history),
    )
    lock.write(directory)


Hashes = dict[str, str]


def _read_hashes(sources: Opened, assembled: Assembled) -> tuple[Hashes, dict[str, Hashes]]:
    """The hashes of what was read of the base and of every expert, by stored name."""
    if sources.origins is None:
        return assembled.base_hashes, assembled.expert_hashes
    found: dict[str, Hashes] = {}
    for position, hashes in {"": assembled.base_hashes, **assembled.expert_hashes}.items():
        for name, digest in hashes.items():
            # Names of models as in the recipe; "" is the base.
            model, stored = sources.origins[position][name]
            found.setdefault(model, {})[stored] = digest
    return found.pop("", {}), found


def _locked_expert(expert: Expert, checkpoint: Checkpoint, hashes: dict[str, str]) -> LockedSource:
    locked = _locked(expert.ref, checkpoint, hashes)
    if checkpoint.under is not None and checkpoint.directory is not None:
        locked = locked.model_copy(update={"settings": hash_file(checkpoint.directory / CONFIG_NAME)})
    if checkpoint.under is None or expert.model is None or expert.adapter is None:
        return locked
    return locked.model_copy(update={"under": _locked(expert.model, checkpoint.under, {})})


def _locked(ref: str, checkpoint: Checkpoint, hashes: dict[str, str]) -> LockedSource:
    path = None if checkpoint.directory is None else os.path.abspath(checkpoint.directory)
    return LockedSource(ref=ref, path=path, revision=checkpoint.revision, tensors=hashes)


def provenance(recipe: Recipe, sources: Opened, target: Path) -> Provenance:
    """What card and page credit; local paths as seen from `target`, as in the recipe.yaml beside them."""
    method = get(recipe.method.name)
    refs = {recipe.base: sources.base} | {
        recipe.experts[name].ref: checkpoint for name, checkpoint in sources.experts.items()
    }
    hub_ids = frozenset(ref for ref, checkpoint in refs.items() if checkpoint.revision is not None)

    def seen(ref: str) -> str:
        return ref if ref in hub_ids else os.path.relpath(Path(ref).resolve(), target.resolve())

    return Provenance(
        base=seen(recipe.base),
        experts={name: seen(expert.ref) for name, expert in recipe.experts.items()},
        hub_ids=hub_ids,
        method_title=method.title,
        paper=method.paper,
    )
