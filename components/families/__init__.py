"""One folder per model family, each with the same four files: config, model, objective, sample.

``config`` is frozen and torch-free and builds the family; ``model`` builds stock classes; ``objective`` reads like the
paper; ``sample`` shows what the model can do. Families do not import each other.
"""
