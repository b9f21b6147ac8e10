"""The loss of the prompt upsampler, the family that the loop trains, and its untrained twin for a hub T5."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import T5ForConditionalGeneration

from components.contracts import Loss, Objective, Preview, Rows, StepRandom
from components.data.blend import choose_texts
from components.diffusion.gathering import share_of_all

from .config import PromptUpsamplerConfig
from .model import load_text_encoder, new_t5, tokenizer_for
from .sample import PromptUpsampler

_IGNORED = -100  # label that the cross-entropy leaves out
_NUM_PREVIEW_ROWS = 128
_NUM_SHOWN = 8


class UpsamplingObjective:
    """Cross-entropy of the next token of the descriptive caption, given a prompt (Raffel et al. 2020, section 2.1)."""

    name = "upsampling"

    def __init__(self, t5: T5ForConditionalGeneration) -> None:
        self.t5 = t5

    def parameters(self) -> Iterable[torch.nn.Parameter]:
        """All weights of encoder and decoder."""
        return self.t5.parameters()

    def loss(self, batch: Mapping[str, Any], rng: StepRandom) -> Loss:
        """Mean over the tokens of ``labels`` (B, T), -100 where there is none, given ``input_ids`` (B, S).

        Over those of all workers: captions differ in length.
        """
        out = self.t5(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=batch["labels"])
        is_token = batch["labels"] != _IGNORED
        hits = (out.logits.argmax(-1) == batch["labels"])[is_token]
        return Loss(out.loss * share_of_all(is_token.sum()), {"token_accuracy": hits.float().mean()})

    def after_step(self, step: int) -> None:
        """Nothing follows a step."""


class PromptUpsamplerFamily:
    """The trainable T5 with its tokenizer (:class:`components.contracts.Family`)."""

    def __init__(self, config: PromptUpsamplerConfig, train: Rows, evaluation: Rows) -> None:
        self.config = config
        self.texts = usable_texts(train, config)
        self.held_out = usable_texts(evaluation, config, _NUM_PREVIEW_ROWS)
        self.num_rows = len(self.texts["dsc"])
        for name, texts in (("to train on", self.texts), ("held out", self.held_out)):
            if not texts["dsc"]:
                raise ValueError(
                    f"no rows {name} have a dsc and one of {sorted(config.source_weights)}: recaption the data set, or "
                    "give texts to source_weights that it has"
                )
        everything = [text for kind in ("caption", "ssc", "dsc") for text in train.texts.get(kind, ()) if text]
        self.tokenizer = tokenizer_for(config, everything, [text for text in self.texts["dsc"] if text])
        self.t5 = new_t5(config, self.tokenizer)
        self.objective = UpsamplingObjective(self.t5)

    def batch(self, rows: np.ndarray, rng: StepRandom) -> Mapping[str, Any]:
        """``input_ids`` and ``attention_mask`` (B, S) of the prompts, ``labels`` (B, T) of the descriptive captions."""
        prompts = choose_texts(self.texts, rows, self.config.source_weights, 0.0, rng)
        return self._tokens(prompts, [self.texts["dsc"][row] for row in rows])

    def objectives(self) -> Sequence[Objective]:
        """One: the next token."""
        return (self.objective,)

    def modules(self) -> Mapping[str, torch.nn.Module]:
        """The encoder-decoder."""
        return {"t5": self.t5}

    def save(self, folder: Path) -> None:
        """Write a T5ForConditionalGeneration folder with its tokenizer."""
        self.t5.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def preview(self) -> Preview:
        """Held-out short prompts with what becomes of them.

        ``held_out_loss`` is the mean over tokens; ``kept_words`` the share of a prompt's words that come back.
        """
        kind = max(self.config.source_weights, key=lambda name: (name != "dsc", self.config.source_weights[name]))
        pairs = zip(self.held_out.get(kind, ()), self.held_out["dsc"], strict=False)
        prompts, captions = zip(*[(prompt, caption) for prompt, caption in pairs if prompt], strict=True)
        with torch.no_grad():
            batch = self._tokens(list(prompts), list(captions))
            batch = {name: tensor.to(self.t5.device) for name, tensor in batch.items()}
            loss = float(self.t5(**batch).loss)
        rewritten = PromptUpsampler(self.t5, self.tokenizer)(list(prompts[:_NUM_SHOWN]))
        shown = list(zip(prompts, captions, rewritten, strict=False))
        kept = [len(set(before.split()) & set(after.split())) / len(set(before.split())) for before, _, after in shown]
        rows = [{"prompt": before, "upsampled": after, "dsc": truth} for before, truth, after in shown]
        return Preview(metrics={"held_out_loss": loss, "kept_words": float(np.mean(kept))}, rows=rows)

    def _tokens(self, prompts: Sequence[str], captions: Sequence[str | None]) -> dict[str, torch.Tensor]:
        tokenize = {"padding": True, "truncation": True, "return_tensors": "pt"}
        sources = self.tokenizer(list(prompts), **tokenize)
        targets = self.tokenizer([text or "" for text in captions], **tokenize)
        labels = targets.input_ids.masked_fill(targets.attention_mask == 0, _IGNORED)
        return {"input_ids": sources.input_ids, "attention_mask": sources.attention_mask, "labels": labels}


class FrozenTextEncoder:
    """The encoder of a hub T5 with its tokenizer, saved as it is (:class:`components.contracts.Family`)."""

    def __init__(self, config: PromptUpsamplerConfig, pretrained: str, num_rows: int) -> None:
        self.num_rows = num_rows
        self.encoder, self.tokenizer = load_text_encoder(pretrained)
        self.encoder.requires_grad_(False)
        self.tokenizer.model_max_length = min(self.tokenizer.model_max_length, config.max_length)

    def batch(self, rows: np.ndarray, rng: StepRandom) -> Mapping[str, Any]:
        """Raises ValueError: there is nothing to train."""
        raise ValueError("a pretrained text encoder is not trained here; set prompt_upsampler.training.num_steps to 0")

    def objectives(self) -> Sequence[Objective]:
        """None."""
        return ()

    def modules(self) -> Mapping[str, torch.nn.Module]:
        """The encoder."""
        return {"encoder": self.encoder}

    def save(self, folder: Path) -> None:
        """Write a T5EncoderModel folder with its tokenizer."""
        self.encoder.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def preview(self) -> Preview:
        """How large the encoder is; it writes nothing."""
        num_parameters = sum(parameter.numel() for parameter in self.encoder.parameters())
        return Preview(metrics={"parameters": float(num_parameters)})


def usable_texts(
    rows: Rows, config: PromptUpsamplerConfig, limit: int | None = None
) -> dict[str, Sequence[str | None]]:
    """The texts of the first ``limit`` rows that have a dsc and at least one of the prompts that ``config`` names."""
    kinds = [kind for kind in dict.fromkeys([*config.source_weights, "dsc"]) if kind in rows.texts]
    if "dsc" not in kinds:
        return {"dsc": []}
    sources = [kind for kind in kinds if config.source_weights.get(kind, 0) > 0]
    keep = [
        row for row in range(len(rows)) if rows.texts["dsc"][row] and any(rows.texts[kind][row] for kind in sources)
    ][:limit]
    return {kind: [rows.texts[kind][row] for row in keep] for kind in kinds}
