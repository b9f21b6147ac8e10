"""The attribute judge: reads a picture of the world ``scenes`` back into its scene graph.

It never takes part in training a captioner or an image model; it only scores what they make. The evaluation of prompt
following (DALL-E 3 report, section 4.1) uses GPT-V as judge; here truth is known, so a small network trained on it does
the same and its own accuracy is measured. Its penultimate layer is the feature extractor of FID and KID on ``scenes``
(Heusel et al. 2017 use Inception's).
"""
