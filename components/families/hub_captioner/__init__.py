"""Any Hugging Face image-text-to-text checkpoint in the place of a trained captioner: by path or hub id, with a prompt.

What belongs here: driving a stock model and processor, and keeping them in the lake. What does not: our own captioners
(``families.captioner``) and any training. No code that comes with a checkpoint is run.
"""
