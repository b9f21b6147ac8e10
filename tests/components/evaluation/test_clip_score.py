import numpy as np
import pytest

from components.evaluation.clip_score import clip_scores, retrieval_hits


def test_a_score_is_the_cosine_times_a_hundred_whatever_the_lengths() -> None:
    images = np.array([[3.0, 0.0], [0.0, 2.0], [1.0, 1.0]], dtype=np.float32)
    texts = np.array([[5.0, 0.0], [0.0, -1.0], [1.0, 0.0]], dtype=np.float32)
    np.testing.assert_allclose(clip_scores(images, texts), [100, -100, 100 / np.sqrt(2)])


def test_a_picture_is_a_hit_where_its_own_text_is_nearest() -> None:
    texts = np.eye(3)
    images = np.array([[0.9, 0.1, 0.0], [0.8, 0.3, 0.0], [0.0, 0.1, 1.0]])
    assert retrieval_hits(images, texts, ["a", "b", "c"]).tolist() == [True, False, True]


def test_repeated_prompts_are_no_errors() -> None:
    embeds = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert retrieval_hits(embeds, embeds, ["same", "same", "other"]).all()


def test_more_texts_than_one_block_are_all_compared() -> None:
    embeds = np.random.default_rng(0).normal(size=(2500, 16))
    hits = retrieval_hits(embeds, embeds, [str(number) for number in range(2500)])
    assert hits.shape == (2500,)
    assert hits.all()


def test_embeddings_that_say_nothing_are_refused() -> None:
    good = np.ones((3, 2))
    bad = good.copy()
    bad[1] = 0
    with pytest.raises(ValueError, match="text_embeds of row 1 is zero"):
        clip_scores(good, bad)
    with pytest.raises(ValueError, match=r"must both be \(N, D\)"):
        clip_scores(good, np.ones((2, 2)))
    with pytest.raises(ValueError, match="2 texts for 3 pictures"):
        retrieval_hits(good, good, ["a", "b"])
