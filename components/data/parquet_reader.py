"""Rows from Parquet files: img2dataset's form, Hugging Face's form, or any table with pictures in a column.

What belongs here: streaming record batches out of Parquet. What does not: what a table's columns mean (``table_rows``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO

import pyarrow.parquet as pq

from .parquet_pages import BadPages, footprint_of
from .sources import UnreadableShard, open_shard
from .table_rows import PendingRow, TableLayout, TableReader

BATCH_BYTES = 16 * 2**20
MAX_BATCH_BYTES = 128 * 2**20  # where every row names the largest value of its dictionary
MAX_BATCH_ROWS = 1024


@dataclass(frozen=True, slots=True)
class ParquetReader(TableReader):
    """Reads each file of ``uris`` as a shard; columns that are not named are found by their usual names.

    Pictures are encoded bytes, bare or as Hugging Face's ``struct{bytes, path}``, or files that the table names and
    that lie below ``columns.images``. Without a key column the key is the row's place, ``<shard>-<row>``. ``extra``
    holds every column but the binary ones.
    """

    def _rows(self, shard: int, *, with_images: bool) -> Iterator[PendingRow]:
        uri = self.uris[shard]
        with open_shard(uri) as file:
            parquet = pq.ParquetFile(file, buffer_size=2**20, page_checksum_verification=True)
            layout = TableLayout.find(self.columns, uri, parquet.schema_arrow)
            wanted = layout.wanted(with_images=with_images)
            try:
                num_rows = _rows_per_batch(file, parquet.metadata, wanted)
            except BadPages as error:
                raise UnreadableShard(uri, str(error)) from None
            position = 0
            for batch in parquet.iter_batches(num_rows, columns=wanted, use_threads=False):
                yield from layout.rows(batch, shard, position, with_images=with_images)
                position += batch.num_rows


def _rows_per_batch(file: IO[bytes], metadata: pq.FileMetaData, wanted: Sequence[str]) -> int:
    """As many rows as take about ``BATCH_BYTES``, so that large pictures are held a few at a time."""
    footprint = footprint_of(file, metadata, wanted)
    if footprint.largest_page_bytes > MAX_BATCH_BYTES:
        return 1
    on_average = BATCH_BYTES * metadata.num_rows // max(1, footprint.num_bytes)
    at_worst = MAX_BATCH_BYTES // max(1, footprint.dictionary_bytes)
    return max(1, min(MAX_BATCH_ROWS, on_average, at_worst))
