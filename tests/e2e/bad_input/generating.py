"""Models that generate, and encoder-decoders: their tokens, and what their config.json says of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from case import Case, json_file, recipe, rows

SIZES: dict[str, Any] = {
    "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "max_position_embeddings": 64,
}  # fmt: skip
TOKENS = {"bos_token_id": 1, "pad_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 1}
SAYS = "generation_config.json"


def models(tiny: Path, base: Any, expert: Any) -> None:
    """Put these in the place of the base and of the expert `mood`; the tokenizer stays."""
    with torch.no_grad():
        for name, parameter in expert.named_parameters():
            if name.removeprefix("model.") in base.state_dict():
                parameter.copy_(base.state_dict()[name.removeprefix("model.")])
            parameter += 0.01 * torch.randn_like(parameter)
    base.save_pretrained(tiny / "base")
    shutil.rmtree(tiny / "experts" / "mood")
    expert.save_pretrained(tiny / "experts" / "mood")


def speaking(kind: str, *changes: Callable[[Path], object], prompt: str = "today") -> Callable[[Path], object]:
    """The expert is one that answers prompts, as its task asks."""

    def spoil(tiny: Path) -> None:
        words = 36
        if kind == "causal-lm":
            config: Any = transformers.GPT2Config(vocab_size=words, n_embd=16, n_layer=1, n_head=2, n_positions=64)
            models(tiny, transformers.GPT2LMHeadModel(config), transformers.GPT2LMHeadModel(config))
        else:
            config = transformers.BartConfig(vocab_size=words, **SIZES, **TOKENS)
            build = transformers.BartForConditionalGeneration
            models(tiny, build(config), build(config))
        for part in ("valid", "test"):
            said = [{"prompt": prompt, "target": row["text"]} for row in rows(tiny, f"mood.{part}.jsonl")[:8]]
            (tiny / "data" / f"said.{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in said))
        task = {"validation": "data/said.valid.jsonl", "test": "data/said.test.jsonl", "metric": "exact_match"}
        recipe(experts={"mood": "experts/mood"}, tasks={"mood": {"type": kind, "expert": "mood", **task}})(tiny)
        for change in changes:
            change(tiny)

    return spoil


def classifying(tiny: Path) -> None:
    """BART reads its class off the end-of-text token."""
    config = transformers.BartConfig(
        vocab_size=36, **SIZES, **{**TOKENS, "eos_token_id": 35}, id2label={0: "good", 1: "bad"}
    )
    models(tiny, transformers.BartModel(config), transformers.BartForSequenceClassification(config))
    recipe(experts={"mood": "experts/mood"}, tasks__topic=None)(tiny)


def generation(**tokens: object) -> Callable[[Path], object]:
    """A generation_config.json that says this."""
    return lambda tiny: (tiny / "base" / SAYS).write_text(json.dumps(tokens))


CASES = [
    Case("an end of texts that is a word", speaking("seq2seq", generation(eos_token_id="[SEP]")), 4, (SAYS, "[SEP]")),
    Case(
        "a beginning of answers that is no token",
        speaking("seq2seq", generation(forced_bos_token_id=36)),
        4,
        (SAYS, "forced_bos_token_id is 36", "from 0 to 35"),
    ),
    Case(
        "a generation config cut short",
        speaking("seq2seq", lambda tiny: (tiny / "base" / SAYS).write_text("{")),
        4,
        (SAYS, "not valid JSON"),
    ),
    Case(
        "a decoder that starts nowhere",
        speaking(
            "seq2seq", json_file("experts/mood/config.json", lambda config: config.update(decoder_start_token_id=None))
        ),
        4,
        ("decoder_start_token_id", "expert 'mood'"),
    ),
    Case(
        "neither a prompt nor a token that texts begin with",
        speaking("causal-lm", prompt=""),
        6,
        ("said.valid.jsonl:1", "no prompt", "perplexity"),
    ),
    Case(
        "a config that the model cannot run with",
        speaking("seq2seq", json_file("experts/mood/config.json", lambda config: config.update(dropout=1.5))),
        4,
        ("task 'mood'", "BartForConditionalGeneration cannot run", "1.5"),
    ),
    Case("a classifier that looks for an end of texts", classifying, 4, ("task 'mood'", "<eos>", "config.json")),
]
