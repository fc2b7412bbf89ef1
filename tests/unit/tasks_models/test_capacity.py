"""What a model can be given: as many tokens as it has positions for, and tokens that it knows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    BartConfig,
    BartModel,
    BertConfig,
    BertModel,
    CamembertConfig,
    CamembertModel,
    DebertaV2Config,
    DebertaV2Model,
    DistilBertConfig,
    DistilBertModel,
    GPT2Config,
    GPT2Model,
    LlamaConfig,
    LlamaModel,
    MarianConfig,
    MarianModel,
    MPNetConfig,
    MPNetModel,
    NystromformerConfig,
    NystromformerModel,
    OPTConfig,
    OPTModel,
    PreTrainedConfig,
    PreTrainedModel,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5Model,
)

from supermerge.errors import CheckpointError
from supermerge.tasks.capacity import most_tokens, require_known
from supermerge.tasks.encode import Example
from supermerge.tasks.rows import Row

ROWS = 20
TINY: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": ROWS,
}
PAIR: dict[str, Any] = {
    "vocab_size": 50,
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "max_position_embeddings": ROWS,
    "pad_token_id": 1,
    "decoder_start_token_id": 0,
}
OPT = {"ffn_dim": 16, "word_embed_proj_dim": 16}


@pytest.mark.parametrize(
    ("model", "config", "most"),
    [
        (BertModel, BertConfig(**TINY), ROWS),
        (RobertaModel, RobertaConfig(**TINY), ROWS - 2),
        (CamembertModel, CamembertConfig(**TINY), ROWS - 2),
        (MPNetModel, MPNetConfig(**TINY), ROWS - 2),
        (DebertaV2Model, DebertaV2Config(**TINY), ROWS),
        (DistilBertModel, DistilBertConfig(dim=16, n_heads=2, n_layers=1, hidden_dim=16, **TINY), ROWS),
        (NystromformerModel, NystromformerConfig(num_landmarks=2, segment_means_seq_len=2, **TINY), ROWS),
        (GPT2Model, GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2, n_positions=ROWS), ROWS),
        (OPTModel, OPTConfig(**TINY, **OPT), ROWS),
        (BartModel, BartConfig(**PAIR), ROWS),
        (MarianModel, MarianConfig(**PAIR), ROWS),
        (LlamaModel, LlamaConfig(**TINY), None),
        # As many words as positions, and no table of positions.
        (LlamaModel, LlamaConfig(**{**TINY, "vocab_size": ROWS}), None),
        (T5Model, T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2), None),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else None,
)
def test_as_many_as_the_model_can_be_given(
    model: type[PreTrainedModel], config: PreTrainedConfig, most: int | None
) -> None:
    built: Any = model(config).eval()
    assert most_tokens(built) == most

    def given(tokens: int) -> None:
        ids = torch.full((1, tokens), 5)
        decoder = {"decoder_input_ids": ids} if config.is_encoder_decoder else {}
        with torch.no_grad():
            built(input_ids=ids, **decoder)

    given(most or 3 * ROWS)
    if most is not None:
        with pytest.raises((RuntimeError, IndexError)):
            given(most + 1)


def _example(tokens: list[int], label: int | list[int] = 0, **other: list[int]) -> Example:
    return Example(Row("t:7", texts=("a",)), {"input_ids": tokens, **other}, label)


@pytest.mark.parametrize(
    ("example", "said"),
    [
        (_example([3, 50, 4]), "t:7: its token 50 is not one of the 50 that"),
        (_example([3], [-100, 64]), "t:7: its token 64 is not one of the 50 that"),
        (_example([3], token_type_ids=[2]), "t:7: its segment 2 is not one of the 2 that"),
    ],
)
def test_what_the_model_has_no_embedding_for(example: Example, said: str) -> None:
    model = BertModel(BertConfig(**TINY))
    require_known(model, [_example([0, 49], [-100, 49], token_type_ids=[0, 1])])
    with pytest.raises(CheckpointError, match=said):
        require_known(model, [_example([0]), example])


def test_segments_of_a_model_that_has_none() -> None:
    require_known(DebertaV2Model(DebertaV2Config(**TINY)), [_example([0], token_type_ids=[1])])
