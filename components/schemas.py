"""The columns of every table in the lake, with a description for each.

What belongs here: pyarrow schemas and their column descriptions; they become the table schema in the Dagster UI and the
blocking schema checks. What does not: reading and writing (``components.data.lake``) and checks of content.
"""

from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its name, pyarrow type, whether it may be null, and what a reader of the UI is told about it."""

    name: str
    type: pa.DataType
    description: str
    nullable: bool = False


@dataclass(frozen=True, slots=True)
class TableContract:
    """A named table and its columns."""

    name: str
    description: str
    columns: tuple[Column, ...]

    @property
    def schema(self) -> pa.Schema:
        """The pyarrow schema, with each column's description in its field metadata."""
        return pa.schema(
            [pa.field(c.name, c.type, c.nullable, metadata={"description": c.description}) for c in self.columns]
        )


def type_name(type: pa.DataType) -> str:
    """A type in words; a list's elements have names in files that nobody chose, which are left out."""
    return f"list<{type.value_type}>" if pa.types.is_list(type) else str(type)


RAW_PAIRS = TableContract(
    "raw_pairs",
    "Checked image-caption pairs as they came from the source.",
    (
        Column("key", pa.string(), "Unique in the data set; what every later table joins on."),
        Column("image", pa.binary(), "The picture as PNG or JPEG: RGB, EXIF applied, ICC to sRGB, alpha composited."),
        Column("width", pa.int32(), "Width of the stored picture in pixels."),
        Column("height", pa.int32(), "Height of the stored picture in pixels."),
        Column("sha256", pa.string(), "SHA-256 of the stored picture bytes."),
        Column("source_sha256", pa.string(), "SHA-256 of the picture bytes as they lay in the source."),
        Column("perceptual_hash", pa.string(), "64-bit perceptual hash of the stored picture, 16 hexadecimal digits."),
        Column("colours", pa.binary(), "Mean RGB of a 4x4 grid of the stored picture, 48 bytes, row by row."),
        Column("caption", pa.string(), "The original caption: UTF-8, NFC, no control characters; may be empty."),
        Column("source", pa.string(), "Where the row came from: URI#member."),
        Column("license", pa.string(), "Licence of the row, or of the data set where the row names none."),
    ),
)

REJECTED = TableContract(
    "rejected",
    "Rows that were set aside while reading, each with its reason.",
    (
        Column("key", pa.string(), "Key of the row, or its position in the shard where it has none."),
        Column("source", pa.string(), "Where the row lies: URI#member."),
        Column("reason", pa.string(), "Reason code, for example truncated, duplicate_image, no_image."),
        Column("detail", pa.string(), "What exactly was found."),
    ),
)

RECAPTIONED = TableContract(
    "recaptioned",
    "Short (SSC) and descriptive (DSC) captions written by the champion captioners; no picture bytes.",
    (
        Column("key", pa.string(), "Key of the row in raw_pairs."),
        Column("sha256", pa.string(), "SHA-256 of the stored picture that was captioned."),
        Column("caption", pa.string(), "The original caption."),
        Column("ssc", pa.string(), "Short synthetic caption: the main subject.", nullable=True),
        Column("dsc", pa.string(), "Descriptive synthetic caption: subject, surroundings, background.", nullable=True),
        Column("ssc_captioner", pa.string(), "Registry name/version that wrote ssc."),
        Column("dsc_captioner", pa.string(), "Registry name/version that wrote dsc."),
        Column("ssc_score", pa.float32(), "CLIP score of ssc against its picture, cosine x 100.", nullable=True),
        Column("dsc_score", pa.float32(), "CLIP score of dsc against its picture, cosine x 100.", nullable=True),
        Column("ssc_shuffled", pa.float32(), "Mean CLIP score of ssc against other pictures.", nullable=True),
        Column("dsc_shuffled", pa.float32(), "Mean CLIP score of dsc against other pictures.", nullable=True),
        Column("rejected", pa.string(), "Why the row's captions must not be trained on; null where they may.", True),
    ),
)

LATENTS = TableContract(
    "latents",
    "VAE latents of every picture, already shifted and scaled as the U-Net sees them.",
    (
        Column("key", pa.string(), "Key of the row in raw_pairs."),
        Column("sha256", pa.string(), "SHA-256 of the stored picture that was encoded."),
        Column("latents", pa.list_(pa.float16()), "Posterior mean, (channels, height, width) flattened in C order."),
    ),
)

TABLES = {table.name: table for table in (RAW_PAIRS, REJECTED, RECAPTIONED, LATENTS)}
