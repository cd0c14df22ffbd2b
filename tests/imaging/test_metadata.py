"""Metadata is dropped without changing what a viewer shows."""

import struct
import zlib
from io import BytesIO

import pytest
from PIL import Image

from app.core.errors import UndecodableImage
from app.imaging.survey import ImageLimits

from .samples import (
    ICC,
    KINDS,
    LIMITS,
    MARKER,
    RAW_LIMITS,
    animation,
    bare_gif,
    box,
    check,
    colour_table_end,
    exif,
    gif_extension,
    info,
    inserted,
    jpeg_segment,
    picture,
    png_chunk,
    riff,
    riff_chunk,
    sample,
    saved,
    shown,
)

XMP = b"<x:xmpmeta>" + MARKER + b"</x:xmpmeta>"
TEXT = [(b"tEXt", b"Comment\0" + MARKER), (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)]
PNG_METADATA = [
    *TEXT,
    (b"zTXt", MARKER + b"\0\0" + zlib.compress(b"text")),
    (b"eXIf", exif().removeprefix(b"Exif\0\0")),
    (b"tIME", struct.pack(">HBBBBB", 2024, 5, 17, 11, 42, 59)),
    (b"prVt", MARKER),
]
JPEG_METADATA = [
    (0xE1, exif()),
    (0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP),
    (0xED, b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0\0\0\0\x0c" + MARKER),
    (0xFE, MARKER),
    (0xE0, b"JFXX\0\x13" + MARKER),
    (0xE2, b"FPXR\0" + MARKER),
    (0xEB, b"JP" + MARKER),
]
GIF_METADATA = [
    gif_extension(0xFE, MARKER),
    gif_extension(0xFF, b"XMP DataXMP", XMP),
    gif_extension(0x01, b"\0" * 12, MARKER),
    gif_extension(0x99, MARKER),
]


def _assert_clean(dirty: bytes, plain: bytes) -> None:
    """Assert that stripping metadata removes the marker, changes no pixels, and is idempotent."""
    assert MARKER in dirty
    clean = check(dirty).data
    assert MARKER not in clean
    assert shown(clean) == shown(plain)
    assert info(clean).get("loop") == info(plain).get("loop")
    assert check(clean).data is clean
    assert check(dirty, RAW_LIMITS).data is dirty


@pytest.mark.parametrize(("marker", "payload"), JPEG_METADATA)
def test_jpeg_metadata_segments_are_dropped(marker: int, payload: bytes) -> None:
    plain = sample("jpeg")
    for at in (20, plain.index(b"\xff\xda")):
        dirty = inserted(plain, at, jpeg_segment(marker, payload))
        assert check(dirty).data == plain
        _assert_clean(dirty, plain)


def test_a_jpeg_comment_between_scans_is_dropped() -> None:
    plain = saved(picture(), "jpeg", progressive=True)
    dirty = inserted(plain, plain.rindex(b"\xff\xda"), jpeg_segment(0xFE, MARKER))
    assert check(dirty).data == plain
    _assert_clean(dirty, plain)


def test_the_thumbnail_in_a_jfif_header_is_dropped() -> None:
    plain = sample("jpeg")
    header = plain[6:18] + b"\2\2" + MARKER
    dirty = plain[:2] + jpeg_segment(0xE0, header) + plain[20:]
    assert check(dirty).data == plain
    _assert_clean(dirty, plain)


def test_the_colour_transform_of_a_jpeg_is_kept() -> None:
    plain = saved(picture(mode="CMYK"), "jpeg")
    at = plain.index(b"\xff\xee")
    longer = plain[:at] + jpeg_segment(0xEE, plain[at + 4 : at + 16] + MARKER) + plain[at + 16 :]
    assert check(longer).data == plain
    _assert_clean(longer, plain)


@pytest.mark.parametrize(("kind", "payload"), PNG_METADATA)
@pytest.mark.parametrize("animated", [False, True])
def test_png_metadata_chunks_are_dropped(kind: bytes, payload: bytes, animated: bool) -> None:
    plain = sample("png", animated)
    chunk = png_chunk(kind, payload)
    for at in (33, len(plain) - 12):
        dirty = inserted(plain, at, chunk)
        assert check(dirty).data == plain
        assert shown(dirty) == shown(plain)


def test_png_colour_chunks_are_kept() -> None:
    chunks = [
        png_chunk(b"gAMA", struct.pack(">I", 45455)),
        png_chunk(b"cHRM", struct.pack(">8I", *range(30000, 38000, 1000))),
        png_chunk(b"cICP", b"\x09\x10\0\1"),
        png_chunk(b"cLLI", b"\0" * 8),
        png_chunk(b"pHYs", struct.pack(">IIB", 3000, 3000, 1)),
    ]
    plain = inserted(sample("png"), 33, b"".join(chunks))
    assert check(plain).data is plain
    assert check(inserted(plain, 33, png_chunk(*TEXT[0]))).data == plain


@pytest.mark.parametrize("extension", GIF_METADATA)
@pytest.mark.parametrize("animated", [False, True])
def test_gif_metadata_extensions_are_dropped(extension: bytes, animated: bool) -> None:
    plain = sample("gif", animated)
    for at in (colour_table_end(plain), len(plain) - 1):
        dirty = inserted(plain, at, extension)
        assert check(dirty).data == plain
        _assert_clean(dirty, plain)


def test_the_screen_of_a_gif_is_enlarged_for_all_frames() -> None:
    """Browsers enlarge the screen only for the first frame, and crop later frames to it."""
    data = bytearray(bare_gif(2))
    second = data.rindex(b"\x2c")
    data[second + 1 : second + 9] = struct.pack("<HHHH", 3, 2, 1, 1)
    checked = check(bytes(data))
    assert checked.data == data[:6] + struct.pack("<HH", 4, 3) + data[10:]
    assert shown(checked.data)[-1] == shown(bytes(data))[-1]
    data[second + 1 : second + 9] = struct.pack("<HHHH", 65_535, 0, 1, 1)
    with pytest.raises(UndecodableImage, match="ends at 65536, 1"):
        check(bytes(data))


def test_gif_loop_counts_and_profiles_are_kept_without_extra_data() -> None:
    loop = gif_extension(0xFF, b"ANIMEXTS1.0", b"\1\5\0")
    profile = gif_extension(0xFF, b"ICCRGBG1012", b"profile")
    plain = inserted(bare_gif(2), 19, loop + profile)
    assert check(plain).data is plain
    dirty = plain.replace(loop, gif_extension(0xFF, b"ANIMEXTS1.0", b"\1\5\0", MARKER))
    assert check(dirty).data == plain


def test_the_graphic_control_of_a_plain_text_is_dropped() -> None:
    control = gif_extension(0xF9, b"\x04\x63\0\0")
    text = gif_extension(0x01, b"\0" * 12, MARKER)
    plain = bare_gif(1)
    assert check(inserted(plain, 19, control + text)).data == plain


@pytest.mark.parametrize("animated", [False, True])
@pytest.mark.parametrize("name", ["webp", "avif"])
def test_exif_and_xmp_of_webp_and_avif_are_dropped(name: str, animated: bool) -> None:
    options = animation() if animated else {}
    plain = saved(picture(), name, **options)
    dirty = saved(picture(), name, exif=exif(), xmp=XMP, **options)
    _assert_clean(dirty, plain)
    clean = check(dirty).data
    if name == "webp":
        assert clean[20] & 0x0C == 0
        assert struct.unpack("<I", clean[4:8])[0] == len(clean) - 8
        assert "exif" not in info(clean)
        assert "xmp" not in info(clean)
    else:
        assert len(clean) == len(dirty)


def test_unknown_webp_chunks_are_dropped_even_in_frames() -> None:
    plain = sample("webp", True)
    at = plain.index(b"ANMF")
    size = struct.unpack("<I", plain[at + 4 : at + 8])[0]
    frame = plain[at + 8 : at + 8 + size] + riff_chunk(b"junk", MARKER)
    body = plain[8:at] + riff_chunk(b"ANMF", frame) + riff_chunk(b"prvt", MARKER) + plain[at + 8 + size :]
    dirty = b"RIFF" + struct.pack("<I", len(body)) + body
    assert check(dirty).data == plain
    _assert_clean(dirty, plain)


def test_chunks_after_the_image_of_a_simple_webp_are_dropped() -> None:
    plain = sample("webp")
    dirty = riff((plain[12:16], plain[20:]), (b"EXIF", exif()), (b"VP8 ", MARKER))
    assert check(dirty).data == plain


def test_avif_metadata_boxes_and_times_are_blanked() -> None:
    plain = check(sample("avif", True)).data
    assert check(plain).data is plain
    dirty = sample("avif", True)
    assert dirty != plain
    assert shown(dirty) == shown(plain)
    for kind in (b"mvhd", b"tkhd", b"mdhd"):
        at = plain.index(kind) + 8
        wide = plain[at - 4]
        assert plain[at : at + (16 if wide else 8)].strip(b"\0") == b""
    ridden = dirty + box(b"uuid", MARKER * 2) + box(b"mdat", b"")
    assert check(ridden).data[: len(plain)] == plain
    assert MARKER not in check(ridden).data


TAILS = [b"<html><script>alert(1)</script>", b"PK\x03\x04" + b"\0" * 60, b"\xff\xd8\xff\xe0", b"\0" * 9, b"x"]


@pytest.mark.parametrize(("name", "animated"), KINDS)
@pytest.mark.parametrize("tail", TAILS, ids=["html", "zip", "jpeg", "zeros", "byte"])
def test_bytes_after_the_end_are_dropped(name: str, animated: bool, tail: bytes) -> None:
    plain = check(sample(name, animated)).data
    assert check(plain + tail).data == plain
    assert check(plain + tail, RAW_LIMITS).data == plain + tail


@pytest.mark.parametrize("limits", [LIMITS, RAW_LIMITS], ids=["strip", "raw"])
@pytest.mark.parametrize("name", ["png", "jpeg", "webp", "avif"])
def test_colour_profiles_are_kept(name: str, limits: ImageLimits) -> None:
    dirty = saved(picture(), name, icc_profile=ICC, exif=exif())
    assert info(check(dirty, limits).data)["icc_profile"] == ICC


def test_a_profile_of_many_jpeg_segments_is_kept() -> None:
    profile = ICC + bytes(150_000)
    plain = saved(picture(), "jpeg", icc_profile=profile)
    dirty = inserted(plain, 20, jpeg_segment(0xFE, MARKER))
    assert check(dirty).data == plain
    assert info(plain)["icc_profile"] == profile


def test_other_pictures_of_a_multi_picture_jpeg_are_dropped() -> None:
    buffer = BytesIO()
    picture().save(buffer, "MPO", save_all=True, append_images=[picture(1)], exif=exif())
    clean = check(buffer.getvalue()).data
    assert clean == sample("jpeg")
    with Image.open(BytesIO(clean)) as image:
        assert image.format == "JPEG"
