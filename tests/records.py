"""Records of made-up materializations, for what is decided on their metadata alone."""

from components.data.lake import Record


def record(asset: str, **metadata) -> Record:
    """The first shard of an asset, with three rows and this metadata."""
    return Record(asset, "table", "scenes", "smoke", "f", "v", "p", shard="00000", num_rows=3, metadata=metadata)
