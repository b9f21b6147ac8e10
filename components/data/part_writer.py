"""A table's part written row group by row group, so that it is never in memory whole.

What belongs here: the same bytes as ``lake.part_of`` makes of a whole table cut into the same row groups. What does
not: where parts lie (``components.data.lake``).
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from components.schemas import TableContract

from .storage import named_failures


@contextmanager
def spooled_part(
    row_groups: Iterable[pa.Table], contract: TableContract, scratch: Path | None = None
) -> Iterator[tuple[Path, str]]:
    """The part as a temporary file below ``scratch``, and the digest of its bytes (16 hexadecimal digits)."""
    with tempfile.NamedTemporaryFile(dir=scratch) as file:
        with (
            named_failures(file.name, "written", OSError),
            pq.ParquetWriter(file, contract.schema, compression="zstd") as writer,
        ):
            num_groups = 0
            for table in row_groups:
                writer.write_table(table.select(contract.schema.names).cast(contract.schema))
                num_groups += 1
            if not num_groups:
                writer.write_table(contract.schema.empty_table())
        file.flush()
        written = Path(file.name)
        with written.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()[:16]
        yield written, digest
