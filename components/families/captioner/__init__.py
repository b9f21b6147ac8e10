"""The captioners: a language model conditioned on the picture, pre-trained on raw captions, then fine-tuned twice.

DALL-E 3 report, section 2.1 -> ``objective``: the base captioner learns the raw captions with a language-modelling and
a contrastive loss (Yu et al. 2022, CoCa, section 3.2; here against the frozen text encoder of the data set's own CLIP),
and the short (SSC) and the descriptive (DSC) captioner are two independent fine-tunes of that base on small example
sets.
"""
