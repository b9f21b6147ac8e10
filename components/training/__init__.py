"""The one training loop: configuration, order and randomness, steps, checkpoints. No model and no loss lives here."""
