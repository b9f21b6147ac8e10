"""CLIP: a picture and a text encoder with one space, from a data set's own captions.

Radford et al. 2021 (CLIP): section 2.3 and figure 3 -> ``objective.ClipObjective``; the networks are the stock
``transformers.CLIPModel``. It scores captions while recaptioning and teaches the captioner's tower (DALL-E 3 report,
section 2.1); trained on true captions instead, a second one is the evaluation's independent judge.
"""
