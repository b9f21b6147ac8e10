"""Synthetic captions: writing them for a row group, and testing them like code.

What belongs here: recaptioning and caption tests. What does not: captioners (``families.captioner``,
``families.hub_captioner``), and mixing captions while training (``data.blend``).
"""
