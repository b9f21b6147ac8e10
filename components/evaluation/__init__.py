"""What a model is worth: metrics over arrays and callables, and the report drawn from them.

Nothing here knows a model family or a pipeline: pictures, embeddings and readings of scenes are handed in. Every figure
carries how many samples it stands on and, where one exists, its 95 % interval.
"""
