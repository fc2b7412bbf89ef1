"""What a task's model says to prompts, greedily."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from supermerge.errors import DataError
from supermerge.tasks.capacity import vocabulary, within
from supermerge.tasks.encode import Example
from supermerge.tasks.encode_generation import CausalEncoder, Seq2SeqEncoder
from supermerge.tasks.models import running
from supermerge.tasks.processors import generation_tokens_of
from supermerge.tasks.workbench import Workbench


def generate(bench: Workbench, task: str, examples: Sequence[Example]) -> list[str]:
    """What the task's model says to the prompts of the examples, greedily.

    It may say one token more than the longest target: enough to see that a longer answer is a wrong one. Prompt and
    answer have room in the model's positions: the answer loses its end, then the prompt its beginning. It ends where
    its generation_config.json says, and where the targets that it learns from do.
    """
    encoder: Any = bench.encoder(task)
    if not isinstance(encoder, (CausalEncoder, Seq2SeqEncoder)):
        raise DataError(f"Task {task!r} does not generate.")
    module: Any = bench.heads[task].module
    tokenizer = bench.tokenizer(task)
    rows = [example.row for example in examples]
    # One token at least is left for the prompt that a decoder continues.
    positions = within(bench.model, sys.maxsize)
    longest = min(positions - 1, 1 + max(len(tokenizer(row.target or "")["input_ids"]) for row in rows))
    asked = encoder.prompts(rows, positions - longest) if isinstance(encoder, CausalEncoder) else encoder.prompts(rows)
    prompts = {name: tensor.to(bench.device) for name, tensor in asked.items()}
    with running(task, module):
        said = module.generate(**prompts, generation_config=_greedy(bench, task, longest))
    if isinstance(encoder, CausalEncoder):
        said = said[:, prompts["input_ids"].shape[1] :]
    return tokenizer.batch_decode(said, skip_special_tokens=True)


def _greedy(bench: Workbench, task: str, longest: int) -> Any:
    """The settings of greedy generation; of the model's own only the tokens that begin and end a text."""
    from transformers import GenerationConfig

    module: Any = bench.heads[task].module
    own = module.generation_config
    known = vocabulary(bench.model)
    tokens = generation_tokens_of(bench.directories(task), known)
    ends = tokens.pop("eos_token_id", own.eos_token_id)
    ends = [*(ends if isinstance(ends, list) else [ends]), bench.tokenizer(task).eos_token_id]
    return GenerationConfig(
        **tokens,
        eos_token_id=sorted({end for end in ends if end is not None and 0 <= end < known}) or None,
        max_new_tokens=longest,
        do_sample=False,
        num_beams=1,
        pad_token_id=bench.pad_id(task),
    )
