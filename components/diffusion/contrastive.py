"""The contrastive loss that CLIP and the captioner share, over all workers' rows.

What belongs here: the loss on embeddings. What does not: towers, temperatures and texts.
"""

import hashlib
from collections.abc import Sequence

import torch
from torch.nn.functional import cross_entropy

from .gathering import gathered


def contrastive_loss(
    image_embeds: torch.Tensor, text_embeds: torch.Tensor, text_ids: torch.Tensor, logit_scale: torch.Tensor
) -> torch.Tensor:
    """Symmetric cross-entropy of scaled cosines against the diagonal (Radford et al. 2021, figure 3).

    ``image_embeds``, ``text_embeds``: unit length, (B, D); ``text_ids``: equal for equal texts, int64 (B,);
    ``logit_scale``: the inverse temperature. Negatives come from every worker of the gang. A text that reads the same
    as the row's own is no negative, as short captions often repeat. The value, and after averaging over workers the
    gradient, are those of one worker with the whole batch.
    """
    images, texts = gathered(image_embeds.float()), gathered(text_embeds.float())
    ids = gathered(text_ids)
    logits = logit_scale * images @ texts.T  # (N, N)
    is_repeated = (ids[:, None] == ids[None, :]) & ~torch.eye(len(ids), dtype=torch.bool, device=ids.device)
    logits = logits.masked_fill(is_repeated, float("-inf"))
    diagonal = torch.arange(len(ids), device=ids.device)
    return (cross_entropy(logits, diagonal) + cross_entropy(logits.T, diagonal)) / 2


def ids_of_texts(texts: Sequence[str]) -> torch.Tensor:
    """One int64 for each text, (B,), the same for the same text in every process."""
    digests = [hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts]
    return torch.tensor([int.from_bytes(digest, "little", signed=True) for digest in digests])
