"""How well pictures and texts fit each other, by the embeddings of a CLIP.

What belongs here: scores over embeddings. What does not: the CLIP that makes them; it must be one that no training saw.
"""

from collections.abc import Sequence

import numpy as np


def clip_scores(image_embeds: np.ndarray, text_embeds: np.ndarray) -> np.ndarray:
    """Cosine x 100 of each picture with its own text, float64 (N,).

    ``image_embeds``, ``text_embeds``: (N, D), of any length. CLIP-S of Hessel et al. 2021 (section 3) with w = 1 and no
    clipping at 0, as in the DALL-E 3 report.
    """
    images, texts = _paired(image_embeds, text_embeds)
    return 100 * (images * texts).sum(axis=1)


def retrieval_hits(image_embeds: np.ndarray, text_embeds: np.ndarray, texts: Sequence[str]) -> np.ndarray:
    """Whether each picture is nearer to its own text than to any other of the N texts, bool (N,).

    A picture counts as a hit if the nearest text reads the same as its own, so that repeated prompts are no errors. The
    mean is retrieval@1 over a gallery of N texts: compare it only between runs on the same texts.
    """
    images, embeds = _paired(image_embeds, text_embeds)
    if len(texts) != len(images):
        raise ValueError(f"{len(texts)} texts for {len(images)} pictures; give the text of each picture")
    nearest = np.concatenate([(block @ embeds.T).argmax(axis=1) for block in np.array_split(images, _blocks(images))])
    return np.array([texts[index] == text for index, text in zip(nearest, texts, strict=True)])


def _paired(image_embeds: np.ndarray, text_embeds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if image_embeds.shape != text_embeds.shape or image_embeds.ndim != 2 or not len(image_embeds):
        raise ValueError(
            f"image_embeds {image_embeds.shape} and text_embeds {text_embeds.shape} must both be (N, D) with N >= 1"
        )
    return _normalized("image_embeds", image_embeds), _normalized("text_embeds", text_embeds)


def _normalized(name: str, embeds: np.ndarray) -> np.ndarray:
    embeds = embeds.astype(np.float64)
    lengths = np.linalg.norm(embeds, axis=1, keepdims=True)
    wrong = np.flatnonzero(~(np.isfinite(lengths[:, 0]) & (lengths[:, 0] > 0)))
    if wrong.size:
        raise ValueError(f"{name} of row {wrong[0]} is zero or not finite ({wrong.size} such rows)")
    return embeds / lengths


def _blocks(rows: np.ndarray) -> int:
    return -(-len(rows) // 1024)  # 1,024 x N similarities at a time
