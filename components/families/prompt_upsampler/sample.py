"""What a trained upsampler does: prompts become descriptive ones, and its encoder becomes a text encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase, T5ForConditionalGeneration

from .model import load_text_encoder


class PromptUpsampler:
    """Rewrites prompts greedily: the same prompt always becomes the same text."""

    def __init__(self, t5: T5ForConditionalGeneration, tokenizer: PreTrainedTokenizerBase) -> None:
        self.t5 = t5
        self.tokenizer = tokenizer

    def __call__(self, prompts: Sequence[str], *, batch_size: int = 64) -> list[str]:
        """A descriptive prompt for each prompt, in order."""
        generate: Any = self.t5.generate  # pyright: ignore[reportAttributeAccessIssue]  # its Protocol is too narrow
        written: list[str] = []
        for start in range(0, len(prompts), batch_size):
            tokens = self.tokenizer(
                list(prompts[start : start + batch_size]), padding=True, truncation=True, return_tensors="pt"
            )
            with torch.no_grad():
                ids = generate(
                    input_ids=tokens.input_ids.to(self.t5.device),
                    attention_mask=tokens.attention_mask.to(self.t5.device),
                    max_new_tokens=self.tokenizer.model_max_length,
                    do_sample=False,
                    num_beams=1,
                )
            written += [text.strip() for text in self.tokenizer.batch_decode(ids, skip_special_tokens=True)]
        return written


def load_upsampler(folder: str | Path, device: torch.device | str = "cpu") -> PromptUpsampler:
    """The upsampler of a model folder.

    Raises ValueError where the folder holds a text encoder alone, which a hub T5 leaves behind.
    """
    architectures = AutoConfig.from_pretrained(folder).architectures or []
    if "T5ForConditionalGeneration" not in architectures:
        raise ValueError(
            f"{Path(folder).name} holds {', '.join(architectures)} and cannot write; prompt upsampling needs a "
            "prompt_upsampler that was trained without pretrained"
        )
    t5 = T5ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    torch.nn.Module.to(t5, device)
    return PromptUpsampler(t5.eval(), AutoTokenizer.from_pretrained(folder))


def extract_text_encoder(folder: str | Path, target: str | Path) -> None:
    """Write the encoder of an upsampler's folder, with its tokenizer, as a stock T5EncoderModel folder."""
    encoder, tokenizer = load_text_encoder(folder)
    encoder.save_pretrained(target)
    tokenizer.save_pretrained(target)
