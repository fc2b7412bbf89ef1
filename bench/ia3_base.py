"""A small Llama, pretrained for minutes on the training texts of the tasks: what IA3 experts are trained on.

No pretrained decoder comes in a package, so this one learns next tokens from newsgroups, news wires, film reviews and
BBC articles. Test texts are left out.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

END, PAD = "<end>", "<pad>"


@dataclass(frozen=True, slots=True)
class Pretraining:
    """Size of the model, and how long it learns: `steps` batches of `batch` × `length` tokens.

    Every so many texts (`every`) make the tokenizer's vocabulary.
    """

    vocabulary: int = 4096
    every: int = 5
    width: int = 128
    inner: int = 352
    layers: int = 4
    heads: int = 4
    length: int = 64
    batch: int = 16
    steps: int = 350
    lr: float = 2e-3
    seed: int = 0


def pretrain(texts: Sequence[str], settings: Pretraining, directory: Path) -> dict[str, float]:
    """Train tokenizer and model on `texts` and save both; the loss of the last 50 steps in nats, and CPU seconds."""
    started = time.process_time()
    torch.manual_seed(settings.seed)
    tokenizer = _tokenizer(texts, settings)
    end = tokenizer.token_to_id(END)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=settings.vocabulary,
            hidden_size=settings.width,
            intermediate_size=settings.inner,
            num_hidden_layers=settings.layers,
            num_attention_heads=settings.heads,
            num_key_value_heads=settings.heads,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            bos_token_id=end,
            eos_token_id=end,
            pad_token_id=tokenizer.token_to_id(PAD),
        )
    )
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.lr, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    losses: list[float] = []
    for step, batch in enumerate(_batches(texts, tokenizer, settings)):
        rate = min((step + 1) / 50, 0.5 * (1 + math.cos(math.pi * step / settings.steps)))
        for group in optimiser.param_groups:
            group["lr"] = settings.lr * rate
        loss = model(input_ids=batch, labels=batch).loss
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        losses.append(float(loss.detach()))
    model.save_pretrained(directory)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, bos_token=END, pad_token=PAD)
    fast.save_pretrained(directory)
    return {"loss": sum(losses[-50:]) / len(losses[-50:]), "cpu_s": time.process_time() - started}


def _tokenizer(texts: Sequence[str], settings: Pretraining) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocabulary,
        special_tokens=[END, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts[:: settings.every], trainer)
    return tokenizer


def _batches(texts: Sequence[str], tokenizer: Tokenizer, settings: Pretraining) -> Iterator[Tensor]:
    """Texts drawn at random, laid end to end and cut."""
    order = random.Random(settings.seed)
    stream: list[int] = []
    size = settings.batch * settings.length
    for _ in range(settings.steps):
        while len(stream) < size:
            stream += [*tokenizer.encode(order.choice(texts)).ids, tokenizer.token_to_id(END)]
        batch, stream = stream[:size], stream[size:]
        yield torch.tensor(batch).view(settings.batch, settings.length)
