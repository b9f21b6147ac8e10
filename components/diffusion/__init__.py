"""Noise schedules, boundary scalings, samplers and the decoder's format, shared by several families.

What belongs here: what families would otherwise copy from each other. What does not: losses, configurations, training.
"""
