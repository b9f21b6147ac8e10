"""The stock T5: built with its tokenizer, and the encoder's heads pointed at neighbours. No loss belongs here."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
    T5ForConditionalGeneration,
)

from components.data.tokenization import train_tokenizer

from .config import PromptUpsamplerConfig

OFFSET_BIAS = 5.0  # e^5 outweighs about a hundred other tokens
_LENGTH_MULTIPLE = 8
_POSITION_BIAS = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"


def new_t5(config: PromptUpsamplerConfig, tokenizer: PreTrainedTokenizerBase) -> T5ForConditionalGeneration:
    """An untrained encoder-decoder for the tokenizer's vocabulary.

    ``use_attention_mask`` is what StableDiffusionPipeline asks its text encoder's configuration: without it the
    pipeline would attend to padding, which the training never does.
    """
    settings: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "d_model": config.d_model,
        "d_kv": config.d_model // config.num_heads,
        "d_ff": config.d_ff,
        "num_layers": config.num_layers,
        "num_heads": config.num_heads,
        "dropout_rate": 0.0,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "decoder_start_token_id": tokenizer.pad_token_id,
        "use_attention_mask": True,
        "attn_implementation": "eager",  # bf16 SDPA is many times slower on a CPU
    }
    t5 = T5ForConditionalGeneration(T5Config(**settings))
    if config.has_offset_heads:
        point_heads_at_neighbours(t5)
    return t5


def point_heads_at_neighbours(t5: T5ForConditionalGeneration) -> None:
    """Let head 0 look one token back, head 1 one ahead, head 2 two back and so on, by the encoder's position bias.

    T5's buckets (Raffel et al. 2020, section 2.1): the first quarter are exact distances back, the third quarter exact
    distances ahead. Heads beyond those distances keep no preference.
    """
    bias = t5.get_parameter(_POSITION_BIAS)  # (buckets, heads)
    num_buckets, num_heads = bias.shape
    with torch.no_grad():
        bias.zero_()
        for head in range(num_heads):
            distance = head // 2 + 1
            if distance < num_buckets // 4:
                bias[distance + (num_buckets // 2 if head % 2 else 0), head] = OFFSET_BIAS


def tokenizer_for(config: PromptUpsamplerConfig, texts: Iterable[str], synthetic: list[str]) -> PreTrainedTokenizerFast:
    """A tokenizer trained on ``texts`` whose length holds every one of ``synthetic`` (up to ``config.max_length``)."""
    tokenizer = train_tokenizer(texts, vocab_size=config.vocab_size, max_length=config.max_length)
    longest = max(len(ids) for ids in tokenizer(synthetic).input_ids)
    tokenizer.model_max_length = min(config.max_length, -(-longest // _LENGTH_MULTIPLE) * _LENGTH_MULTIPLE)
    return tokenizer


def load_text_encoder(folder: str | Path) -> tuple[T5EncoderModel, PreTrainedTokenizerBase]:
    """The encoder of any T5 folder or hub id, in float32, and its tokenizer."""
    encoder = T5EncoderModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    encoder.config.use_attention_mask = True
    return encoder, AutoTokenizer.from_pretrained(folder)
