"""Pictures that the tests make themselves, good and hostile, and captions."""

import hashlib
import io
import struct
import unicodedata
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps, PngImagePlugin

from components.data.images import ImageLimits, NormalisedImage, Rejection, normalise, normalise_caption

LIMITS = ImageLimits()


def photo(width: int = 96, height: int = 80) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (10, 12, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    sink = io.BytesIO()
    image.save(sink, format, **options)
    return sink.getvalue()


def kept(data: bytes, limits: ImageLimits = LIMITS) -> Image.Image:
    result = normalise(data, limits)
    assert isinstance(result, NormalisedImage), result
    image = Image.open(io.BytesIO(result.data))
    image.load()
    assert (image.format, image.mode, image.size) == ("PNG", "RGB", (result.width, result.height))
    assert result.sha256 == hashlib.sha256(result.data).hexdigest()
    assert result.source_sha256 == hashlib.sha256(data).hexdigest()
    assert not {"icc_profile", "exif", "transparency", "comment"} & set(image.info)
    return image


def reason(data: bytes, limits: ImageLimits = LIMITS) -> str:
    result = normalise(data, limits)
    assert isinstance(result, Rejection), "the picture was kept"
    assert result.detail
    return result.reason


def distance(one: Image.Image, other: Image.Image) -> int:
    return int(np.abs(np.asarray(one).astype(int) - np.asarray(other).astype(int)).max())


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, bits: int, colour: int, rows: bytes, *chunks: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"".join([b"\x89PNG\r\n\x1a\n", header, *chunks, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")])


# ------------------------------------------------------------------------------------------------------------ kept
def test_a_plain_rgb_png_keeps_its_bytes() -> None:
    data = encoded(photo())
    result = normalise(data, LIMITS)
    assert isinstance(result, NormalisedImage)
    assert result.data == data
    assert result.sha256 == result.source_sha256


def test_a_png_with_text_is_stored_without_it() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "who took this picture")
    image = kept(encoded(photo(), pnginfo=info))
    assert image.info == {}
    assert distance(image, photo()) == 0


def test_the_same_bytes_in_give_the_same_bytes_out() -> None:
    data = encoded(photo(), "JPEG")
    assert normalise(data, ImageLimits(max_side=40)) == normalise(data, ImageLimits(max_side=40))


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "BMP", "TIFF"])
def test_other_formats_become_png(format: str) -> None:
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(format, {})
    assert distance(kept(encoded(photo(), format, **options)), photo()) <= (8 if format == "JPEG" else 0)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(format, {})
    image = kept(encoded(photo(), format, exif=exif, **options))
    marked = photo()
    marked.getexif()[0x0112] = orientation
    assert distance(image, ImageOps.exif_transpose(marked)) <= (8 if format == "JPEG" else 0)


def test_a_broken_exif_block_does_not_cost_the_picture() -> None:
    assert kept(encoded(photo(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")).size == (96, 80)


def test_transparency_is_laid_on_white() -> None:
    image = Image.new("RGBA", (32, 32), (200, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, 16, 32))
    image.paste((0, 0, 0, 128), (0, 0, 16, 16))
    result = kept(encoded(image))
    assert [result.getpixel(xy) for xy in ((4, 20), (4, 4), (20, 4))] == [(255,) * 3, (127,) * 3, (200, 0, 0)]


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "1"])
def test_a_colour_that_stands_for_transparency_becomes_white(mode: str) -> None:
    image = Image.new(mode, (32, 32), {"L": 7, "RGB": (1, 2, 3), "P": 0, "1": 0}[mode])
    result = kept(encoded(image, transparency={"L": 7, "RGB": (1, 2, 3), "P": 0, "1": 0}[mode]))
    assert result.getpixel((5, 5)) == (255, 255, 255)


def test_a_palette_with_degrees_of_transparency_is_blended() -> None:
    image = Image.new("P", (32, 32), 0)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.paste(1, (0, 0, 16, 32))
    result = kept(encoded(image, transparency=bytes([128, 255])))
    assert (result.getpixel((20, 5)), result.getpixel((5, 5))) == ((127, 127, 127), (255, 0, 0))


def test_grey_with_alpha_is_laid_on_white() -> None:
    assert kept(encoded(Image.new("LA", (32, 32), (0, 64)))).getpixel((0, 0)) == (191, 191, 191)


def test_16_bit_grey_is_scaled_not_clipped() -> None:
    values = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    for format in ("PNG", "TIFF"):
        image = kept(encoded(Image.fromarray(values), format))
        expected = np.round(values / 257.0).astype(int)
        assert np.abs(np.asarray(image)[..., 0].astype(int) - expected).max() == 0


def test_16_bit_grey_with_a_transparent_level() -> None:
    rows = b"".join(b"\0" + struct.pack(">32H", *[300 if x < 16 else 65535 // 2 for x in range(32)]) for _ in range(32))
    image = kept(png(32, 32, 16, 0, rows, chunk(b"tRNS", struct.pack(">H", 300))))
    assert (image.getpixel((0, 0)), image.getpixel((20, 0))) == ((255,) * 3, (127,) * 3)


def test_16_bit_rgb_is_scaled() -> None:
    rows = b"".join(b"\0" + struct.pack(">HHH", 65535, 32896, 0) * 32 for _ in range(32))
    assert kept(png(32, 32, 16, 2, rows)).getpixel((3, 3)) == (255, 128, 0)


def test_cmyk_without_a_profile_becomes_rgb() -> None:
    image = kept(encoded(Image.new("CMYK", (32, 32), (0, 255, 255, 0)), "JPEG"))
    assert distance(image, Image.new("RGB", (32, 32), (255, 0, 0))) <= 3


def profile(space: bytes, gamma: float) -> bytes:
    """An ICC profile (version 2) of one gamma value for grey (``b"GRAY"``) or for sRGB's primaries (``b"RGB "``)."""

    def xyz(*values: float) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">iii", *(round(value * 65536) for value in values))

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    contents = {
        b"wtpt": xyz(0.9642, 1.0, 0.8249),
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", 2) + b"g\0" + b"\0" * 78,
    }
    if space == b"GRAY":
        contents[b"kTRC"] = curve
    else:
        primaries = ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))
        for letter, primary in zip(b"rgb", primaries, strict=True):
            contents[bytes([letter]) + b"XYZ"] = xyz(*primary)
            contents[bytes([letter]) + b"TRC"] = curve
    start = 128 + 4 + 12 * len(contents)
    tags, body = b"", b""
    for tag, content in contents.items():
        tags += tag + struct.pack(">II", start + len(body), len(content))
        body += content + b"\0" * (-len(content) % 4)
    header = struct.pack(">I4sI4s4s4s", start + len(body), b"lcms", 0x02100000, b"mntr", space, b"XYZ ")
    header += b"\0" * 12 + b"acsp" + b"\0" * 28 + struct.pack(">iii", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + struct.pack(">I", len(contents)) + tags + body


@pytest.mark.parametrize(
    ("mode", "space"), [("L", b"GRAY"), ("LA", b"GRAY"), ("RGB", b"RGB "), ("RGBA", b"RGB "), ("P", b"RGB ")]
)
def test_an_icc_profile_is_taken_to_srgb(mode: str, space: bytes) -> None:
    grey = Image.new("RGBA", (32, 32), (128, 128, 128, 255)).convert(mode)
    linear = kept(encoded(grey, icc_profile=profile(space, 1.0))).getpixel((0, 0))
    assert all(abs(value - 188) <= 2 for value in linear)  # linear 0.5 is 188 in sRGB
    assert kept(encoded(grey)).getpixel((0, 0)) == (128, 128, 128)


def test_a_profile_changes_colours_and_not_transparency() -> None:
    image = Image.new("RGBA", (32, 32), (128, 128, 128, 0))
    image.paste((128, 128, 128, 255), (0, 0, 16, 32))
    result = kept(encoded(image, icc_profile=profile(b"RGB ", 1.0)))
    assert abs(result.getpixel((2, 2))[0] - 188) <= 2
    assert result.getpixel((30, 2)) == (255, 255, 255)


@pytest.mark.parametrize("icc", [b"nonsense", profile(b"GRAY", 1.0)], ids=["broken", "of another colour space"])
def test_a_profile_that_cannot_be_used_is_passed_over(icc: bytes) -> None:
    assert distance(kept(encoded(photo(), icc_profile=icc)), photo()) == 0


def test_animated_pictures_give_their_first_frame_or_are_rejected() -> None:
    for format in ("GIF", "WEBP", "PNG"):
        frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
        data = encoded(frames[0], format, save_all=True, append_images=frames[1:])
        assert distance(kept(data), frames[0]) <= 3
        assert reason(data, ImageLimits(animated="reject")) == "animated"
    assert kept(encoded(photo(), "GIF"), ImageLimits(animated="reject")).size == (96, 80)


def test_larger_pictures_are_scaled_to_max_side_and_smaller_ones_left() -> None:
    limits = ImageLimits(max_side=48)
    assert kept(encoded(photo(96, 80)), limits).size == (48, 40)
    assert kept(encoded(photo(1000, 333), "JPEG"), limits).size == (48, 16)
    assert kept(encoded(photo(40, 30)), limits).size == (40, 30)
    flat = Image.new("RGB", (500, 400), (10, 200, 30))
    assert distance(kept(encoded(flat), limits), flat.resize((48, 38))) == 0


# -------------------------------------------------------------------------------------------------------- rejected
@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("PNG", {}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("GIF", {}),
        ("BMP", {}),
        ("TIFF", {}),
    ],
)
def test_a_truncated_picture_is_never_kept(format: str, options: dict) -> None:
    data = encoded(photo(), format, **options)
    cuts = sorted({len(data) * share // 16 for share in range(1, 16)} | {len(data) - gone for gone in range(3, 12)})
    found = {reason(data[:cut]) for cut in cuts}
    assert found <= {"truncated", "unsupported_format", "undecodable"}
    assert "truncated" in found


def test_a_png_whose_checksum_fails_is_rejected() -> None:
    data = bytearray(encoded(photo()))
    data[len(data) // 2] ^= 1
    assert reason(bytes(data)) in ("truncated", "undecodable")


def test_pixel_limits_are_decided_from_the_header(monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: object) -> None:
        raise AssertionError("the picture was decoded")

    bomb = png(40_000, 2_000, 8, 2, b"")
    endless = png(60_000, 60_000, 1, 0, b"")
    monkeypatch.setattr(Image.Image, "load", explode)
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", explode)
    assert reason(bomb) == "too_many_pixels"
    assert reason(endless) == "too_many_pixels"
    assert reason(png(8, 400, 8, 2, b"")) == "too_small"
    assert reason(png(40, 400, 8, 2, b"")) == "bad_aspect"


def test_a_picture_of_too_many_bytes_is_not_opened() -> None:
    assert reason(encoded(photo()), ImageLimits(max_bytes=100)) == "too_many_bytes"


def test_text_chunks_that_blow_up_are_rejected() -> None:
    bomb = chunk(b"zTXt", b"comment\0\0" + zlib.compress(b"\0" * 50_000_000))
    rows = b"".join(b"\0" + b"\x20\x40\x60" * 32 for _ in range(32))
    assert reason(png(32, 32, 8, 2, rows, bomb)) == "undecodable"


@pytest.mark.parametrize(
    "data", [b"", b"GIF8", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.7", b"\0" * 4096]
)
def test_what_is_no_picture_is_rejected(data: bytes) -> None:
    assert reason(data) == "unsupported_format"


def test_formats_that_run_programs_are_not_opened() -> None:
    assert reason(encoded(photo(), "EPS")) == "unsupported_format"


def test_float_pixels_are_rejected() -> None:
    assert reason(encoded(Image.new("F", (32, 32), 0.5), "TIFF")) == "unsupported_mode"


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_no_damage_makes_it_raise(seed: int) -> None:
    rng = np.random.default_rng(seed)
    format = ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"][seed % 6]
    data = np.frombuffer(encoded(photo(32, 24), format), dtype=np.uint8).copy()
    places = rng.integers(0, len(data), 6)
    data[places] = rng.integers(0, 256, 6)
    assert isinstance(normalise(data.tobytes(), ImageLimits(max_pixels=10**6)), NormalisedImage | Rejection)


# -------------------------------------------------------------------------------------------------------- captions
@pytest.mark.parametrize(
    ("given_text", "clean"),
    [
        (None, ""),
        ("", ""),
        ("  a\tred\r\n square \u00a0 ", "a red square"),
        ("cafe\u0301", "caf\u00e9"),
        ("bad\x00 \x07bell\x1b[31m", "bad bell[31m"),
        ("\ufeffmarked", "marked"),
        ("evil\u202egnp.exe", "evilgnp.exe"),
        ("\U0001f468\u200d\U0001f9b2 man", "\U0001f468\u200d\U0001f9b2 man"),
        ("caf\u00e9".encode(), "caf\u00e9"),
    ],
)
def test_captions_become_one_clean_line(given_text: str | bytes | None, clean: str) -> None:
    assert normalise_caption(given_text) == clean


@pytest.mark.parametrize("broken", [b"caf\xe9", b"\xff\xfea\x00", "half \ud83d"])
def test_captions_that_are_not_utf8_are_rejected(broken: str | bytes) -> None:
    result = normalise_caption(broken)
    assert isinstance(result, Rejection)
    assert result.reason == "bad_caption"


def test_long_captions_are_cut_at_a_word_boundary() -> None:
    text = "word " * 1000
    clean = normalise_caption(text)
    assert clean == ("word " * 400)[:-1]
    assert normalise_caption("x" * 3000) == "x" * 2000
    assert normalise_caption("exactly ten chars", 11) == "exactly ten"


@settings(max_examples=60)
@given(st.text(max_size=100), st.integers(1, 60))
def test_normalised_captions_are_short_clean_and_stay_as_they_are(text: str, max_chars: int) -> None:
    clean = normalise_caption(text, max_chars)
    assert isinstance(clean, str)
    assert len(clean) <= max_chars
    assert clean == unicodedata.normalize("NFC", clean) == " ".join(clean.split())
    assert not any(unicodedata.category(character) in ("Cc", "Cs") for character in clean)
    assert normalise_caption(clean, max_chars) == clean
