"""Synthetic captions: writing them for a row group, and testing them like code.

What belongs here: recaptioning, caption tests, captioners from the hub. What does not: our own captioner's network and
training (``families.captioner``), and mixing captions while training (``data.blend``).
"""
