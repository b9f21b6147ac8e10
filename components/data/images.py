"""One picture or caption at a time: checked, and brought into the form in which the lake keeps it.

What belongs here: decoding, limits, colour, orientation, re-encoding, and the cleaning of captions. What does not:
where rows come from (the readers) and what is done with those set aside (``components.data.ingest``).
"""

import hashlib
import io
import unicodedata
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from PIL import Image, ImageCms
from pydantic import Field

from components.contracts import Frozen

from .perceptual_hash import hash_text, perceptual_hash

COLOUR_CELLS = 4  # cells of the colour grid across and down
STRIP_PIXELS = 2**22  # brought into sRGB at once, so that a large picture is not held several times
COMPRESS_LEVEL = 1  # level 4 is an eighth smaller and takes twice as long
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
_PNG = b"\x89PNG\r\n\x1a\n"
_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
# Pillow's modes that are taken, and the mode of their colours without transparency
_COLOUR_MODES = {"1": "L", "L": "L", "LA": "L", "P": "RGB", "PA": "RGB", "RGB": "RGB", "RGBA": "RGB", "RGBX": "RGB"}
_COLOUR_MODES |= {"YCbCr": "RGB", "CMYK": "CMYK"}

# Directional marks and overrides, the byte order mark and the zero width space: they carry no words.
_INVISIBLE = frozenset("\u200b\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")
MAX_MARKS = 4  # code points that may be composed into one character of a caption
_ORIENTATION = 0x0112  # the EXIF tag
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageLimits(Frozen):
    """Which pictures are taken, and the size at which they are stored."""

    max_bytes: int = Field(default=32 * 2**20, gt=0, description="Largest encoded picture in bytes.")
    max_pixels: int = Field(
        default=50_000_000, gt=0, description="Most pixels, decided from the header before decoding."
    )
    min_side: int = Field(default=16, gt=0, description="Smallest width and height in pixels.")
    max_aspect: float = Field(default=5.0, ge=1.0, description="Largest ratio of the longer side to the shorter one.")
    max_side: int | None = Field(
        default=None,
        gt=0,
        description="Larger pictures are scaled down until their longer side is this; null: never.",
    )
    animated: Literal["first_frame", "reject"] = Field(
        default="first_frame",
        description="What becomes of an animated picture: its first frame is taken, or it is rejected.",
    )


@dataclass(frozen=True, slots=True)
class NormalisedImage:
    """A picture as the lake keeps it: RGB PNG, 8 bits, upright, sRGB, opaque. Digests are SHA-256 in hexadecimal."""

    data: bytes
    width: int
    height: int
    sha256: str
    source_sha256: str
    perceptual_hash: str  # 16 hexadecimal digits
    colours: bytes  # mean RGB of the cells of a COLOUR_CELLS x COLOUR_CELLS grid, row by row


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why something was set aside: a reason code and what exactly was found."""

    reason: str
    detail: str


def normalise(data: bytes, limits: ImageLimits) -> NormalisedImage | Rejection:
    """Decode ``data`` in full and store it as a plain RGB PNG; the same bytes in give the same bytes out.

    Orientation (EXIF) is applied, ICC profiles and CMYK become sRGB, 16 bits are scaled to 8, transparency is laid on
    white. A profile that cannot be read is treated as absent, as browsers do. A PNG that already is in that form keeps
    its bytes. Never raises for what ``data`` holds. Reasons: ``too_many_bytes``, ``unsupported_format``,
    ``too_many_pixels``, ``too_small``, ``bad_aspect``, ``animated``, ``truncated``, ``undecodable``,
    ``unsupported_mode``, ``out_of_memory`` (the process has a limit of its own and the picture asked for more).
    """
    if len(data) > limits.max_bytes:
        return Rejection("too_many_bytes", f"{len(data)} bytes, more than max_bytes {limits.max_bytes}")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return _check_header(image, limits) or _check_end(data) or _store(data, image, limits)
    except Image.UnidentifiedImageError:
        starts = f"no picture of {', '.join(FORMATS)}; it starts with {data[:12]!r}"
        return _check_end(data) or Rejection("unsupported_format", starts)
    except Image.DecompressionBombError as error:
        return Rejection("too_many_pixels", str(error))
    except MemoryError:
        return Rejection("out_of_memory", "decoding it takes more memory than the process may have")
    except Exception as error:  # Pillow's decoders raise nearly everything on hostile input; none may stop a shard
        is_truncated = isinstance(error, EOFError) or "truncated" in str(error).lower()
        reason = "truncated" if is_truncated else "undecodable"
        return _check_end(data) or Rejection(reason, f"{type(error).__name__}: {error}")


def _check_header(image: Image.Image, limits: ImageLimits) -> Rejection | None:
    """What the header alone decides: nothing has been decoded yet."""
    width, height = image.size
    size = f"{width}x{height} pixels"
    if width * height > limits.max_pixels:
        return Rejection("too_many_pixels", f"{size}, more than max_pixels {limits.max_pixels}")
    if min(width, height) < limits.min_side:
        return Rejection("too_small", f"{size}, min_side is {limits.min_side}")
    if max(width, height) > limits.max_aspect * min(width, height):
        return Rejection("bad_aspect", f"{size}, max_aspect is {limits.max_aspect:g}")
    if limits.animated == "reject" and getattr(image, "is_animated", False) and image.format != "MPO":
        return Rejection("animated", f"{image.format} of several frames")  # an MPO is a photo with its preview
    return None


def _check_end(data: bytes) -> Rejection | None:
    """What Pillow does not look at: whether a WebP is as long as it says, and a PNG's end and checksums."""
    if data.startswith(b"RIFF") and int.from_bytes(data[4:8], "little") + 8 > len(data):
        return Rejection("truncated", f"{len(data)} bytes of {int.from_bytes(data[4:8], 'little') + 8}")
    if not data.startswith(_PNG):
        return None
    for kind, whole in _png_chunks(data):
        if not whole:
            return Rejection("truncated", f"PNG chunk {kind!r} is cut short or fails its checksum")
        if kind == b"IEND":
            return None
    return Rejection("truncated", "the PNG has no IEND chunk")


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bool]]:
    """(type, whether whole) of each chunk of a PNG, the last one first to be broken."""
    view, position = memoryview(data), 8
    while position < len(data):
        length, kind = int.from_bytes(view[position : position + 4]), bytes(view[position + 4 : position + 8])
        end = position + 8 + length
        yield kind, zlib.crc32(view[position + 4 : end]) == int.from_bytes(view[end : end + 4]) and end + 4 <= len(data)
        position = end + 4


def _store(data: bytes, image: Image.Image, limits: ImageLimits) -> NormalisedImage | Rejection:
    source_sha256 = hashlib.sha256(data).hexdigest()
    fits = limits.max_side is None or max(image.size) <= limits.max_side
    if limits.max_side is not None:
        image.draft(None, (2 * limits.max_side, 2 * limits.max_side))  # JPEG: decode at a fraction where that suffices
    image.load()
    if fits and image.mode == "RGB" and _is_plain_png(data):
        return _normalised(data, image, source_sha256, source_sha256)
    upright = _to_rgb(image)
    if isinstance(upright, Rejection):
        return upright
    orientation = _orientation(image)
    if orientation in _TRANSPOSITIONS:
        upright = upright.transpose(_TRANSPOSITIONS[orientation])
    if limits.max_side is not None and max(upright.size) > limits.max_side:
        scale = limits.max_side / max(upright.size)
        size = (max(1, round(upright.width * scale)), max(1, round(upright.height * scale)))
        upright = upright.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    sink = io.BytesIO()
    upright.info = {}  # the pixels alone: no profile, no EXIF, no text
    upright.save(sink, "PNG", compress_level=COMPRESS_LEVEL)
    stored = sink.getvalue()
    return _normalised(stored, upright, hashlib.sha256(stored).hexdigest(), source_sha256)


def _normalised(data: bytes, image: Image.Image, sha256: str, source_sha256: str) -> NormalisedImage:
    """The stored picture with what tells copies of it; ``image`` holds its pixels."""
    small = image.resize((COLOUR_CELLS, COLOUR_CELLS), Image.Resampling.BOX, reducing_gap=2.0)
    look = hash_text(perceptual_hash(image))
    return NormalisedImage(data, image.width, image.height, sha256, source_sha256, look, small.tobytes())


def _is_plain_png(data: bytes) -> bool:
    """Whether a PNG holds 8 bits a channel and nothing that changes how it looks or tells more than the picture."""
    if not data.startswith(_PNG) or data[24] != 8:
        return False
    return {kind for kind, _ in _png_chunks(data)} <= {b"IHDR", b"IDAT", b"IEND", b"sRGB"}


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a broken EXIF block raises many things and says nothing about the picture
        return 1


def _to_rgb(image: Image.Image) -> Image.Image | Rejection:
    """The loaded picture in 8-bit sRGB with transparency laid on white, a strip of rows at a time."""
    mode = "L" if image.mode.startswith("I;16") else image.mode
    if mode not in _COLOUR_MODES:
        return Rejection("unsupported_mode", f"{image.format} pixels of mode {image.mode!r}")
    icc = image.info.get("icc_profile")
    transform = _to_srgb(icc, _COLOUR_MODES[mode]) if icc else None
    rows = max(1, STRIP_PIXELS // image.width)
    if rows >= image.height:
        return _strip_to_rgb(image, transform)
    upright = Image.new("RGB", image.size)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        upright.paste(_strip_to_rgb(strip, transform), (0, top))
    return upright


def _strip_to_rgb(image: Image.Image, transform: ImageCms.ImageCmsTransform | None) -> Image.Image:
    if image.mode.startswith("I;16"):
        image = _scale_16_bits(image)
    alpha, colour = None, image
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        alpha, colour = rgba.getchannel("A"), rgba if _COLOUR_MODES[image.mode] == "RGB" else image
    colour = colour.convert(_COLOUR_MODES[image.mode])
    rgb = ImageCms.applyTransform(colour, transform) if transform else colour.convert("RGB")
    if rgb is None:
        raise ValueError("the colour transform gave no picture")
    if alpha is None or alpha.getextrema() == (255, 255):
        return rgb
    return Image.composite(rgb, Image.new("RGB", rgb.size, "white"), alpha)


def _scale_16_bits(image: Image.Image) -> Image.Image:
    """16-bit grey as 8-bit L, or LA where one grey level stands for transparency."""
    values = np.asarray(image).astype(np.uint32)
    grey = Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return grey


@lru_cache(maxsize=8)
def _to_srgb(icc: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The transform from a profile to sRGB, or None where the profile is broken or made for other pixels."""
    try:
        return ImageCms.buildTransform(ImageCms.ImageCmsProfile(io.BytesIO(icc)), _SRGB, mode, "RGB")
    except (ImageCms.PyCMSError, OSError):
        return None


def normalise_caption(text: str | bytes | None, max_chars: int = 2000) -> str | Rejection:
    """One line of clean text: UTF-8, NFC, no control or directional characters, single spaces, at most ``max_chars``.

    Too long a caption is cut at a word boundary, having been looked at as far as it could matter; None is an empty
    caption. Bytes that are not UTF-8 and surrogates are
    rejected as ``bad_caption``. Joiners that scripts and emoji need are kept. Idempotent.
    """
    if text is None:
        return ""
    try:
        text = text.decode("utf-8") if isinstance(text, bytes) else text.encode("utf-8").decode("utf-8")
    except UnicodeError as error:
        return Rejection("bad_caption", f"not UTF-8: {error}")
    # Normalisation takes quadratic time in runs of combining marks, so it sees no more than could be kept.
    visible = (c for c in text if c not in _INVISIBLE and (c.isspace() or unicodedata.category(c) != "Cc"))
    words = " ".join("".join(visible).split())[: MAX_MARKS * max_chars]
    clean = " ".join(unicodedata.normalize("NFC", words).split())
    if len(clean) <= max_chars:
        return clean
    end = clean.rfind(" ", 0, max_chars + 1)
    return clean[: end if end > 0 else max_chars]
