"""Hostile pictures, rows, archives and tables, each with the reason that it must be set aside for.

``python -m tests.components.data.hostile FOLDER`` writes all of them, each shard in a folder of its own.
"""

import bz2
import gzip
import io
import lzma
import os
import pickle
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

KEPT = "kept"
UNREADABLE = "unreadable"
MIB = 2**20


# -------------------------------------------------------------------------------------------------------- pictures
def drawn(seed: int = 0, side: int = 48) -> Image.Image:
    """A picture unlike those of other seeds."""
    image = Image.new("RGB", (side, side), (seed * 37 % 256, seed * 91 % 256, seed * 53 % 256))
    ImageDraw.Draw(image).ellipse((seed % 20, seed % 13, 30 + seed % 11, 40), fill=(seed * 71 % 256, 200, 30))
    return image


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    sink = io.BytesIO()
    image.save(sink, format, **options)
    return sink.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, *chunks: bytes, rows: bytes = b"", colour: int = 2, bits: int = 8) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"".join([b"\x89PNG\r\n\x1a\n", header, *chunks, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")])


def bomb(num_bytes: int) -> bytes:
    """Zeros, deflated without ever holding them."""
    packer = zlib.compressobj(6)
    pieces = [packer.compress(bytes(MIB)) for _ in range(num_bytes // MIB)]
    return b"".join([*pieces, packer.flush()])


def with_bytes(data: bytes, place: int, new: bytes) -> bytes:
    return data[:place] + new + data[place + len(new) :]


def endless_tiff() -> bytes:
    """Its directory says that the next one is itself."""
    data = bytearray(encoded(drawn(2), "TIFF"))
    start = struct.unpack_from("<I", data, 4)[0]
    entries = struct.unpack_from("<H", data, start)[0]
    struct.pack_into("<I", data, start + 2 + 12 * entries, start)
    return bytes(data)


def tiff_of_absurd_size() -> bytes:
    data = bytearray(encoded(drawn(3), "TIFF"))
    start = struct.unpack_from("<I", data, 4)[0]
    for entry in range(struct.unpack_from("<H", data, start)[0]):
        place = start + 2 + 12 * entry
        if struct.unpack_from("<H", data, place)[0] in (256, 257):  # width and length, now 32 bits wide
            struct.pack_into("<HII", data, place + 2, 4, 1, 2**20)
    return bytes(data)


def frames(number: int) -> bytes:
    rest = [drawn(seed) for seed in range(1, number)]
    return encoded(drawn(0), "GIF", save_all=True, append_images=rest, loop=0)


def jpeg_of_size(width: int, height: int) -> bytes:
    data = encoded(drawn(4), "JPEG")
    return with_bytes(data, data.index(b"\xff\xc0") + 5, struct.pack(">HH", height, width))


BOMB = bomb(300 * MIB)
WHOLE = {
    "png": encoded(drawn(10)),
    "jpeg": encoded(drawn(11), "JPEG"),
    "progressive": encoded(drawn(12), "JPEG", progressive=True),
    "webp": encoded(drawn(13), "WEBP"),
    "gif": encoded(drawn(14), "GIF"),
    "bmp": encoded(drawn(15), "BMP"),
    "tiff": encoded(drawn(16), "TIFF"),
}
CUT = ("truncated", "undecodable", "unsupported_format")  # decoders name it differently
PICTURES: dict[str, tuple[bytes | None, str | tuple[str, ...]]] = {
    "no picture at all": (None, "no_image"),
    "no bytes": (b"", "no_image"),
    "random bytes": (bytes(range(7, 250)) * 40, "unsupported_format"),
    "a page of HTML": (b"<html><script>alert(1)</script></html>", "unsupported_format"),
    "an SVG": (b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", "unsupported_format"),
    "an SVG of a billion laughs": (b"<!DOCTYPE l [<!ENTITY a 'ha'>]><svg>&a;</svg>", "unsupported_format"),
    "a PDF": (b"%PDF-1.7\n", "unsupported_format"),
    "a PostScript program": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n{} loop", "unsupported_format"),
    "a pickle": (pickle.dumps({"os": "system"}), "unsupported_format"),
    "a zip": (b"PK\x03\x04" + bytes(60), "unsupported_format"),
    "an icon": (encoded(drawn(5), "ICO"), "unsupported_format"),
    "a JPEG 2000": (encoded(drawn(6), "JPEG2000"), "unsupported_format"),
    **{f"a {name} cut in the middle": (data[: len(data) // 2], CUT) for name, data in WHOLE.items()},
    **{f"a {name} that lacks its last bytes": (data[:-9], CUT) for name, data in WHOLE.items()},
    "a PNG whose checksum fails": (with_bytes(WHOLE["png"], 60, b"\xff\x00"), CUT),
    "a PNG without an end": (WHOLE["png"][:-12], "truncated"),
    "a PNG of width 0": (png(0, 40), ("undecodable", "unsupported_format")),
    "a PNG without pixels": (png(40, 40), ("undecodable", "truncated")),
    "a PNG bomb of 3.6 gigapixels": (png(60_000, 60_000, rows=bytes(1000), colour=0, bits=1), "too_many_pixels"),
    "a PNG of more than 2**31 pixels a side": (png(2**31 - 1, 2**31 - 1), ("too_many_pixels", "undecodable")),
    "a PNG one row over the limit": (png(50_001, 1000), "too_many_pixels"),
    "a JPEG that claims 65,535 squared": (jpeg_of_size(65_535, 65_535), "too_many_pixels"),
    "a GIF that claims 65,535 squared": (with_bytes(WHOLE["gif"], 6, b"\xff\xff\xff\xff"), "too_many_pixels"),
    "a BMP that claims a million squared": (
        with_bytes(WHOLE["bmp"], 18, struct.pack("<ii", 10**6, 10**6)),
        "too_many_pixels",
    ),
    "a TIFF that claims a million squared": (tiff_of_absurd_size(), "too_many_pixels"),
    "a text chunk of 300 MB": (
        png(32, 32, chunk(b"zTXt", b"c\0\0" + BOMB), rows=bytes(97 * 32)),
        "undecodable",
    ),
    "a profile of 300 MB": (
        png(32, 32, chunk(b"iCCP", b"c\0\0" + BOMB), rows=bytes(97 * 32)),
        ("undecodable", "out_of_memory", KEPT),
    ),
    "pixels of 300 MB for a small PNG": (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 32, 32, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", BOMB)
        + chunk(b"IEND", b""),
        KEPT,  # the rest of the stream is never unpacked
    ),
    "one pixel": (encoded(Image.new("RGB", (1, 1))), "too_small"),
    "a line": (encoded(Image.new("RGB", (400, 8))), "too_small"),
    "a strip": (encoded(Image.new("RGB", (400, 40))), "bad_aspect"),
    "float pixels": (encoded(Image.new("F", (32, 32), 0.5), "TIFF"), "unsupported_mode"),
    "32-bit pixels": (encoded(Image.new("I", (32, 32), 70_000), "TIFF"), "unsupported_mode"),
    "33 MiB of padding": (encoded(drawn(7)) + bytes(33 * MIB), "too_many_bytes"),
    "a TIFF whose directories go round in a circle": (endless_tiff(), KEPT),
    "200 frames": (frames(200), KEPT),
    "a broken EXIF block": (encoded(drawn(20), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"), KEPT),
    "a profile of nonsense": (encoded(drawn(21), icc_profile=b"nonsense" * 99), KEPT),
    "a zip behind a PNG": (encoded(drawn(22)) + b"PK\x03\x04" + bytes(90), KEPT),
    "a JPEG with a second one behind it": (encoded(drawn(23), "JPEG") * 2, KEPT),
    "CMYK": (encoded(drawn(24).convert("CMYK"), "JPEG"), KEPT),
    "a palette with transparency": (encoded(drawn(25).convert("P"), transparency=bytes([128] * 256)), KEPT),
    "49 million pixels in a few kB": (encoded(Image.new("RGBA", (7000, 7000), (9, 9, 9, 99))), KEPT),
    "a good picture": (encoded(drawn(26)), KEPT),
}


Maker = Callable[[Path], None]


def pictures(folder: Path) -> None:
    images = [data for data, _ in PICTURES.values()]
    table = {"key": list(PICTURES), "image": pa.array(images, pa.binary()), "caption": ["words"] * len(images)}
    pq.write_table(pa.table(table), folder / "0.parquet", row_group_size=8, use_dictionary=False)


# ---------------------------------------------------------------------------------------------- captions and keys
TEXTS: list[tuple[bytes | None, bytes | None, str, str]] = [  # key and caption as written, the row's key, its reason
    (b"Latin-1", b"caf\xe9", "Latin-1", "bad_caption"),
    (b"UTF-16", "\ufeffwords".encode("utf-16"), "UTF-16", "bad_caption"),
    (b"half a surrogate", b"\xed\xa0\xbd", "half a surrogate", "bad_caption"),
    (b"null", None, "null", KEPT),
    (b"control characters", b"\x00\x1b[2J\x07", "control characters", KEPT),
    (b"turns round", "photo\u202egpj.exe".encode(), "turns round", KEPT),
    (b"a million characters", b"word " * 200_000, "a million characters", KEPT),
    (b"accents", b"a" + "\u0301\u0323".encode() * 200_000, "accents", KEPT),
    (b"3 MB", b"x" * 3_000_000, "3 MB", "bad_metadata"),
    (b"", b"words", "00000-00000009", "bad_key"),
    (None, b"words", "00000-00000010", "bad_key"),
    (b"two\nlines", b"words", "two\nlines", "bad_key"),
    (b"\xff\xfe", b"words", "00000-00000012", "bad_key"),
    (b"k" * 600, b"words", "k" * 512, "bad_key"),
    (b"twice", b"words", "twice", KEPT),
    (b"twice", b"words", "twice", "duplicate_key"),
]


def texts(folder: Path) -> None:
    keys, captions = (pa.array([row[i] for row in TEXTS], pa.binary()).view(pa.string()) for i in (0, 1))
    images = pa.array([encoded(drawn(100 + i)) for i in range(len(TEXTS))], pa.binary())
    pq.write_table(pa.table({"key": keys, "image": images, "caption": captions}), folder / "0.parquet")


# ---------------------------------------------------------------------------------------------------------- tars
Member = tuple[str, bytes] | tarfile.TarInfo


def tar(members: list[Member], **options: Any) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", **options) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return sink.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def header(name: str, num_bytes: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = num_bytes, kind
    return info.tobuf(tarfile.GNU_FORMAT)


P = [encoded(drawn(200 + i)) for i in range(40)]
MEMBERS: dict[str, tuple[list[Member], str]] = {
    "/absolute": ([("/absolute.png", P[0])], "unsafe_member"),
    "../up": ([("../up.png", P[1])], "unsafe_member"),
    "in/../../out": ([("in/../../out.png", P[2])], "unsafe_member"),
    "soft": ([special("soft.png", tarfile.SYMTYPE, "/etc/passwd"), ("soft.txt", b"a link")], "unsafe_member"),
    "hard": ([special("hard.png", tarfile.LNKTYPE, "good.png")], "unsafe_member"),
    "disk": ([special("disk.png", tarfile.BLKTYPE)], "unsafe_member"),
    "terminal": ([special("terminal.png", tarfile.CHRTYPE)], "unsafe_member"),
    "pipe": ([special("pipe.png", tarfile.FIFOTYPE)], "unsafe_member"),
    "unknown": ([special("unknown.png", b"Z")], "unsafe_member"),
    "alone": ([("alone.txt", b"no picture")], "no_image"),
    "failed": ([("failed.json", b'{"status": "failed_to_download"}')], "no_image"),
    "bare": ([("bare.png", P[3])], KEPT),
    "latin": ([("latin.png", P[4]), ("latin.txt", b"caf\xe9")], "bad_caption"),
    "broken": ([("broken.png", P[5]), ("broken.json", b'{"a": ')], "bad_metadata"),
    "deep": ([("deep.png", P[6]), ("deep.json", b"[" * 200_000)], "bad_metadata"),
    "deep object": ([("deep object.png", P[7]), ("deep object.json", b'{"a":' * 100_000)], "bad_metadata"),
    "number": ([("number.png", P[8]), ("number.json", b'{"a": ' + b"9" * 100_000 + b"}")], "bad_metadata"),
    "list": ([("list.png", P[9]), ("list.json", b"[1, 2]")], "bad_metadata"),
    "heavy": ([("heavy.png", P[10]), ("heavy.json", b'{"a": [' + b"0," * MIB + b"0]}")], "too_many_bytes"),
    "large": ([("large.png", bytes(65 * MIB))], "too_many_bytes"),
    "twice": ([("twice.png", P[11]), ("twice.png", P[12])], "duplicate_key"),
    "lines\nbroken": ([("lines\nbroken.png", P[13])], "bad_key"),
    "good": ([("good.png", P[14]), ("good.0.txt", b""), ("good.1.txt", b"words")], KEPT),
}


def members(folder: Path) -> None:
    (folder / "0.tar").write_bytes(tar([member for group, _ in MEMBERS.values() for member in group]))


GOOD_TAR = tar([("a.png", P[15]), ("a.txt", b"one"), ("b.png", P[16]), ("b.txt", b"two")])


def file_of(name: str, data: bytes | Callable[[], bytes]) -> Maker:
    def make(folder: Path) -> None:
        (folder / name).write_bytes(data() if callable(data) else data)

    return make


def tar_of(data: bytes | Callable[[], bytes]) -> Maker:
    return file_of("0.tar", data)


def zeros_tar(compressor: Any) -> bytes:
    """A tar of 400 MB of zeros, compressed without ever holding it."""
    pieces = [compressor.compress(header("zeros.bin", 400 * MIB))]
    pieces += [compressor.compress(bytes(MIB)) for _ in range(400)]
    return b"".join([*pieces, compressor.compress(bytes(1024)), compressor.flush()])


def negative_header() -> bytes:
    """A member of -256 bytes, its checksum mended."""
    block = with_bytes(header("a.png", 0), 124, b"\xff" * 11 + b"\x00")
    return with_bytes(block, 148, b"%06o\0 " % (sum(block[:148]) + sum(block[156:]) + 8 * ord(" ")))


def xz_of_absurd_dictionary() -> bytes:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 20}]
    packed = bytearray(lzma.compress(GOOD_TAR, filters=filters))
    place = 12 + 2 + 2  # stream header, block header's size and flags, filter id and size of its properties
    packed[place] = 40  # a dictionary of 4 GiB
    end = 12 + (packed[12] + 1) * 4
    packed[end - 4 : end] = struct.pack("<I", zlib.crc32(packed[12 : end - 4]))
    return bytes(packed)


def scattered_tar() -> bytes:
    rows = 12
    return tar([(f"{i}.png", bytes(30 * MIB)) for i in range(rows)] + [(f"{i}.txt", b"x") for i in range(rows)])


def zip_bytes() -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("a.png", P[17])
    return sink.getvalue()


# ------------------------------------------------------------------------------------------------------- Parquet
def parquet_of(table: dict[str, Any] | bytes | Callable[[], bytes]) -> Maker:
    def make(folder: Path) -> None:
        columns = {name: value() if callable(value) else value for name, value in table.items()}  # type: ignore[union-attr]
        pq.write_table(pa.table(columns), folder / "0.parquet")

    return make if isinstance(table, dict) else file_of("0.parquet", table)


def parquet_bytes(**options: Any) -> bytes:
    sink = io.BytesIO()
    table = {"png": pa.array(P[18:24], pa.binary()), "caption": ["words"] * 6}
    pq.write_table(pa.table(table), sink, use_dictionary=False, **options)
    return sink.getvalue()


def large_page() -> bytes:
    """A page of 240 MB of zeros, which is small in the file."""
    sink = io.BytesIO()
    pictures = pa.array([bytes(60 * MIB)] * 4, pa.binary())
    table = pa.table({"png": pictures, "caption": ["x"] * 4})
    pq.write_table(table, sink, compression="zstd", use_dictionary=False)
    return sink.getvalue()


def one_value(num_bytes: int, num_rows: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(
        pa.array([0] * num_rows, pa.int32()), pa.array([bytes(num_bytes)], pa.binary())
    )


def paths(folder: Path) -> None:
    inside = folder / "inside"
    inside.mkdir()
    (inside / "good.png").write_bytes(P[24])
    (folder / "secret.png").write_bytes(P[25])
    (inside / "link.png").symlink_to(folder / "secret.png")
    os.mkfifo(inside / "pipe.png")
    filled = [path.replace("FOLDER", str(folder)) for path in PATHS]
    table = {"key": list(PATHS), "image": filled, "caption": ["words"] * len(PATHS)}
    pq.write_table(pa.table(table), folder / "0.parquet")


PATHS = {
    "../secret.png": "unsafe_path",
    "FOLDER/secret.png": "unsafe_path",
    "/etc/passwd": "unsafe_path",
    "file:///etc/passwd": "unsafe_path",
    "http://169.254.169.254/latest": "unsafe_path",
    "memory://good.png": "unsafe_path",
    "s3://bucket/good.png": "unsafe_path",
    "link.png": "unsafe_path",
    "good.png/../../secret.png": "unsafe_path",
    "pipe.png": "no_image",
    "gone.png": "no_image",
    ".": "no_image",
    "good.png": KEPT,
}


# --------------------------------------------------------------------------------------------- Hugging Face folders
def arrow_bytes(options: pa.ipc.IpcWriteOptions | None = None, dictionary: bool = False) -> bytes:
    sink = io.BytesIO()
    captions: Any = pa.array(["one", "two"])
    table = pa.table(
        {
            "image": pa.array([{"bytes": P[26], "path": None}, {"bytes": P[27], "path": None}]),
            "text": captions.dictionary_encode() if dictionary else captions,
        }
    )
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return sink.getvalue()


def arrow_of(data: bytes) -> Maker:
    return file_of("0.arrow", data)


def arrow_with_wild_offsets() -> bytes:
    """The second picture's end lies far behind the file's."""
    data = arrow_bytes()
    offsets = struct.pack("<iii", 0, len(P[26]), len(P[26]) + len(P[27]))
    return data.replace(offsets, struct.pack("<iii", 0, 2**30, 2**31 - 1))


# -------------------------------------------------------------------------------------------------------- folders
def folder_of(files: dict[str, bytes], prepare: Maker = lambda _: None) -> Maker:
    def make(folder: Path) -> None:
        for name, content in files.items():
            (folder / name).write_bytes(content)
        prepare(folder)

    return make


def links(folder: Path) -> None:
    (folder / "link.png").symlink_to("/etc/passwd")
    (folder / "round").symlink_to(folder)
    os.mkfifo(folder / "pipe.png")


JSON_LINES = b"\n".join(
    [
        b'{"file_name": "good.png", "text": "words"}',
        b'{"file_name": "good.png", "text": "again"}',
        b"{broken",
        b"[" * 100_000,
        b'{"text": "nothing named"}',
        b'{"file_name": "../../etc/passwd", "text": "out"}',
        b'{"file_name": "gone.png", "text": "gone"}',
        b'{"file_name": "long.png", "text": "' + b"x" * (3 * MIB) + b'"}',
    ]
)
CSV = b"\n".join(
    [
        b"file_name,text",
        b"good.png,words",
        b"latin.png,caf\xe9",
        b"giant.png," + b"x" * 200_000,
        b"gone.png,gone",
        b'open.png,"never closed',
        *([b"swallowed"] * 14_000),
    ]
)

# ------------------------------------------------------------------------------------------------------ the table
Expected = str | tuple[str, ...]
ROWS: dict[str, tuple[Maker, list[tuple[str, Expected]]]] = {
    "pictures": (pictures, [(name, reason) for name, (_, reason) in PICTURES.items()]),
    "texts": (texts, [(key, reason) for _, _, key, reason in TEXTS]),
    "members": (members, [(name, reason) for name, (_, reason) in MEMBERS.items()]),
    "paths": (paths, list(PATHS.items())),
    "sidecars": (
        folder_of(
            {"good.png": P[28], "good.txt": b"words", "lone.txt": b"x", "bad.png": P[29], "bad.json": b"[1]"}, links
        ),
        [
            ("good", KEPT),
            ("lone", "no_image"),
            ("bad", "bad_metadata"),
            ("link", "unsafe_path"),
            ("round", "unsafe_path"),
            ("pipe", "no_image"),
        ],
    ),
    "json lines": (
        folder_of({"metadata.jsonl": JSON_LINES, "good.png": P[30], "long.png": P[31]}),
        [
            ("good", KEPT),
            ("long", KEPT),  # its line is lost, so it has no caption
            ("metadata.jsonl, line 2", "duplicate_key"),
            ("metadata.jsonl, line 3", "bad_metadata"),
            ("metadata.jsonl, line 4", "bad_metadata"),
            ("metadata.jsonl, line 5", "bad_metadata"),
            ("../../etc/passwd", "no_image"),
            ("gone.png", "no_image"),
            ("metadata.jsonl, line 8", "bad_metadata"),
        ],
    ),
    "csv": (
        folder_of({"metadata.csv": CSV, "good.png": P[32], "latin.png": P[33], "giant.png": P[34], "open.png": P[35]}),
        [
            ("good", KEPT),
            ("latin", "bad_caption"),
            ("giant", KEPT),
            ("open", KEPT),
            ("gone.png", "no_image"),
            ("metadata.csv, line 4", "bad_metadata"),
        ],
    ),
    "a large value that is named 300 times": (
        parquet_of(
            {
                "key": [f"{i:03d}" for i in range(300)],
                "image": lambda: one_value(6 * MIB, 300),
                "caption": ["x"] * 300,
            }
        ),
        [("000", "unsupported_format"), ("299", "unsupported_format")],
    ),
}
SHARDS: dict[str, Maker] = {
    "a tar of no bytes": tar_of(b""),
    "a tar that is a zip": tar_of(zip_bytes()),
    "a tar that is text": tar_of(b"no tar\n" * 400),
    "a tar cut in a picture": tar_of(GOOD_TAR[:700]),
    "a tar without its end": tar_of(GOOD_TAR.rstrip(b"\0")[: len(GOOD_TAR) // 512 * 512]),
    "a tar with a damaged header": tar_of(with_bytes(GOOD_TAR, GOOD_TAR.index(b"a.txt") + 20, b"\xff\xff\xff")),
    "two tars joined": tar_of(GOOD_TAR + GOOD_TAR),
    "a tar with a member of 8 EiB": tar_of(header("a.png", 2**62) + bytes(2048)),
    "a tar with a member of negative size": tar_of(negative_header() + bytes(2048)),
    "a tar with a name of 4 GiB": tar_of(header("././@LongLink", 2**32, tarfile.GNUTYPE_LONGNAME) + bytes(2048)),
    "a tar with an extended header of 4 GiB": tar_of(header("pax", 2**32, tarfile.XHDTYPE) + bytes(2048)),
    "a tar whose rows lie apart": tar_of(scattered_tar),
    "a gzip bomb": tar_of(lambda: zeros_tar(zlib.compressobj(6, wbits=31))),
    "an xz bomb": tar_of(lambda: zeros_tar(lzma.LZMACompressor(preset=0))),
    "a bzip2 bomb": tar_of(lambda: zeros_tar(bz2.BZ2Compressor(9))),
    "an xz with a dictionary of 4 GiB": tar_of(xz_of_absurd_dictionary()),
    "a gzip cut short": tar_of(gzip.compress(GOOD_TAR)[:-30]),
    "a Parquet file of no bytes": parquet_of(b""),
    "a Parquet file that is text": parquet_of(b"PAR1 no parquet PAR1"),
    "a Parquet file cut short": parquet_of(parquet_bytes()[:-40]),
    "a Parquet file whose pages are damaged": parquet_of(with_bytes(parquet_bytes(), 4, b"\xff" * 12)),
    "a Parquet file with a footer of 2 GiB": parquet_of(
        with_bytes(parquet_bytes(), len(parquet_bytes()) - 8, b"\xff\xff\xff\x7f")
    ),
    "a Parquet file that is encrypted": parquet_of(parquet_bytes()[:-4] + b"PARE"),
    "a Parquet file without pictures": parquet_of({"caption": ["x"]}),
    "a Parquet file without captions": parquet_of({"png": pa.array([b"x"], pa.binary())}),
    "a Parquet file that names pictures anywhere": parquet_of({"img": ["/etc/passwd"], "caption": ["x"]}),
    "a page of 240 MB": parquet_of(large_page),
    "a list of 50 million nulls": parquet_of(
        {
            "png": pa.array([P[36]], pa.binary()),
            "caption": ["x"],
            "words": lambda: pa.ListArray.from_arrays(
                pa.array([0, 50_000_000], pa.int32()), pa.nulls(50_000_000, pa.int8())
            ),
        }
    ),
    "an Arrow file of no bytes": arrow_of(b""),
    "an Arrow file that is text": arrow_of(b"no arrow at all" * 9),
    "an Arrow file cut short": arrow_of(arrow_bytes()[:-200]),
    "an Arrow file that is compressed": arrow_of(arrow_bytes(pa.ipc.IpcWriteOptions(compression="zstd"))),
    "an Arrow file with dictionaries": arrow_of(arrow_bytes(dictionary=True)),
    "an Arrow file whose offsets lead out of it": arrow_of(arrow_with_wild_offsets()),
    "captions in JSON that is no COCO": folder_of({"captions.json": b'{"a": 1}', "a.png": P[37]}),
    "captions in JSON that is cut": folder_of({"captions.json": b'{"images": [{"id": 1', "a.png": P[37]}),
    "captions in JSON of great depth": folder_of({"captions.json": b'{"images": ' + b"[" * 300_000, "a.png": P[37]}),
    "a metadata.csv without names": folder_of({"metadata.csv": b"text\nwords\n", "a.png": P[37]}),
}


def all_makers() -> dict[str, Maker]:
    """What writes each shard, by its name."""
    return {name: make for name, (make, _) in ROWS.items()} | SHARDS


if __name__ == "__main__":
    for name, make in all_makers().items():
        place = Path(sys.argv[1]) / name
        place.mkdir()
        make(place)
