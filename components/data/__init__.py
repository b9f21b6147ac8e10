"""Data: the catalogue of data sets, readers, pictures and captions made clean, and the lake."""
